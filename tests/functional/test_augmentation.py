"""Augmentation against slow loops over pixels, and the invariances that Siamese use rests on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from ddplug.errors import OptionError
from ddplug.functional import augmentation as augment
from ddplug.functional.augmentation import OPERATIONS, Draw, apply, check, draw, resolve

ALL = "color_crop_cutout_flip_scale_rotate"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 3, channels: int = 3, side: int = 12) -> Tensor:
    return torch.randn(n, channels, side, side, generator=generator(7), dtype=torch.float64)


def one(operation: str, numbers: list[float]) -> Draw:
    return Draw(torch.tensor([list(OPERATIONS).index(operation)]), torch.tensor([numbers]))


def test_color_is_brightness_then_saturation_then_contrast() -> None:
    x = images()
    expected = np.empty(x.shape)
    for i, image in enumerate(x.numpy()):
        bright = image + (0.9 - 0.5) * 1.0
        gray = bright.mean(0, keepdims=True)
        saturated = (bright - gray) * (0.25 * 2) + gray
        expected[i] = (saturated - saturated.mean()) * (0.75 + 0.5) + saturated.mean()
    np.testing.assert_allclose(apply(x, one("color", [0.9, 0.25, 0.75])).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("u", "shift"), [(0.0, -2), (0.5, 0), (0.999, 2), (0.3, -1)])
def test_crop_moves_whole_pixels_over_zeros(u: float, shift: int) -> None:
    x = images()  # 12 pixels: the published ratio .125 allows int(2.0) = 2 each way
    moved = apply(x, one("crop", [u, 0.5, 0.0]))
    expected = torch.zeros_like(x)
    for row in range(12):
        if 0 <= row + shift < 12:
            expected[:, :, row] = x[:, :, row + shift]
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("side", [7, 8, 28])
def test_cutout_zeroes_a_clipped_square_with_its_centre_anywhere(side: int) -> None:
    x = torch.ones(1, 1, side, side)
    length = int(0.5 * side + 0.5)
    seen = set()
    for u in torch.linspace(0, 0.9999, 200).tolist():
        hole = (apply(x, one("cutout", [u, 0.5, 0.0])) == 0)[0, 0].any(1).nonzero().flatten().tolist()
        assert hole == list(range(hole[0], hole[0] + len(hole))), "the hole is contiguous"
        assert length - length // 2 - (side % 2 == 1) <= len(hole) <= length
        seen.update(hole)
    assert seen == set(range(side)), "every row can be cut"


def test_flip_is_one_half_and_an_involution() -> None:
    x = images()
    assert torch.equal(apply(x, one("flip", [0.49, 0, 0])), x.flip(3))
    assert torch.equal(apply(x, one("flip", [0.5, 0, 0])), x)
    flips = draw("flip", 4000, generator()).numbers[:, 0] < 0.5
    assert abs(float(flips.double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(4000)


def affine(
    image: np.ndarray, matrix: np.ndarray, move: tuple[float, float] = (0, 0), mode: str = "grid-constant"
) -> np.ndarray:
    """Sample an image at matrix @ (offset from its center) + move, by scipy, which knows nothing of torch's grids."""
    center = (np.array(image.shape) - 1) / 2
    # scipy wants (row, column) order; the published matrices act on (x, y)
    swapped = matrix[::-1, ::-1]
    offset = center - swapped @ center + np.array(move[::-1])
    return np.asarray(ndimage.affine_transform(image, swapped, offset, order=1, mode=mode, cval=0.0))


@pytest.mark.parametrize("u", [0.0, 0.2, 0.9])
def test_scale_and_rotate_agree_with_scipy(u: float) -> None:
    x = images(1, 1, 13)
    factors = [1 / 1.2 + v * (1.2 - 1 / 1.2) for v in (u, 1 - u)]
    angle = (u - 0.5) * 2 * math.radians(15)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    for operation, numbers, matrix in (("scale", [u, 1 - u, 0], np.diag(factors)), ("rotate", [u, 0, 0], turn)):
        ours = apply(x, one(operation, numbers))[0, 0].numpy()
        np.testing.assert_allclose(ours, affine(x[0, 0].numpy(), matrix), atol=1e-5)


