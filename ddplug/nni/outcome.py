"""What becomes of a candidate: a result with its costs, or a failure with its reason in one line."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ddplug.errors import DdplugError, DivergedError

__all__ = ["CandidateError", "HopelessError", "OverTimeError", "Result", "over_time", "reason"]


class CandidateError(DdplugError, RuntimeError):
    """A candidate that gave no metric; the message says why, and the search can go on."""


@dataclass(frozen=True)
class Result:
    """What became of a candidate, and what it cost.

    Attributes:
        metric: mean accuracy over the seeds on the validation split, in [0, 1]; ``None`` where it failed.
        failure: one line that says why it failed, ``None`` where it did not.
        accuracies: on the whole validation split, one a seed that came to its end.
        intermediate: interim accuracies, in order, over all seeds.
        stopped: one line that says why training ended before its last epoch, ``None`` where it did not.
        seconds: of building, training and scoring.
        images: training images seen, over all seeds.
        flops: floating-point operations of training and scoring: twice the multiply-adds of convolutions, matrix
            products and attention, a training step counted as three forward passes. ``None`` where they cannot be
            counted.
    """

    metric: float | None
    failure: str | None
    accuracies: tuple[float, ...] = ()
    intermediate: tuple[float, ...] = ()
    stopped: str | None = None
    seconds: float = 0.0
    images: int = 0
    flops: float | None = None


class OverTimeError(Exception):
    """The time limit is over."""


class HopelessError(Exception):
    """The candidate guesses, at a time when it should not."""


def reason(error: BaseException) -> str:
    """Say in one line why a candidate failed.

    Example:
        >>> reason(ValueError("no such layer"))
        'ValueError: no such layer'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "".join(c if c.isprintable() else "?" for c in (lines or ["no message"])[0])[:300]
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "allocate memory" in str(error):
        return f"out of memory: {text}"
    if isinstance(error, DivergedError):
        return f"diverged: {text}"
    return text if isinstance(error, OverTimeError) else f"{type(error).__name__}: {text}"


def over_time(limit: float) -> str:
    """Say in one line that a candidate took longer than it may."""
    return f"time limit of {limit:g} s"
