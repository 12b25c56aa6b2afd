"""Choose a method, its number of images and their size, for a time and a number of bytes.

:data:`LEVELS` are ways to fill a room, the best of them first, as they were found on held-out training data (the page
"Choosing for a budget" has the measurements, ``examples/benchmarks/distillation.py auto-...`` repeats them). Their cost
on this machine and these data is estimated by trying a little of each, and the first that fits is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from ddplug.data import LabelledData
from ddplug.distillation import pick_device
from ddplug.distillers.common import initial_images
from ddplug.distillers.dm import DM
from ddplug.distillers.kmeans import KMeansCentroid
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.random_ import Random
from ddplug.errors import OptionError
from ddplug.room import bytes_of, rows_within

__all__ = ["LEVELS", "Choice", "choose", "factor_for", "seconds_needed"]

LEVELS: tuple[Any, ...] = (
    NCFM(steps=500, bank=30),
    NCFM(steps=150, bank=15, networks=2, train_steps=200),
    DM(steps=300, bank=30),
    DM(steps=100, bank=10),
    KMeansCentroid(),
    Random(),
)
"""Methods with their options but for the number and the size of images, the most accurate and the dearest first."""

LEAST_SIDE = 16
"""Pixels from which on four small images serve better than a whole one."""

RESERVE = 0.8
"""Share of the time that the estimate must stay within, for an estimate is what it is."""

_TRIED = 64
"""Most real samples of a class that estimates are made with."""


@dataclass(frozen=True)
class Choice:
    """What to distil with.

    Attributes:
        distiller: the method with all its options.
        reduced: factor by which to store the result smaller, for a method that selects; see
            :meth:`ddplug.synthetic.SyntheticSet.reduced`.
        seconds: that it will take, by the estimate.
        passed: names of the levels that would have taken too long, with their estimates in seconds.
    """

    distiller: Any
    reduced: int
    seconds: float
    passed: tuple[tuple[str, float], ...] = ()


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


def _candidates(data: LabelledData, nbytes: int) -> list[tuple[Any, int]]:
    """Give the levels that the room allows, with their numbers of images, and what to reduce their results by."""
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


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _part(data: LabelledData, most: int) -> LabelledData:
    """Take the first samples of each class, at most so many."""
    return data.subset(torch.cat([index[:most] for index in data.class_indices]))


def seconds_needed(distiller: Any, data: LabelledData) -> float:
    """Estimate what distilling takes, from a little of it.

    Args:
        distiller: one of :data:`LEVELS`, or the like.
        data: real data, on the device to work on.

    Returns:
        Seconds. A method that selects is tried on a part of the data, and its time is taken to grow with their number;
        of others the beginning, one view of the bank, ten steps of a network's training and three updates are.
    """
    rng = torch.Generator().manual_seed(0)
    part = _part(data, max(_TRIED, _images(distiller)))
    growth = len(data) / len(part)
    if distiller.steps == 0:
        return growth * _timed(lambda: distiller.init(part, rng))
    names = {field.name for field in fields(distiller)}
    trained = {"networks": 1, "train_steps": 0} if "networks" in names else {}
    small = replace(distiller, start="noise", bank=1, **trained)
    small.init(part, rng)  # the first call of anything is slow
    one = _timed(lambda: small.init(part, rng))
    view = _timed(lambda: replace(small, bank=3).init(part, rng)) - one
    total = _timed(lambda: initial_images(distiller.start, part, _images(distiller), rng, distiller.factor)) * growth
    total += distiller.bank * max(0.0, view / 2) + one
    if trained:
        training = _timed(lambda: replace(small, train_steps=10).init(part, rng)) - one
        total += distiller.networks * distiller.train_steps * max(0.0, training / 10)
    state, _ = small.step(small.init(part, rng), part, rng)
    steps = [_timed(lambda: small.step(state, part, rng)) for _ in range(3)]
    return total + distiller.steps * sorted(steps)[1]


def _images(distiller: Any) -> int:
    """Give the images of each class as they are stored."""
    return int(distiller.images_per_class * getattr(distiller, "factor", 1) ** 2)


def choose(
    data: LabelledData, *, seconds: float = 60.0, nbytes: int = 20_000, device: str | torch.device = "auto"
) -> Choice:
    """Choose what to distil with, for a time and a number of bytes.

    The choice depends on how fast the machine is, and at that moment; it is itself a method with its options, and
    distilling with that is repeatable as ever. The time spent on choosing counts.

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
    began, passed = time.monotonic(), []
    data = data.to(pick_device(device))
    *dear, (cheapest, reduced) = _candidates(data, nbytes)
    for distiller, factor in dear:
        left = RESERVE * seconds - (time.monotonic() - began)
        if left <= 0:
            break
        needed = seconds_needed(distiller, data)
        if needed <= left:
            return Choice(distiller, factor, needed, tuple(passed))
        passed.append((distiller.name, needed))
    return Choice(cheapest, reduced, 0.0, tuple(passed))
