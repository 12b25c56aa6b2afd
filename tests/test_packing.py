"""A few bits a number: packing against numpy, rounding against a loop, files, merging, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ddplug import SyntheticSet, distill
from ddplug.distillers.random_ import Random
from ddplug.errors import DataError, OptionError
from ddplug.export import card
from ddplug.formation import enlarge
from ddplug.packing import BITS, pack, packed_bytes, unpack
from ddplug.preprocess import Identity, Standardise, fit
from ddplug.testing import toy_images, toy_table


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 4, channels: int = 2, side: int = 5) -> SyntheticSet:
    """Give pixels from -0.5 to 1.5, in an odd number of them."""
    pixels = torch.rand(count, channels, side, side, generator=generator()) * 2 - 0.5
    preprocess = Standardise(torch.full((channels,), 0.3), torch.full((channels,), 0.25))
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
    rounded = made.quantise(bits=bits)
    steps = 2**bits - 1
    pixels = made.pixels().double()
    expected = torch.tensor([min(range(steps + 1), key=lambda k: abs(k / steps - float(v))) for v in pixels.flatten()])
    assert torch.equal(rounded.codes().flatten().long(), expected * 255 // steps)
    torch.testing.assert_close(rounded.pixels().flatten(), expected / steps, rtol=0, atol=1e-6)
    rmse = float((rounded.inputs - made.inputs).double().square().mean().sqrt())
    assert rounded.provenance["quantisation_rmse"] == pytest.approx(rmse, rel=1e-5)
    assert rounded.bits == bits and rounded.inputs.unique().numel() == steps + 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_file_holds_that_many_bits_and_comes_back(bits: int, tmp_path: Path) -> None:
    made = images().quantise(bits=bits)
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
    two = made.quantise(bits=2)
    assert two.quantise(bits=2) is two and two.quantise(bits=8) is two
    for more in (made.quantise(bits=4), made.quantise()):
        assert more.quantise(bits=1).bits == 1
        assert set(more.quantise(bits=1).codes().unique().tolist()) == {0, 255}
    back = two.quantise("float32")
    assert (back.levels, back.bits) == (None, 8) and torch.equal(back.inputs, two.inputs)
    assert back.nbytes == made.nbytes


def test_real_images_are_cut_at_the_middle_of_their_bytes() -> None:
    data = toy_images(channels=3)
    chosen = distill(data, Random(images_per_class=5), device="cpu")
    made = chosen.quantise(bits=1)
    assert torch.equal(made.codes() == 255, chosen.codes() > 127)
    assert torch.equal(made.targets, chosen.targets)


def test_small_images_are_rounded_as_stored_and_seen_enlarged() -> None:
    data = toy_images()
    made = distill(data, Random(images_per_class=5), device="cpu").reduced(2).quantise(bits=1)
    assert made.nbytes == len(made) * (2 + 1) + 8  # 16 bits and a label each, and two levels
    assert "| stored as | 1-bit images of 1 x 4 x 4, enlarged when read, class indices |" in card(made)
    assert made.shape == (1, 8, 8) and made.inputs.unique().numel() == 2
    seen, _ = made[:]
    assert torch.equal(seen, enlarge(made.inputs, (1, 8, 8))) and seen.unique().numel() > 2
    assert made.enlarged().levels is None and torch.equal(made.enlarged().inputs, seen)


def test_merging_keeps_the_larger_number_of_bits(tmp_path: Path) -> None:
    data = toy_images(size=4)
    chosen = distill(data, Random(images_per_class=5), device="cpu")
    one, four = chosen.quantise(bits=1), chosen.quantise(bits=4)
    for merged, bits in ((one.merge(one), 1), (one.merge(four), 4), (chosen.merge(one), 8)):
        assert merged.bits == bits and merged.levels is not None
        merged.save(tmp_path / "set")
        assert torch.equal(SyntheticSet.load(tmp_path / "set").inputs, merged.inputs)
    assert one.select([1]).bits == 1


@pytest.mark.parametrize("bits", [0, 3, 16, -1])
def test_refuses_other_bits(bits: int) -> None:
    with pytest.raises(OptionError, match=rf"bits is {bits}; it must be one of 1, 2, 4, 8"):
        images().quantise(bits=bits)
    with pytest.raises(DataError, match=rf"bits is {bits}, not one of \(1, 2, 4, 8\)"):
        replace(images(), bits=bits)


def test_refuses_few_bits_of_what_is_no_image_or_is_whitened() -> None:
    table = distill(toy_table(), Random(images_per_class=5), device="cpu")
    with pytest.raises(OptionError, match=r"bits is 1, which is for images, not inputs of shape \(\d+,\); use 8"):
        table.quantise(bits=1)
    data = toy_images(size=4)
    whitened = replace(data, preprocess=fit("zca", data.inputs))
    made = distill(whitened, Random(images_per_class=5), device="cpu")
    with pytest.raises(OptionError, match="bits is 4, but images whitened by zca need all 8"):
        made.quantise(bits=4)


def test_a_stray_value_does_not_cost_the_others_their_levels() -> None:
    inputs = torch.tensor([0.0, 0.2, 0.8, 40.0]).view(1, 1, 2, 2)
    made = SyntheticSet(inputs, torch.tensor([0]), 1, Identity()).quantise(bits=1)
    assert made.inputs.flatten().tolist() == [0, 0, 1, 1]
