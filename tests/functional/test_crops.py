"""Crops against torch's own resizing of the cut-out, and what the boxes promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from ddplug.errors import OptionError
from ddplug.functional.crops import check_images, draw_boxes, resample, whole
from tests.exact import generator


@pytest.mark.parametrize("size", [(4, 4), (7, 5), (16, 24), (1, 1), (40, 31)])
def test_a_crop_is_the_cut_out_resized_by_torch(size: tuple[int, int]) -> None:
    images = torch.rand(6, 3, 16, 24, generator=generator(1))
    boxes = draw_boxes(6, (3, 16, 24), 0.05, generator(), stretch=2.0)
    ours = resample(images, boxes, size)
    for image, (top, left, height, width), result in zip(images, boxes.tolist(), ours, strict=True):
        cut = image[None, :, top : top + height, left : left + width]
        expected = interpolate(cut, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-4)


def test_whole_images_stay_as_they_are_and_flips_mirror_those_asked_for() -> None:
    images = torch.rand(3, 2, 5, 6, generator=generator())
    boxes = whole(3, (2, 5, 6))
    torch.testing.assert_close(resample(images, boxes, (5, 6)), images)
    mirrored = resample(images, boxes, (5, 6), torch.tensor([True, False, True]))
    torch.testing.assert_close(mirrored[[0, 2]], images[[0, 2]].flip(3))
    torch.testing.assert_close(mirrored[1], images[1])


def test_the_gradients_of_a_crop() -> None:
    images = torch.rand(2, 1, 4, 5, generator=generator(), dtype=torch.float64).requires_grad_()
    boxes = torch.tensor([[0, 1, 3, 2], [1, 0, 2, 5]])
    flip = torch.tensor([False, True])
    assert torch.autograd.gradcheck(lambda x: resample(x, boxes, (3, 4), flip), (images,))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 40, 96)])
@pytest.mark.parametrize("stretch", [1.0, 4 / 3])
def test_boxes_lie_in_the_image_and_cover_the_area_asked_for(shape: tuple[int, ...], stretch: float) -> None:
    boxes = draw_boxes(4000, shape, 0.25, generator(2), stretch=stretch)
    top, left, height, width = boxes.unbind(1)
    assert bool((boxes >= 0).all()) and bool((height >= 1).all()) and bool((width >= 1).all())
    assert bool((top + height <= shape[1]).all()) and bool((left + width <= shape[2]).all())
    # every place is met, the borders too
    assert int((top + height).max()) == shape[1] and int((left + width).max()) == shape[2]
    share = (height * width).double() / (shape[1] * shape[2])
    rounding = 1 / shape[1] + 1 / shape[2]
    assert float(share.min()) > 0.25 - rounding and float(share.max()) == 1
    # a uniform share of the area: its mean, and as many below the middle as above
    assert float(share.mean()) == pytest.approx(0.625, abs=0.02)
    form = (width * shape[1]).double() / (height * shape[2])
    limit = stretch + 2 * rounding
    assert float(form.max()) < limit and float(form.min()) > 1 / limit
    assert stretch == 1 or float(form.std()) > 0.05


def test_a_share_of_one_is_the_whole_image_whatever_the_stretch() -> None:
    assert torch.equal(draw_boxes(50, (1, 9, 13), 1.0, generator(), stretch=2.0), whole(50, (1, 9, 13)))


def test_boxes_are_drawn_from_the_generator_alone() -> None:
    one, other = (draw_boxes(5, (1, 32, 32), 0.1, generator(k)) for k in (3, 3))
    assert torch.equal(one, other)
    assert not torch.equal(one, draw_boxes(5, (1, 32, 32), 0.1, generator(4)))


def test_rows_are_no_images() -> None:
    assert check_images("x", (3, 5, 7)) == (5, 7)
    with pytest.raises(OptionError, match=r"rded needs \(C, H, W\) images, not inputs of shape \(6,\)"):
        check_images("rded", (6,))


def test_a_constant_image_stays_constant() -> None:
    boxes = draw_boxes(20, (1, 17, 23), 0.02, generator(), stretch=3.0)
    made = resample(torch.full((20, 1, 17, 23), 0.7), boxes, (9, 30))
    np.testing.assert_allclose(made.numpy(), 0.7, rtol=1e-5)
