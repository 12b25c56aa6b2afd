"""Choose a method, its number of images and their size, for a time and a number of bytes.

:data:`LEVELS` are ways to fill a room, each better and dearer than the one before, as they were found on held-out
training data (the page "Choosing for a budget" has the measurements, ``examples/benchmarks/distillation.py auto-...``
repeats them). What they cost on this machine and these data is estimated by trying a little of each, and the last that
fits is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from ddplug.checkpoint import KIND
from ddplug.data import LabelledData
from ddplug.distillation import config_of, pick_device
from ddplug.distillers.common import initial_images
from ddplug.distillers.dm import DM
from ddplug.distillers.kmeans import KMeansCentroid
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.random_ import Random
from ddplug.errors import CheckpointError, OptionError
from ddplug.files import read_tensors
from ddplug.memory import check as check_memory
from ddplug.room import bytes_of, rows_within

__all__ = [
    "LEAST_SIDE",
    "LEVELS",
    "RESERVE",
    "Choice",
    "Pace",
    "as_options",
    "candidates",
    "choose",
    "factor_for",
    "pace_of",
    "resumed",
]

LEVELS: tuple[Any, ...] = (
    Random(),
    KMeansCentroid(),
    DM(steps=100, bank=10),
    DM(steps=300, bank=30),
    NCFM(steps=500, bank=30),
)
"""Methods with their options but for number and size of images: from one to the next more accurate, and dearer."""

LEAST_SIDE = 16
"""Pixels from which on four small images serve better than a whole one."""

RESERVE = 0.8
"""Share of the time that the estimate must stay within, for an estimate is what it is."""

_TRIED = 5000
"""Real samples that estimates are made with, in all; at least as many of a class as there are to be images."""


@dataclass(frozen=True)
class Choice:
    """What to distil with.

    Attributes:
        distiller: the method with all its options.
        reduced: factor by which to store the result smaller, for a method that selects; see
            :meth:`ddplug.synthetic.SyntheticSet.reduced`.
        seconds: that it will take, by the estimate.
        declined: name of the next better method and its seconds, where it would take too long.
    """

    distiller: Any
    reduced: int
    seconds: float
    declined: tuple[str, float] | None = None


def factor_for(data: LabelledData) -> int:
    """Give the factor that images are stored smaller by: 2 from :data:`LEAST_SIDE` pixels on, else 1.

    Raises:
        OptionError: the data are no images, for which there are no rules.
    """
    if len(data.shape) != 3:
        raise OptionError(
            f"auto has rules for images only, not for inputs of shape {data.shape}; choose a method, e.g. kmeans, or "
            "dm with network=mlp"
        )
    # ZCA mixes all pixels of whole images
    return 2 if min(data.shape[1:]) >= LEAST_SIDE and data.preprocess.kind != "zca" else 1


def candidates(data: LabelledData, nbytes: int) -> list[tuple[Any, int]]:
    """Give the levels that a room allows, the cheapest first, each with what to reduce its result by.

    Args:
        data: real training data, of images.
        nbytes: see :func:`choose`.

    Returns:
        Methods with as many images as fit, and factors. A method that learns wants the room of a whole image per class,
        one that selects is content with that of a small one.

    Raises:
        OptionError: see :func:`choose`.
    """
    factor = factor_for(data)
    most = min(map(len, data.class_indices))
    rows = min(rows_within(nbytes, data, factor) // data.num_classes, most)
    if rows < 1:
        raise OptionError(
            f"{nbytes} bytes are too few for an image of each of {data.num_classes} classes; allow "
            f"{bytes_of(data.num_classes, data, factor)}, or learn fewer images than classes (soft-label-dd, images)"
        )
    found = []
    for level in LEVELS:
        if level.steps == 0:
            found.append((replace(level, images_per_class=rows), factor))
        elif rows >= factor**2:
            found.append((replace(level, images_per_class=rows // factor**2, factor=factor), 1))
    return found


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return float(time.monotonic() - began)


def _part(data: LabelledData, most: int) -> LabelledData:
    """Take the first samples of each class, at most so many."""
    return data.subset(torch.cat([index[:most] for index in data.class_indices]))


def _fits(distiller: Any, data: LabelledData) -> bool:
    try:
        check_memory(distiller, data, data.device)
    except OptionError:
        return False
    return True


@dataclass(frozen=True)
class Pace:
    """What the parts of a method take on a machine, in seconds.

    Attributes:
        start: everything that is done once.
        view: one view of the bank.
        training: one step of training a network.
        step: one update of the images.
    """

    start: float
    view: float = 0.0
    training: float = 0.0
    step: float = 0.0

    def seconds(self, distiller: Any) -> float:
        """Give what a method takes with its numbers of views, training steps and updates."""
        trainings = getattr(distiller, "networks", 0) * getattr(distiller, "train_steps", 0)
        views = getattr(distiller, "bank", 0)
        total = self.start + views * self.view + trainings * self.training + distiller.steps * self.step
        return float(total)


def pace_of(distiller: Any, data: LabelledData) -> Pace:
    """Try a little of a method.

    Args:
        distiller: one of :data:`LEVELS` with a number of images.
        data: real data, on the device to work on.

    Returns:
        A method that selects does so from a part of the data, and its time is taken to grow with their number. Of
        others two views, ten training steps and three updates are made.
    """
    rng, timed = torch.Generator().manual_seed(0), partial(_timed, data.device)
    part = _part(data, max(_TRIED // data.num_classes, _images(distiller)))
    growth = len(data) / len(part)
    if distiller.steps == 0:
        distiller.init(_part(data, _images(distiller)), rng)  # the first call of anything is slow
        return Pace(growth * timed(lambda: distiller.init(part, rng)))
    networks = {"networks": 1, "train_steps": 0} if hasattr(distiller, "train_steps") else {}
    small = replace(distiller, start="noise", bank=1, **networks)
    state = small.init(part, rng)  # the first call again
    once = timed(lambda: small.init(part, rng))
    view = timed(lambda: replace(small, bank=3).init(part, rng)) - once
    training = timed(lambda: replace(small, train_steps=10).init(part, rng)) - once if networks else 0.0
    start = timed(lambda: initial_images(distiller.start, part, _images(distiller), rng, distiller.factor))
    small.step(state, part, rng)
    steps = [timed(lambda: small.step(state, part, rng)) for _ in range(3)]
    return Pace(growth * start + once, max(0.0, view / 2), max(0.0, training / 10), sorted(steps)[1])


def _images(distiller: Any) -> int:
    """Give the images of each class as they are stored."""
    return int(distiller.images_per_class * getattr(distiller, "factor", 1) ** 2)


def choose(
    data: LabelledData, *, seconds: float = 60.0, nbytes: int = 20_000, device: str | torch.device = "auto"
) -> Choice:
    """Choose what to distil with, for a time and a number of bytes.

    The choice depends on how fast the machine is at that moment, and on its memory; it is itself a method with its
    options, and distilling with that is repeatable as ever. The time spent on choosing counts.

    Args:
        data: real training data, of images.
        seconds: that choosing and distilling may take, above 0.
        nbytes: that the set may take, a byte a number.
        device: see :func:`ddplug.distillation.pick_device`.

    Raises:
        OptionError: the data are no images, the bytes do not suffice for an image of each class, or the time is not
            above 0.

    Example:
        >>> from ddplug.testing import toy_images
        >>> choice = choose(toy_images(), seconds=0.01, nbytes=1000, device="cpu")
        >>> choice.distiller.name, choice.distiller.images_per_class
        ('random', 5)
    """
    if not seconds > 0:
        raise OptionError(f"a budget of {seconds} seconds is no time; it must be above 0")
    began = time.monotonic()
    data = data.to(pick_device(device))
    paces: dict[str, Pace] = {}
    (distiller, reduced), *better = candidates(data, nbytes)
    choice = Choice(distiller, reduced, 0.0)
    for distiller, reduced in better:
        if time.monotonic() - began >= RESERVE * seconds or not _fits(distiller, data):
            break
        if distiller.name not in paces:
            paces[distiller.name] = pace_of(distiller, data)
        needed = paces[distiller.name].seconds(distiller)
        if needed > RESERVE * seconds - (time.monotonic() - began):
            return replace(choice, declined=(distiller.name, needed))
        choice = Choice(distiller, reduced, needed)
    return choice


def resumed(checkpoint: str, data: LabelledData, nbytes: int) -> tuple[Any, int]:
    """Find what was chosen in a run that was interrupted.

    Args:
        checkpoint: file of that run.
        data: its real training data.
        nbytes: see :func:`choose`.

    Returns:
        The method and the factor to reduce its result by.

    Raises:
        OptionError: the file cannot be read; or see :func:`choose`.
        FormatError: it is no checkpoint.
        CheckpointError: what it holds is not among the candidates of so many bytes.
    """
    header = read_tensors(checkpoint, KIND)[1]
    before = header.get("method"), header.get("config")
    for distiller, reduced in candidates(data, nbytes):
        if (distiller.name, config_of(distiller)) == before:
            return distiller, reduced
    raise CheckpointError(
        f"checkpoint {checkpoint} is of another run: {before[0]} is not what auto takes for {nbytes} bytes; use "
        "another path, or begin anew with resume=False (--no-resume)"
    )


def as_options(distiller: Any, reduced: int) -> str:
    """Give the words after ``ddplug distill`` that do the same without choosing.

    Args:
        distiller: a method with its options.
        reduced: see :class:`Choice`.

    Example:
        >>> as_options(DM(images_per_class=1, batch_real=32), 1)
        'dm --images-per-class 1 --batch-real 32 --quantise'
    """
    default = config_of(type(distiller)())
    changed = [(name, value) for name, value in config_of(distiller).items() if value != default[name]]
    if reduced > 1:
        changed.append(("reduced", reduced))
    return " ".join([distiller.name, *(f"--{name.replace('_', '-')} {value}" for name, value in changed), "--quantise"])
