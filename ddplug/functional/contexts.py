r"""What is foreseen of each bit of the numbers of small images, from what followed the same contexts before.

A number is coded bit by bit, the highest first. The probability of each bit comes from counts of what followed the same
*context* before: the neighbors above and to the left, the bits of the number that are known, the channel before, and
the part of the image. Contexts of growing detail are chained,

.. math::  p_k = \frac{n_{1,k} + \kappa_k \, p_{k-1}}{n_{0,k} + n_{1,k} + \kappa_k},

so that a detailed context that was hardly seen yet leans on the coarser one.

Where a group has more images than a bit has contexts, all contexts are looked at, once, and each image takes what its
own is; of few images, those that it has.

Reference: the template of ten neighbors is that of JBIG (ITU-T T.82, 1993); the chain follows prediction by partial
matching (Cleary & Witten 1984) with one interpolation weight an order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ONE", "Array", "ContextModel", "Contexts", "Counts", "Places", "models"]

Array = NDArray[np.int64]

Counts = NDArray[np.float64]
"""Whole numbers."""

ONE = 1 << 16
"""Probabilities are multiples of its inverse; it is a power of two, so that they are exact as floating point."""

_LEAST = 32
"""Smallest probability of a bit, times :data:`ONE`: a surprise costs 11 bits, a certainty a thousandth of one."""

_NEIGHBORS = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1))
"""Rows and columns of known neighbors from a position, the nearest first."""

_CELLS = 7
"""Parts of an image along each side that statistics are kept apart for."""

_DENSE_KNOWN, _DENSE_NEXT = 2, 1
"""Contexts of a bit for each lane up to which all are looked at, and not those of each lane: in coding, in decoding."""


@dataclass(frozen=True)
class Places:
    """A position of one channel in all images of a group, or those of some lines, and what is known around them.

    Attributes:
        known: ``(H + 2, W + 4, C, lanes)`` numbers, with a border of zeros, filled up to the positions at least.
        channel, row, column: the first position.
        bits: of a number.
        lines: number of whole lines, whose arrays are ``(lines, W, lanes)``; 0 for one position, and ``(lanes,)``.
    """

    known: NDArray[np.int16]
    channel: int
    row: int
    column: int
    bits: int
    lines: int = 0

    def at(self, down: int, right: int, channels_before: int = 0) -> NDArray[np.int16]:
        """Return the neighbors in a direction."""
        channel, top, left = self.channel - channels_before, self.row + 2 + down, self.column + 2 + right
        rows = slice(top, top + self.lines) if self.lines else top
        columns = slice(left, self.known.shape[1] - 2 + right) if self.lines else left
        found: NDArray[np.int16] = self.known[rows, columns, channel]
        return found

    @property
    def before(self) -> NDArray[np.int16]:
        """The numbers of the channel before; zeros in the first."""
        return self.at(0, 0, 1) if self.channel else np.zeros_like(self.at(0, 0))


class _Order(NamedTuple):
    """How detailed a context is.

    Attributes:
        weight: of the order before.
        size: number of contexts in a part of the image.
        apart: whether parts of the image have contexts of their own.
    """

    weight: int
    size: int
    apart: bool = False


@dataclass(frozen=True)
class _Chain:
    """Contexts of growing detail; each is the one of the next order, modulo the number of its own.

    Attributes:
        orders: from the coarsest.
        finest: returns the contexts of the last order at some places.
        parts: number of parts of an image.
        part: number of the part that each position of an image is in, ``(H, W)``.
    """

    orders: tuple[_Order, ...]
    finest: Callable[[Places], Array]
    parts: int
    part: Array


def _neighborhood(places: Places) -> Array:
    context = places.at(*_NEIGHBORS[0])
    for k, way in enumerate(_NEIGHBORS[1:], 1):
        context = context | places.at(*way) << k
    found: Array = context.astype(np.int64)
    return found


def _tones(places: Places) -> Array:
    """Return a prediction from the neighbors, then in color the channel before, then the neighbors themselves."""
    bits = places.bits
    left, above, corner = places.at(0, -1), places.at(-1, 0), places.at(-1, -1)
    prediction = np.minimum(np.maximum(left + above - corner, 0), (1 << bits) - 1) >> max(0, bits - 4)
    few = max(0, bits - 2)
    around = (left >> few) * 4 + (above >> few)
    if places.known.shape[2] > 1:
        around = around * min(8, 1 << bits) + (places.before >> max(0, bits - 3))
    found: Array = (around * min(16, 1 << bits) + prediction).astype(np.int64)
    return found


def _none(places: Places) -> Array:
    return np.zeros(places.at(0, 0).shape, np.int64)


def _chain(shape: tuple[int, int, int], bits: int) -> _Chain:
    """Return the contexts of numbers in ``(C, H, W)`` images.

    Drawings of one bit a number: 4, 7 and 10 neighbors, then 10 of them in each part of the image. Numbers of more
    bits: a prediction, the neighbors, the channel before or else the part of the image. Rows of a table: one context
    for all, then one a column.
    """
    channels, height, width = shape
    if (channels, height) == (1, 1):
        return _Chain((_Order(2, 1), _Order(2, 1, True)), _none, width, np.arange(width)[None])
    rows, columns = np.arange(height) * _CELLS // height, np.arange(width) * _CELLS // width
    image: tuple[int, Array] = (_CELLS**2, rows[:, None] * _CELLS + columns)
    if bits == 1:
        drawn = (_Order(1, 1 << 4), _Order(3, 1 << 7), _Order(3, 1 << 10), _Order(6, 1 << 10, True))
        return _Chain(drawn, _neighborhood, *image)
    predicted = min(16, 1 << bits)
    first = (_Order(2, 1), _Order(2, predicted))
    if channels == 1:
        return _Chain((*first, _Order(2, predicted * 16), _Order(2, predicted * 16, True)), _tones, *image)
    before = predicted * min(8, 1 << bits)
    return _Chain((*first, _Order(2, before), _Order(2, before * 16)), _tones, *image)


Contexts = list[tuple[int, int, Array]]
"""For each order of a chain: weight of the order before, number of contexts, and the context of each of ``n``."""


class ContextModel:
    """Counts of the bits seen in each context; what both directions of the coder share.

    Counts are whole numbers as float64, which divides faster. Below 2**53 the whole part of a quotient is exact even
    so: one that is no whole number is further from the next than what is lost by rounding it.
    """

    def __init__(self) -> None:
        self.counts: list[Counts] = []
        """For each order, of the bits with the weight of the order before, and of the ones times 2**16."""

    def _begin(self, orders: Iterable[tuple[int, int]]) -> None:
        for weight, size in orders:
            self.counts.append(np.stack([np.full(size, float(weight)), np.zeros(size)]))

    def probability(self, contexts: Contexts, prior: int = ONE // 2) -> Counts:
        """Compute the probabilities ``(n,)`` of a one, times 2**16.

        Args:
            contexts: a chain, see :data:`Contexts`.
            prior: the probability of a one where nothing was seen, times 2**16.
        """
        if not self.counts:
            self._begin((weight, size) for weight, size, _ in contexts)
        chance: Any = float(prior)
        for (weight, _, place), (seen, ones) in zip(contexts, self.counts, strict=True):
            chance = _mixed(chance, weight, seen.take(place), ones.take(place))
        return _bounded(chance)

    def count(self, contexts: Contexts, seen: NDArray[Any], ones: NDArray[Any]) -> None:
        """Take note of numbers of bits, and of the ones among them, that came in each context."""
        came = seen.astype(np.float64), ones * float(ONE)
        for (_, _, place), own in zip(contexts, self.counts, strict=True):
            for counts, more in zip(own, came, strict=True):
                np.add.at(counts, place, more)

    def known(self, contexts: Contexts, bit: Array, lanes: int) -> Counts:
        """Compute for known bits at once what :meth:`probability` and :meth:`count` give one pass after the other.

        Args:
            contexts: a chain, for all passes.
            bit: ``(passes * lanes,)`` what comes.
            lanes: bits a pass.
        """
        chance: Any = float(ONE // 2)
        for (weight, size, place), own in zip(contexts, self.counts, strict=True):
            in_all, of_ones = _earlier(place, bit, lanes)
            chance = _mixed(chance, weight, own[0].take(place) + in_all, own[1].take(place) + ONE * of_ones)
            if size <= len(place):
                own += _came(place, bit, size)
            else:  # a few of many
                np.add.at(own[0], place, np.ones(len(place)))
                np.add.at(own[1], place, bit * float(ONE))
        return _bounded(chance)


def _mixed(coarser: Any, weight: int, seen: Counts, ones: Counts) -> Counts:
    """Return the probabilities of an order, from those of the order before and ``ContextModel.counts``."""
    found: Counts = ones + coarser * weight
    found /= seen
    return np.floor(found, out=found)


def _bounded(chance: Counts) -> Counts:
    np.maximum(chance, _LEAST, out=chance)
    return np.minimum(chance, ONE - _LEAST, out=chance)


def _came(place: Array, bit: Array, size: int) -> Counts:
    """Count the bits in each of some places, and the ones among them times 2**16, ``(2, size)``."""
    kinds = (place + size * bit.astype(np.int64)).reshape(-1)
    counts = np.bincount(kinds, minlength=2 * size).reshape(2, size).astype(np.float64)
    counts[0] += counts[1]
    counts[1] *= ONE
    return counts


class _Bit(ContextModel):
    """The model of one of the bits of the numbers in a channel.

    Args:
        chain: of the numbers.
        nodes: what the bits before it can be.
    """

    def __init__(self, chain: _Chain, nodes: int) -> None:
        super().__init__()
        self.weights = [order.weight for order in chain.orders]
        self.sizes = [order.size * nodes for order in chain.orders]
        self.parts = [chain.parts if order.apart else 1 for order in chain.orders]
        self._begin((w, parts * size) for w, parts, size in zip(self.weights, self.parts, self.sizes, strict=True))
        split = zip(self.counts, self.parts, self.sizes, strict=True)
        self.by_part = [counts.reshape(2, parts, size) for counts, parts, size in split]

    def known_lines(self, finest: Array, part: Array, bit: Array) -> Counts:
        """Do the same as :meth:`known` for the passes of some lines.

        Args:
            finest: ``(lines, passes, lanes)`` contexts of the last order.
            part: ``(lines, passes)`` of the image, ascending in a line.
            bit: ``(lines, passes, lanes)`` what comes.
        """
        lanes = finest.shape[2]
        if self.sizes[-1] <= _DENSE_KNOWN * lanes:
            return np.stack([self._line(*line) for line in zip(finest, part, bit, strict=True)])
        each = np.broadcast_to(part[:, :, None], finest.shape).reshape(-1)
        return self.known(self._contexts(finest.reshape(-1), each), bit.reshape(-1), lanes).reshape(finest.shape)

    def _contexts(self, finest: Array, part: Any) -> Contexts:
        """Return the chain for contexts of the last order, and parts of the image; sizes are powers of two."""
        orders = zip(self.weights, self.sizes, self.parts, strict=True)
        return [(w, n * parts, (finest & (n - 1)) + (n * part if parts > 1 else 0)) for w, n, parts in orders]

    def _line(self, finest: Array, part: Array, bit: Array) -> Counts:
        """Look at all contexts of each pass of a line."""
        passes, most = len(finest), self.sizes[-1]
        place = finest + most * np.arange(passes)[:, None]
        came = _came(place, bit, passes * most).reshape(2, passes, most)
        first = np.searchsorted(part, part)  # pass of the same part
        runs = np.flatnonzero(first == np.arange(passes))
        before = []
        for size, own in zip(self.sizes, self.by_part, strict=True):
            summed = came if size == most else came.reshape(2, passes, -1, size).sum(2)
            earlier = np.cumsum(summed, 1)
            earlier -= summed
            if own.shape[1] > 1:
                before.append(own[:, part] + (earlier - earlier[:, first]))
                own[:, part[runs]] += np.add.reduceat(summed, runs, 1)
            else:
                before.append(own + earlier)
                own[:, 0] += summed.sum(1)
        return self._chances(before).take(place)

    def next(self, finest: Array, part: int, visit: Callable[[Counts], Array]) -> Array:
        """Decode the bits ``(lanes,)`` of a pass, and count them.

        Args:
            finest: ``(lanes,)`` contexts of the last order.
            part: of the image.
            visit: takes the probabilities ``(lanes,)``, returns the bits.
        """
        most = self.sizes[-1]
        if most > _DENSE_NEXT * len(finest):
            contexts = self._contexts(finest, part)
            bit = visit(self.probability(contexts))
            self.count(contexts, np.ones_like(bit), bit)
            return bit
        held = [own[:, part] if own.shape[1] > 1 else own[:, 0] for own in self.by_part]
        bit = visit(self._chances(held).take(finest))
        came = _came(finest, bit, most)
        for own in reversed(held):
            if own.shape[1] < came.shape[1]:
                came = came.reshape(2, -1, own.shape[1]).sum(1)
            own += came
        return bit

    def _chances(self, counts: Sequence[Counts]) -> Counts:
        """Compute the probabilities ``(..., contexts)`` from counts ``(2, ..., contexts)`` of each order."""
        chance: Any = np.full((*counts[0].shape[1:-1], 1), float(ONE // 2))
        for weight, (seen, ones) in zip(self.weights, counts, strict=True):
            split = (*seen.shape[:-1], -1, chance.shape[-1])
            chance = _mixed(chance[..., None, :], weight, seen.reshape(split), ones.reshape(split)).reshape(seen.shape)
        return _bounded(chance)


def _earlier(place: Array, bit: Array, lanes: int) -> tuple[Array, Array]:
    """Count for each of ``(passes * lanes,)`` bits those of earlier passes in the same place, and the ones of them."""
    number = len(place)
    shift = number.bit_length()
    keys = (place << shift) + np.arange(number)
    keys.sort()  # by place, then by time
    order, where = keys & ((1 << shift) - 1), keys >> shift
    turn = order // lanes
    new_place = np.concatenate([[True], where[1:] != where[:-1]])
    new_turn = new_place | np.concatenate([[True], turn[1:] != turn[:-1]])
    index = np.arange(number)
    first = np.maximum.accumulate(np.where(new_place, index, 0))
    own = np.maximum.accumulate(np.where(new_turn, index, 0))
    sums = np.concatenate([[0], np.cumsum(bit[order])])
    in_all, of_ones = np.empty(number, np.int64), np.empty(number, np.int64)
    in_all[order], of_ones[order] = own - first, sums[own] - sums[first]
    return in_all, of_ones


def models(shape: tuple[int, int, int], bits: int) -> tuple[_Chain, list[list[_Bit]]]:
    """Return the contexts, and models by channel and bit."""
    chain = _chain(shape, bits)
    return chain, [[_Bit(chain, 1 << k) for k in range(bits)] for _ in range(shape[0])]