@pytest.mark.parametrize("u", [0.1, 0.5, 0.95])
def test_an_affine_change_agrees_with_scipy(u: float) -> None:
    x = images(1, 1, 13)
    numbers = [u, 1 - u, 0.3, 0.8, u, 0.25]
    angle, across, down, shear, right, low = (2 * v - 1 for v in numbers)
    angle = math.radians(20 * angle)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.array([[1, 0.2 * shear], [0, 1]]) @ np.diag([math.exp(0.25 * across), math.exp(0.25 * down)])
    expected = affine(x[0, 0].numpy(), matrix, (0.1 * 13 * right, 0.1 * 13 * low), "nearest")
    np.testing.assert_allclose(apply(x, one("affine", numbers))[0, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_shared_draw_equals_the_same_draw_for_every_row(operation: str) -> None:
    x = images(5)
    shared = draw(operation, 1, generator(3))
    np.testing.assert_allclose(apply(x, shared).numpy(), apply(x, shared.repeat_interleave(5)).numpy(), atol=1e-12)


def test_rows_with_operations_of_their_own_equal_one_call_a_row() -> None:
    x = images(40)
    drawn = draw(ALL, 40, generator(5), common=False)
    assert len(drawn.operation.unique()) == 6
    expected = torch.cat([apply(x[i : i + 1], drawn[i : i + 1]) for i in range(40)])
    np.testing.assert_allclose(apply(x, drawn).numpy(), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_differentiable(operation: str) -> None:
    x = images(2, 1, 6).requires_grad_()
    drawn = draw(operation, 2, generator(1))
    assert torch.autograd.gradcheck(lambda v: apply(v, drawn), (x,))


def test_one_operation_is_drawn_uniformly_for_a_batch() -> None:
    rng = generator()
    counts = torch.zeros(6)
    for _ in range(3000):
        drawn = draw(ALL, 2, rng)
        assert drawn.operation[0] == drawn.operation[1]
        counts[drawn.operation[0]] += 1
    chi_squared = float(((counts - 500).square() / 500).sum())
    assert chi_squared < 20.5  # the 99.9 % point at five degrees of freedom


def test_no_strategy_leaves_images_alone_and_draws_nothing() -> None:
    rng, x = generator(), images()
    before = rng.get_state()
    assert augment.augment(x, "", rng) is x
    assert apply(x, draw("", 3, rng)) is x
    assert torch.equal(rng.get_state(), before)


def test_bad_strategies_are_one_clear_line() -> None:
    with pytest.raises(OptionError, match=r"unknown augmentation 'rotat'; did you mean 'rotate'\?"):
        check("crop_rotat", (1, 8, 8))
    with pytest.raises(OptionError, match=r"'crop' needs \(C, H, W\) images, not inputs of shape \(5,\)"):
        check("crop", (5,))


@pytest.mark.parametrize(
    ("shape", "chosen"), [((1, 8, 8), "crop_scale_rotate"), ((3, 8, 8), ALL), ((64,), ""), ((8, 8), "")]
)
def test_auto_follows_the_shape(shape: tuple[int, ...], chosen: str) -> None:
    assert resolve("auto", shape) == chosen
    assert resolve("", shape) == ""
    with pytest.raises(OptionError, match="blur"):
        resolve("blur", shape)


def test_what_is_named_is_taken_as_it_is_where_it_can_be_applied() -> None:
    assert resolve("flip_crop", (1, 8, 8)) == "flip_crop"
    with pytest.raises(OptionError, match="images, not inputs of shape"):
        resolve("flip_crop", (64,))


def test_a_sum_applies_each_operation_with_numbers_of_its_own() -> None:
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    drawn = augment.draw("rotate+crop+flip", 5, torch.Generator().manual_seed(1))
    assert drawn.numbers.shape == (5, 4)
    crop, flip, rotate = drawn.numbers[:, :2], drawn.numbers[:, 2:3], drawn.numbers[:, 3:]
    # in the order of the table, whatever the order of the sum
    expected = augment.OPERATIONS["rotate"](
        augment.OPERATIONS["flip"](augment.OPERATIONS["crop"](x, crop), flip), rotate
    )
    assert torch.equal(augment.apply(x, drawn), expected)
    assert torch.equal(augment.apply(x[2:], drawn[slice(2, 5)]), expected[2:])


def test_a_sum_is_one_choice_of_a_strategy() -> None:
    drawn = augment.draw("color_crop+flip", 400, torch.Generator().manual_seed(0), common=False)
    counts = drawn.operation.unique(return_counts=True)[1]
    assert len(counts) == 2 and int(counts.min()) > 160
    x = torch.rand(400, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    single = torch.cat([augment.apply(x[k : k + 1], drawn[slice(k, k + 1)]) for k in range(20)])
    torch.testing.assert_close(augment.apply(x, drawn)[:20], single)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("crop+flop", "unknown augmentation 'flop'; did you mean 'flip'"),
        ("crop+crop", r"augmentation 'crop\+crop' has an operation twice"),
        ("crop+", "unknown augmentation ''"),
    ],
)
def test_sums_that_cannot_be(strategy: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        augment.check(strategy, (3, 8, 8))
