"""Multi-formation: in the place of one image, several at a fraction of the resolution.

Neighboring pixels say nearly the same, so ``factor**2`` images of a side ``1 / factor`` often serve better than one
whole image, in the same bytes. They are brought back to full size by bilinear interpolation before anything sees them.

Reference: Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization" (IDC), ICML 2022, section
3.2.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate

from ddplug.errors import OptionError
from ddplug.utils.checks import image_shape, whole

__all__ = ["MAX_FACTOR", "can_enlarge", "enlarge", "reduce", "reduce_to", "reduced_shape"]

MAX_FACTOR = 16
"""Largest factor; the limit keeps a small file from being enlarged beyond all memory."""


def reduced_shape(shape: tuple[int, ...], factor: int) -> tuple[int, ...]:
    """Return the shape of an image reduced by a factor; sides are rounded down.

    Raises:
        OptionError: the inputs are not ``(C, H, W)`` images, a side is smaller than the factor, or the factor is not
            within 1 and :data:`MAX_FACTOR`.

    Example:
        >>> reduced_shape((1, 28, 28), 2), reduced_shape((8,), 1)
        ((1, 14, 14), (8,))
    """
    factor = whole("factor", factor)
    if not 1 <= factor <= MAX_FACTOR:
        raise OptionError(f"factor is {factor}; it must lie between 1 and {MAX_FACTOR}")
    if factor == 1:
        return shape
    channels, height, width = image_shape(shape, f"factor is {factor}, which", "use factor=1")
    if min(height, width) < factor:
        raise OptionError(f"factor is {factor}, but images are {height}x{width}; use at most {min(height, width)}")
    return channels, height // factor, width // factor


def reduce(x: Tensor, factor: int) -> Tensor:
    """Average ``(n, C, H, W)`` images down by a factor; the images themselves for 1.

    Raises:
        OptionError: see :func:`reduced_shape`.
    """
    return reduce_to(x, reduced_shape(tuple(x.shape[1:]), factor))


def reduce_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Average ``(n, C, H, W)`` images down to a shape ``(C, h, w)``; those of that shape stay as they are.

    A pixel is the mean of those that it overlaps, also where one side is no multiple of the other.

    Raises:
        OptionError: the shape is not that of such images, no larger than they are.

    Example:
        >>> import torch
        >>> reduce_to(torch.arange(5.0).view(1, 1, 1, 5), (1, 1, 2))
        tensor([[[[1., 3.]]]])
    """
    whole = tuple(x.shape[1:])
    if shape == whole:
        return x
    if not (len(whole) == len(shape) == 3 and whole[0] == shape[0] and whole[1] >= shape[1] and whole[2] >= shape[2]):
        raise OptionError(f"inputs of shape {whole} cannot be stored as {shape}")
    return interpolate(x, size=shape[1:], mode="area")


def can_enlarge(stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Say whether samples of a stored shape may stand for samples of a shape: images reduced by some factor, or equal.

    Example:
        >>> can_enlarge((1, 9, 9), (1, 28, 28)), can_enlarge((3, 9, 9), (1, 28, 28))
        (True, False)
    """
    if stored == shape:
        return True
    images = len(stored) == len(shape) == 3 and stored[0] == shape[0]
    # rounding a side down makes the ratio of sides up to twice the factor
    return images and all(small <= large <= 2 * MAX_FACTOR * small for small, large in zip(stored, shape, strict=True))


def enlarge(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Interpolate ``(n, C, h, w)`` images bilinearly to a shape ``(C, H, W)``; those of that shape stay as they are."""
    if tuple(x.shape[1:]) == shape:
        return x
    return interpolate(x, size=shape[1:], mode="bilinear", align_corners=False)
