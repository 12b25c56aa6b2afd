"""Choose a codec, a method and its number of images, for a time and a number of bytes.

The codec is what suits the data (:func:`ddplug.synthetic.codecs.suited`). Methods go from the cheapest to the best,
each more accurate and more expensive than the one before, as was measured on held-out training data (the page "Choosing
for a budget" has the measurements). What they cost on this machine and these data is estimated by trying a little of
each, and the last that fits is taken.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias

import torch

from ddplug.data.anything import Data, as_labeled
from ddplug.data.labeled import LabeledData
from ddplug.distillation.checkpoint import KIND
from ddplug.distillation.config import config_of
from ddplug.distillation.memory import check as check_memory
from ddplug.distillation.settling import settled
from ddplug.distillation.storage import BudgetError, Storage, storage_for
from ddplug.distillers.base import RenewedPool
from ddplug.distillers.dm import DM
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.parts.images import initial_images, small_images
from ddplug.distillers.selection.base import Selection
from ddplug.distillers.selection.difficulty import Difficulty
from ddplug.distillers.selection.kmeans import KMeansCentroid
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import CheckpointError, OptionError
from ddplug.synthetic.codecs.rules import LEAST_SIDE
from ddplug.utils.devices import pick_device
from ddplug.utils.files import read_tensors
from ddplug.utils.surroundings import own_surroundings

__all__ = [
    "FEW",
    "LEARNED",
    "REAL",
    "RESERVE",
    "Choice",
    "Pace",
    "as_options",
    "candidates",
    "choose",
    "pace_of",
    "resumed",
]

Level: TypeAlias = Selection | RenewedPool
"""A method whose time can be estimated: it selects, or it says how its work is divided."""

REAL: tuple[Level, ...] = (
    Random(),
    Difficulty(),
    Difficulty(teacher="convnet:width=64,norm=batch", teacher_epochs=10),
)
"""Methods for many real images, from the cheapest to the most accurate; the last is for photographs."""

LEARNED: tuple[Level, ...] = (
    KMeansCentroid(),
    DM(steps=100, pool_size=10),
    DM(steps=300, pool_size=30),
    NCFM(steps=500, pool_size=30),
)
"""Methods whose sets hold no real image, from the cheapest to the most accurate."""

FEW = 12
"""Real images of a class up to which learned ones in the same bytes are better.

With six small one-bit digits of MNIST a class random ones train to 84 %, those of ``dm`` to 91; with eleven, 93 and 94.
"""

FEW_BITS = "pixels:bits=2"
"""Codec of learned photographs, whose own noise no codec of photographs keeps."""

RESERVE = 0.8
"""Share of the time that the estimate must stay within, since estimates err."""

_MORE = 4
"""Repetitions of a part that are tried on top of the least."""

_TRIED = 5000
"""Real samples that estimates are made with, in all; at least as many of a class as there are to be images."""


@dataclass(frozen=True)
class Choice:
    """What to distill with, by ``distill(data, choice.distiller, nbytes=choice.nbytes, codec=choice.codec)``.

    Attributes:
        distiller: the method with its options; its number of images is what real ones would fit.
        nbytes: that the set may take.
        codec: that is to hold the images.
        seconds: that it will take, by the estimate.
        declined: the next better method with its options, as words, and its seconds, where it would take too long.
    """

    distiller: Level
    nbytes: int
    codec: str
    seconds: float = 0.0
    declined: tuple[str, float] | None = None


def candidates(data: LabeledData, nbytes: int, *, real: bool = True) -> list[Choice]:
    """Return the methods that a number of bytes allows, the cheapest first; their seconds are not estimated.

    Args:
        data: real training data.
        nbytes: see :func:`choose`.
        real: see :func:`choose`.

    Raises:
        OptionError: see :func:`choose`.
    """
    storage = storage_for(data, "auto", nbytes)
    assert storage is not None
    sized: Any = storage.sized(Random(), data, 0)[0]
    number: int = sized.images_per_class
    images = len(data.shape) == 3
    levels = (*REAL[:real], *LEARNED)
    if real and (number > FEW or not images):
        levels = REAL if storage.codec.startswith("avif") else REAL[:-1]
    learned = [level for level in levels if not isinstance(level, Selection)]
    found = []
    for level in levels:
        if isinstance(level, Selection):
            found.append(Choice(replace(level, images_per_class=number), nbytes, storage.codec))
    return [*found, *(_learned(learned, storage, nbytes, data) if images and learned else [])]


def _learned(levels: Sequence[RenewedPool], storage: Storage, nbytes: int, data: LabeledData) -> list[Choice]:
    """Give methods that learn their number of images; none where they cannot have one of each class."""
    if storage.codec.startswith("avif"):
        storage = replace(storage, codec=FEW_BITS)
    # ZCA mixes all pixels of whole images
    small = min(data.shape[1:]) >= LEAST_SIDE and data.preprocess.kind != "zca"
    factor = 2 if small else 1
    try:  # what fits is the same for all: real images are coded once to find it
        number = storage.sized(replace(levels[0], factor=factor), data, 0)[0].images_per_class
    except BudgetError:
        return []
    return [Choice(replace(level, factor=factor, images_per_class=number), nbytes, storage.codec) for level in levels]


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
        most: samples of the largest class, which bound what is repeated.
    """

    start: float
    parts: Mapping[str, float] = field(default_factory=dict)
    step: float = 0.0
    most: int = sys.maxsize

    def seconds(self, distiller: Level) -> float:
        """Return what a method takes with its number of updates, and of each part."""
        repeated = sum(number * self.parts[part] for part, number in distiller.work(self.most).items())
        return self.start + repeated + distiller.steps * self.step


