"""The notebooks run from top to bottom, show what is kept in them, and are linked where a reader looks."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.notebooks.run import FOLDER, NOTEBOOKS, execute, page, read

ROOT = Path(__file__).parents[1]

SHORTER: Mapping[str, Mapping[str, str]] = {
    "digits": {"steps=100": "steps=2", 'recipe="quick"': "recipe=ddplug.Recipe(epochs=2), whole_steps=3"},
    "own_photos": {"steps=200": "steps=3", "range(60)": "range(10)"},
    "avalanche": {"train_epochs=4": "train_epochs=1"},
}
"""What takes long -> what stands for it here."""


def code(name: str) -> list[dict[str, Any]]:
    return [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]


def shown(cell: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return what a cell shows: the kind of each output, and the first word of what is printed."""
    return [
        (output["name"], output["text"][0].split()[0] if not output["text"][0][0].isdigit() else "#")
        if output["output_type"] == "stream"
        else (output["output_type"], *sorted(output["data"]))
        for output in cell["outputs"]
    ]


def test_every_notebook_is_known() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.filterwarnings("ignore:.*deprecated function:DeprecationWarning")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_what_is_kept_in_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "avalanche" and importlib.util.find_spec("avalanche") is None:
        pytest.skip("Avalanche is not installed")
    monkeypatch.chdir(tmp_path)
    everything = "".join("".join(cell["source"]) for cell in code(name))
    assert all(cost in everything for cost in SHORTER[name])

    def edit(source: str) -> str:
        for cost, less in SHORTER[name].items():
            source = source.replace(cost, less)
        return source

    with torch.random.fork_rng():
        found = [cell for cell in execute(code(name), edit) if cell["cell_type"] == "code"]
    assert [shown(cell) for cell in found] == [shown(cell) for cell in code(name)]
    assert [cell["execution_count"] for cell in code(name)] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_can_be_opened_from_the_docs_and_installs_from_the_repository(name: str) -> None:
    (home,) = re.findall(r"^url = (https://github\.com/\S+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    address = f"https://colab.research.google.com/github/{home.partition('.com/')[2]}/blob/main/examples/notebooks/{name}.ipynb"
    first, install, *_ = read(name)["cells"]
    assert address in "".join(first["source"])
    assert f"@ git+{home}" in "".join(install["source"])
    for where in ("README.md", "docs/notebooks.md"):
        assert address in (ROOT / where).read_text(encoding="utf-8")


def test_a_notebook_becomes_a_page_that_fetches_nothing(tmp_path: Path) -> None:
    made = page("digits", tmp_path)
    assert made.startswith("# Digits in five minutes\n\n[Open in Colab](https://colab")
    assert "![Open" not in made
    (picture, *_) = re.findall(r"!\[.*?\]\((digits-\d+\.png)\)", made)
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    assert made.count("```{raw} html\n") == sum(
        "text/html" in output.get("data", ()) and "image/png" not in output["data"]
        for cell in code("digits")
        for output in cell["outputs"]
    )


def test_cells_run_as_a_notebook_runs_them() -> None:
    sources = ["%pip install x\na = 1\na + 1", "print(a)", "if a:\n    %pip list", "a = 2"]
    cells = [{"cell_type": "code", "metadata": {}, "source": [source]} for source in sources]
    found = list(execute(cells, lambda source: source.replace("a = 1", "a = 5")))
    assert found[0]["outputs"][0]["data"] == {"text/plain": ["6"]}
    assert found[1]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["5\n"]}]
    assert [cell["outputs"] for cell in found[2:]] == [[], []]
    assert json.loads(json.dumps(found)) == found
