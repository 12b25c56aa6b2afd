"""How a finished set is to be stored, and how many images a number of bytes then holds: by trial, not by a formula."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ddplug.data.labeled import LabeledData
from ddplug.distillation.protocol import Distiller, Prepares, State
from ddplug.distillation.settling import settled
from ddplug.errors import OptionError
from ddplug.functional.augmentation import joint
from ddplug.functional.resize import reduce_to, reduced_shape
from ddplug.synthetic.budget import bytes_of, images_within
from ddplug.synthetic.codecs.plain import Plain
from ddplug.synthetic.codecs.protocol import Codec, codec_of, spec_of
from ddplug.synthetic.codecs.rules import suited
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.forecast import parts
from ddplug.utils.randomness import seeded

__all__ = ["BudgetError", "Start", "Storage", "check_sizable", "recipe_for", "reduced_to", "storage_for", "with_recipe"]

_WASTE = 0.01
"""Share of the bytes that may be left, unless it is less than an image of each class takes."""

_ROUGH = 0.05
"""The same of real images that are coded only to see how many fit."""

_USUAL = 3
"""Trials that it usually takes, to tell how long all take."""

_GUESSES = 4
"""Trials at numbers that are interpolated; from then on the interval is halved."""


_SOME, _UNSURE = 500, 1.5
"""Images that are coded to see whether all may fit, and how far the bytes of all may be from what these tell."""

_FINER: Mapping[str, Sequence[str]] = {
    "avif": [f"avif:quality={quality}" for quality in range(5, 95, 5)],
    "pixels": [f"pixels:bits={bits}" for bits in (1, 2, 4, 8)],
}
"""Codec -> what it is called from coarse to fine."""


class BudgetError(OptionError):
    """A number of bytes does not suffice for one image of each class."""


_STEPS, _MANY, _MANY_STEPS = 1500, 2000, 4500
"""SGD steps on a set, and the photographs of which more get more: 5,790 images of CIFAR-10 gained 2.6 points by these.
All else gets the fewer: in these the 60,000 digits of MNIST train to 99.4 %, 5,580 of one bit to 99.3."""


_MIXED, _MOST_MIXED = 0.5, 4000
"""Share of the steps on photographs that are taken by CutMix, and the most photographs for which it is: 1,440 images of
CIFAR-10 gained two points by it, 3,090 one (by 4,500 steps; by 2,400 they lost one and a half), and 5,790 lost three by
1,500."""


def recipe_for(images: int, augmentation: str) -> Recipe:
    """Return how to train on many images: by steps, as the published thousand epochs of them would take hours.

    Args:
        images: number of them.
        augmentation: operations that keep the labels of the data, of which those of ordinary training are taken.

    Example:
        >>> [recipe_for(images, "color_crop_flip").steps for images in (500, 3000, 60000)]
        [1500, 4500, 4500]
        >>> recipe_for(60000, "crop_scale_rotate").steps
        1500
        >>> [recipe_for(images, "color_crop_flip").cutmix for images in (4000, 4001)]
        [0.5, 0.0]
    """
    least = Recipe.by_steps(_STEPS, joint(augmentation))
    if "flip" not in least.augment:  # only photographs may be mirrored
        return least
    steps, cutmix = _STEPS if images <= _MANY else _MANY_STEPS, _MIXED if images <= _MOST_MIXED else 0.0
    return replace(least, steps=steps, cutmix=cutmix)


def with_recipe(made: SyntheticSet, augmentation: str) -> SyntheticSet:
    """Let a set of many images be trained on by steps.

    Args:
        made: the set. One of a batch at most keeps its recipe, and so does one whose recipe is not the published one.
        augmentation: see :func:`recipe_for`.

    Returns:
        The set, with the recipe for its number of images where it has more.
    """
    if len(made) <= made.recipe.batch_size or made.recipe.schedule != "step":
        return made
    return replace(made, recipe=recipe_for(len(made), augmentation))


@dataclass(frozen=True)
class Start:
    """What a method that selects chose while its number of images was looked for.

    Attributes:
        state: of the method.
        generator: state of the run's generator after that.
        coded: the set that it is, as it is stored; without its provenance.
    """

    state: State
    generator: Tensor
    coded: SyntheticSet


@dataclass(frozen=True)
class Storage:
    """A codec, and the bytes that a set may take.

    Attributes:
        codec: its name with options.
        nbytes: of the set, labels and all; ``None`` for as many as it takes.
        shape: that whole images are made smaller to first; ``()`` for none.
    """

    codec: str
    nbytes: int | None = None
    shape: tuple[int, ...] = ()

    @property
    def afterwards(self) -> bool:
        """Whether nothing of a run depends on it: samples are stored one by one, and however many bytes they take."""
        return self.nbytes is None and isinstance(codec_of(self.codec), Plain)

    def to_json(self) -> dict[str, Any]:
        """Return what of it belongs to the identity of a run."""
        return {"codec": self.codec} if self.nbytes is None else {"codec": self.codec, "nbytes": self.nbytes}

    def store(self, made: SyntheticSet) -> SyntheticSet:
        """Code a set; if it takes too many bytes, without the last images of each class.

        Raises:
            OptionError: the codec cannot hold such samples.
            BudgetError: one image of each class takes too many bytes.
        """
        coded = self._coded(made)
        if self.nbytes is None or coded.nbytes <= self.nbytes:
            return coded
        most = int(made.hard_targets.bincount().max())
        guess = max(1, most * self.nbytes // coded.nbytes)
        found = _largest(lambda number: self._coded(_first(made, number)), self.nbytes, guess, most - 1, _WASTE)
        if found is None:
            self._refuse(coded.num_classes, self._coded(_first(made, 1)).nbytes)
        return found

    def store_alike(self, made: Sequence[SyntheticSet]) -> list[SyntheticSet]:
        """Code sets of as many images, as those that a method made of several seeds; they stay of as many.

        Raises:
            OptionError: see :meth:`store`.
        """
        coded = [self.store(one) for one in made]
        least = min(map(len, coded))
        number = least // coded[0].num_classes
        return [
            own if len(own) == least else self._coded(_first(one, number)) for one, own in zip(made, coded, strict=True)
        ]

    def sized(self, method: Distiller, data: LabeledData, seed: int) -> tuple[Distiller, Start | None]:
        """Replace ``images_per_class`` by what fits into the bytes.

        A method that learns gets as many as real images would fit. One that selects is run until what it chose fills
        the bytes, first with that number; rarely more than three times.

        Args:
            method: with an option ``images_per_class``.
            data: real data.
            seed: of the run.

        Returns:
            The method and, where that was found by running it, what it chose.

        Raises:
            OptionError: it has no such option, or the codec cannot hold such samples.
            BudgetError: one image of each class takes too many bytes.
        """
        check_sizable(method)
        method = settled(method, data.shape)
        options: Any = method
        if self.nbytes is None:
            return method, None
        factor, codec = getattr(method, "factor", 1), codec_of(self.codec)
        most = min(map(len, data.class_indices)) // factor**2
        if not most:  # the method itself says what is wrong
            return replace(options, images_per_class=1), None
        if isinstance(codec, Plain):
            return replace(options, images_per_class=self._counted(factor, codec, data)), None
        draw = _real(data, factor, bool(getattr(method, "soft_labels", False)), seed)
        real = _largest(lambda number: self._coded(draw(number)), self.nbytes, 1, most, _ROUGH)
        if real is None:
            self._refuse(data.num_classes, self._coded(draw(1)).nbytes)
        number = len(real) // data.num_classes // factor**2
        if method.steps:
            return replace(options, images_per_class=number), None
        starts: dict[int, Start] = {}
        rng = seeded(seed)
        about: Any = replace(options, images_per_class=number)
        prepared = about.prepare(data, rng) if isinstance(method, Prepares) else None
        ready = rng.get_state()

        def select(number: int) -> SyntheticSet:
            rng.set_state(ready)
            sized: Any = replace(options, images_per_class=number)
            state = sized.init(data, rng) if prepared is None else sized.init(data, rng, prepared)
            coded = self._coded(sized.result(state, data).to("cpu"))
            starts[number] = Start(state, rng.get_state(), coded)
            return coded

        found = _largest(select, self.nbytes, number, most, _WASTE)
        if found is None:
            self._refuse(data.num_classes, select(1).nbytes)
        number = next(number for number, start in starts.items() if start.coded is found)
        return replace(options, images_per_class=number), starts[number]

    def _counted(self, factor: int, plain: Plain, data: LabeledData) -> int:
        """Count the images of each class that fit, as all take the same."""
        own = self.shape if self.shape and factor == 1 else reduced_shape(data.shape, factor)
        stored = reduced_shape(own, plain.factor)
        assert self.nbytes is not None
        found = images_within(self.nbytes, data, stored, plain.bits) // factor**2
        if not found:
            self._refuse(data.num_classes, bytes_of(data.num_classes * factor**2, data, stored, plain.bits))
        return found

    def _coded(self, made: SyntheticSet) -> SyntheticSet:
        return (reduced_to(made, self.shape) if self.shape else made).compress(self.codec)

    def _refuse(self, classes: int, needed: int) -> NoReturn:
        raise BudgetError(
            f"{self.nbytes} bytes are too few for one image of each of {classes} classes, which take {needed} with "
            f"codec {self.codec}; allow {needed} or more, or choose a codec that takes fewer"
        )


def check_sizable(method: Distiller) -> None:
    """Refuse a method without a number of images.

    Raises:
        OptionError: it has no option ``images_per_class``.
    """
    if "images_per_class" not in getattr(method, "__dataclass_fields__", ()):
        raise OptionError(
            f"{method.name} has no images_per_class that could be fitted to a number of bytes; leave nbytes out"
        )


def storage_for(data: LabeledData, codec: str | Codec | None, nbytes: int | None) -> Storage | None:
    """Settle how to store a set, before any work is done.

    Args:
        data: real data that it will be made from.
        codec: name with options, the codec itself, ``"auto"`` for one that suits the data, or ``None`` for none, or
            for ``"auto"`` where there is a number of bytes.
        nbytes: that the set may take.

    Raises:
        OptionError: an option is unknown or outside its range, or the codec cannot hold such samples.
    """
    if nbytes is not None and nbytes < 1:
        raise OptionError(f"nbytes is {nbytes}; it must be at least 1")
    if codec is None and nbytes is None:
        return None
    spec = suited(data, nbytes) if codec in (None, "auto") else spec_of(codec)
    codec_of(spec).check(data.shape, data.preprocess.kind)
    return Storage(_finest(spec, data, nbytes) if nbytes and codec in (None, "auto") else spec, nbytes)


def _finest(spec: str, data: LabeledData, nbytes: int) -> str:
    """Make a codec finer where all images fit: the bytes that are left buy nothing else."""
    most = min(map(len, data.class_indices))
    some, draw = min(most, max(1, _SOME // data.num_classes)), _real(data, 1, False, 0)
    if not most or draw(some).compress(spec).nbytes * most > _UNSURE * nbytes * some:
        return spec
    whole, finer = draw(most), _FINER[spec.partition(":")[0]]

    def large(level: str) -> bool:
        return whole.compress(level).nbytes > nbytes

    if large(spec):
        return spec
    levels = [spec, *finer[finer.index(spec) + 1 :]]
    return levels[bisect_left(levels, True, lo=1, key=large) - 1]  # the one before the first that does not fit


def reduced_to(made: SyntheticSet, shape: tuple[int, ...]) -> SyntheticSet:
    """Store whole images as small as a shape; those that are smaller already stay as they are."""
    if made.network_shape or tuple(made.inputs.shape[1:]) == shape:
        return made
    return replace(made, inputs=reduce_to(made.inputs, shape), levels=None, network_shape=made.shape)


def _largest(
    make: Callable[[int], SyntheticSet], nbytes: int, guess: int, most: int, waste: float
) -> SyntheticSet | None:
    """Find the set of the most images of each class that fits into a number of bytes.

    Bytes grow nearly in a straight line with the images, so that few trials do; if they do not, the interval between a
    number that fits and one that does not is halved.

    Args:
        make: makes the set of a number.
        nbytes: that it may take.
        guess: number to try first.
        most: that may be tried.
        waste: share of the bytes that may be left.

    Returns:
        The set, which leaves less of the bytes than that share or than another image of each class takes; ``None``
        where one of each does not fit.
    """
    points: list[tuple[int, int]] = [(0, 0)]  # numbers that fit, and their bytes
    above: tuple[int, int] | None = None
    best: SyntheticSet | None = None
    tries, guess = 0, min(guess, most)
    with parts(_USUAL, "finding how many images fit", counted=True) as tried:
        while points[-1][0] < most and (above is None or above[0] > points[-1][0] + 1):
            made = make(guess)
            tries += 1
            tried()
            if made.nbytes > nbytes:
                above = (guess, made.nbytes)
            else:
                best = made
                points.append((guess, made.nbytes))
                if nbytes - made.nbytes <= waste * nbytes:
                    break
            guess = _next(points, above, nbytes, most, halve=tries >= _GUESSES)
    return best


def _next(points: list[tuple[int, int]], above: tuple[int, int] | None, nbytes: int, most: int, *, halve: bool) -> int:
    """Choose the number to try next, between the largest that fits and the smallest that does not."""
    low, size = points[-1]
    high = most + 1 if above is None else above[0]
    if above is not None and halve:
        return (low + high) // 2
    (a, of_a), (b, of_b) = (points[-1], above) if above is not None else (points[-2], points[-1])
    slope = max((of_b - of_a) / (b - a), 0.01)
    return max(low + 1, min(high - 1, low + int((nbytes - size) / slope)))


def _first(made: SyntheticSet, number: int) -> SyntheticSet:
    """Keep the first images of each class."""
    each, rest = divmod(len(made), made.num_classes)
    if made.targets.ndim == 2 and not rest:
        rank = torch.arange(len(made)) % each  # a teacher may take an image for another class than it was made for
    else:
        labels = made.hard_targets
        rank = (one_hot(labels, made.num_classes).cumsum(0) - 1).gather(1, labels[:, None])[:, 0]
    kept = rank < number
    provenance = dict(made.provenance)
    if "training" in provenance:
        provenance["training"] = _fewer(provenance["training"], kept)
    return replace(made, inputs=made.inputs[kept], targets=made.targets[kept], stored=None, provenance=provenance)


def _fewer(training: Mapping[str, Any], kept: Tensor) -> dict[str, Any]:
    """Leave samples out of the batches of a learned training."""
    places = dict(zip(kept.nonzero()[:, 0].tolist(), range(len(kept)), strict=False))
    batches = ([places[k] for k in batch if k in places] for batch in training["batches"])
    return {**training, "batches": [batch for batch in batches if batch]}


def _real(data: LabeledData, factor: int, soft: bool, seed: int) -> Callable[[int], SyntheticSet]:
    """Return what draws real images, stored and labeled as a method makes them, to see what they take."""
    rng = seeded(seed)
    orders = [members[torch.randperm(len(members), generator=rng)] for members in data.class_indices]
    shape = reduced_shape(data.shape, factor)

    def draw(number: int) -> SyntheticSet:
        inputs = data.batch(torch.cat([order[: number * factor**2] for order in orders]))
        targets = torch.arange(data.num_classes).repeat_interleave(number * factor**2)
        labels = one_hot(targets, data.num_classes).float() if soft else targets
        whole = SyntheticSet(inputs.cpu(), labels, data.num_classes, data.preprocess.to("cpu"))
        small = whole.inputs if factor == 1 else reduce_to(whole.inputs, shape)
        return replace(whole, inputs=small, network_shape=data.shape)

    return draw
