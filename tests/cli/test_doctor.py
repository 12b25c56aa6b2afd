"""``ddplug doctor``: what is installed, and what is known of it, with and without the frameworks."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from ddplug.cli import doctor as command
from ddplug.cli.doctor import PACKAGES, Finding, examine
from ddplug.cli.program import main
from ddplug.distillation import distill
from ddplug.errors import OptionError
from ddplug.utils import packages
from ddplug.utils.arguments import Parser
from ddplug.utils.packages import check_filelock

SOUND = {
    "torch": "2.15.0",
    "torchvision": "0.29.2",
    "numpy": "2.4.6",
    "avalanche-lib": "0.6.0",
    "optuna": "5.0.0",
    "nni": "3.0",
    "pytorch-lightning": "2.6.6",
    "setuptools": "81.0.0",
    "filelock": "3.11.0",
    "typeguard": "4.1.2",
}
BARE = {**dict.fromkeys(SOUND), **{name: SOUND[name] for name in ("torch", "torchvision", "numpy")}}


def rows(**changes: str | None) -> dict[str, Finding]:
    found = examine({**SOUND, **{name.replace("_", "-"): value for name, value in changes.items()}})
    assert len({row.name for row in found}) == len(found)
    return {row.name: row for row in found}


def test_what_is_installed_is_listed_with_its_version() -> None:
    found = {row.name: row for row in examine()}
    assert found["torch"].found == version("torch")
    assert found["python"].found == ".".join(map(str, sys.version_info[:3]))
    assert set(PACKAGES) <= set(found)
    assert found["GPU"].status in ("ok", "note")


def test_sound_versions_leave_what_is_broken_in_every_version() -> None:
    found = rows()
    assert all(found[name].status == "ok" for name in PACKAGES)
    broken = {name for name, row in found.items() if row.status == "broken"}
    assert broken == {"pairs of NNI", "resume of NNI", "checkpoints of Avalanche"}
    assert "ddplug.nni.ProxyExperiment" in found["pairs of NNI"].advice
    assert "same folder" in found["resume of NNI"].advice
    assert "checkpoint_cure" in found["checkpoints of Avalanche"].advice
    assert "without a password" in found["manager of NNI"].found


@pytest.mark.parametrize(
    ("package", "last", "first", "row", "advice"),
    [
        ("filelock", "3.11.9", "3.12.0", "filelock for NNI", 'pip install "filelock<3.12"'),
        ("filelock", "3.9", "4", "filelock for NNI", 'pip install "filelock<3.12"'),
        ("setuptools", "81.9.1", "82.0.0rc1", "setuptools for nnictl", 'pip install "setuptools<82"'),
        ("setuptools", "65.5.0", None, "setuptools for nnictl", 'pip install "setuptools<82"'),
        ("pytorch_lightning", "2.0", None, "Lightning for NNI", 'pip install "pytorch-lightning>=2"'),
        ("typeguard", "4.1.2", "4.1.3", "typeguard for NNI", ""),
        ("nni", "3.0", "3.1.2", "release of NNI", 'pip install "nni==3.0.*"'),
        ("nni", "3.0.1", "2.10", "release of NNI", 'pip install "nni==3.0.*"'),
    ],
)
def test_versions_that_break_are_told_from_the_last_that_do_not(
    package: str, last: str, first: str | None, row: str, advice: str
) -> None:
    assert row not in rows(**{package: last})
    found = rows(**{package: first})[row]
    assert found.status == ("note" if package == "typeguard" else "broken")
    assert found.advice == advice
    assert first is None or first in found.found


def test_without_the_frameworks_their_faults_are_no_matter() -> None:
    found = examine(BARE)
    assert [row.name for row in found] == ["python", *PACKAGES, "GPU"]
    assert not [row for row in found if row.status == "broken"]
    advice = {row.name: row.advice for row in found}
    assert advice["nni"].startswith('pip install "nni==3.0.*" "pytorch-lightning>=2" "setuptools<82" "filelock<3.12"')
    assert advice["avalanche-lib"].startswith('pip install "avalanche-lib==0.6.*"')


def test_nothing_printed_is_wider_than_80_characters(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = distill("digits", "dm", images_per_class=1, steps=0, pool_size=1, network="mlp", device="cpu")
    made.save(tmp_path / "set.safetensors")
    for words in (["doctor"], ["list"], ["inspect", str(tmp_path / "set.safetensors")]):
        assert main(words) == 0
        printed = capsys.readouterr().out.splitlines()
        assert [line for line in printed if len(line) > 80 and str(tmp_path) not in line] == []


def test_a_package_that_ddplug_needs_is_broken_where_it_is_missing() -> None:
    missing = {row.name: row for row in examine({**BARE, "torchvision": None})}["torchvision"]
    assert (missing.status, missing.found, missing.advice) == ("broken", "not installed", "pip install torchvision")


def test_filelock_is_refused_where_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    for fine in ("3.11.0", None):
        monkeypatch.setattr(packages, "version_of", lambda name, fine=fine: fine)
        check_filelock()
    monkeypatch.setattr(packages, "version_of", lambda name: "3.20.3")
    with pytest.raises(OptionError, match=r'filelock 3\.20\.3 makes NNI hang; run pip install "filelock<3\.12"'):
        check_filelock()


def test_the_command_gives_a_table_and_the_same_as_values() -> None:
    assert command.configure(Parser(prog="ddplug doctor"), ["--json"]) == ["--json"]
    answer = command.run(argparse.Namespace())
    checks = answer.values["checks"]
    assert json.loads(json.dumps(checks)) == checks
    assert {check["status"] for check in checks} <= {"ok", "note", "broken"}
    lines = answer.text.splitlines()
    assert lines[0].split() == ["what", "status", "found,", "and", "what", "to", "do"]
    told = [line for line in lines[1:] if not line.startswith(" ")]
    for line, check in zip(told, checks, strict=True):
        assert line.startswith(check["name"])
        assert check["status"] in line
    words = " ".join(answer.text.split())
    assert all(check["found"] in words and check["advice"] in words for check in checks)


def test_no_framework_is_imported() -> None:
    code = """
import sys
from ddplug.cli.doctor import examine
examine()
print(*({name.partition(".")[0] for name in sys.modules} & {"nni", "avalanche", "pytorch_lightning", "torchvision"}))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
