"""The Python of the pages runs, from top to bottom."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddplug
from ddplug.cli.program import main
from ddplug.synthetic.dataset import SyntheticSet

FOLDER = Path(__file__).parents[1] / "docs" / "howto"
PAGES = ["budget", "bytes", "codecs", "compare", "embeddings", "federated", "performance", "search"]
"""Pages whose blocks are run."""


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page == "search":
        pytest.importorskip("optuna", reason="Optuna is not installed")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (FOLDER / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    exec(compile("\n".join(blocks), f"{page}.md", "exec"), {})


def test_the_quickstart_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for accuracies, which may be a network's deviation away on another machine."""
    page = (FOLDER.parent / "quickstart.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```\{testcode\}\n(.*?)```", page, re.DOTALL))
    exec(compile(code, "quickstart.md", "exec"), {})
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    printed = "\n".join(capsys.readouterr().out.splitlines()[-len(shown.splitlines()) :])
    accuracy = re.compile(r"\d+\.\d(?: ± \d+\.\d)?(?= [%|])")
    assert accuracy.sub("", printed) == accuracy.sub("", shown).rstrip("\n")
    for said, found in zip(accuracy.findall(shown), accuracy.findall(printed), strict=True):
        assert abs(float(said.split()[0]) - float(found.split()[0])) < 15


def test_the_commands_of_several_processes_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What torchrun starts several times gives the same once; each job of the array runs in its turn."""
    monkeypatch.chdir(tmp_path)
    page = (FOLDER / "processes.md").read_text(encoding="utf-8")
    commands = []
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        jobs = ("1", "2", "3") if "#SBATCH" in block else ("",)
        lines = block.replace("\\\n", "").replace("torchrun --nproc-per-node=2 -m ddplug", "ddplug").splitlines()
        commands += [line.replace("$SLURM_ARRAY_TASK_ID", job) for job in jobs for line in lines if line[0] != "#"]
    assert len(commands) == 3 + 3 * 2 + 1
    for line in commands:
        assert main([*shlex.split(line)[1:], *(["--device", "cpu"] if " merge " not in line else [])]) == 0, line
    whole = ["distill", "kmeans", "--data", "digits", "--images-per-class", "2", "--device", "cpu", "-o", "whole"]
    assert main(whole) == 0
    one, other = (SyntheticSet.load(tmp_path / name) for name in ("all.safetensors", "whole"))
    assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)
    accounts = [{k: v for k, v in own.provenance.items() if k != "seconds"} for own in (one, other)]
    assert accounts[0] == accounts[1]
    assert re.search(r"^shard +1 of 3; next: ddplug merge", capsys.readouterr().out, re.MULTILINE)
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile("\n".join(blocks), "processes.md", "exec"), {})
    assert (tmp_path / "kmeans.safetensors").exists()


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


def blocks_of_python() -> Iterator[tuple[str, list[str]]]:
    """Give every page with its blocks of Python, those that are run and those that only show a part."""
    root = FOLDER.parents[1]
    for path in (root / "README.md", *sorted((root / "docs").rglob("*.md"))):
        found = re.findall(
            r"^```(?:python|text)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        if code := [block for block in found if re.search(r"^(from|import) |^\w+ = \w+\(|^if ", block, re.MULTILINE)]:
            yield path.relative_to(root).as_posix(), code


def member(home: Any, name: str) -> Any:
    """Return what ``from home import name`` gives: a module too, whether or not it was imported before."""
    return getattr(home, name) if name in dir(home) else import_module(f"{home.__name__}.{name}")


def imported(tree: ast.AST) -> Iterator[tuple[str, Any]]:
    """Give what is imported from us by a piece of code, by name; fail where there is no such thing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ddplug":
            home = import_module(str(node.module))
            yield from ((alias.asname or alias.name, member(home, alias.name)) for alias in node.names)


def found_in(names: dict[str, Any], node: ast.expr) -> Any:
    """Return what a dotted name stands for, or None where it is not one of ours."""
    if isinstance(node, ast.Attribute):
        base = found_in(names, node.value)
        return getattr(base, node.attr, None) if inspect.ismodule(base) or inspect.isclass(base) else None
    return names.get(node.id) if isinstance(node, ast.Name) else None


CODE = dict(blocks_of_python())


@pytest.mark.parametrize("page", CODE)
def test_names_and_options_in_every_block_exist(page: str) -> None:
    code = CODE[page]
    for name in ("avalanche", "nni", "optuna"):
        if any(f"ddplug.{name}" in block for block in code):
            pytest.importorskip(name, reason=f"{name} is not installed")
    names: dict[str, Any] = {"ddplug": ddplug}
    for block in code:
        tree = ast.parse(block)
        names |= dict(imported(tree))
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = found_in(names, call.func)
            if called is None:
                continue
            taken = inspect.signature(called).parameters
            if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values()):
                assert {key.arg for key in call.keywords if key.arg} <= taken.keys(), (page, ast.unparse(call))


def test_what_readers_search_for_stands_in_a_heading() -> None:
    """The search of the pages ranks headings first."""
    pages = [path.read_text(encoding="utf-8") for path in (FOLDER.parent).rglob("*.md")]
    headings = "\n".join(line for text in pages for line in text.splitlines() if line.startswith("#")).lower()
    wanted = "csv gpu medical optuna nni avalanche latex embedding privacy notebook photo memory bytes"
    assert [word for word in wanted.split() if word not in headings] == []


def test_of_what_users_look_for_in_other_tools_nothing_is_left_open() -> None:
    page = (FOLDER.parent / "other-tools.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert [name for name, ours, *_ in rows[1:] if ours in ("", "-") or ours == "no"] == []
