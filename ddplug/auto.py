"""Choose a method, its number of images, their size and their bits, for a time and a number of bytes.

:data:`LEVELS` are methods from the cheapest to the best, each more accurate and more expensive than the one before, as
was measured on held-out training data (the page "Choosing for a budget" has the measurements,
``examples/benchmarks/distillation.py auto-...`` repeats them). What they cost on this machine and these data is
estimated by trying a little of each, and the last that fits is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import torch

from ddplug.data.anything import Data, as_labeled
from ddplug.data.labeled import LabeledData
from ddplug.distillation.checkpoint import KIND
from ddplug.distillation.config import config_of
from ddplug.distillation.memory import check as check_memory
from ddplug.distillers.base import RenewedPool
from ddplug.distillers.dm import DM
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.parts.images import initial_images, small_images, to_set
from ddplug.distillers.selection.base import Selection
from ddplug.distillers.selection.kmeans import KMeansCentroid
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import CheckpointError, OptionError
from ddplug.functional.packing import BITS
from ddplug.synthetic.budget import bytes_of, images_within
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.devices import pick_device
from ddplug.utils.files import read_tensors

__all__ = [
    "LEAST_SIDE",
    "LEVELS",
    "MOST_ERROR",
    "RESERVE",
    "Choice",
    "Pace",
    "as_options",
    "bits_for",
    "candidates",
    "choose",
    "factor_for",
    "pace_of",
    "resumed",
]

Level: TypeAlias = Selection | RenewedPool
"""A method whose time can be estimated: it selects, or it says how its work is divided."""

LEVELS: tuple[Level, ...] = (
    Random(),
    KMeansCentroid(),
    DM(steps=100, pool_size=10),
    DM(steps=300, pool_size=30),
    NCFM(steps=500, pool_size=30),
)
"""Methods with all options except number and size of images, from the cheapest to the most accurate."""

LEAST_SIDE = 16
"""Pixels from which on four small images serve better than a whole one."""

MOST_ERROR = 0.45
"""Error of real images in few bits, as a share of their deviation, up to which more images make up for it.

In one bit MNIST has 0.35, the digits 0.37 and CIFAR-10 0.56; in two, CIFAR-10 has 0.29.
"""

RESERVE = 0.8
"""Share of the time that the estimate must stay within, since estimates err."""

_SEEN = 1000
"""Real samples that are rounded to few bits, in all."""

_MORE = 4
"""Repetitions of a part that are tried on top of the least."""

_TRIED = 5000
"""Real samples that estimates are made with, in all; at least as many of a class as there are to be images."""


@dataclass(frozen=True)
class Choice:
    """What to distill with.

    Attributes:
        distiller: the method with all its options.
        reduced: factor by which to store the result smaller, for a method that selects; see
            :meth:`ddplug.synthetic.SyntheticSet.reduced`.
        bits: to store a number in; see :meth:`ddplug.synthetic.SyntheticSet.quantize`.
        seconds: that it will take, by the estimate.
        declined: name of the next better method and its seconds, where it would take too long.
    """

    distiller: Level
    reduced: int
    bits: int
    seconds: float = 0.0
    declined: tuple[str, float] | None = None

    def stored(self, made: SyntheticSet) -> SyntheticSet:
        """Store what the method made as it was chosen to be."""
        return made.reduced(self.reduced).quantize(bits=self.bits)


def factor_for(data: LabeledData) -> int:
    """Return the factor that images are stored smaller by: 2 from :data:`LEAST_SIDE` pixels on, else 1.

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


