"""The page on privacy: its Python prints what it says, and its commands are taken."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ddplug.cli.program import main

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "privacy.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_python_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile("\n".join(blocks("python")), "privacy.md", "exec"), {})
    assert capsys.readouterr().out == "".join(blocks("text"))


@pytest.mark.parametrize("line", [line for block in blocks("bash") for line in block.splitlines()])
def test_the_commands_are_taken(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each gets as far as the file or the folder that is not there."""
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(line)
    assert name == "ddplug"
    words = ["imagefolder:missing" if word in ("digits", "imagefolder:xrays") else word for word in words]
    assert main(words) == 2
    assert re.search("missing|dm.safetensors", capsys.readouterr().err)
