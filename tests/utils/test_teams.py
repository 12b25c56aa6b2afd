"""Processes that work together give what one gives, bit for bit, and end together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddplug import errors
from ddplug.cli.program import main
from ddplug.distillation.checkpoint import KIND, PARTS
from ddplug.distillation.loop import distill
from ddplug.distillers.dp_dm import DPDM
from ddplug.errors import OptionError
from ddplug.testing import made_small, toy_images
from ddplug.utils import teams
from ddplug.utils.devices import pick_device
from ddplug.utils.files import read_tensors, write_file
from ddplug.utils.locks import locked
from ddplug.utils.teams import Team, alone, launched, spread, team, together
from tests.utils import two_of_a_team

SCRIPT = two_of_a_team.__file__
LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RUN_ID")


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", SCRIPT, *words]
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.run(command, capture_output=True, text=True, timeout=1200, env=env, check=False)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun starts the second of two processes."""
    for name, value in zip(LAUNCHER, ("1", "2", "1", "none"), strict=True):
        monkeypatch.setenv(name, value)


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    done = torchrun("compare", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == [*(f"{name} True" for name in two_of_a_team.CASES), "share 3", "experts 3"]
    assert len(list(tmp_path.glob("expert-*.safetensors"))) == 3


def test_a_process_that_is_killed_ends_all_and_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run"
    done = torchrun("die", str(path))
    assert done.returncode != 0
    assert 3 < read_tensors(path, KIND)[1][PARTS] < 8
    method = two_of_a_team.small_dm()
    resumed = distill(two_of_a_team.DATA, method, steps=2, device="cpu", checkpoint=path)
    assert torch.equal(resumed.inputs, distill(two_of_a_team.DATA, method, steps=2, device="cpu").inputs)


def test_a_process_by_itself_is_a_team_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")  # clusters set it for purposes of their own
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched() == Team()
    with together() as own, alone():
        assert own == team() == Team()
    assert [part["k"].item() for part in spread(3, lambda k: {"k": torch.tensor(k)})] == [0, 1, 2]


@pytest.mark.usefixtures("started")
def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == Team(1, 2, 1)
    token = teams._TEAM.set(launched())
    try:
        write_file(tmp_path / "file", b"x")
        with locked(tmp_path / "file"), locked(tmp_path / "file"):
            assert not list(tmp_path.iterdir())
        with alone():  # its own share
            write_file(tmp_path / "file", b"x")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        with pytest.raises(OptionError, match="dp-dm is not split among processes, each of which would draw noise"):
            distill(toy_images((500, 500)), made_small(DPDM()), device="cpu")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert pick_device("cuda") == pick_device("auto") == torch.device("cuda", 1)
        assert pick_device("cuda:0") == torch.device("cuda", 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        assert pick_device("cuda") == torch.device("cuda")
    finally:
        teams._TEAM.reset(token)


def test_what_is_not_split_is_done_by_the_first_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], started: None
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert main(["list"]) == 0
    told = capsys.readouterr()
    assert "dm" in told.out and told.err == "ddplug: list is not split: process 0 of 2 does all of it\n"
    assert main(["distill", "auto", "--data", "nowhere", "-o", "x"]) == 2
    assert capsys.readouterr().err.startswith("ddplug: distill auto is not split: process 0 of 2 does all of it\n")
    second = subprocess.run(
        [sys.executable, "-m", "ddplug", "list"],
        env={**os.environ, "RANK": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_an_error_keeps_its_kind_on_its_way() -> None:
    content = teams._packed([], error="DivergedError", text="the loss is nan")
    with pytest.raises(errors.DivergedError, match="the loss is nan"):
        teams._unpacked(content, "cpu")
    pieces = [{"a": torch.arange(3), "b": torch.zeros(2, 2).T}, {}]
    back = teams._unpacked(teams._packed(pieces), "cpu")
    assert torch.equal(back[0]["a"], torch.arange(3)) and back[1] == {}
