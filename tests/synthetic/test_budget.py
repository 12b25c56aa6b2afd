"""How many samples a number of bytes holds."""

from __future__ import annotations

import pytest

import ddplug
from ddplug.distillers.selection.random_ import Random
from ddplug.synthetic.budget import bytes_of, images_within, rows_within
from ddplug.testing import toy_images


@pytest.mark.parametrize(("nbytes", "expected"), [(8 + 129, 0), (8 + 130, 1), (8 + 259, 1), (8 + 260, 2), (10**9, 8)])
def test_images_of_each_class(nbytes: int, expected: int) -> None:
    # 64 pixels and a label, twice; 8 bytes for the levels; the smaller class has 8
    assert images_within(nbytes, toy_images((8, 11))) == expected


@pytest.mark.parametrize("each", [1, 3, 20])
def test_as_many_bytes_hold_four_times_the_images_of_floats(each: int) -> None:
    data = ddplug.load_dataset("digits")
    made = ddplug.distill(data, Random(images_per_class=each))
    assert images_within(made.quantize().nbytes, data) == each
    # 64 numbers and a label: 257 bytes as floats, 65 as bytes, and 8 for the levels
    assert images_within(made.quantize("float32").nbytes, data) == (257 * each * 10 - 8) // 65 // 10


def test_a_factor_and_the_shape_that_it_leads_to_are_one() -> None:
    data = toy_images(size=9, channels=3)
    for factor, side in ((1, 9), (2, 4), (4, 2), (9, 1)):
        assert bytes_of(5, data, factor, 4) == bytes_of(5, data, (3, side, side), 4)
        # half a byte a number, rounded up to whole bytes a sample; two levels of four bytes a channel
        assert bytes_of(5, data, factor, 4) == 5 * (-(-3 * side**2 // 2) + 1) + 24
        assert rows_within(999, data, factor) == (999 - 24) // (3 * side**2 + 1)
