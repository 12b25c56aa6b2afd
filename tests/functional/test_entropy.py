"""The context coder: against a slow decoder written from the description, and streams that later versions must read."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from ddplug.errors import FormatError
from ddplug.functional.entropy import decode, encode

NEAR = [(0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, -2), (-1, 2), (-2, -1), (-2, 1)]


class SlowRangeDecoder:
    """The range decoder of constriction in whole numbers: words of 32 bits, a state of 64, probabilities of 24."""

    def __init__(self, stream: bytes) -> None:
        self.words = [int.from_bytes(stream[k : k + 4], "little") for k in range(0, len(stream), 4)]
        self.lower, self.range = 0, 2**64 - 1
        self.place = 2
        words = [*self.words, 0, 0]
        self.point = (words[0] << 32) | words[1]

    def bit(self, chance: int) -> int:
        """Decode a bit that is 1 with the probability ``chance / 65536``; zero has the lower part of the range."""
        zero = (65536 - chance) * (2**24 - 2) // 65536 + 1
        one = 2**24 - zero
        scale = self.range >> 24
        quantile = ((self.point - self.lower) % 2**64) // scale
        found = int(quantile >= zero)
        low, share = (zero, one) if found else (0, zero)
        self.lower = (self.lower + scale * low) % 2**64
        self.range = scale * share
        if self.range < 2**32:
            self.lower, self.range = (self.lower << 32) % 2**64, self.range << 32
            word = self.words[self.place] if self.place < len(self.words) else 0
            self.place += 1
            self.point = ((self.point << 32) % 2**64) | word
        return found


def context_chain(out: np.ndarray, lane: int, y: int, x: int, bits: int) -> list[tuple[int, tuple[int, ...]]]:
    """Weights and contexts of a position, from the coarsest."""

    def at(down: int, right: int) -> int:
        return int(out[lane, y + 2 + down, x + 2 + right])

    height, width = out.shape[1] - 2, out.shape[2] - 4
    cell = (y * 7 // height) * 7 + x * 7 // width
    if bits == 1:
        near = [at(*way) for way in NEAR]
        return [(1, tuple(near[:4])), (3, tuple(near[:7])), (3, tuple(near)), (6, (*near, cell))]
    left, above = at(0, -1), at(-1, 0)
    guess = min(max(left + above - at(-1, -1), 0), 2**bits - 1) >> max(0, bits - 4)
    few = max(0, bits - 2)
    around = (left >> few, above >> few, guess)
    return [(2, ()), (2, (guess,)), (2, around), (2, (*around, cell))]


Counts = dict[tuple[int, ...], list[int]]


def slow_numbers(
    coder: SlowRangeDecoder, counts: Counts, chains: list[list[tuple[int, tuple[int, ...]]]], bits: int
) -> list[int]:
    """Decode a number for each lane; all lanes see the counts from before a bit."""
    nodes = [1] * len(chains)
    for _ in range(bits):
        found = []
        for node, chain in zip(nodes, chains, strict=True):
            chance = 32768
            for order, (weight, context) in enumerate(chain):
                zeros, ones = counts.get((order, node, *context), [0, 0])
                chance = (ones * 65536 + weight * chance) // (zeros + ones + weight)
            found.append(coder.bit(min(max(chance, 32), 65504)))
        for lane, bit in enumerate(found):
            for order, (_, context) in enumerate(chains[lane]):
                counts.setdefault((order, nodes[lane], *context), [0, 0])[bit] += 1
            nodes[lane] = 2 * nodes[lane] + bit
    return [node - 2**bits for node in nodes]


def slow_decode(stream: bytes, shape: tuple[int, int, int], bits: int) -> np.ndarray:
    """Decode gray images with plain loops and dictionaries."""
    rows, height, width = shape
    out = np.zeros((rows, height + 2, width + 4), int)
    coder, counts = SlowRangeDecoder(stream), Counts()
    first, last = 0, 1
    while first < rows:
        group = range(first, min(last, rows))
        for y in range(height):
            for x in range(width):
                chains = [context_chain(out, lane, y, x, bits) for lane in group]
                out[group, y + 2, x + 2] = slow_numbers(coder, counts, chains, bits)
        first, last = last, 2 * last
    found: np.ndarray = out[:, 2:, 2:-2]
    return found


def drawing(rows: int, channels: int, side: int, bits: int, seed: int = 0) -> np.ndarray:
    """Blobs with noise, in few levels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    place = rng.random((rows, channels, 2, 1, 1))
    blob = np.exp(-8 * ((y - place[:, :, 0]) ** 2 + (x - place[:, :, 1]) ** 2)) + 0.05 * rng.random(
        (rows, channels, side, side)
    )
    levels: np.ndarray = np.clip(blob * 2**bits, 0, 2**bits - 1).astype(int)
    return levels


