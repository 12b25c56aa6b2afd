"""A search whose metrics tell which candidate they are of, for the tests of engines and experiments.

Trials import this module, so that it needs no test framework.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import nni
from nni.nas.evaluator import MutableEvaluator
from nni.nas.nn.pytorch import ModelSpace, MutableLinear
from torch import Tensor, nn

from ddplug.search.journal import Journal, Record, key
from ddplug.search.protocol import Result
from ddplug.utils.randomness import temporary_seed

SLOW_START = """
import os, time
trial = os.environ.get("NNI_TRIAL_SEQ_ID")
if trial == "0":
    # asks for its parameters after another trial was given some
    for _ in range(1200):
        if os.path.exists({trail!r}):
            break
        time.sleep(0.1)
if trial in {dead!r}:
    import sys
    print("no room for this trial", file=sys.stderr, flush=True)
    os._exit(3)
"""
"""What every Python process of a test runs first, as its sitecustomize."""


class ToySpace(ModelSpace):
    """Networks of one hidden layer."""

    def __init__(self, widths: int = 12) -> None:
        super().__init__()
        width = nni.choice("width", list(range(1, widths + 1)))
        self.body = nn.Sequential(MutableLinear(4, width), nn.ReLU(), MutableLinear(width, 2))

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


def toy_space(widths: int = 12) -> ToySpace:
    """Make a space without moving the global generators."""
    with temporary_seed(0):
        return ToySpace(widths)


def true_metric(width: int) -> float:
    """The metric of a candidate: another for each."""
    return (width * 5 % 13) / 13


def executed(trail: Path) -> list[int]:
    """Widths whose evaluation was begun, in order."""
    return [int(line.split()[1]) for line in trail.read_text().splitlines()] if trail.exists() else []


class _Toy(MutableEvaluator):
    """Reports what a candidate is worth at once, and does what `fates` says about its width."""

    fates: dict[str, str]
    trail: str

    def note(self, model: Any, metric: float | None, failure: str | None = None) -> None:
        """Write nothing down."""

    def _execute(self, model: Any) -> float:
        width = model.sample["width"]
        before = executed(Path(self.trail))
        fate = self.fates.get(str(width), "")
        with Path(self.trail).open("a") as file:
            file.write(f"{os.environ.get('NNI_TRIAL_JOB_ID', '-')} {width}\n")
        if fate == "raise":
            self.note(model, None, "RuntimeError: bad luck")
            raise RuntimeError("bad luck")
        if fate == "complain":
            raise RuntimeError("bad luck that nobody wrote down")
        if fate == "die" or (fate == "die once" and width not in before):
            os.kill(os.getpid(), signal.SIGKILL)
        if fate == "hang":
            time.sleep(1000)
        with temporary_seed(0):
            model.executable_model()
        nni.report_intermediate_result(true_metric(width) / 2)
        self.note(model, true_metric(width))
        nni.report_final_result(true_metric(width))
        return true_metric(width)


@nni.trace
class ToyEvaluator(_Toy):
    """Keeps a journal, as the evaluators of ddplug do."""

    def __init__(
        self, trail: str, fates: dict[str, str] | None = None, setting: int = 1, journal: str | None = None
    ) -> None:
        self.trail = trail
        self.fates = fates or {}
        self.setting = setting
        self.journal = journal

    def key(self, model: Any) -> str:
        return key(model.sample, {"setting": self.setting})

    def note(self, model: Any, metric: float | None, failure: str | None = None) -> None:
        if self.journal is not None:
            Journal(self.journal).append(Record(self.key(model), model.sample, Result(metric, failure)))


@nni.trace
class ForeignEvaluator(_Toy):
    """Knows nothing of journals."""

    def __init__(self, trail: str, fates: dict[str, str] | None = None) -> None:
        self.trail = trail
        self.fates = fates or {}
