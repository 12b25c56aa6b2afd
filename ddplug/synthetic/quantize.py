"""Round model-space inputs to few levels a channel in pixel space, the same on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from ddplug.data.preprocess import Preprocess, per_channel
from ddplug.functional.packing import best_span

__all__ = ["codes", "decode", "exact_pixels", "rounded", "span"]


def exact_pixels(preprocess: Preprocess, inputs: Tensor) -> Tensor:
    """Compute the pixels in float64 on the CPU: rounding must not move a code, nor depend on the device."""
    fields = {name: tensor.cpu().double() for name, tensor in preprocess.tensors().items()}
    return type(preprocess)(**fields).inverse(inputs.cpu().double())


def span(pixels: Tensor, bits: int) -> Tensor:
    """Choose the pixel values of the first and the last level of each channel.

    Args:
        pixels: ``(M, C, ...)`` float64, from :func:`exact_pixels`.
        bits: one of :data:`ddplug.functional.packing.BITS`. With 8 the levels span the values present, and for images
            at least ``[0, 1]``; with fewer they make the squared error small
            (:func:`ddplug.functional.best_span`).

    Returns:
        ``(2, C)`` float32.
    """
    channels = pixels.transpose(0, 1).flatten(1)
    if bits < 8:
        return best_span(channels, bits)
    low, high = channels.amin(1), channels.amax(1)
    if pixels.ndim >= 4:
        # up to half a level outside [0, 1] is rounding of what was inside
        low = torch.where(low < -1 / 510, low, torch.zeros_like(low))
        high = torch.where(high > 1 + 1 / 510, high, torch.ones_like(high))
    return torch.stack([low, high]).float()


def codes(pixels: Tensor, levels: Tensor, bits: int) -> Tensor:
    """Round pixels to the nearest levels.

    Args:
        pixels: ``(M, C, ...)`` float64, from :func:`exact_pixels`.
        levels: ``(2, C)`` float32 on the CPU, from :func:`span`.
        bits: one of :data:`ddplug.functional.packing.BITS`.

    Returns:
        uint8 codes of the same shape, on the CPU; those of fewer bits than 8 span 0..255 as well.
    """
    low, high = (per_channel(level.double(), pixels) for level in levels)
    # a constant channel has one level, the code 0
    width = torch.where(high > low, high - low, torch.full_like(low, torch.inf))
    steps = (1 << bits) - 1
    return (((pixels - low) / width * steps).round_().clamp_(0, steps) * (255 // steps)).to(torch.uint8)


def rounded(pixels: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Choose levels and round to them.

    Args:
        pixels: ``(M, C, ...)`` float64.
        bits: one of :data:`ddplug.functional.packing.BITS`.

    Returns:
        The codes of :func:`codes` and the levels of :func:`span`.
    """
    levels = span(pixels, bits)
    return codes(pixels, levels, bits), levels


def decode(preprocess: Preprocess, codes: Tensor, levels: Tensor) -> Tensor:
    """Turn codes into model-space inputs, on the CPU; the inverse of :func:`codes`.

    The numbers are the same on every device and whatever samples are decoded together.
    """
    return preprocess.to("cpu").decode(codes.cpu(), levels.cpu())
