"""What a memory keeps of one experience as bytes: images behind a codec, in layers that can be dropped.

As classes come, each has a smaller share of the memory's bytes. Coded images are not coded again for that, which would
lose more of photographs each time: an arrival is cut into layers of images, the first of which fits into the share that
it will have in the end, the first two into the share of before, and so on. So the memory is full from the start and
shrinks by dropping layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddplug.avalanche.groups import GroupKey, GroupMemory
from ddplug.avalanche.schema import Schema
from ddplug.data.preprocess import Identity, Preprocess, Standardize
from ddplug.synthetic.codecs.protocol import codec_of
from ddplug.synthetic.recipe import Recipe
from ddplug.synthetic.stored import Stored, store

__all__ = ["Arrival", "arrive", "cuts", "fewer", "image_bytes", "interleaved", "range_of", "spread"]

_COUNT_BYTES = 2
"""Of the number of images that a group has in a layer: all that is stored of their labels."""

_RATIO = 1.9
"""Least growth from one cut to the next: a layer of few images takes more bytes for each."""

_PROBE = 64
"""Images that are coded to see what one takes, if nothing is known."""

_RANGES = 0.125
"""Share of the bytes of vectors that ranges of each column may take in all layers; one of them all otherwise."""

_SLACK = 0.98
"""Share of the bytes that is aimed at, so that layers are rarely coded twice."""


@dataclass(frozen=True, eq=False)
class Arrival:
    """Images of some groups of one experience.

    Attributes:
        groups: whose they are.
        seen: how many real samples those of each group stand for.
        layers: streams of images, each of all groups, in the order in which they are kept.
        preprocess: from what the codec holds to what the learner sees.
        schema: how the stream's items look.
        recipe: how to train on the images alone.
        extra: bytes that are stored beside each image.
    """

    groups: tuple[GroupKey, ...]
    seen: tuple[int, ...]
    layers: tuple[Stored, ...]
    preprocess: Preprocess
    schema: Schema
    recipe: Recipe
    extra: int = 0

    def __len__(self) -> int:
        return sum(sum(layer.groups) for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of the streams, of the numbers of images, and of the range that they were mapped to."""
        own = sum(tensor.numel() * 4 for tensor in self.preprocess.tensors().values())
        return own + sum(self._takes(layer) for layer in self.layers)

    def _takes(self, layer: Stored) -> int:
        """Return the bytes that a layer takes with all that belongs to it."""
        return layer.nbytes + self.extra * sum(layer.groups) + _COUNT_BYTES * len(self.groups)

    @property
    def numbers(self) -> dict[GroupKey, int]:
        """How many images of each group there are."""
        return {group: sum(layer.groups[k] for layer in self.layers) for k, group in enumerate(self.groups)}

    @cached_property
    def images(self) -> tuple[Tensor, ...]:
        """The ``(n, *stored)`` images of each group, as small as they are stored; not kept in copies and pickles."""
        parts = [self._own(layer.decode(self.preprocess)).split(list(layer.groups)) for layer in self.layers]
        return tuple(torch.cat(mine) for mine in zip(*parts, strict=True))

    def _own(self, decoded: Tensor) -> Tensor:
        """Return vectors as such, that were coded as series of one channel; others as they are."""
        return decoded.flatten(1) if len(self.schema.shape) == 1 else decoded

    @property
    def short(self) -> list[int]:
        """Numbers of images of the groups that had no more samples than are kept."""
        own = zip(self.numbers.values(), self.seen, strict=True)
        return [number for number, seen in own if number > 0 and number >= seen]

    def memories(self) -> dict[GroupKey, GroupMemory]:
        """Return the memory of each group."""
        return {
            group: GroupMemory(group, images, None, None, seen, 0, self.recipe, self.schema)
            for group, seen, images in zip(self.groups, self.seen, self.images, strict=True)
        }

    def beside(self, extra: int) -> Arrival:
        """Count other bytes beside each image: a learner's outputs may have become more."""
        if extra == self.extra:
            return self
        made = replace(self, extra=extra)
        if "images" in vars(self):
            made._know(self.images)
        return made

    def within(self, nbytes: int, forms: Sequence[str] = ()) -> Arrival | None:
        """Keep the first layers that fit into a number of bytes; if none does, code the first with fewer images.

        Args:
            nbytes: that all may take.
            forms: codecs that take less and less, for where not one image of each group fits.

        Returns:
            ``None`` where these do not fit by any of them.
        """
        kept, smaller = self, iter(forms)
        while kept.nbytes > nbytes and len(kept.layers) > 1:
            kept = replace(kept, layers=kept.layers[:-1])
        if kept is not self and "images" in vars(self):
            kept._know([images[:n] for images, n in zip(self.images, kept.numbers.values(), strict=True)])
        while kept.nbytes > nbytes:
            share, codec = min(0.95, _SLACK * nbytes / kept.nbytes), kept.layers[0].codec
            numbers = fewer(kept.layers[0].groups, share)
            if numbers == list(kept.layers[0].groups):
                smallest = next(smaller, None)
                if smallest is None:
                    return None
                codec = smallest
            kept = kept._coded([images[:n] for images, n in zip(kept.images, numbers, strict=True)], codec)
        return kept

    def without(self, groups: set[GroupKey]) -> Arrival | None:
        """Leave groups out; ``None`` where nothing is left."""
        places = [place for place, group in enumerate(self.groups) if group not in groups]
        if len(places) == len(self.groups):
            return self
        if not places:
            return None
        rest = replace(
            self,
            groups=tuple(self.groups[place] for place in places),
            seen=tuple(self.seen[place] for place in places),
        )
        kept = [layer.keep(places) for layer in self.layers]
        if None in kept:
            return rest._coded([self.images[place] for place in places], self.layers[0].codec)
        # a stream still names the groups that were left out, with no images
        layers = [replace(layer, groups=tuple(layer.groups[place] for place in places)) for layer in kept if layer]
        rest = replace(rest, layers=tuple(layers))
        if "images" in vars(self):
            rest._know([self.images[place] for place in places])
        return rest

    def _coded(self, images: Sequence[Tensor], codec: str) -> Arrival:
        """Code images anew, in one layer."""
        whole = GroupMemory(self.groups[0], torch.cat(list(images)), None, None, 0, 0, self.recipe, self.schema)
        x = whole.images()
        x = x.reshape(len(x), *self.layers[0].shape)
        made = replace(self, layers=(store(codec, x, [len(mine) for mine in images], self.preprocess),))
        made._look([x])
        return made

    def _know(self, images: Sequence[Tensor]) -> None:
        """Take over what the images are, as decoding them takes longest."""
        vars(self)["images"] = tuple(images)

    def _look(self, inputs: Sequence[Tensor]) -> None:
        """Find out without decoding what was just coded, where the codec can tell.

        Args:
            inputs: that each layer was made of.
        """
        codec = codec_of(self.layers[0].codec)
        if codec.every > 1:
            return
        parts = []
        for layer, x in zip(self.layers, inputs, strict=True):
            decoded = self.preprocess.forward(codec.through(self.preprocess.inverse(x), layer.groups))
            parts.append(self._own(decoded).split(list(layer.groups)))
        self._know([torch.cat(mine) for mine in zip(*parts, strict=True)])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "images"}