def bits_for(data: LabeledData) -> int:
    """Return the fewest bits a number in which real images, stored as small as :func:`factor_for` says, lose little.

    Raises:
        OptionError: the data are no images.
    """
    factor = factor_for(data)
    if data.preprocess.kind == "zca":
        return 8
    some = _part(data, max(1, _SEEN // data.num_classes))
    real = to_set(some, some.batch(torch.arange(len(some))), some.targets, Recipe()).reduced(factor)
    most = MOST_ERROR * float(real.inputs.std())
    return next(bits for bits in BITS if bits == 8 or real.quantize(bits=bits).provenance["quantisation_rmse"] <= most)


def candidates(data: LabeledData, nbytes: int) -> list[Choice]:
    """Return the levels that a number of bytes allows, the cheapest first; their seconds are not estimated.

    Args:
        data: real training data, of images.
        nbytes: see :func:`choose`.

    Returns:
        Methods with as many images as fit, in more bits than :func:`bits_for` says where all there are fit so. A method
        that learns needs the bytes of a whole image per class, one that selects those of a small one.

    Raises:
        OptionError: see :func:`choose`.
    """
    factor, bits = factor_for(data), bits_for(data)
    most = min(map(len, data.class_indices))
    while bits < 8 and images_within(nbytes, data, factor, 2 * bits) == most:
        bits *= 2
    rows = images_within(nbytes, data, factor, bits)
    if rows < 1:
        raise OptionError(
            f"{nbytes} bytes are too few for an image of each of {data.num_classes} classes; allow "
            f"{bytes_of(data.num_classes, data, factor, bits)}, or learn fewer images than classes (soft-label-dd, "
            "images)"
        )
    found = []
    for level in LEVELS:
        if isinstance(level, Selection):
            found.append(Choice(replace(level, images_per_class=rows), factor, bits))
        elif rows >= factor**2:
            found.append(Choice(replace(level, images_per_class=rows // factor**2, factor=factor), 1, bits))
    return found


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return float(time.monotonic() - began)


def _part(data: LabeledData, most: int) -> LabeledData:
    """Take the first samples of each class, at most ``most``."""
    return data.subset(torch.cat([index[:most] for index in data.class_indices]))


def _fits(distiller: Level, data: LabeledData) -> bool:
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
        parts: one of each part that is repeated at the start; see :meth:`ddplug.distillers.base.RenewedPool.work`.
        step: one update of the images.
    """

    start: float
    parts: Mapping[str, float] = field(default_factory=dict)
    step: float = 0.0

    def seconds(self, distiller: Level) -> float:
        """Return what a method takes with its number of updates, and of each part."""
        if isinstance(distiller, Selection):
            return self.start
        repeated = sum(number * self.parts[part] for part, number in distiller.work().items())
        return self.start + repeated + distiller.steps * self.step


def pace_of(distiller: Level, data: LabeledData) -> Pace:
    """Try a little of a method.

    Args:
        distiller: one of :data:`LEVELS` with a number of images.
        data: real data, on the device to work on.

    Returns:
        A method that selects does so from a part of the data, and its time is taken to grow with their number. Of
        others a little of each part and three updates are tried.
    """
    rng, timed = torch.Generator().manual_seed(0), partial(_timed, data.device)
    part = _part(data, max(_TRIED // data.num_classes, _images(distiller)))
    growth = len(data) / len(part)
    if isinstance(distiller, Selection):
        distiller.init(_part(data, _images(distiller)), rng)  # the first call of anything is slow
        return Pace(growth * timed(lambda: distiller.init(part, rng)))
    least = distiller.trial()
    state = least.init(part, rng)  # the first call again
    once = timed(lambda: least.init(part, rng))
    parts = {}
    for name in distiller.work():
        more = distiller.trial(**{name: _MORE})
        parts[name] = max(0.0, timed(partial(more.init, part, rng)) - once) / _MORE
    start = timed(lambda: initial_images(distiller.init_from, part, _images(distiller), rng, distiller.factor))
    least.step(state, part, rng)
    steps = [timed(lambda: least.step(state, part, rng)) for _ in range(3)]
    return Pace(growth * start + once, parts, sorted(steps)[1])


def _images(distiller: Level) -> int:
    """Return the images of each class as they are stored."""
    factor = 1 if isinstance(distiller, Selection) else distiller.factor
    return small_images(distiller.images_per_class, factor)


def choose(data: Data, *, seconds: float = 60.0, nbytes: int = 20_000, device: str | torch.device = "auto") -> Choice:
    """Choose what to distill with, for a time and a number of bytes.

    The choice depends on how fast the machine is at that moment, and on its memory; it is itself a method with its
    options, and distilling with that is repeatable as ever. The time spent on choosing counts.

    Args:
        data: real training data, of images.
        seconds: that choosing and distilling may take, above 0.
        nbytes: that the set may take.
        device: see :func:`ddplug.utils.devices.pick_device`.

    Raises:
        OptionError: the data are no images, the bytes do not suffice for an image of each class, or the time is not
            above 0.

    Example:
        >>> from ddplug.testing import toy_images
        >>> choice = choose(toy_images(), seconds=0.01, nbytes=1000, device="cpu")
        >>> choice.distiller.name, choice.distiller.images_per_class
        ('random', 8)
    """
    if not seconds > 0:
        raise OptionError(f"seconds is {seconds}; it must be above 0")
    began = time.monotonic()
    data = as_labeled(data).to(pick_device(device))
    paces: dict[str, Pace] = {}
    choice, *better = candidates(data, nbytes)
    for candidate in better:
        distiller = candidate.distiller
        if time.monotonic() - began >= RESERVE * seconds or not _fits(distiller, data):
            break
        if distiller.name not in paces:
            paces[distiller.name] = pace_of(distiller, data)
        needed = paces[distiller.name].seconds(distiller)
        if needed > RESERVE * seconds - (time.monotonic() - began):
            return replace(choice, declined=(distiller.name, needed))
        choice = replace(candidate, seconds=needed)
    return choice


def resumed(checkpoint: str, data: LabeledData, nbytes: int) -> Choice:
    """Find what was chosen in a run that was interrupted.

    Args:
        checkpoint: file of that run.
        data: its real training data.
        nbytes: see :func:`choose`.

    Raises:
        OptionError: the file cannot be read; or see :func:`choose`.
        FormatError: it is no checkpoint.
        CheckpointError: what it holds is not among the candidates for that number of bytes.
    """
    header = read_tensors(checkpoint, KIND)[1]
    before = header.get("method"), header.get("config")
    for choice in candidates(data, nbytes):
        if (choice.distiller.name, config_of(choice.distiller)) == before:
            return choice
    raise CheckpointError(
        f"checkpoint {checkpoint} is of another run: {before[0]} is not what auto takes for {nbytes} bytes; use "
        "another path, or begin anew with resume=False (--no-resume)"
    )


def as_options(choice: Choice) -> str:
    """Return the words after ``ddplug distill`` that do the same without choosing.

    Example:
        >>> as_options(Choice(DM(images_per_class=1, batch_real=32), reduced=1, bits=2))
        'dm --images-per-class 1 --batch-real 32 --bits 2'
    """
    default = config_of(type(choice.distiller)())
    changed = [(name, value) for name, value in config_of(choice.distiller).items() if value != default[name]]
    if choice.reduced > 1:
        changed.append(("reduced", choice.reduced))
    options = [f"--{name.replace('_', '-')} {value}" for name, value in [*changed, ("bits", choice.bits)]]
    return " ".join([choice.distiller.name, *options])
