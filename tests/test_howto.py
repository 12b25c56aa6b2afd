"""The Python of the pages runs, from top to bottom."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddplug.cli.program import main

FOLDER = Path(__file__).parents[1] / "docs" / "howto"


@pytest.mark.parametrize("page", ["bytes", "codecs", "compare", "embeddings", "federated", "search"])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page == "search":
        pytest.importorskip("optuna", reason="Optuna is not installed")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    exec(compile("\n".join(blocks), f"{page}.md", "exec"), {})


def test_the_commands_of_your_own_data_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for k in range(30):
        Image.fromarray(np.full((9, 8, 3), 8 * k, np.uint8)).save(tmp_path / "photos" / f"{k}.jpg")
    (tmp_path / "photos.csv").write_text("image_id,dx\n" + "".join(f"{k},{k % 2}\n" for k in range(30)))
    rows = (f"{k % 7 + 10 * (k % 2)},{k % 5},{'hot' if k % 2 else 'cold'}\n" for k in range(60))
    (tmp_path / "sensors.csv").write_text("heat,noise,state\n" + "".join(rows))
    blocks = re.findall(r"```bash\n(.*?)```", (FOLDER / "own-data.md").read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    assert len(lines) == 4
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert (tmp_path / "rows.csv").read_text().startswith("heat,noise,state\n")
    assert "mlp" in capsys.readouterr().out
