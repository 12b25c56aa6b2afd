"""Lossless coding of small images in few bits a number: an adaptive context model, and a range coder behind it.

The probability of each bit comes from :mod:`ddplug.functional.contexts`. All of it is in whole numbers: a stream
decodes to the same numbers on every machine.

All images of a group are coded at once, position by position, with the counts of the groups before; groups double in
size, so that 10,000 images take fourteen passes, and the first ones teach the model without a great loss.

Reference: the range coder is that of ``constriction`` (Bamler, "Understanding Entropy Coding With Asymmetric Numeral
Systems", arXiv 2201.01741).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from ddplug.errors import FormatError
from ddplug.functional.contexts import ONE, Array, Counts, Places, models

__all__ = ["Reader", "Writer", "check_stream", "decode", "doubling", "encode", "filled"]

_BERNOULLI = constriction.stream.model.Bernoulli(perfect=False)

_MOST_NUMBERS_PER_BYTE = 12_000
"""No byte of a stream stands for more numbers, whatever they are: a certain bit costs at least 1/1420 of a bit."""

_MOST_UNUSUAL = 256
"""Bits of numbers that a byte may stand for on average where there are many: else a few bytes fill the memory."""

_FEW = 1 << 22
"""Bits of numbers that may be packed as tightly as they can."""

_AT_ONCE = 1 << 19
"""Bits of known numbers that are looked at together, unless a line has more."""


def doubling(rows: int) -> Iterator[slice]:
    """Cut rows into groups, each as large as all before it."""
    edges = [0, 1]
    while edges[-1] < rows:
        edges.append(2 * edges[-1])
    return (slice(first, min(last, rows)) for first, last in pairwise(edges))


def _encode(codes: Array, bits: int, visit: Callable[[Counts, NDArray[Any]], NDArray[Any]]) -> None:
    """Go through all bits of all numbers in the order of the stream; they are known, so that lines are taken at once.

    Args:
        codes: ``(M, C, H, W)``.
        bits: of a number.
        visit: takes the probabilities ``(n,)`` and the bits.
    """
    rows, channels, height, width = codes.shape
    if not codes.size:
        return
    chain, model_of = models((channels, height, width), bits)
    for group in doubling(rows):
        field = np.pad(codes[group].transpose(2, 3, 1, 0).astype(np.int16), ((2, 0), (2, 2), (0, 0), (0, 0)))
        lanes = field.shape[3]
        step = max(1, _AT_ONCE // (lanes * channels * width * bits))
        for first in range(0, height, step):
            part = chain.part[first : first + step]
            shape = (len(part), width, channels, bits, lanes)
            chance, bit = np.empty(shape), np.empty(shape, np.int32)
            for channel, own in enumerate(model_of):
                places = Places(field, channel, first, 0, bits, len(part))
                finest, values = chain.finest(places), places.at(0, 0)
                for k, model in enumerate(own):
                    high = values >> (bits - 1 - k)
                    bit[:, :, channel, k] = high & 1
                    chance[:, :, channel, k] = model.known_lines(finest * (1 << k) + (high >> 1), part, high & 1)
            visit(chance.reshape(-1), bit.reshape(-1))


def _decode(codes: Array, bits: int, visit: Callable[[Counts], Array]) -> None:
    """Fill ``(M, C, H, W)`` with numbers in the order of the stream; what comes depends on what came.

    Args:
        codes: to fill.
        bits: of a number.
        visit: takes the probabilities ``(lanes,)``, returns the bits.
    """
    rows, channels, height, width = codes.shape
    chain, model_of = models((channels, height, width), bits)
    for group in doubling(rows):
        field = np.zeros((height + 2, width + 4, channels, len(codes[group])), np.int16)
        for row, column, channel in np.ndindex(height, width, channels):
            finest = chain.finest(Places(field, channel, row, column, bits))
            part, high = int(chain.part[row, column]), np.zeros_like(finest)
            for k, model in enumerate(model_of[channel]):
                high = high * 2 + model.next(finest * (1 << k) + high, part, visit)
            field[row + 2, column + 2, channel] = high
        codes[group] = field[2:, 2:-2].transpose(3, 2, 0, 1)


class Writer:
    """Codes bits by their probabilities."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def visit(self, chance: Counts, bit: NDArray[Any] | None) -> NDArray[Any]:
        """Take bits ``(lanes,)`` whose probabilities of being one, times 2**16, are given; return them."""
        assert bit is not None
        self._coder.encode(bit.astype(np.int32, copy=False), _BERNOULLI, chance / ONE)
        return bit

    def finish(self) -> bytes:
        """Return the stream of all bits."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class Reader:
    """Reads bits again, in the order in which they were written.

    Args:
        stream: of whole words of 4 bytes, see :func:`check_stream`.
    """

    def __init__(self, stream: bytes) -> None:
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(stream, "<u4").astype(np.uint32))

    def visit(self, chance: Counts, _: NDArray[Any] | None = None) -> Array:
        """Read bits ``(lanes,)`` whose probabilities of being one, times 2**16, are given.

        Raises:
            FormatError: the stream was altered.
        """
        try:
            found: Array = self._coder.decode(_BERNOULLI, chance / ONE).astype(np.int64)
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
