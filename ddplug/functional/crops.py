"""Random crops of images, resized with antialiasing: boxes that are data, and a differentiable way to cut them out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddplug.utils.checks import image_shape
from ddplug.utils.surroundings import own_surroundings

__all__ = ["check_images", "draw_boxes", "resample", "whole"]


def check_images(what: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Check that inputs are images and give their height and width.

    Args:
        what: who asks, for the message.
        shape: of one input.

    Raises:
        OptionError: it is not ``(C, H, W)``.
    """
    return image_shape(shape, what, "use another method, e.g. kmeans or dm")[1:]


def whole(n: int, shape: tuple[int, ...]) -> Tensor:
    """Return the boxes of ``n`` whole images of a shape ``(C, H, W)``; ``(n, 4)`` int64."""
    return torch.tensor([[0, 0, shape[1], shape[2]]]).repeat(n, 1)


@own_surroundings(gradients=False)
def draw_boxes(n: int, shape: tuple[int, ...], least: float, rng: torch.Generator, *, stretch: float = 1.0) -> Tensor:
    """Draw boxes that cover a uniform share of an image's area, at uniform places.

    Args:
        n: number of boxes.
        shape: ``(C, H, W)`` of one image.
        least: smallest share of the area, in (0, 1]; the largest is 1.
        rng: generator on the CPU.
        stretch: a box is at most this many times wider, or higher, than the image's own form; at least 1. The logarithm
            is uniform, between such limits that the box fits into the image.

    Returns:
        ``(n, 4)`` int64 top, left, height and width in pixels, on the CPU.

    Example:
        >>> draw_boxes(1, (3, 32, 64), 1.0, torch.Generator())
        tensor([[ 0,  0, 32, 64]])
    """
    sides = torch.tensor(shape[1:])
    u = torch.rand(n, 4, generator=rng, dtype=torch.float64)
    area = least + (1 - least) * u[:, 0]
    reach = (-area.log()).clamp_max(math.log(stretch))
    log_ratio = (2 * u[:, 1] - 1) * reach
    shares = torch.stack([area.log() - log_ratio, area.log() + log_ratio], 1).div(2).exp()
    lengths = (shares * sides).round().long().clamp_min(1)
    starts = (u[:, 2:] * (sides - lengths + 1)).long()
    return torch.cat([starts, lengths], 1)


def _weights(start: Tensor, length: Tensor, side: int, out: int) -> Tensor:
    """Return the ``(n, out, side)`` weights of the pixels of one axis in each pixel of the result.

    They fall off linearly with the distance, over one pixel of the source or of the result, whichever is larger, and
    stay within the box.
    """
    step = (length / out)[:, None, None]
    center = start[:, None, None] + (torch.arange(out, device=start.device)[None, :, None] + 0.5) * step
    pixel = torch.arange(side, device=start.device) + 0.5
    weight = (1 - (pixel - center).abs() / step.clamp_min(1)).clamp_min(0)
    inside = (pixel > start[:, None, None]) & (pixel < (start + length)[:, None, None])
    weight = weight * inside
    return weight / weight.sum(2, keepdim=True)


@own_surroundings(gradients=False)
def resample(x: Tensor, boxes: Tensor, size: tuple[int, int], flip: Tensor | None = None) -> Tensor:
    """Cut a box out of each image and resize it, bilinearly and with antialiasing; differentiable in ``x``.

    Both axes are linear maps, so that boxes of all sizes go through two matrix products together.

    Args:
        x: ``(n, C, H, W)``.
        boxes: ``(n, 4)`` int64 top, left, height and width, within the images.
        size: height and width of the result.
        flip: ``(n,)`` bool: which to mirror left to right.

    Returns:
        ``(n, C, *size)``.

    Example:
        >>> resample(torch.arange(4.0).view(1, 1, 1, 4), torch.tensor([[0, 2, 1, 2]]), (1, 1))
        tensor([[[[2.5000]]]])
    """
    top, left, height, width = boxes.to(x.device).unbind(1)
    rows = _weights(top, height, x.shape[2], size[0]).to(x.dtype)
    columns = _weights(left, width, x.shape[3], size[1]).to(x.dtype)
    if flip is not None:
        columns = torch.where(flip.to(x.device)[:, None, None], columns.flip(1), columns)
    return rows[:, None] @ x @ columns[:, None].transpose(2, 3)