def cuts(groups: int, before: int, planned: Sequence[int]) -> list[float]:
    """Return the shares of its bytes that an arrival will have to shrink to.

    Args:
        groups: that the memory has with the new ones.
        before: that it had without them.
        planned: groups that it will have after each experience, if that is known.

    Returns:
        Ascending, the last one 1.

    Example:
        >>> cuts(2, 0, [2, 4, 6, 8, 10]), cuts(10, 8, [2, 4, 6, 8, 10])
        ([0.2, 0.5, 1.0], [1.0])
    """
    later = [number for number in planned if number > groups]
    if not planned:
        each = max(1, groups - before)
        later = [groups + each * k for k in (1, 2, 4, 8, 16)]
    kept: list[float] = []
    for share in sorted({groups / number for number in later}):
        if not kept or share >= _RATIO * kept[-1]:
            kept.append(share)
    return [*(share for share in kept if share * _RATIO <= 1), 1.0]


def spread(number: int, samples: Sequence[int]) -> list[int]:
    """Divide a number of images over groups as evenly as their samples allow.

    Example:
        >>> spread(20, [3, 50, 50]), spread(9, [5, 2])
        ([3, 9, 8], [5, 2])
    """
    shares = [0] * len(samples)
    left, open_ = min(number, sum(samples)), list(range(len(samples)))
    while left > 0:
        each = max(1, left // len(open_))
        for place in open_:
            more = min(each, samples[place] - shares[place], left)
            shares[place] += more
            left -= more
        open_ = [place for place in open_ if shares[place] < samples[place]]
    return shares


def fewer(numbers: Sequence[int], share: float) -> list[int]:
    """Return how many images each group keeps of a share of all: those that have few keep them as long as they can.

    Example:
        >>> fewer([40, 41], 0.5), fewer([60, 3, 3], 0.5)
        ([20, 20], [27, 3, 3])
    """
    some = [number for number in numbers if number]
    if some and 2 * min(some) < max(some):
        return spread(max(len(some), int(sum(some) * share)), numbers)
    return [max(min(1, number), int(number * share)) for number in numbers]


def interleaved(old: int, new: int, share: float) -> Tensor:
    """Order old and new samples so that every beginning has the wanted share of old ones; either keeps its order.

    Args:
        old: number of old samples; they have the positions before the new ones.
        new: number of new samples.
        share: of old samples, 0 to 1.

    Returns:
        ``(old + new,)`` positions.

    Example:
        >>> interleaved(2, 4, 0.5)
        tensor([0, 2, 1, 3, 4, 5])
    """
    first = (torch.arange(old) + 0.5) / max(share, 1e-9)
    second = (torch.arange(new) + 0.5) / max(1 - share, 1e-9)
    return torch.cat([first, second]).argsort(stable=True)


def image_bytes(x: Tensor, codec: str) -> float:
    """Return the bytes that a codec takes for one of ``(n, *shape)`` samples."""
    return store(codec, x, [len(x)], range_of([x])).nbytes / len(x)


def arrive(
    samples: Mapping[GroupKey, Tensor],
    seen: Sequence[int],
    codec: str,
    nbytes: int,
    shares: Sequence[float],
    cost: float | None,
    schema: Schema,
    recipe: Recipe,
    extra: int = 0,
) -> Arrival | None:
    """Code as many samples of each group as fit.

    Vectors are coded as series of one channel where ranges of each column would take too much of the bytes; columns are
    then expected on one scale.

    Args:
        samples: ``(n, *shape)`` float32 of each group, in the order in which they are to be taken.
        seen: how many samples those of each group stand for.
        codec: name with options.
        nbytes: that all may take.
        shares: see :func:`cuts`.
        cost: bytes that an image is expected to take; ``None`` to code some and see.
        schema: how the stream's items look.
        recipe: how to train on the images alone.
        extra: bytes that are stored beside each image.

    Returns:
        ``None`` where not one image fits.
    """
    preprocess = range_of(list(samples.values()))
    if len(schema.shape) == 1 and 8 * schema.shape[0] * len(shares) > _RANGES * nbytes:
        samples = {group: x[:, None] for group, x in samples.items()}
    arrival = Arrival(tuple(samples), tuple(seen), (), preprocess, schema, recipe, extra)
    offers, taken = [len(x) for x in samples.values()], [0] * len(samples)
    inputs: list[Tensor] = []

    def rows(numbers: Sequence[int]) -> Tensor:
        return torch.cat([x[t : t + n] for x, t, n in zip(samples.values(), taken, numbers, strict=True)])

    def coded(numbers: Sequence[int]) -> Stored:
        return store(codec, rows(numbers), numbers, preprocess)

    if cost is None:
        probe = spread(_PROBE, offers)
        cost = coded(probe).nbytes / sum(probe) + extra
    for share in shares:
        room = int(nbytes * share) - arrival.nbytes
        left = [offer - t for offer, t in zip(offers, taken, strict=True)]
        numbers, layer = _fitting(coded, arrival._takes, left, room, cost)
        first = not arrival.layers and share < 1  # the last layer to be dropped has all groups
        if layer is None or (first and not all(numbers)):
            continue
        cost = arrival._takes(layer) / sum(numbers)
        arrival = replace(arrival, layers=(*arrival.layers, layer))
        inputs.append(rows(numbers))
        taken = [t + n for t, n in zip(taken, numbers, strict=True)]
    if not arrival.layers:
        return None
    arrival._look(inputs)
    return arrival


def _fitting(
    coded: Callable[[Sequence[int]], Stored],
    takes: Callable[[Stored], int],
    left: Sequence[int],
    room: int,
    cost: float,
) -> tuple[list[int], Stored | None]:
    """Code about as many images as fit into some room; fewer, as long as they take more."""
    number = int(_SLACK * room / cost)
    while number > 0:
        numbers = spread(number, left)
        if not sum(numbers):
            break
        layer = coded(numbers)
        if takes(layer) <= room:
            return numbers, layer
        number = min(number - 1, int(_SLACK * sum(numbers) * room / takes(layer)))
    return [0] * len(left), None


def range_of(samples: Sequence[Tensor]) -> Preprocess:
    """Return the map from ``[0, 1]`` to images of any range: codecs for photographs clip what lies outside."""
    if samples[0].ndim != 4:
        return Identity()
    low = torch.stack([x.amin((0, 2, 3)) for x in samples if len(x)]).amin(0)
    high = torch.stack([x.amax((0, 2, 3)) for x in samples if len(x)]).amax(0)
    if bool((low >= 0).all() and (high <= 1).all()):
        return Identity()
    width = (high - low).clamp_min(1e-6)
    return Standardize(-low / width, 1 / width)
