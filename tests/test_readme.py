"""The README and the architecture page say what is so: the example runs, methods, links, commands and floors agree."""

from __future__ import annotations

import json
import os
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from PIL import Image

from ddplug import distill, load
from ddplug.registry import GROUPS
from ddplug.synthetic.ready import READY
from examples.benchmarks.showcase import PICTURES, SCHEMES, draw, inputs, made_of
from tests.test_layers import FLOORS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("python")
    assert example in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for cost, less in {"nbytes=2000": "nbytes=700", "repeats=3": "repeats=2"}.items():
        assert cost in example
        example = example.replace(cost, less)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = re.fullmatch(r"(\d\d\.\d) ± \d\.\d % with (\d+) bytes\n", capsys.readouterr().out)
    assert printed is not None
    # ten classes: what is learned from so few, if anything, is well above a tenth
    assert float(printed[1]) > 50
    assert 600 < int(printed[2]) <= 700
    assert os.listdir(tmp_path) == ["digits.safetensors"]


def test_printed_figures_are_those_of_the_sets() -> None:
    made = distill("digits", "random", nbytes=2000, seed=0)
    assert f"% with {made.nbytes} bytes\n" in README
    figures = re.findall(r"\d\d\.\d ± \d\.\d", READY["digits-dm"].accuracy)
    assert len(figures) == 3
    assert all(figure in README for figure in figures)
    assert len(load("mnist-8kB")) == 530
    assert f"{load('mnist-8kB').nbytes:,} bytes" in README


def test_methods_table_names_every_registered_distiller() -> None:
    rows = [line.split("|")[2] for line in README.splitlines() if line.startswith("|") and "/docs/methods/" in line]
    ours = sorted(p.name for p in entry_points(group=GROUPS["distiller"]) if p.value.startswith("ddplug."))
    assert sorted(re.findall(r"`([^`]+)`", " ".join(rows))) == ours


def test_links_and_pictures_are_whole_addresses_of_files_that_exist() -> None:
    """PyPI shows the page too, where a path leads nowhere."""
    (home,) = re.findall(r"^url = (https://github\.com/\S+)$", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    links = re.findall(r"\]\(([^)#]+)", README) + re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert [link for link in links if not link.startswith("https://")] == []
    raw = home.replace("github.com", "raw.githubusercontent.com")
    ours = [
        link.removeprefix(f"{home}/blob/main/").removeprefix(f"{raw}/main/")
        for link in links
        if link.startswith((home, raw))
    ]
    assert {"docs/quickstart.md", "docs/images/same-bytes-dark.png"} <= set(ours)
    assert [link for link in ours if not (ROOT / link).exists()] == []


def test_figures_of_the_page_are_those_that_were_measured() -> None:
    measured = {
        ("distillation-mnist-1", "dm"): "learned by `dm`",
        ("distillation-mnist-1", "frepo"): "learned by `frepo`, with soft labels",
        ("distillation-mnist-1", "random"): "random images, one byte per number",
        ("stored-mnist-8kB", "random"): "**random images, coded** (`--bytes 7840B`)",
    }
    for (name, method), row in measured.items():
        found = json.loads((ROOT / "docs" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
        narrow = (each for each in found if each.get("network", "convnet:width=32") == "convnet:width=32")
        (of,) = (each for each in narrow if method in (each.get("training data"), each.get("stored")))
        digits = 2 if name.startswith("stored") else 1
        accuracy = f"{of['accuracy (%)']:.{digits}f} ± {of['deviation']:.{digits}f}"
        (line,) = (line for line in README.splitlines() if line.startswith(f"| {row} |"))
        assert accuracy in line
        assert f"| {of['bytes']:,} |" in line
    rows = json.loads((ROOT / "docs" / "benchmarks" / "avalanche-mnist.json").read_text(encoding="utf-8"))["rows"]
    for strategy, text in (("DistilledReplay, defaults", "94.2 ± 0.4"), ("Replay", "36.1"), ("joint training", "94.0")):
        of = next(each for each in rows if each["strategy"] == strategy)
        assert f"{of['accuracy (%)']:.1f} ± {of['deviation']:.1f}".startswith(text)
        assert text in README


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_small_and_made_from_the_results_as_they_are(name: str) -> None:
    for scheme in SCHEMES:
        path = ROOT / "docs" / "images" / f"{name}-{scheme}.png"
        assert path.stat().st_size < 60_000
        assert made_of(path) == inputs(name), "run python examples/benchmarks/showcase.py"
        for page in ("README.md", "docs/index.md"):
            assert f"images/{path.name}" in (ROOT / page).read_text(encoding="utf-8")
    others = {"medical", "search", "audit-light", "audit-dark"}  # of examples, and of the audit of methods
    assert {path.stem for path in (ROOT / "docs" / "images").iterdir()} - others == {
        f"{each}-{scheme}" for each in PICTURES for scheme in SCHEMES
    }


def test_pictures_are_drawn(tmp_path: Path) -> None:
    draw("learned", tmp_path)
    for scheme in SCHEMES:
        drawn = tmp_path / f"learned-{scheme}.png"
        with Image.open(drawn) as new, Image.open(ROOT / "docs" / "images" / drawn.name) as kept:
            assert new.size == kept.size
        assert made_of(drawn) == inputs("learned")


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
