"""Lossless coding of the coefficients of transformed images: most are zero, and where they are not is foreseeable.

Coefficients are coded frequency by frequency, of all blocks of a group at once (:mod:`ddplug.functional.entropy`):
whether it is zero, its sign, and its size in unary. What is known is the size of the coefficients of lower frequencies
next to it, in chroma that of the channels before, and how many of the block's are not zero so far. Frequencies that no
block uses are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddplug.errors import FormatError
from ddplug.functional.contexts import ContextModel, Contexts, Counts
from ddplug.functional.entropy import Reader, Writer, check_stream, doubling, filled

__all__ = ["MOST_SIZE", "decode", "encode"]

Array = NDArray[np.int64]
Visit = Callable[[Counts, "NDArray[Any] | None"], NDArray[Any]]

MOST_SIZE = (1 << 16) - 1
"""Largest size of a coefficient."""

_HALF = 1 << 15
"""A probability of one half."""

_UNARY = 20
"""Sizes up to this are coded in unary, each step with a model of its own up to the sixth; what is beyond, in binary."""

_PRIOR = (40_000, 20_000, 10_000, 6_000, 4_000, 2_500, 1_500, 1_000)
"""Chance that a coefficient of each band is not zero, times 2**16, before anything was seen."""

_MOST_UNUSUAL = 1024
"""Coefficients that a byte may stand for on average, where there are many; photographs have a hundred or two."""

_NEAR, _ACTIVE, _BANDS = 12, 8, len(_PRIOR)

_EDGES = np.array([1, 3, 7, 15, 31, 63, 127])
"""Sums of sizes in a block from which on the next degree of activity begins."""

_DEGREE = np.searchsorted(_EDGES, np.arange(_EDGES[-1] + 1), side="right")
"""Degree of each sum."""

_EACH_NEAR, _EACH_ACTIVE = np.arange(_NEAR).repeat(_ACTIVE), np.tile(np.arange(_ACTIVE), _NEAR)
"""All that can be near, with all degrees of activity."""


class _Field:
    """What is known of the coefficients of a group of blocks.

    Args:
        lanes: number of blocks.
        shape: ``(C, h, w)`` of a block.
    """

    def __init__(self, lanes: int, shape: tuple[int, int, int]) -> None:
        channels, height, width = shape
        self.sizes = np.zeros((channels, height + 2, width + 2, lanes), np.int8)  # up to 3
        self.sums = np.zeros((channels, lanes), np.int64)  # up to the last of the edges

    def near(self, channel: int, u: int, v: int) -> Array:
        """Return how large the neighbors of lower frequency are, below :data:`_NEAR`."""
        f = self.sizes[channel]
        found = 2 * (f[u + 1, v + 2] + f[u + 2, v + 1]) + f[u + 1, v + 1] + f[u, v + 2] + f[u + 2, v]
        for before in range(channel):
            found = found + (1 + before) * np.minimum(self.sizes[before, u + 2, v + 2], 2)
        near: Array = np.minimum((found + 1) >> 1, _NEAR - 1).astype(np.int64)
        return near

    def activity(self, channel: int) -> Array:
        """Return how much of the block is not zero so far, below :data:`_ACTIVE`."""
        degree: Array = _DEGREE.take(self.sums[channel])
        return degree

    def take(self, channel: int, u: int, v: int, values: Array) -> None:
        sizes = np.minimum(np.abs(values), 3)
        self.sizes[channel, u + 2, v + 2] = sizes
        sums = self.sums[channel]
        sums += sizes
        np.minimum(sums, _EDGES[-1], out=sums)


def _order(shape: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
    """Return channel, row, column and band of each frequency in the order of the stream: low ones first."""
    channels, height, width = shape
    radii = {(u, v): (u * 32 // height) ** 2 + (v * 32 // width) ** 2 for u, v in np.ndindex(height, width)}
    places = sorted(radii, key=radii.__getitem__)
    return [
        (c, *place, min(math.isqrt(4 * radii[place]) // 5, _BANDS - 1)) for c in range(channels) for place in places
    ]


def _used(values: Array, order: list[tuple[int, int, int, int]], visit: Visit, *, known: bool) -> Iterator[bool]:
    """Code for each frequency whether any block uses it."""
    model, before = ContextModel(), (1, 1)
    for channel, u, v, band in order:
        context = np.array([(channel * _BANDS + band) * 4 + before[0] * 2 + before[1]])
        contexts = [(2, 3 * _BANDS * 4, context)]
        bit = visit(model.probability(contexts), np.array([int(values[:, channel, u, v].any())]) if known else None)
        model.count(contexts, np.ones_like(bit), bit)
        before = (before[1], int(bit[0]))
        yield bool(bit[0])


class _Coder:
    """The models of one stream, and how a frequency goes through them."""

    def __init__(self, frequencies: int, visit: Visit) -> None:
        self.frequencies, self.visit = frequencies, visit
        self.zero = ContextModel()
        self.larger = [ContextModel() for _ in range(6)]

    def bit(self, model: ContextModel, contexts: Contexts, which: Array, bit: Array | None, prior: int) -> Array:
        """Code a bit of each lane, by the chains of all that is possible, and which of these a lane has."""
        found = self.visit(model.probability(contexts, prior).take(which), bit)
        number = len(contexts[0][2])
        model.count(contexts, np.bincount(which, minlength=number), np.bincount(which, found, number))
        return found

    def code(self, number: int, place: tuple[int, int, int, int], field: _Field, values: Array | None) -> Array:
        """Code the coefficients ``(lanes,)`` of a frequency, which are given or found."""
        channel, u, v, band = place
        near, active = _EACH_NEAR, _EACH_ACTIVE
        contexts = [
            (4, 3 * _BANDS * _NEAR * _ACTIVE, ((channel * _BANDS + band) * _NEAR + near) * _ACTIVE + active),
            (8, self.frequencies * _NEAR, number * _NEAR + near),
            (12, self.frequencies * _NEAR * 4, (number * _NEAR + near) * 4 + active // 2),
        ]
        near = field.near(channel, u, v)
        known = None if values is None else (values != 0).astype(np.int64)
        some = self.bit(self.zero, contexts, near * _ACTIVE + field.activity(channel), known, _PRIOR[band])
        at = np.flatnonzero(some)
        found = np.zeros(len(some), np.int64)
        if len(at):
            own = None if values is None else values[at]
            half = np.full(len(at), float(_HALF))
            negative = self.visit(half, None if own is None else (own < 0).astype(np.int64))
            sizes = self._sizes(number, channel, near[at], None if own is None else np.abs(own))
            found[at] = np.where(negative == 1, -sizes, sizes)
        return found

    def _sizes(self, number: int, channel: int, near: Array, sizes: Array | None) -> Array:
        """Code sizes of at least 1."""
        found = np.ones(len(near), np.int64)
        left = np.arange(len(near))
        contexts = [
            (2, 3 * _NEAR, channel * _NEAR + np.arange(_NEAR)),
            (4, self.frequencies, np.full(_NEAR, number, np.int64)),
        ]
        for size in range(1, _UNARY):
            known = None if sizes is None else (sizes[left] > size).astype(np.int64)
            more = self.bit(self.larger[min(size, 6) - 1], contexts, near[left], known, _HALF)
            left = left[more == 1]
            if not len(left):
                return found
            found[left] += 1
        return self._binary(found, left, sizes)

    def _binary(self, found: Array, left: Array, sizes: Array | None) -> Array:
        """Code what is left of large sizes, 16 bits each."""
        rest = np.zeros(len(left), np.int64)
        for shift in reversed(range(16)):
            known = None if sizes is None else (sizes[left] - _UNARY) >> shift & 1
            rest = rest * 2 + self.visit(np.full(len(left), float(_HALF)), known)
        found[left] += rest
        return found


def _code(values: Array, visit: Visit, *, known: bool) -> None:
    """Go through all coefficients in the order of the stream; fill them in where they are not known."""
    shape = (int(values.shape[1]), int(values.shape[2]), int(values.shape[3]))
    order = _order(shape)
    used = list(_used(values, order, visit, known=known))
    places = [place for place, has in zip(order, used, strict=True) if has]
    coder = _Coder(len(places), visit)
    for group in doubling(len(values)):
        field = _Field(len(values[group]), shape)
        for number, place in enumerate(places):
            channel, u, v, _ = place
            found = coder.code(number, place, field, values[group, channel, u, v] if known else None)
            field.take(channel, u, v, found)
            values[group, channel, u, v] = found


def encode(values: NDArray[Any]) -> bytes:
    """Code coefficients.

    Args:
        values: ``(M, C, h, w)`` whole numbers of size up to :data:`MOST_SIZE`, ``C`` up to 3, low frequencies first.

    Returns:
        The stream. It does not hold its shape.

    Example:
        >>> values = np.zeros((40, 1, 8, 8), np.int64)
        >>> values[:, 0, 0, 0] = np.arange(40) - 20
        >>> stream = encode(values)
        >>> len(stream), bool((decode(stream, values.shape) == values).all())
        (40, True)
    """
    writer = Writer()
    _code(values.astype(np.int64), writer.visit, known=True)
    return filled(writer.finish(), values.size, _MOST_UNUSUAL)


def decode(stream: bytes, shape: tuple[int, int, int, int]) -> Array:
    """Decode coefficients; the inverse of :func:`encode`.

    Args:
        stream: what :func:`encode` gave.
        shape: ``(M, C, h, w)`` of the coefficients.

    Returns:
        The coefficients. A stream that was altered gives others, or fails.

    Raises:
        FormatError: the stream cannot hold as many.
    """
    check_stream(stream, math.prod(map(int, shape)), _MOST_UNUSUAL)
    values = np.zeros(shape, np.int64)
    _code(values, Reader(stream).visit, known=False)
    if np.abs(values).max(initial=0) > MOST_SIZE:
        raise FormatError("a stream does not hold coefficients: it was altered")
    return values
