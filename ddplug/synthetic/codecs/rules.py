"""Which codec suits some data, by measured rules."""

from __future__ import annotations

import math

import torch

from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import on_levels, per_channel, to_pixels
from ddplug.synthetic import quantize

__all__ = ["LEAST_SIDE", "MOST_ERROR", "suited"]

MOST_ERROR = {1: 0.33, 2: 0.2, 4: 0.1}
"""Bits of a number -> error of rounding to them, as a share of the deviation of the values, up to which they suffice.

In one bit MNIST has 0.26, the digits of scikit-learn 0.37 and CIFAR-10 0.56: only the first are drawings. In two bits
the digits have 0.16; 3,000 bytes of random ones train to 97.0 % held out so, and to 94.9 % in one.
"""

LEAST_SIDE = 16
"""Pixels of a side from which on images are taken for photographs, if they are no drawings."""

_SEEN = 1000
"""Samples that are looked at."""


def suited(data: LabeledData, nbytes: int | None = None) -> str:
    """Choose a codec for data and, for photographs, its quality for a number of bytes.

    Drawings, of which one bit a number keeps nearly all of the variance, get ``pixels:bits=1``, whole: at half the side
    they take half the bytes, and random MNIST digits in 7.8 kB then train to 98.0 %, as they do whole. Photographs get
    ``avif``, at the quality that was best on CIFAR-10 for the bits of a class: 5 for 25,000, 15 for 100,000, 25 for
    250,000, more pixels needing more bits. Smaller images get the fewest bits that lose little, and rows of a table 4
    or 8.

    Args:
        data: real training data.
        nbytes: that the set may take, for the quality; 25 without.

    Returns:
        The codec by its name with options.

    Example:
        >>> from ddplug.testing import toy_images
        >>> suited(toy_images()), suited(toy_images(size=32, channels=3), 37_500)
        ('pixels:bits=4', 'avif:quality=15')
    """
    errors = _errors(data)
    if len(data.shape) == 3 and errors[1] <= MOST_ERROR[1]:
        return "pixels:bits=1"
    if len(data.shape) == 3 and data.shape[0] in (1, 3) and min(data.shape[1:]) >= LEAST_SIDE:
        return f"avif:quality={_quality(data, nbytes)}"
    enough = (bits for bits in (2, 4) if errors[bits] <= MOST_ERROR[bits] and (bits > 2 or len(data.shape) == 3))
    return f"pixels:bits={next(enough, 8)}"


def _errors(data: LabeledData) -> dict[int, float]:
    """Measure what rounding of pixels to few bits loses, as a share of their deviation."""
    some = torch.arange(len(data))[:: max(1, len(data) // _SEEN)]
    pixels = to_pixels(data.inputs[some.to(data.inputs.device)]).cpu().double()
    mean = per_channel(pixels.transpose(0, 1).flatten(1).mean(1), pixels)
    deviation = float((pixels - mean).square().mean().sqrt()) or 1.0
    found = {}
    for bits in MOST_ERROR:
        rounded = on_levels(*quantize.rounded(pixels, bits))
        found[bits] = float((rounded - pixels).square().mean().sqrt()) / deviation
    return found


def _quality(data: LabeledData, nbytes: int | None) -> int:
    """Return the quality for the bits of a class, those of 32x32 pixels being counted; a multiple of 5."""
    if nbytes is None:
        return 25
    bits = 8 * nbytes / data.num_classes * 1024 / math.prod(data.shape[1:])
    return max(5, min(60, 5 * round(1 + 4 * math.log10(max(1.0, bits) / 25_000))))
