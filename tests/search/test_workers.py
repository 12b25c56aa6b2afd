"""Judging in warm processes: the same scores, and nothing lost or doubled whoever is killed at whatever moment."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import ddplug
from ddplug.errors import OptionError
from ddplug.networks.factory import build
from ddplug.search import Judge, Protocol, Record, Workers
from ddplug.search.judging import Case
from ddplug.testing import toy_images
from ddplug.utils.processes import LostError
from ddplug.utils.randomness import seeded

ROOT = Path(__file__).parents[2]
WIDTHS = range(2, 8)
FATAL = 4
"""The width whose process is killed when it is first built."""
HELD = 6
"""The width that is at work, when it is first built, until everything is killed."""


def judge(folder: Path) -> Judge:
    """What all processes of a test judge by."""
    train, rest = toy_images((40, 38, 36)).split(0.4)
    made = ddplug.distill(train, "random", images_per_class=8, device="cpu")
    return Judge(made, rest, Protocol(steps=4, batch_size=12, device="cpu"), journal=folder / "journal.jsonl")


def member(folder: Path, width: int) -> nn.Module:
    """Make a network, or die."""
    if width == FATAL and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if width == HELD and not (folder / "held").exists():
        (folder / "held").touch()
        time.sleep(600)
    return build(f"mlp:width={width}", (1, 8, 8), 3, seeded(0))


def candidate(folder: Path, width: int) -> Callable[[], nn.Module]:
    """A candidate that can be sent."""
    return partial(member, folder, width)


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from ddplug.search import Workers
from tests.search.test_workers import WIDTHS, candidate, judge
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with Workers(threads=1) as workers:
        own = replace(judge(folder), workers=workers)
        for width in WIDTHS:
            print(own(candidate(folder, width), {"width": width}).pid, flush=True)
"""


def test_whoever_is_killed_nothing_is_lost_and_nothing_doubled(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as main:
        assert main.stdout is not None
        pids = [int(main.stdout.readline()) for _ in range(4)]
        deadline = time.monotonic() + 60
        while not (tmp_path / "held").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        main.kill()  # while a worker is at work
        assert main.communicate(timeout=600)[0] == ""  # its workers have ended too
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert main.pid not in pids
    own = judge(tmp_path)
    # those that are known are not trained again, here neither
    records = [own(candidate(tmp_path, width), {"width": width}) for width in WIDTHS]
    assert [record.pid for record in records] == [*pids, os.getpid(), os.getpid()]
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert len(lines) == len(WIDTHS)
    assert set(Counter(record.key for record in records).values()) == {1}
    alone = replace(own, journal=None)
    for record, width in zip(records, WIDTHS, strict=True):
        again = alone(candidate(tmp_path, width), {"width": width})
        assert replace(again.result, seconds=0) == replace(record.result, seconds=0)


class Fated:
    """Stands for processes, each of which meets with a fate."""

    def __init__(self, *fates: Any) -> None:
        self.fates = list(fates)
        self.asked: list[Any] = []

    def run(self, task: Any, limit: float | None, report: Any) -> Any:
        self.asked.append((task, limit, report))
        fate = self.fates.pop(0)
        if callable(fate):
            fate = fate(task)
        if isinstance(fate, Exception):
            raise fate
        return fate


@pytest.fixture
def fated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Judge, Fated]]:
    def make(*fates: Any) -> tuple[Judge, Fated]:
        pool = Fated(*fates)
        monkeypatch.setattr("ddplug.search.workers.Pool", lambda *arguments: pool)
        return replace(judge(tmp_path), workers=Workers()), pool

    return make


def in_the_worker(task: Any) -> Record:
    """Do a task as a worker does."""
    task.load()
    found: Record = task(lambda value, step: None)
    return found


KILLED = LostError("its process was killed by SIGKILL", 17)


def test_one_process_that_dies_is_no_failure_of_the_candidate_two_are(tmp_path: Path, fated: Any) -> None:
    own, workers = fated(KILLED, in_the_worker, KILLED, KILLED)
    found = own("mlp:width=2")
    assert found.failure is None
    assert len(workers.asked) == 2
    failed = own("mlp:width=3")
    assert failed.failure == (
        "its process was killed by SIGKILL, as the one before; it crashes, or takes more memory than there is"
    )
    assert [record.failure for record in Case(failed.sample, failed.settings, own.journal).lines()] == [failed.failure]
    # it is tried again when it is asked for again
    workers.fates.append(in_the_worker)
    assert own("mlp:width=3").failure is None


def test_what_a_process_wrote_before_it_died_counts(tmp_path: Path, fated: Any) -> None:
    def writes_and_dies(task: Any) -> Exception:
        in_the_worker(task)
        return LostError("its process was killed by SIGKILL", os.getpid())

    own, workers = fated(writes_and_dies)
    found = own("mlp:width=2")
    assert found.metric is not None
    assert len(workers.asked) == 1
    assert own("mlp:width=2") == found  # from the journal, nobody was asked
    assert len((tmp_path / "journal.jsonl").read_text().splitlines()) == 1


def test_a_candidate_that_hangs_has_failed(tmp_path: Path, fated: Any) -> None:
    own, workers = fated(LostError("too long", 17, late=True))
    own = replace(own, protocol=own.protocol.changed(time_limit=3))
    assert own("mlp").failure == "time limit of 3 s; it hung in one step and its process was ended"
    assert workers.asked[0][1] == 3.0


def test_fields_of_the_protocol_go_with_a_candidate(tmp_path: Path, fated: Any) -> None:
    own, workers = fated(in_the_worker)
    there = own(("mlp", {"steps": 2, "time_limit": 60}))
    assert workers.asked[0][1] == 60.0
    alone = replace(judge(tmp_path), journal=None)(("mlp", {"steps": 2, "time_limit": 60}))
    assert (there.key, there.metric) == (alone.key, alone.metric)


def test_a_number_is_no_workers(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=re.escape("workers is 2; give some, as ddplug.search.Workers(2)")):
        replace(judge(tmp_path), workers=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [{"number": 0}, {"threads": 0}, {"number": 1.5}])
def test_there_is_one_worker_at_least(numbers: Mapping[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(numbers))} is"):
        Workers(**numbers)
