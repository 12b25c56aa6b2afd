"""The cosine transform: against sums written out, and against whole numbers without a limit on the way back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddplug.functional.cosine import FINE, LARGEST, MOST_BLOCK, backward, blocks, forward


def whole(number: float) -> int:
    return math.floor(number + 0.5)


def basis(side: int) -> list[list[float]]:
    return [
        [math.sqrt((2 if u else 1) / side) * math.cos(math.pi * (2 * n + 1) * u / (2 * side)) for n in range(side)]
        for u in range(side)
    ]


def test_a_coefficient_is_the_sum_that_defines_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 5, 7)).astype(float)
    found = forward(image)
    for u, v in ((0, 0), (1, 3), (4, 6)):
        wanted = sum(basis(5)[u][y] * basis(7)[v][x] * (image[0, 0, y, x] - 128) for y in range(5) for x in range(7))
        assert found[0, 0, u, v] == pytest.approx(wanted)


@pytest.mark.parametrize("most", [100, 10**9])
def test_the_way_back_is_that_of_whole_numbers_without_limit(most: int) -> None:
    rng = np.random.default_rng(1)
    given = rng.integers(-most, most, (2, 3, 5, 7))
    scaled = [[[whole(x * 2**14) for x in row] for row in basis(side)] for side in (5, 7)]
    wanted = np.zeros((2, 3, 5, 7), int)
    for n in range(2):
        planes = np.zeros((3, 5, 7), dtype=object)
        for c in range(3):
            cut = [[max(-LARGEST * FINE, min(LARGEST * FINE, int(x))) for x in row] for row in given[n, c]]
            half = [
                [(sum(scaled[0][u][y] * cut[u][v] for u in range(5)) + 2**13) >> 14 for v in range(7)] for y in range(5)
            ]
            for y in range(5):
                for x in range(7):
                    planes[c, y, x] = (sum(half[y][v] * scaled[1][v][x] for v in range(7)) + 2**13) >> 14
        for y in range(5):
            for x in range(7):
                luma, blue, red = planes[:, y, x]
                rgb = (
                    luma * 65536 + 91881 * red,
                    luma * 65536 - 22554 * blue - 46802 * red,
                    luma * 65536 + 116130 * blue,
                )
                # half a level up, and back from the middle
                wanted[n, :, y, x] = [min(255, max(0, (2 * k + 257 * FINE * 65536) // (2 * FINE * 65536))) for k in rgb]
    assert (backward(given, (3, 5, 7)) == wanted).all()


def test_no_library_can_round_the_basis_otherwise() -> None:
    for side in range(1, MOST_BLOCK + 1):
        scaled = np.array(basis(side)) * 2**14
        assert np.abs(scaled - np.floor(scaled) - 0.5).min() > 1e-6


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 33, 20), (1, 1, 70)])
def test_images_come_back(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, *shape))
    coefficients = forward(images)
    (down, tall), (across, wide) = blocks(shape[1]), blocks(shape[2])
    assert coefficients.shape == (3 * down * across, shape[0], tall, wide)
    assert np.abs(backward(np.rint(coefficients * FINE), shape) - images.astype(int)).max() <= 1
