"""What SECURITY.md promises of the whole package, looked up in its sources, and what it writes."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ddplug"

EXECUTES = {"eval", "exec", "compile", "__import__", "load", "loads", "Unpickler", "system", "popen"}
"""What turns text or bytes into a program, by the last part of its name; of ``load`` those below."""

LOADERS = {"torch", "pickle", "marshal", "shelve", "joblib", "dill", "yaml", "cPickle"}
"""Modules whose ``load`` may execute what it reads."""

PICKLE = {"utils/processes.py"}
"""Pipes between processes that one program starts; nothing of a file goes through them."""

NETWORK = {"socket", "ssl", "http", "urllib", "requests", "httpx", "ftplib", "smtplib", "huggingface_hub", "datasets"}
"""Modules that reach other machines, or read what others hold."""

ASKED = {"nni/running.py": "socket", "synthetic/hub.py": "huggingface_hub", "data/sources.py": "datasets"}
"""NNI's own port; what one calls to push and pull; ``hf:NAME``, which asks for ``download``."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def called(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def executes(name: str) -> bool:
    module, _, function = name.rpartition(".")
    if function in ("load", "loads", "Unpickler"):
        return module in LOADERS
    if function == "compile":
        return not module
    return function in EXECUTES and module in ("", "os", "builtins")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("eval", True),
        ("model.eval", False),
        ("torch.load", True),
        ("pickle.loads", True),
        ("json.loads", False),
        ("os.system", True),
        ("re.compile", False),
        ("compile", True),
    ],
)
def test_what_executes_is_told_by_its_name(name: str, found: bool) -> None:
    assert executes(name) is found


def test_nothing_that_is_read_is_executed() -> None:
    found = {file for file, tree in sources() for name, _ in called(tree) if executes(name)}
    assert found == PICKLE


def test_arrays_of_objects_are_never_loaded_and_no_shell_is_asked() -> None:
    seen = 0
    for file, tree in sources():
        for name, call in called(tree):
            options = {option.arg: ast.unparse(option.value) for option in call.keywords}
            assert options.get("shell", "False") == "False", file
            if name in ("np.load", "numpy.load"):
                seen += 1
                assert options["allow_pickle"] == "False", file
    assert seen > 0


def test_only_what_is_asked_to_reaches_the_network() -> None:
    found = {
        (file, module)
        for file, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for module in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        )
        if module.partition(".")[0] in NETWORK
    }
    assert found == set(ASKED.items())


def test_nothing_outside_the_given_paths_is_written(tmp_path: Path) -> None:
    homes = {name: tmp_path / name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "cwd")}
    for folder in (*homes.values(), tmp_path / "own"):
        folder.mkdir()
    small, made = ["--network", "convnet:width=4,depth=1", "--device", "cpu"], f"{tmp_path}/own/set"
    which = ["--data", "digits", *small]
    commands = [
        ["distill", "dm", *which, "--pool", "1", "--steps", "2", "--checkpoint-every", "0", "-o", made],
        ["distill", "el2n", *which, "--train-epochs", "1", "--networks", "1", "-o", f"{made}-2"],
        ["evaluate", made, *which, "--no-baselines", "--repeats", "1", "--protocol", "quick"],
        *(["export", made, "--to", kind, f"{made}.{kind}"] for kind in ("png", "npz", "csv", "imagefolder", "card")),
        ["inspect", made],
    ]
    process = subprocess.run(
        [sys.executable, "-B", "-m", "tests.watched", str(tmp_path / "own"), json.dumps(commands)],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=homes["cwd"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **{name: str(path) for name, path in homes.items()}},
    )
    assert process.returncode == 0, process.stderr
    # matplotlib draws the grid; other libraries try whether the folder for temporary files can be written
    theirs = (str(homes["TMPDIR"]), *(f"{homes[name]}/matplotlib" for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME")))
    assert [path for path in json.loads(process.stdout.splitlines()[-1]) if not path.startswith(theirs)] == []
    # what is written without Python's knowledge would lie in one of these
    left = {name: os.listdir(folder) for name, folder in homes.items() if os.listdir(folder)}
    assert left.keys() <= {"XDG_CACHE_HOME", "XDG_CONFIG_HOME"} and all(
        names == ["matplotlib"] for names in left.values()
    )
    kinds = ["set", "set-2", *(f"set.{kind}" for kind in ("png", "npz", "csv", "imagefolder", "card"))]
    assert sorted(os.listdir(tmp_path / "own")) == sorted(kinds)