@pytest.mark.parametrize(("bits", "rows"), [(1, 37), (2, 20), (4, 9), (8, 3)])
def test_a_slow_decoder_reads_the_same(bits: int, rows: int) -> None:
    codes = drawing(rows, 1, 9, bits)
    stream = encode(codes, bits)
    assert (slow_decode(stream, (rows, 9, 9), bits) == codes[:, 0]).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (7, 3, 5, 4), (64, 1, 6, 6), (30, 1, 1, 11), (2, 2, 1, 3)])
def test_what_is_coded_comes_back(shape: tuple[int, int, int, int], bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, shape)
    back = decode(encode(codes, bits), shape, bits)
    assert back.dtype == np.uint8
    assert (back == codes).all()


def test_noise_costs_what_it_must_and_pattern_next_to_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 2, (400, 1, 8, 8))
    assert 400 * 8 <= len(encode(noise, 1)) <= 400 * 8 * 1.25
    assert len(encode(np.zeros_like(noise), 1)) <= 100
    # the columns of a table have statistics of their own: half of them are constant
    table = np.random.default_rng(0).integers(0, 16, (500, 1, 1, 8)) * (np.arange(8) % 2)
    assert len(encode(table, 4)) <= 500 * 4 * 4 / 8 * 1.15


def test_streams_of_earlier_versions_decode_for_ever() -> None:
    stripes = np.tile([0, 1, 1, 0], (9, 1, 4, 2))
    stream = bytes.fromhex(STRIPES)
    assert encode(stripes, 1) == stream
    assert (decode(stream, stripes.shape, 1) == stripes).all()


STRIPES = "6955047980f9a0c7"


def wavy(rows: int, channels: int, height: int, width: int) -> np.ndarray:
    """Made of whole numbers, so that they are the same everywhere."""
    m, c, y, x = np.ogrid[:rows, :channels, :height, :width]
    found: np.ndarray = (y * (m % 7 + 1) + x * (m % 5 + 1) + 3 * c + (m * m * 31 + y * 17 + x * 13) % 5) // 4
    return found


@pytest.mark.parametrize(
    ("bits", "shape", "digest"),
    [
        (1, (600, 1, 8, 9), "00f6a92481f68f8c"),
        (1, (300, 2, 5, 6), "8f3c69079050c94d"),
        (2, (300, 1, 9, 8), "9c1d35e682608da4"),
        (2, (600, 3, 4, 5), "67320739a4fb1f18"),
        (4, (2100, 1, 6, 4), "1d02e37873398c7d"),
        (5, (90, 3, 4, 5), "df6443673bcb01a0"),
        (6, (900, 1, 1, 5), "5b38e59f03a125ad"),
        (8, (40, 4, 1, 9), "80edeb00328aabb5"),
        (8, (520, 1, 3, 4), "5b4835ee432fc7d8"),
    ],
)
def test_streams_of_many_images_are_those_of_earlier_versions(
    bits: int, shape: tuple[int, int, int, int], digest: str
) -> None:
    """Groups of few images and of many are foreseen in different ways."""
    codes = wavy(*shape) % 2**bits
    stream = encode(codes, bits)
    assert hashlib.sha256(stream).hexdigest()[:16] == digest
    assert (decode(stream, shape, bits) == codes).all()


@pytest.mark.parametrize(
    ("stream", "message"),
    [(b"", "a stream of 0 bytes cannot hold 64 bits"), (b"abc", "a stream of 3 bytes cannot hold 64 bits")],
)
def test_streams_that_cannot_be_whole(stream: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode(stream, (1, 1, 8, 8), 1)


def test_absurd_sizes_are_refused_before_anything_is_made() -> None:
    with pytest.raises(FormatError, match="a stream of 8 bytes cannot hold 1099511627776 bits"):
        decode(b"\0" * 8, (1 << 20, 1, 1 << 10, 1 << 10), 1)


def test_altered_streams_give_numbers_or_one_error() -> None:
    codes = drawing(20, 1, 6, 2)
    stream = bytearray(encode(codes, 2))
    for place in range(0, len(stream), 3):
        stream[place] ^= 0xFF
        try:
            assert decode(bytes(stream), codes.shape, 2).shape == codes.shape
        except FormatError as error:
            assert "\n" not in str(error)
        stream[place] ^= 0xFF
