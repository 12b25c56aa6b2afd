"""Runs that are killed at random moments, resumed, and compared with runs that never were."""

from __future__ import annotations

import csv
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ddplug import registry
from ddplug.distillation.callbacks import CsvLog
from ddplug.distillation.checkpoint import KIND
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import Distiller
from ddplug.errors import DdplugError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.testing import made_small, toy_images
from ddplug.utils.files import read_tensors

__all__ = ["campaign"]

INTERVAL = 0.05
"""Seconds between two checkpoints."""

WAYS = ("SIGKILL", "SIGTERM", "SIGINT twice")
STEPS = 40
DATA = toy_images((40, 35, 30))


def _method(name: str) -> Distiller:
    method: Any = made_small(registry.resolve("distiller", name)())
    made: Distiller = replace(method, steps=STEPS) if method.steps else method
    return made


def _repeatable() -> list[str]:
    """Methods that a seed repeats; the noise of ``dp-dm`` comes from the system, and is new if a run begins anew."""
    return [
        name
        for name in registry.names("distiller")
        if not getattr(registry.resolve("distiller", name), "private", False)
    ]


def _child(method: Distiller, folder: Path) -> int:
    """Start a run in a process of its own, which has imported all it needs already."""
    number = os.fork()
    if number:
        return number
    status = 1
    try:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 2)
        torch.set_num_threads(1)
        tqdm.set_lock(RLock())  # its own is one for all children, and one that is killed would never give it back
        log = CsvLog(folder / "log", every=1)
        made = distill(
            DATA, method, device="cpu", checkpoint=folder / "run", callbacks=[log], checkpoint_every=INTERVAL
        )
        made.save(folder / "made")
        status = 0
    except KeyboardInterrupt:
        status = 130
    finally:
        os._exit(status)


def _strike(number: int, way: str, delay: float, rng: random.Random) -> bool:
    """Send the signals after a while; tell whether they came before the run had ended."""
    time.sleep(delay)
    done, _ = os.waitpid(number, os.WNOHANG)
    if done:
        return False
    if way == "SIGINT twice":
        os.kill(number, signal.SIGINT)
        time.sleep(rng.random() * 0.02)
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGINT)
    else:
        os.kill(number, getattr(signal, way))
    os.waitpid(number, 0)
    return True


def _lost(folder: Path) -> tuple[int, float]:
    """Count the steps and seconds that the log has and the checkpoint has not."""
    if not (folder / "log").exists():
        return 0, 0.0
    rows = [row for row in csv.reader((folder / "log").read_text().splitlines()) if len(row) > 2 and row[0].isdigit()]
    if not rows:
        return 0, 0.0
    kept = 0
    if (folder / "run").exists():
        kept = int(read_tensors(folder / "run", KIND)[1].get("step", 0))
    beyond = [row for row in rows if int(row[0]) > kept]
    before = max((float(row[1]) for row in rows if int(row[0]) <= kept), default=0.0)
    return len(beyond), max((float(row[1]) for row in beyond), default=before) - before


def campaign(times: int, seed: int = 0, methods: list[str] | None = None) -> dict[str, Any]:
    """Kill runs ``times`` times in all, in turn by method and way."""
    rng, names = random.Random(seed), methods or _repeatable()
    whole: dict[str, tuple[SyntheticSet, float]] = {}
    count: Counter[str] = Counter()
    most_seconds, most_steps, wrong = 0.0, {way: 0 for way in WAYS}, list[str]()
    place = 0
    while count["strikes"] < times:
        name, place = names[place % len(names)], place + 1
        if name not in whole:
            began = time.monotonic()
            made = distill(DATA, _method(name), device="cpu")
            whole[name] = (made, time.monotonic() - began)
        expected, seconds = whole[name]
        with tempfile.TemporaryDirectory() as own:
            folder = Path(own)
            for _ in range(rng.randint(1, 4)):
                way = rng.choice(WAYS)
                if not _strike(_child(_method(name), folder), way, rng.random() * (seconds + 0.05), rng):
                    break
                count["strikes"] += 1
                count[way] += 1
                steps, lost = _lost(folder)
                most_steps[way] = max(most_steps[way], steps)
                most_seconds = max(most_seconds, lost)
            _, status = os.waitpid(_child(_method(name), folder), 0) if not (folder / "made").exists() else (0, 0)
            fault = _compared(folder, status, expected)
            if fault:
                wrong.append(f"{name}: {fault}")
            count["runs"] += 1
    return {
        "campaign": "kill",
        "methods": len(whole),
        "interval_seconds": INTERVAL,
        **count,
        "same_bits": count["runs"] - len(wrong),
        "wrong": wrong,
        "most_seconds_lost": round(most_seconds, 3),
        "most_steps_lost": most_steps,
    }


def _compared(folder: Path, status: int, expected: SyntheticSet) -> str | None:
    """Say how a run that was stopped and went on differs from one that was not."""
    if status:
        return f"it ended with status {status}"
    try:
        made = SyntheticSet.load(folder / "made")
    except DdplugError as error:
        return str(error)
    left = sorted(path.name for path in folder.iterdir() if path.name not in ("run", "log", "made"))
    same = _equal(made.inputs, expected.inputs) and _equal(made.targets, expected.targets)
    return None if same and not left else f"other numbers, or {left} left"


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other)
