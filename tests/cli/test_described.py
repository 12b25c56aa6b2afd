"""What the command line says of plug-ins without importing them is what they say themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ddplug import registry
from ddplug.cli import described
from ddplug.cli.commands import COMMANDS
from ddplug.cli.distill import _PREPARING, _STEPPING
from ddplug.cli.program import main
from ddplug.data.sources import SCHEMES

HEAVY = ["torch", "torchvision", "numpy", "scipy", "sklearn", "matplotlib", "avalanche", "nni", "optuna"]

LINES = [
    ["--help"],
    ["--version"],
    ["list"],
    ["completion", "bash"],
    *([name, "--help"] for name in COMMANDS),
    *(["distill", name, "--help"] for name in ("auto", *registry.names("distiller"))),
    ["distill", "dm", "--data", "digits", "-o", "x", "--no-such-option"],
]


def test_nothing_heavy_is_imported_for_what_only_tells() -> None:
    code = f"""
import sys
from ddplug.cli.program import main
for line in {LINES}:
    try:
        main(line)
    except SystemExit as end:
        assert end.code == 0, (line, end.code)
    assert not set({HEAVY}) & set(sys.modules), (line, set({HEAVY}) & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "--no-such-option" in done.stderr
    assert "usage: ddplug distill dm --data NAME -o FILE" in done.stdout
    assert "ddplug 0." in done.stdout


def test_the_table_says_what_the_classes_say() -> None:
    file = Path(described.__file__).with_suffix(".json")
    fresh = described.written(described.table())
    assert file.read_text(encoding="utf-8") == fresh, "write it anew: python -m ddplug.cli.described"


def test_the_table_has_all_sources_in_order() -> None:
    assert [usage.partition(":")[0] for usage in described.sources()] == list(SCHEMES)


@dataclass(frozen=True)
class Mine:
    """Does it in my way.

    Attributes:
        share: of something.
    """

    share: float = 0.25


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another package's plug-ins: a method of its own, and one that would take a name of ours."""
    folder = tmp_path / "third_party-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    theirs = f"{__name__}:Mine"
    (folder / "entry_points.txt").write_text(f"[ddplug.distillers]\ntheirs = {theirs}\ndm = {theirs}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._points.cache_clear()
    yield
    registry._points.cache_clear()


@pytest.mark.usefixtures("installed")
def test_the_method_of_another_package_is_asked_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listed = {each["name"]: each["about"] for each in json.loads(capsys.readouterr().out)["distillers"]}
    assert listed["theirs"] == "Does it in my way."
    assert listed["dm"] == "Distribution matching."
    for name, option in (("theirs", "--share X"), ("dm", "--pool-size")):
        with pytest.raises(SystemExit):
            main(["distill", name, "--help"])
        assert option in capsys.readouterr().out


def test_a_registered_method_is_asked_itself(capsys: pytest.CaptureFixture[str]) -> None:
    registry.register("distiller", "of-this-test", Mine)
    try:
        assert registry.home("distiller", "of-this-test") is None
        assert described.method("of-this-test").options[0].default == "0.25"
        assert described.about("distiller", "of-this-test") == "Does it in my way."
    finally:
        del registry._REGISTERED["distiller"]["of-this-test"]


def test_what_is_said_to_take_less_is_an_option_of_a_method() -> None:
    known = {option.name for name in registry.names("distiller") for option in described.method(name).options}
    assert {*_PREPARING, *_STEPPING} <= known
