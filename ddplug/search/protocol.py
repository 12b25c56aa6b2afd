"""What is done to a candidate: how it is trained, how often, and when it is given up."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from numbers import Real
from typing import Any

import torch

from ddplug.errors import DdplugError, DivergedError, OptionError
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import one_of
from ddplug.utils.text import one_line

__all__ = ["CandidateError", "HopelessError", "OverTimeError", "Protocol", "Result", "over_time", "reason"]

_LIMITS: dict[str, tuple[type, float, float]] = {
    "epochs": (int, 1, 10**9),
    "steps": (int, 1, 10**9),
    "learning_rate": (float, 0, 10**9),
    "batch_size": (int, 1, 10**9),
    "momentum": (float, 0, 10**9),
    "weight_decay": (float, 0, 10**9),
    "seeds": (int, 1, 1000),
    "seed": (int, 0, 2**31 - 1),
    "channels": (int, 2, 4096),
    "patience": (float, 0, 1),
    "time_limit": (float, 0, 10**9),
}
"""Type and range of every number of a protocol."""

_RECIPE = ("epochs", "steps", "learning_rate", "batch_size", "momentum", "weight_decay", "schedule", "augment")
"""What replaces a field of the set's recipe."""


def _number(name: str, value: Any) -> int | float:
    """Return a number as its type; whole numbers may come as floats, as tuners give them."""
    kind, low, high = _LIMITS[name]
    fine = isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) <= high
    if not fine or (kind is int and value != int(value)):
        what = "a whole number" if kind is int else "a number"
        raise OptionError(f"{name} is {value!r}; it must be {what} between {low:.10g} and {high:.10g}")
    number: int | float = kind(value)
    return number


@dataclass(frozen=True)
class Protocol:
    """What is done to a candidate; every field is JSON-ready.

    Attributes:
        epochs: passes over the set; the recipe's own if ``None``, as the six that follow.
        learning_rate: of SGD.
        batch_size: samples a step.
        momentum: of SGD.
        weight_decay: of SGD.
        schedule: of the learning rate, see :class:`ddplug.synthetic.Recipe`. In a training of few epochs one that falls
            leaves little of it, and then ``"constant"`` ranks better.
        augment: operations of :mod:`ddplug.functional.augmentation` joined by ``_``; ``""`` for none.
        seeds: trainings to average, each of its own weights and order of samples.
        seed: of the first training; the others count on from it.
        channels: number of times to repeat a gray channel, for spaces whose stems take three; ``None`` leaves inputs
            alone.
        patience: share of the training after which a candidate that still guesses is stopped and scored as it stands;
            ``None`` trains every candidate to the end. From there on a candidate is hopeless where an interim accuracy
            is not two standard errors above the share of the commonest class. Whether it is depends on the candidate
            alone and not on the others, so that results stay comparable and can be taken up again. Deep networks
            with sigmoids may guess for long and still learn: that is why it is off by default.
        time_limit: seconds for all of it, looked at after every step.
        device: see :func:`ddplug.utils.devices.pick_device`.
        steps: of SGD, instead of epochs. Sets of different sizes compare in steps: a cost in whole epochs gives each of
            them another number, and then tells who had more.

    Raises:
        OptionError: a value is of the wrong type or out of range.

    Example:
        >>> Protocol(steps=300, batch_size=64.0).batch_size
        64
        >>> Protocol(epochs=0)
        Traceback (most recent call last):
        ...
        ddplug.errors.OptionError: epochs is 0; it must be a whole number between 1 and 1000000000
    """

    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    augment: str | None = None
    seeds: int = 1
    seed: int = 0
    channels: int | None = None
    patience: float | None = None
    time_limit: float | None = None
    device: str = "auto"
    steps: int | None = None

    def __post_init__(self) -> None:
        for name in _LIMITS:
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _number(name, value))
        if isinstance(self.device, torch.device):  # as other functions take it
            object.__setattr__(self, "device", str(self.device))
        for name in ("schedule", "augment", "device"):
            text = getattr(self, name)
            if text is not None and not isinstance(text, str):
                raise OptionError(f"{name} is {text!r}; it must be text")
        for name in ("seeds", "seed", "device"):
            if getattr(self, name) is None:
                raise OptionError(f"{name} is None; give it or leave it out")
        if self.epochs is not None and self.steps is not None:
            raise OptionError(f"epochs is {self.epochs} and steps is {self.steps}; give one of them")

    def recipe(self, own: Recipe) -> Recipe:
        """Return a set's recipe with what this protocol replaces; without CutMix, which only long trainings gain by."""
        given = {name: getattr(self, name) for name in _RECIPE if getattr(self, name) is not None}
        if self.epochs is not None:
            given["steps"] = 0
        return replace(own, cutmix=0.0, **given)

    def changed(self, **changes: Any) -> Protocol:
        """Return a protocol with some fields changed; steps take the place of epochs, and epochs that of steps.

        Raises:
            OptionError: a field is unknown, or a value is out of range.

        Example:
            >>> Protocol(epochs=30).changed(steps=300).epochs is None
            True
        """
        for name in changes:
            one_of("field of the protocol", name, asdict(self))
        rivals = {"steps": "epochs", "epochs": "steps"}
        dropped = {rivals[name]: None for name in rivals if changes.get(name) is not None}
        return replace(self, **{**dropped, **changes})

    def settings(self) -> dict[str, Any]:
        """Return every field as a journal has it; ``steps`` only where it is given: older journals do not know it."""
        return {name: value for name, value in asdict(self).items() if name != "steps" or value is not None}


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
        at: training steps taken before each of them, those of earlier seeds included.
        stopped: one line that says why training ended before its last epoch, ``None`` where it did not.
        seconds: of building, training and scoring.
        images: training images seen, over all seeds.
        flops: floating-point operations of training and scoring: twice the multiply-adds of convolutions, matrix
            products and attention, a training step counted as three forward passes. ``None`` where they cannot be
            counted.
    """

    metric: float | None
    failure: str | None = None
    accuracies: tuple[float, ...] = ()
    intermediate: tuple[float, ...] = ()
    stopped: str | None = None
    seconds: float = 0.0
    images: int = 0
    flops: float | None = None
    at: tuple[int, ...] = ()


class OverTimeError(Exception):
    """The time limit is over."""


class HopelessError(Exception):
    """The candidate guesses, at a time when it should not."""


def reason(error: BaseException) -> str:
    """Return in one line why a candidate failed.

    Example:
        >>> reason(ValueError("no such layer"))
        'ValueError: no such layer'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = one_line((lines or ["no message"])[0])[:300]
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "allocate memory" in str(error):
        return f"out of memory: {text}"
    if isinstance(error, DivergedError):
        return f"diverged: {text}"
    # what this package says is a sentence of its own
    return text if isinstance(error, (DdplugError, OverTimeError)) else f"{type(error).__name__}: {text}"


def over_time(limit: float) -> str:
    """Return in one line that a candidate took longer than it may."""
    return f"time limit of {limit:g} s"
