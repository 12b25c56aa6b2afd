"""A few bits a number: packing against numpy, rounding against a loop, files, merging, and what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.optimize import minimize
from sklearn.cluster import KMeans

from ddplug import SyntheticSet, distill
from ddplug.data.preprocess import Identity, Standardize, fit
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import DataError, OptionError
from ddplug.functional.packing import BITS, best_span, pack, packed_bytes, unpack
from ddplug.functional.resize import enlarge
from ddplug.synthetic.card import card
from ddplug.testing import toy_images, toy_table


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 4, channels: int = 2, side: int = 5) -> SyntheticSet:
    """Return pixels from -0.5 to 1.5, in an odd number of them."""
    pixels = torch.rand(count, channels, side, side, generator=generator()) * 2 - 0.5
    preprocess = Standardize(torch.full((channels,), 0.3), torch.full((channels,), 0.25))
    return SyntheticSet(preprocess.forward(pixels), torch.arange(count) % 2, 2, preprocess)


@settings(max_examples=60, deadline=None)
@given(bits=st.sampled_from(BITS), rows=st.integers(1, 5), numbers=st.integers(1, 40), seed=st.integers(0, 1000))
def test_packs_as_a_string_of_binary_digits(bits: int, rows: int, numbers: int, seed: int) -> None:
    values = torch.randint(2**bits, (rows, numbers), generator=generator(seed))
    codes = (values * 255 // (2**bits - 1)).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (rows, packed_bytes(numbers, bits)) and packed.dtype == torch.uint8
    for row, expected in zip(packed.tolist(), values.tolist(), strict=True):
        digits = "".join(f"{value:0{bits}b}" for value in expected)
        digits = digits.ljust(-(-len(digits) // 8) * 8, "0")
        assert row == [int(digits[k : k + 8], 2) for k in range(0, len(digits), 8)]
    assert torch.equal(unpack(packed, numbers, bits), codes)


def test_one_bit_is_what_numpy_packs() -> None:
    flags = torch.rand(7, 29, generator=generator()) < 0.3
    packed = pack(flags.to(torch.uint8) * 255, 1)
    assert np.array_equal(packed.numpy(), np.packbits(flags.numpy(), axis=1))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_each_pixel_goes_to_the_nearest_level(bits: int) -> None:
    made = images()
    rounded = made.quantize(bits=bits)
    steps = 2**bits - 1
    assert rounded.levels is not None
    for channel, (low, high) in enumerate(rounded.levels.T.tolist()):
        levels = [low + (high - low) * k / steps for k in range(steps + 1)]
        pixels = made.pixels()[:, channel].flatten().tolist()
        nearest = torch.tensor([min(range(steps + 1), key=lambda k: abs(levels[k] - value)) for value in pixels])
        assert torch.equal(rounded.codes()[:, channel].flatten().long(), nearest * 255 // steps)
        expected = torch.tensor(levels)[nearest]
        torch.testing.assert_close(rounded.pixels()[:, channel].flatten(), expected, rtol=0, atol=1e-6)
    rmse = float((rounded.inputs - made.inputs).double().square().mean().sqrt())
    assert rounded.provenance["quantisation_rmse"] == pytest.approx(rmse, rel=1e-5)
    assert rounded.bits == bits and rounded.inputs[:, 0].unique().numel() == steps + 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_file_holds_that_many_bits_and_comes_back(bits: int, tmp_path: Path) -> None:
    made = images().quantize(bits=bits)
    made.save(tmp_path / "set")
    stored = load_file(tmp_path / "set")
    assert stored["inputs"].shape == (4, -(-50 * bits // 8))
    # 50 numbers and a label for each of 4 images, and two levels a channel
    assert made.nbytes == 4 * (-(-50 * bits // 8) + 1) + 16
    assert made.nbytes == sum(stored[name].nbytes for name in ("inputs", "targets", "levels"))
    back = SyntheticSet.load(tmp_path / "set")
    assert back.bits == bits and torch.equal(back.inputs, made.inputs) and back.nbytes == made.nbytes
    assert torch.equal(back.codes(), made.codes())


def test_fewer_bits_of_fewer_stay_and_of_more_are_rounded() -> None:
    made = images()
    two = made.quantize(bits=2)
    assert two.quantize(bits=2) is two and two.quantize(bits=8) is two
    for more in (made.quantize(bits=4), made.quantize()):
        assert more.quantize(bits=1).bits == 1
        assert set(more.quantize(bits=1).codes().unique().tolist()) == {0, 255}
    back = two.quantize("float32")
    assert (back.levels, back.bits) == (None, 8) and torch.equal(back.inputs, two.inputs)
    assert back.nbytes == made.nbytes


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_levels_are_as_good_as_a_search_finds(bits: int) -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.random(400), rng.normal(3, 2, 400), (rng.random(400) < 0.2) + rng.normal(0, 0.05, 400)])
    steps = 2**bits - 1

    def error(span: np.ndarray, values: np.ndarray) -> float:
        levels = np.linspace(span[0], span[1], steps + 1)
        return float(np.square(values[:, None] - levels).min(1).sum())

    for values, span in zip(rows, best_span(torch.from_numpy(rows), bits).T.double().numpy(), strict=True):
        starts = itertools.product(np.linspace(values.min(), values.max(), 12), repeat=2)
        found = min(minimize(error, start, (values,), "Nelder-Mead").fun for start in starts if start[0] < start[1])
        assert error(span, values) <= 1.05 * found + 1e-9


def test_two_levels_are_two_clusters() -> None:
    values = np.random.default_rng(0).random(500) ** 3
    found = best_span(torch.from_numpy(values)[None], 1)
    centers = KMeans(2, n_init=20, random_state=0).fit(values[:, None]).cluster_centers_
    np.testing.assert_allclose(found.flatten().numpy(), np.sort(centers.flatten()), atol=2e-3)


def test_levels_lie_where_the_values_do() -> None:
    black_and_white = torch.tensor([[-3.0, 5.0, 5.0, -3.0, 5.0]], dtype=torch.float64)
    assert best_span(black_and_white, 1).tolist() == [[-3.0], [5.0]]
    assert best_span(torch.tensor([[0.25, 4.0]], dtype=torch.float64), 1).tolist() == [[0.25], [4.0]]
    assert best_span(torch.full((1, 9), 0.25, dtype=torch.float64), 2).tolist() == [[0.25], [0.25]]
    even = torch.linspace(0, 1, 10001, dtype=torch.float64)[None] * 255
    for bits in BITS:  # the middles of equal parts
        expected = torch.tensor([[0.5], [2**bits - 0.5]]) * 255 / 2**bits
        torch.testing.assert_close(best_span(even, bits), expected, rtol=0, atol=0.06)


def test_a_constant_image_stays_and_is_stored(tmp_path: Path) -> None:
    made = SyntheticSet(torch.full((2, 1, 3, 3), 0.3), torch.tensor([0, 1]), 2, Identity()).quantize(bits=1)
    assert torch.equal(made.inputs, torch.full((2, 1, 3, 3), 0.3))
    made.save(tmp_path / "set")
    assert torch.equal(SyntheticSet.load(tmp_path / "set").inputs, made.inputs)


def test_small_images_are_rounded_as_stored_and_seen_enlarged() -> None:
    data = toy_images()
    made = distill(data, Random(images_per_class=5), device="cpu").reduced(2).quantize(bits=1)
    assert made.nbytes == len(made) * (2 + 1) + 8  # 16 bits and a label each, and two levels
    assert "| stored as | `plain:bits=1` images of 1 x 4 x 4, enlarged when read, class indices |" in card(made)
    assert made.shape == (1, 8, 8) and made.inputs.unique().numel() == 2
    seen, _ = made[:]
    assert torch.equal(seen, enlarge(made.inputs, (1, 8, 8))) and seen.unique().numel() > 2
    assert made.enlarged().levels is None and torch.equal(made.enlarged().inputs, seen)


def test_merging_keeps_the_larger_number_of_bits(tmp_path: Path) -> None:
    data = toy_images(size=4)
    chosen = distill(data, Random(images_per_class=5), device="cpu")
    one, four = chosen.quantize(bits=1), chosen.quantize(bits=4)
    assert one.levels is not None
    finer = replace(four, levels=one.levels, inputs=four.inputs)
    finer = replace(finer, inputs=finer.decode(finer.codes()))
    assert one.merge(four).levels is None  # theirs lie elsewhere
    for merged, bits in ((one.merge(one), 1), (one.merge(finer), 4)):
        assert merged.bits == bits and merged.levels is not None
        merged.save(tmp_path / "set")
        assert torch.equal(SyntheticSet.load(tmp_path / "set").inputs, merged.inputs)
    assert one.select([1]).bits == 1


@pytest.mark.parametrize("bits", [0, 3, 16, -1])
def test_refuses_other_bits(bits: int) -> None:
    with pytest.raises(OptionError, match=rf"bits is {bits}; it must be one of 1, 2, 4, 8"):
        images().quantize(bits=bits)
    with pytest.raises(DataError, match=rf"bits is {bits}, not one of \(1, 2, 4, 8\)"):
        replace(images(), bits=bits)


def test_refuses_few_bits_of_what_is_no_image_or_is_whitened() -> None:
    table = distill(toy_table(), Random(images_per_class=5), device="cpu")
    with pytest.raises(OptionError, match=r"bits is 1, which is for images, not inputs of shape \(\d+,\); use 8"):
        table.quantize(bits=1)
    data = toy_images(size=4)
    whitened = replace(data, preprocess=fit("zca", data.inputs))
    made = distill(whitened, Random(images_per_class=5), device="cpu")
    with pytest.raises(OptionError, match="bits is 4, but images whitened by zca need all 8"):
        made.quantize(bits=4)


def test_a_stray_value_does_not_cost_the_others_their_levels() -> None:
    values = torch.rand(1, 1, 40, 40, generator=generator()).round()
    values[0, 0, 0, 0] = 10
    made = SyntheticSet(values, torch.tensor([0]), 1, Identity()).quantize(bits=1)
    assert torch.equal(made.codes() == 255, values > 0.5)
