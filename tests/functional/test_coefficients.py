"""The coder of coefficients: against a slow decoder written from the description, and a stream of this version."""

from __future__ import annotations

import hashlib
import math
import zlib

import numpy as np
import pytest

from ddplug.errors import FormatError
from ddplug.functional.coefficients import MOST_SIZE, decode, encode
from tests.functional.test_entropy import SlowRangeDecoder, wavy


def sparse(rows: int, channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Coefficients that are the smaller the higher the frequency."""
    rng = np.random.default_rng(seed)
    spread = 6.0 / (1 + np.add.outer(np.arange(height), np.arange(width)) ** 1.5)
    return np.trunc(rng.laplace(size=(rows, channels, height, width)) * spread).astype(np.int64)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (7, 3, 4, 5), (40, 1, 8, 8), (70, 3, 3, 3)])
def test_coefficients_come_back(shape: tuple[int, int, int, int]) -> None:
    values = sparse(*shape)
    assert (decode(encode(values), shape) == values).all()


def test_the_largest_and_none_at_all_come_back() -> None:
    values = np.array([MOST_SIZE, -MOST_SIZE, 19, 20, 21, -22, 0, 1]).reshape(8, 1, 1, 1)
    assert (decode(encode(values), (8, 1, 1, 1)) == values).all()
    nothing = np.zeros((3000, 3, 16, 16), int)
    stream = encode(nothing)
    assert len(stream) < 250
    assert not decode(stream, nothing.shape).any()


class Slow:
    """Decodes one block after the other with dictionaries of counts, as the description says."""

    def __init__(self, stream: bytes) -> None:
        self.coder = SlowRangeDecoder(stream)
        self.counts: dict[tuple[object, ...], list[int]] = {}

    def bits(self, chains: list[Chain], prior: int) -> list[int]:
        """Decode a bit for each lane; all see the counts from before it."""
        found = []
        for chain in chains:
            chance = prior
            for weight, context in chain:
                zeros, ones = self.counts.get(context, [0, 0])
                chance = (ones * 65536 + weight * chance) // (zeros + ones + weight)
            found.append(self.coder.bit(min(max(chance, 32), 65504)))
        for chain, bit in zip(chains, found, strict=True):
            for _, context in chain:
                self.counts.setdefault(context, [0, 0])[bit] += 1
        return found


PRIOR = [40_000, 20_000, 10_000, 6_000, 4_000, 2_500, 1_500, 1_000]


Chain = list[tuple[int, tuple[object, ...]]]


def surroundings(block: np.ndarray, c: int, u: int, v: int) -> tuple[int, int]:
    """How large the neighbors of lower frequency are, and how busy the block is."""

    def at(c: int, u: int, v: int) -> int:
        return min(abs(int(block[c, u, v])), 3) if u >= 0 and v >= 0 else 0

    near = 2 * (at(c, u - 1, v) + at(c, u, v - 1)) + at(c, u - 1, v - 1) + at(c, u - 2, v) + at(c, u, v - 2)
    near += sum((1 + k) * min(at(k, u, v), 2) for k in range(c))
    busy = int(np.minimum(np.abs(block[c]), 3).sum())
    return min((near + 1) // 2, 11), min(int(math.log2(1 + busy)), 7)


def slow_sizes(slow: Slow, number: int, c: int, near: dict[int, int], some: list[int]) -> dict[int, int]:
    """Sizes of the coefficients that are not zero, by their rows."""
    sizes, left = dict.fromkeys(some, 1), some
    for size in range(1, 20):
        k = min(size, 6)
        chains: list[Chain] = [[(2, ("near", k, c, near[row])), (4, ("size", k, number))] for row in left]
        left = [row for row, bit in zip(left, slow.bits(chains, 32768), strict=True) if bit]
        sizes |= dict.fromkeys(left, size + 1)
    rest = dict.fromkeys(left, 0)
    for _ in range(16):
        rest = {row: 2 * rest[row] + slow.coder.bit(32768) for row in left}
    return {row: size + rest.get(row, 0) for row, size in sizes.items()}


def slowly(stream: bytes, shape: tuple[int, int, int, int]) -> np.ndarray:
    rows, channels, height, width = shape
    slow, out = Slow(stream), np.zeros(shape, int)
    radius = {(u, v): (u * 32 // height) ** 2 + (v * 32 // width) ** 2 for u in range(height) for v in range(width)}
    places = [(c, u, v) for c in range(channels) for u, v in sorted(radius, key=lambda place: radius[place])]
    bands = {place: min(int(math.sqrt(4 * radius[place])) // 5, 7) for place in radius}
    used, before = [], (1, 1)
    for c, u, v in places:
        (bit,) = slow.bits([[(2, ("used", c, bands[u, v], before))]], 32768)
        before = (before[1], bit)
        used += [(c, u, v)] * bit
    first, last = 0, 1
    while first < rows:
        group = range(first, min(last, rows))
        for number, (c, u, v) in enumerate(used):
            around = {row: surroundings(out[row], c, u, v) for row in group}
            chains: list[Chain] = [
                [
                    (4, ("band", c, bands[u, v], near, busy)),
                    (8, ("place", number, near)),
                    (12, ("both", number, near, min(busy // 2, 3))),
                ]
                for near, busy in around.values()
            ]
            bits = slow.bits(chains, PRIOR[bands[u, v]])
            some = [row for row, bit in zip(group, bits, strict=True) if bit]
            signs = {row: 1 - 2 * slow.coder.bit(32768) for row in some}
            sizes = slow_sizes(slow, number, c, {row: near for row, (near, _) in around.items()}, some)
            for row in some:
                out[row, c, u, v] = signs[row] * sizes[row]
        first, last = last, 2 * last
    return out


@pytest.mark.parametrize("shape", [(9, 1, 6, 8), (5, 3, 4, 4)])
def test_a_slow_decoder_reads_the_same(shape: tuple[int, int, int, int]) -> None:
    values = sparse(*shape, seed=1)
    values[0, 0, 0, 0] = 25
    assert (slowly(encode(values), shape) == values).all()


def test_blocks_that_are_busy_as_a_whole_are_foreseen() -> None:
    values = sparse(300, 1, 8, 8)
    values[::2] = 0
    mixed, alone = len(encode(values)), len(encode(values[1::2]))
    # to tell which blocks are empty takes a bit each, and hardly more
    assert mixed < alone + 2 * 300 / 8


def test_streams_stay_readable() -> None:
    values = sparse(20, 3, 5, 6, seed=3)
    assert zlib.crc32(encode(values)) == CHECKSUM


CHECKSUM = 1751485954


@pytest.mark.parametrize(
    ("shape", "digest"), [((700, 1, 8, 8), "e6d486f208c28fab"), ((300, 3, 6, 5), "c4ca2093a8fc966f")]
)
def test_streams_of_many_blocks_are_those_of_earlier_versions(shape: tuple[int, int, int, int], digest: str) -> None:
    m, c, u, v = np.ogrid[: shape[0], : shape[1], : shape[2], : shape[3]]
    values = (wavy(*shape) % 23 - 11) * 12 // (4 + (u + v) ** 2 + 6 * c)
    values = np.where((m * 7 + u * 3 + v * 5) % 4 == 0, values, values // 3)
    stream = encode(values)
    assert hashlib.sha256(stream).hexdigest()[:16] == digest
    assert (decode(stream, shape) == values).all()


@pytest.mark.parametrize("stream", [b"", b"\0" * 3, b"\0" * 8])
def test_a_stream_that_cannot_hold_as_many_is_refused(stream: bytes) -> None:
    with pytest.raises(FormatError, match="cannot hold"):
        decode(stream, (1000, 3, 32, 32))


def test_altered_streams_are_read_or_refused_in_one_line() -> None:
    stream = encode(sparse(20, 3, 5, 6))
    rng = np.random.default_rng(0)
    for _ in range(20):
        other = bytearray(stream)
        other[rng.integers(len(stream))] ^= int(rng.integers(1, 256))
        try:
            decode(bytes(other), (20, 3, 5, 6))
        except FormatError as error:
            assert "\n" not in str(error)
