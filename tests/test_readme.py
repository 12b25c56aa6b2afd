"""The README and the architecture page say what is so: the example runs, methods, links, commands and floors agree."""

from __future__ import annotations

import os
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from ddplug.registry import GROUPS
from tests.test_layers import FLOORS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("python")
    for cost, less in {"steps=200": "steps=50", "repeats=3": "repeats=1"}.items():
        assert cost in example
        example = example.replace(cost, less)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = re.fullmatch(r"(0\.\d{3}) \+- 0\.\d{3} with (\d+) bytes\n", capsys.readouterr().out)
    assert printed is not None
    # ten classes: what was learned, if anything, is well above a tenth
    assert float(printed[1]) > 0.5
    assert int(printed[2]) == 10 * (8 * 8 * 4 + 1)
    assert os.listdir(tmp_path) == ["digits-dm.safetensors"]


def test_methods_table_names_every_registered_distiller() -> None:
    rows = [line.split("|")[1] for line in README.splitlines() if re.search(r"\]\(docs/methods/", line)]
    ours = sorted(p.name for p in entry_points(group=GROUPS["distiller"]) if p.value.startswith("ddplug."))
    assert sorted(re.findall(r"`([^`]+)`", " ".join(rows))) == ours


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert "docs/quickstart.md" in links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_there_are_two_set_up_commands_of_one_line_each() -> None:
    commands = [block.strip() for block in blocks("bash") if block.startswith("python3 -m venv ")]
    assert len(commands) == 2
    assert all("\n" not in command for command in commands)
    assert commands == re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)


def test_pre_commit_has_the_ruff_of_the_development_extra_and_the_workflow_runs_everything() -> None:
    (ruff,) = re.findall(r"^    ruff==(\S+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert f"rev: v{ruff}\n" in (ROOT / ".pre-commit-config.yaml").read_text()
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert workflow.endswith("      - run: bash .ci/run\n")
    oldest, *_, newest = re.findall(r"Python :: (3\.\d+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    assert f'python: ["{oldest}", "{newest}"]' in workflow


def test_the_architecture_page_has_the_floors_that_imports_are_held_to() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = page.split("## Packages and floors")[1].split("Each of the packages")[0]
    found: dict[int, set[str]] = {}
    floor = -1
    for row in re.findall(r"^ {4,}\S.*$", rows, re.MULTILINE):
        cells = re.split(r"\s{2,}", row.strip())
        floor = int(cells[0]) if cells[0].isdigit() else floor
        found.setdefault(floor, set()).update(cell for cell in cells if cell in set().union(*FLOORS))
    assert found == dict(enumerate(FLOORS))
