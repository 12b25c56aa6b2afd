r"""Lossless coding of small images in few bits a number: an adaptive context model, and a range coder behind it.

A number is coded bit by bit, the highest first. The probability of each bit comes from counts of what followed the same
*context* before: the neighbors above and to the left, the bits of the number that are known, the channel before, and
the part of the image. Contexts of growing detail are chained,

.. math::  p_k = \frac{n_{1,k} + \kappa_k \, p_{k-1}}{n_{0,k} + n_{1,k} + \kappa_k},

so that a detailed context that was hardly seen yet leans on the coarser one. All of it is integer arithmetic: a stream
decodes to the same numbers on every machine.

All images of a group are coded at once, position by position, with the counts of the groups before; groups double in
size, so that 10,000 images take fourteen passes, and the first ones teach the model without a great loss.

Reference: the template of ten neighbors is that of JBIG (ITU-T T.82, 1993); the chain follows prediction by partial
matching (Cleary & Witten 1984) with one interpolation weight an order. The range coder is that of ``constriction``
(Bamler, "Understanding Entropy Coding With Asymmetric Numeral Systems", arXiv 2201.01741).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from ddplug.errors import FormatError

__all__ = ["ContextModel", "Reader", "Writer", "check_stream", "decode", "doubling", "encode", "filled"]

Array = NDArray[np.int64]

_BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)

_ONE = 1 << 16
"""Probabilities are multiples of its inverse; it is a power of two, so that they are exact as floating point."""

_LEAST = 32
"""Smallest probability of a bit, times :data:`_ONE`: a surprise costs 11 bits, a certainty a thousandth of one."""

_MOST_NUMBERS_PER_BYTE = 12_000
"""No byte of a stream stands for more numbers, whatever they are: a certain bit costs at least 1/1420 of a bit."""

_MOST_UNUSUAL = 256
"""Bits of numbers that a byte may stand for on average where there are many: else a few bytes fill the memory."""

_FEW = 1 << 22
"""Bits of numbers that may be packed as tightly as they can."""

_NEIGHBORS = ((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1))
"""Rows and columns of known neighbors from a position, the nearest first."""

_AT_ONCE = 1 << 19
"""Bits of known numbers that are looked at together, unless a line has more."""

_CELLS = 7
"""Parts of an image along each side that statistics are kept apart for."""


@dataclass(frozen=True)
class _Place:
    """A position in all images of a group: what is known around it.

    Attributes:
        known: ``(lanes, C, H + 2, W + 4)`` numbers, with a border of zeros, filled up to the position.
        channel, row, column: the position.
        shape: ``(C, H, W)``.
        bits: of a number.
    """

    known: Array
    channel: int
    row: int
    column: int
    shape: tuple[int, int, int]
    bits: int

    def at(self, down: int, right: int) -> Array:
        """Return the ``(lanes,)`` neighbors in a direction."""
        return self.known[:, self.channel, self.row + 2 + down, self.column + 2 + right]

    @property
    def plain(self) -> Array:
        """The channel, for all lanes."""
        return np.full(len(self.known), self.channel, np.int64)

    @property
    def before(self) -> Array:
        """The ``(lanes,)`` numbers of the channel before; zeros in the first."""
        if not self.channel:
            return np.zeros(len(self.known), np.int64)
        return self.known[:, self.channel - 1, self.row + 2, self.column + 2]

    @property
    def cell(self) -> int:
        """Number of the part of the image."""
        _, height, width = self.shape
        return (self.row * _CELLS // height) * _CELLS + self.column * _CELLS // width


@dataclass(frozen=True)
class _Lines:
    """Some lines of all images of a group, all of whose numbers are known: every :class:`_Place` of them at once.

    Attributes:
        known: ``(lanes, C, H + 2, W + 4)`` numbers, with a border of zeros.
        lines: of the images.
        shape: ``(C, H, W)``.
        bits: of a number.
    """

    known: Array
    lines: range
    shape: tuple[int, int, int]
    bits: int

    def _in_order(self, field: Array) -> Array:
        """Lay ``(lanes, C, lines, W)`` out in the order in which they are coded."""
        return np.ascontiguousarray(field.transpose(2, 3, 1, 0)).reshape(-1)

    def at(self, down: int, right: int) -> Array:
        """Return the ``(places * lanes,)`` neighbors in a direction."""
        top, left = self.lines.start + 2 + down, 2 + right
        return self._in_order(self.known[:, :, top : top + len(self.lines), left : left + self.shape[2]])

    def _each(self, numbers: Array) -> Array:
        """Spread numbers that can be broadcast to ``(lines, W, C, lanes)``."""
        return np.broadcast_to(numbers, (len(self.lines), self.shape[2], self.shape[0], len(self.known))).reshape(-1)

    @property
    def plain(self) -> Array:
        return self._each(np.arange(self.shape[0])[:, None])

    @property
    def before(self) -> Array:
        channel_before = np.pad(self.known[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
        top = self.lines.start + 2
        return self._in_order(channel_before[:, :, top : top + len(self.lines), 2:-2])

    @property
    def column(self) -> Array:
        return self._each(np.arange(self.shape[2])[:, None, None])

    @property
    def cell(self) -> Array:
        _, height, width = self.shape
        rows = np.array(self.lines) * _CELLS // height * _CELLS
        return self._each((rows[:, None] + np.arange(width) * _CELLS // width)[:, :, None, None])


Contexts = list[tuple[int, int, Array]]
"""For each order of a chain: weight of the order before, number of contexts, and the context ``(lanes,)``."""


def _binary(place: _Place | _Lines) -> Contexts:
    """Chain for drawings of one bit a number: 4, 7 and 10 neighbors, then 10 of them in each part of the image."""
    found: Contexts = []
    context = place.plain
    for k, (down, right) in enumerate(_NEIGHBORS, 1):
        context = context * 2 + place.at(down, right)
        if k in (4, 7, 10):
            found.append((1 if k == 4 else 3, place.shape[0] << k, context))
    return [*found, (6, (place.shape[0] << 10) * _CELLS**2, context * _CELLS**2 + place.cell)]


def _tonal(place: _Place | _Lines) -> Contexts:
    """Chain for numbers of more bits: a prediction from the neighbors, these themselves, the channel before."""
    channels, bits = place.shape[0], place.bits
    left, above, corner = place.at(0, -1), place.at(-1, 0), place.at(-1, -1)
    prediction = np.clip(left + above - corner, 0, (1 << bits) - 1) >> max(0, bits - 4)
    few = max(0, bits - 2)
    plain = place.plain
    predicted = plain * 16 + prediction
    around = ((plain * 4 + (left >> few)) * 4 + (above >> few)) * 16 + prediction
    if channels == 1:
        cells = around * _CELLS**2 + place.cell
        return [(2, 1, plain), (2, 16, predicted), (2, 256, around), (2, 256 * _CELLS**2, cells)]
    before = place.before >> max(0, bits - 3)
    with_before, all_of_it = predicted * 8 + before, around * 8 + before
    sizes = (channels, channels * 16, channels * 128, channels * 2048)
    return [(2, size, found) for size, found in zip(sizes, (plain, predicted, with_before, all_of_it), strict=True)]


def _columnar(place: _Place | _Lines) -> Contexts:
    """Chain for rows of a table: one context for all, then one a column."""
    zero = np.zeros_like(place.plain)
    return [(2, 1, zero), (2, place.shape[2], zero + place.column)]


def _chain(shape: Sequence[int], bits: int) -> Callable[[_Place | _Lines], Contexts]:
    if tuple(shape[:2]) == (1, 1):
        return _columnar
    return _binary if bits == 1 else _tonal


class ContextModel:
    """Counts of the bits seen in each context; what both directions of the coder share."""

    def __init__(self) -> None:
        self.ones: list[Array] = []
        self.all: list[Array] = []

    def probability(
        self, contexts: Contexts, node: Array, bits: int, prior: int = _ONE // 2
    ) -> tuple[Array, list[Array]]:
        """Compute the probabilities ``(lanes,)`` of a one, times 2**16, and where to count what comes.

        Args:
            contexts: a chain, see :data:`Contexts`.
            node: ``(lanes,)`` which of the bits of a number it is, below ``2**bits``.
            bits: of a number.
            prior: the probability of a one where nothing was seen, times 2**16.
        """
        if not self.all:
            self.ones, self.all = ([np.zeros(size << bits, np.int64) for _, size, _ in contexts] for _ in range(2))
        chance = np.full(len(node), prior, np.int64)
        places = []
        for (weight, _, context), ones, seen in zip(contexts, self.ones, self.all, strict=True):
            place = (context << bits) + node
            chance = (ones[place] * _ONE + weight * chance) // (seen[place] + weight)
            places.append(place)
        return np.clip(chance, _LEAST, _ONE - _LEAST), places

    def count(self, places: list[Array], bit: Array) -> None:
        """Take note of the bits ``(lanes,)`` that came."""
        for place, ones, seen in zip(places, self.ones, self.all, strict=True):
            np.add.at(seen, place, 1)
            np.add.at(ones, place, bit)

    def known(self, contexts: Contexts, node: Array, bit: Array, lanes: int, bits: int) -> Array:
        """Compute for known bits at once what :meth:`probability` and :meth:`count` give one pass after the other.

        Args:
            contexts: a chain, for all passes.
            node: ``(passes * lanes,)``, see :meth:`probability`.
            bit: ``(passes * lanes,)`` what comes.
            lanes: bits a pass.
            bits: of a number.
        """
        if not self.all:
            self.ones, self.all = ([np.zeros(size << bits, np.int64) for _, size, _ in contexts] for _ in range(2))
        chance = np.full(len(node), _ONE // 2, np.int64)
        for (weight, _, context), ones, seen in zip(contexts, self.ones, self.all, strict=True):
            place = (context << bits) + node
            in_all, of_ones = _earlier(place, bit, lanes)
            chance = ((ones[place] + of_ones) * _ONE + weight * chance) // (seen[place] + in_all + weight)
            seen += np.bincount(place, minlength=len(seen))
            ones += np.bincount(place[bit == 1], minlength=len(ones))
        return np.clip(chance, _LEAST, _ONE - _LEAST)


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


def doubling(rows: int) -> Iterator[slice]:
    """Cut rows into groups, each as large as all before it."""
    edges = [0, 1]
    while edges[-1] < rows:
        edges.append(2 * edges[-1])
    return (slice(first, min(last, rows)) for first, last in pairwise(edges))


def _encode(codes: Array, bits: int, visit: Callable[[Array, Array | None], Array]) -> None:
    """Go through all bits of all numbers in the order of the stream; they are known, so that lines are taken at once.

    Args:
        codes: ``(M, C, H, W)``.
        bits: of a number.
        visit: takes the probabilities ``(n,)`` and the bits.
    """
    rows, channels, height, width = codes.shape
    if not codes.size:
        return
    shape = (channels, height, width)
    chain, seen = _chain(shape, bits), ContextModel()
    shifts = np.arange(bits)[::-1, None]
    for group in doubling(rows):
        field = np.pad(codes[group], ((0, 0), (0, 0), (2, 0), (2, 2)))
        lanes = len(field)
        step = max(1, _AT_ONCE // (lanes * channels * width * bits))
        for first in range(0, height, step):
            lines = _Lines(field, range(first, min(first + step, height)), shape, bits)
            value = lines.at(0, 0).reshape(-1, 1, lanes)
            bit, node = (value >> shifts) & 1, ((1 << bits) | value) >> (shifts + 1)

            def each(context: Array, like: Array = node, lanes: int = lanes) -> Array:
                return np.broadcast_to(context.reshape(-1, 1, lanes), like.shape).reshape(-1)

            contexts = [(weight, size, each(context)) for weight, size, context in chain(lines)]
            visit(seen.known(contexts, node.reshape(-1), bit.reshape(-1), lanes, bits), bit.reshape(-1))


def _decode(codes: Array, bits: int, visit: Callable[[Array, Array | None], Array]) -> None:
    """Fill ``(M, C, H, W)`` with numbers in the order of the stream; what comes depends on what came.

    Args:
        codes: to fill.
        bits: of a number.
        visit: takes the probabilities ``(lanes,)``, returns the bits.
    """
    rows, channels, height, width = codes.shape
    chain, seen = _chain((channels, height, width), bits), ContextModel()
    for group in doubling(rows):
        lanes = len(codes[group])
        field = np.zeros((lanes, channels, height + 2, width + 4), np.int64)
        for row, column, channel in np.ndindex(height, width, channels):
            contexts = chain(_Place(field, channel, row, column, (channels, height, width), bits))
            node = np.ones(lanes, np.int64)
            for _ in range(bits):
                chance, places = seen.probability(contexts, node, bits)
                bit = visit(chance, None)
                seen.count(places, bit)
                node = node * 2 + bit
            field[:, channel, row + 2, column + 2] = node - (1 << bits)
        codes[group] = field[:, :, 2:, 2:-2]


class Writer:
    """Collects bits with their probabilities, and codes them."""

    def __init__(self) -> None:
        self._chances: list[Array] = []
        self._bits: list[Array] = []

    def visit(self, chance: Array, bit: Array | None) -> Array:
        """Take bits ``(lanes,)`` whose probabilities of being one, times 2**16, are given; return them."""
        assert bit is not None
        self._chances.append(chance)
        self._bits.append(bit)
        return bit

    def finish(self) -> bytes:
        """Return the stream of all bits."""
        coder = constriction.stream.queue.RangeEncoder()
        if self._bits:
            bits = np.concatenate(self._bits).astype(np.int32)
            coder.encode(bits, _BERNOULLI, np.concatenate(self._chances) / _ONE)
        return bytes(coder.get_compressed().astype("<u4").tobytes())


class Reader:
    """Reads bits again, in the order in which they were written.

    Args:
        stream: of whole words of 4 bytes, see :func:`check_stream`.
    """

    def __init__(self, stream: bytes) -> None:
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(stream, "<u4").astype(np.uint32))

    def visit(self, chance: Array, _: Array | None) -> Array:
        """Read bits ``(lanes,)`` whose probabilities of being one, times 2**16, are given.

        Raises:
            FormatError: the stream was altered.
        """
        try:
            found: Array = self._coder.decode(_BERNOULLI, chance / _ONE).astype(np.int64)
        except AssertionError:
            raise FormatError("a stream does not hold numbers: it was altered") from None
        return found


def filled(stream: bytes, numbers: int, unusual: int = _MOST_UNUSUAL) -> bytes:
    """Add zeros at the end, which a reader takes there anyway, until :func:`check_stream` has nothing to say.

    Args:
        stream: of whole words.
        numbers: bits of numbers that it holds.
        unusual: that a byte may stand for on average, where there are many.
    """
    least = max(-(-numbers // _MOST_NUMBERS_PER_BYTE), -(-numbers // unusual) if numbers > _FEW else 0)
    return stream.ljust(-(-least // 4) * 4, b"\0")


def check_stream(stream: bytes, numbers: int, unusual: int = _MOST_UNUSUAL) -> None:
    """Refuse a stream that cannot hold as many numbers, or that would fill the memory from a few bytes.

    Args:
        stream: not trusted.
        numbers: see :func:`filled`.
        unusual: see :func:`filled`.

    Raises:
        FormatError: it is too short for so many numbers, or not of whole words.
    """
    most = min(_MOST_NUMBERS_PER_BYTE * len(stream), max(_FEW, unusual * len(stream)))
    if len(stream) % 4 or numbers > most:
        raise FormatError(f"a stream of {len(stream)} bytes cannot hold {numbers} bits")


def encode(codes: NDArray[Any], bits: int) -> bytes:
    """Code numbers of few bits.

    Args:
        codes: ``(M, C, H, W)`` whole numbers below ``2**bits``; rows of a table as ``(M, 1, 1, D)``.
        bits: of a number, 1 to 8.

    Returns:
        The stream. It does not hold its shape or its bits.

    Example:
        >>> stripes = np.tile([0, 1], (50, 1, 8, 4))
        >>> stream = encode(stripes, 1)
        >>> len(stream), bool((decode(stream, (50, 1, 8, 8), 1) == stripes).all())
        (20, True)
    """
    writer = Writer()
    _encode(codes.astype(np.int64), bits, writer.visit)
    return filled(writer.finish(), codes.size * bits)


def decode(stream: bytes, shape: tuple[int, int, int, int], bits: int) -> NDArray[np.uint8]:
    """Decode numbers; the inverse of :func:`encode`.

    Args:
        stream: what :func:`encode` gave.
        shape: ``(M, C, H, W)`` of the numbers.
        bits: of a number, 1 to 8.

    Returns:
        The numbers. A stream that was altered gives others, or fails.

    Raises:
        FormatError: the stream cannot hold as many numbers.
    """
    check_stream(stream, math.prod(map(int, shape)) * bits)
    codes = np.zeros(shape, np.int64)
    _decode(codes, bits, Reader(stream).visit)
    return codes.astype(np.uint8)
