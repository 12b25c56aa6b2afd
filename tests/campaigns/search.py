"""Searches whose processes are killed at random moments, gone on with, and compared with one that never was."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ddplug.distillation.loop import distill
from ddplug.search import Journal, Judge, Protocol, Workers
from ddplug.testing import toy_images
from ddplug.utils.text import roughly

__all__ = ["campaign"]

NAMES = [f"mlp:width={width}" for width in range(2, 8)]
EACH = 50
"""Strikes on searches in one process for each search in a warm worker, whose start takes seconds."""
PATIENCE = 600.0
"""Seconds that anything may take; on a busy machine a worker loads torch for minutes."""

TRAIN, REST = toy_images((40, 35, 30)).split(0.4)
MADE = distill(TRAIN, "random", images_per_class=8, device="cpu")


def _judge(folder: Path) -> Judge:
    return Judge(MADE, REST, Protocol(steps=10, batch_size=12, device="cpu"), journal=folder / "journal.jsonl")


def _child(folder: Path, warm: bool = False) -> int:
    """Start a search in a process of its own, which tells a file of every result that it was given."""
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        torch.set_num_threads(1)
        with ExitStack() as stack, (folder / "told").open("a") as told:
            own = _judge(folder)
            if warm:
                own = replace(own, workers=stack.enter_context(Workers(threads=1)))
            for name in NAMES:
                record = own(name)
                told.write(f"{record.key} {record.metric}\n")
                told.flush()
        status = 0
    finally:
        os._exit(status)


def _told(folder: Path) -> list[str]:
    path = folder / "told"
    return path.read_text().splitlines() if path.exists() else []


def _wait(ready: Callable[[], bool]) -> bool:
    """Wait for something; tell whether it came."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _ended(number: int) -> bool:
    return os.waitpid(number, os.WNOHANG)[0] != 0


def _lives(number: int) -> bool:
    """Return whether a process that may be nobody's child any more still works."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _strike(folder: Path, seconds: float, rng: random.Random) -> bool:
    """Kill a search in one process after a while; tell whether that came before its end."""
    number = _child(folder)
    time.sleep(rng.random() * seconds)
    if _ended(number):
        return False
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    return True


def _goes_on(folder: Path, number: int, known: int) -> bool:
    """Wait until a search was given so many results; tell whether it lives then."""
    _wait(lambda: len(_told(folder)) >= known or not _lives(number))
    return _lives(number) and len(_told(folder)) >= known


def _strike_warm(folder: Path, rng: random.Random) -> str | None:
    """Kill the worker of a search, then the search at the work of its next worker; say what went wrong."""
    number = _child(folder, warm=True)
    workers: list[int] = []
    for _ in range(2):
        if not _goes_on(folder, number, len(_told(folder)) + rng.randint(1, 2)):
            why = "hung" if _lives(number) else "ended"
            os.kill(number, signal.SIGKILL)  # nobody writes on beside what comes next
            os.waitpid(number, 0)
            return f"a search in a worker {why} after {len(_told(folder))} results"
        time.sleep(rng.random() * 0.02)
        workers.append(_judge_pid(folder))
        os.kill(number if len(workers) == 2 else workers[-1], signal.SIGKILL)
    os.waitpid(number, 0)
    gone = _wait(lambda: not _lives(workers[-1]))
    return None if gone and workers[0] != workers[1] else f"workers {workers}: one lives, or was not replaced"


def _judge_pid(folder: Path) -> int:
    """Return the process that wrote the last result."""
    return Journal(folder / "journal.jsonl").read()[-1].pid


def _compared(folder: Path, status: int, expected: dict[str, Any]) -> str | None:
    """Say what was lost, doubled or mixed up."""
    if status:
        return f"it ended with status {status}"
    records = Journal(folder / "journal.jsonl").read()
    doubled = [key for key, times in Counter(record.key for record in records).items() if times > 1]
    if doubled:
        return f"{len(doubled)} candidates are in the journal twice"
    if {record.key: record.result.accuracies for record in records} != expected:
        return f"other results, or {len(records)} of {len(expected)}"
    strange = {line for line in _told(folder)} - {f"{record.key} {record.metric}" for record in records}
    return f"{len(strange)} results that were told are lost" if strange else None


def _whole() -> tuple[dict[str, Any], float]:
    """Search without being killed; return accuracies by key, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as own:
        _judge(Path(own))(NAMES[0])  # every child has what it imports: a second or more, and a search takes a tenth
    seconds = []
    for _ in range(3):  # the least of them: a strike after the end is none
        with tempfile.TemporaryDirectory() as own:
            began = time.monotonic()
            os.waitpid(_child(Path(own)), 0)
            seconds.append(time.monotonic() - began)
            records = Journal(Path(own) / "journal.jsonl").read()
    return {record.key: record.result.accuracies for record in records}, min(seconds)


def _strikes(count: Counter[str]) -> int:
    return sum(count[name] for name in ("one process", "worker", "main of a worker"))


def campaign(times: int, seed: int = 0) -> dict[str, Any]:
    """Kill searches ``times`` times in one process, and a search in a warm worker twice for each :data:`EACH`."""
    rng, count, wrong = random.Random(seed), Counter[str](), list[str]()
    expected, seconds = _whole()
    warm = times // EACH
    spent: list[float] = []  # seconds of searches in a worker
    while count["one process"] < times or count["searches in a worker"] < warm:
        with tempfile.TemporaryDirectory() as own:
            folder = Path(own)
            fault, before = None, _strikes(count)
            if count["searches in a worker"] < warm:
                count["searches in a worker"] += 1
                began = time.monotonic()
                fault = _strike_warm(folder, rng)
                spent.append(time.monotonic() - began)
                count["worker"] += 1
                count["main of a worker"] += 1
            for _ in range(rng.randint(1, 4)):
                if not _strike(folder, seconds, rng):
                    break
                count["one process"] += 1
            if _strikes(count) == before:
                continue  # it was over: there is nothing to go on with
            _, status = os.waitpid(_child(folder), 0)
            fault = fault or _compared(folder, status, expected)
            if fault:
                wrong.append(fault)
            if not count["runs"]:
                left = times * seconds + (warm - 1) * sum(spent)
                sys.stderr.write(f"search: about {roughly(left)} for {times} strikes\n")
            count["runs"] += 1
    return {
        "campaign": "search",
        "strikes": _strikes(count),
        **count,
        "right": count["runs"] - len(wrong),
        "wrong": wrong,
    }