def pace_of(distiller: Level, data: LabeledData) -> Pace:
    """Try a little of a method.

    Args:
        distiller: one of :data:`REAL` or :data:`LEARNED` with a number of images.
        data: real data, on the device to work on.

    Returns:
        What is done once grows with the number of the data, a part of which is tried. Of what is repeated a little is
        tried, and three updates of methods that learn.
    """
    rng, timed = torch.Generator().manual_seed(0), partial(_timed, data.device)
    part = _part(data, max(_TRIED // data.num_classes, _images(distiller)))
    growth, most = len(data) / len(part), max(map(len, data.class_indices))
    least = distiller.trial()
    # the first call of anything is slow
    state = least.init(_part(data, _images(distiller)) if isinstance(least, Selection) else part, rng)
    once = timed(lambda: least.init(part, rng))
    parts = {}
    for name in distiller.work():
        least_of, more = (timed(partial(distiller.trial(**{name: n}).init, part, rng)) for n in (0, _MORE))
        parts[name] = max(0.0, more - least_of) / _MORE
    if isinstance(distiller, Selection):
        return Pace(growth * once, parts, most=most)
    start = timed(lambda: initial_images(distiller.init_from, part, _images(distiller), rng, distiller.reduction))
    least.step(state, part, rng)
    steps = [timed(lambda: least.step(state, part, rng)) for _ in range(3)]
    return Pace(growth * start + once, parts, sorted(steps)[1], most)


def _images(distiller: Level) -> int:
    """Return the images of each class as they are stored."""
    factor = 1 if isinstance(distiller, Selection) else distiller.reduction
    return small_images(distiller.images_per_class, factor)


@own_surroundings()
def choose(
    data: Data,
    *,
    seconds: float = 300.0,
    nbytes: int = 20_000,
    real: bool = True,
    device: str | torch.device = "auto",
) -> Choice:
    """Choose what to distill with, for a time and a number of bytes.

    The choice depends on how fast the machine is at that moment, and on its memory; it is itself a method with its
    options, and distilling with that is repeatable as ever. The time spent on choosing counts.

    Args:
        data: real training data, of images or rows of a table.
        seconds: that choosing and distilling may take, above 0.
        nbytes: that the set may take.
        real: allow sets that hold real images; ``False`` leaves out what selects.
        device: see :func:`ddplug.utils.devices.pick_device`.

    Raises:
        OptionError: the bytes do not suffice for an image of each class, or the time is not above 0.

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
    paces: dict[tuple[str, object], Pace] = {}
    choice, *better = candidates(data, nbytes, real=real)
    for candidate in better:
        distiller = candidate.distiller
        if time.monotonic() - began >= RESERVE * seconds or not _fits(distiller, data):
            break
        kind = distiller.name, getattr(distiller, "teacher", None)
        if kind not in paces:
            paces[kind] = pace_of(distiller, data)
        needed = paces[kind].seconds(distiller)
        if needed > RESERVE * seconds - (time.monotonic() - began):
            return replace(choice, declined=(_worded(distiller), needed))
        choice = replace(candidate, seconds=needed)
    return choice


def resumed(checkpoint: str, data: LabeledData, nbytes: int, *, real: bool = True) -> Choice:
    """Find what was chosen in a run that was interrupted.

    Args:
        checkpoint: file of that run.
        data: its real training data.
        nbytes: see :func:`choose`.
        real: see :func:`choose`.

    Raises:
        OptionError: the file cannot be read; or see :func:`choose`.
        FormatError: it is no checkpoint.
        CheckpointError: what it holds is not among the candidates for that number of bytes.
    """
    header = read_tensors(checkpoint, KIND)[1]
    before = tuple(header.get(name) for name in ("method", "codec", "nbytes")), _free(header.get("config"))
    for choice in candidates(data, nbytes, real=real):
        # a run writes down what its options mean for the data, in the place of "auto"
        method = settled(choice.distiller, data.shape)
        if ((method.name, choice.codec, choice.nbytes), _free(config_of(method))) == before:
            return choice
    raise CheckpointError(
        f"checkpoint {checkpoint} belongs to another run: {before[0][0]} is not what auto takes for {nbytes} bytes; "
        "use another path, or start over with resume=False (--no-resume)"
    )


def _free(config: object) -> dict[str, Any]:
    """Leave out the number of images, which the bytes say."""
    values = config if isinstance(config, Mapping) else {}
    return {name: value for name, value in values.items() if name != "images_per_class"}


def as_options(choice: Choice) -> str:
    """Return the words after ``ddplug distill`` that do the same without choosing.

    Example:
        >>> as_options(Choice(DM(batch_real=32), nbytes=1000, codec="pixels:bits=2"))
        'dm --batch-real 32 --bytes 1000B --codec pixels:bits=2'
    """
    return f"{_worded(choice.distiller)} --bytes {choice.nbytes}B --codec {choice.codec}"


def _worded(distiller: Level) -> str:
    """Return a method's name, and its options that are not the default."""
    default, changed = _free(config_of(type(distiller)())), _free(config_of(distiller))
    options = [f"--{name.replace('_', '-')} {value}" for name, value in changed.items() if value != default[name]]
    return " ".join([distiller.name, *options])
