"""The watchdog of a trial process: it ends what hangs, even where the interpreter itself is held up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ddplug.nni.judging import in_trial, judge, watchdog
from ddplug.search.journal import Journal
from ddplug.search.judging import Case
from ddplug.search.protocol import CandidateError, Result

SCRIPT = """
import re, sys, time
from ddplug.nni.judging import watchdog
from ddplug.search.judging import Case

case = Case({{"width": 3}}, {{}}, journal=sys.argv[1])
with watchdog(case, 0.5, grace=0.2):
    {work}
print("came to its end")
"""


def in_process(work: str, journal: Path) -> tuple[int, float, str]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(work=work), str(journal)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, time.monotonic() - began, done.stdout + done.stderr


def test_a_step_that_hangs_is_journalled_and_its_process_ended(tmp_path: Path) -> None:
    status, _, output = in_process("time.sleep(100)", tmp_path / "j.jsonl")
    assert status == 1
    assert "ddplug: error: time limit of 0.5 s" in output
    (record,) = Journal(tmp_path / "j.jsonl").read()
    assert record.sample == {"width": 3}
    assert (record.failure or "").startswith("time limit of 0.5 s; it hung")


def test_a_step_that_holds_the_interpreter_is_ended_too(tmp_path: Path) -> None:
    status, seconds, output = in_process("re.match('(a+)+b', 'a' * 60)", tmp_path / "j.jsonl")
    assert status == 1
    assert seconds < 100
    assert "most recent call first" in output  # where it was


def test_what_ends_in_time_is_left_alone(tmp_path: Path) -> None:
    status, _, output = in_process("pass\ntime.sleep(1.5)", tmp_path / "j.jsonl")
    assert (status, output) == (0, "came to its end\n")
    assert not (tmp_path / "j.jsonl").exists()


def test_outside_a_trial_nothing_is_ended() -> None:
    assert not in_trial()
    result = Result(0.5, None)

    def work(report: Any) -> Result:
        time.sleep(0.05)
        return result

    assert judge(Case({}, {}), work, time_limit=0.01) == 0.5
    with watchdog(Case({}, {}), None):
        pass


def test_the_journal_has_a_failure_before_it_is_raised(tmp_path: Path) -> None:
    case = Case({"a": 1}, {"b": 2}, journal=str(tmp_path / "j.jsonl"))
    with pytest.raises(CandidateError, match=r"\{'a': 1\} failed: out of memory"):
        judge(case, lambda report: Result(None, "out of memory: 3 GiB"))
    assert case.known() is None
    assert judge(case, lambda report: Result(0.25, None)) == 0.25
    assert judge(case, lambda report: Result(0.75, None)) == 0.25
    assert [record.metric for record in Journal(tmp_path / "j.jsonl").read()] == [None, 0.25]
