r"""The cosine transform of blocks of an image, and the way back in whole numbers, the same on every machine.

.. math::  c = T x T^\top, \qquad x = T^\top c \, T, \qquad
           T_{un} = \sqrt{\tfrac{2 - [u = 0]}{N}} \cos \frac{\pi (2 n + 1) u}{2 N}

The way back multiplies by :math:`2^{14} T`, rounded to whole numbers, as floating point whose every sum is a whole
number below :math:`2^{53}`, so that nothing is rounded but where it is said, whatever the order of the sums.

Reference: Ahmed, Natarajan & Rao, "Discrete Cosine Transform", IEEE Transactions on Computers 1974; Y'CbCr is that of
JFIF 1.02.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FINE", "LARGEST", "MOST_BLOCK", "backward", "blocks", "forward"]

Float = NDArray[np.float64]

MOST_BLOCK = 32
"""Largest side of a block: whole images of CIFAR-10 are one."""

FINE = 256
"""Parts of a level that coefficients are given in on the way back."""

LARGEST = 1 << 15
"""Coefficients lie below this many levels; of 32x32 pixels of a byte they lie below 2**13."""

_SCALE = 1 << 14

_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])

_TO_RGB = np.array([[65536, 0, 91881], [65536, -22554, -46802], [65536, 116130, 0]], dtype=np.float64)
"""Times 2**16."""


def blocks(side: int) -> tuple[int, int]:
    """Return the number of blocks along a side, and their side.

    Example:
        >>> blocks(32), blocks(28), blocks(50)
        ((1, 32), (1, 28), (2, 25))
    """
    number = -(-side // MOST_BLOCK)
    return number, -(-side // number)


def _basis(side: int) -> Float:
    u, n = np.arange(side)[:, None], np.arange(side)[None]
    rows: Float = np.sqrt(np.where(u == 0, 1.0, 2.0) / side) * np.cos(math.pi * (2 * n + 1) * u / (2 * side))
    return rows


def forward(pixels: NDArray[Any]) -> Float:
    """Transform images.

    Args:
        pixels: ``(M, C, H, W)`` gray (``C`` 1) or RGB (``C`` 3) levels of 0 to 255, which may be broken.

    Returns:
        ``(M * blocks, C, h, w)`` coefficients in levels, of luma and of both chroma channels.
    """
    images = np.asarray(pixels, np.float64) - 128
    if images.shape[1] == 3:
        images = np.einsum("ij,njhw->nihw", _TO_YCC, images)
    (down, tall), (across, wide) = blocks(images.shape[2]), blocks(images.shape[3])
    room = ((0, 0), (0, 0), (0, down * tall - images.shape[2]), (0, across * wide - images.shape[3]))
    cut = np.pad(images, room, mode="edge").reshape(*images.shape[:2], down, tall, across, wide)
    parts = cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, images.shape[1], tall, wide)
    found: Float = _basis(tall) @ parts @ _basis(wide).T
    return found


def backward(coefficients: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Transform coefficients back to images.

    Args:
        coefficients: ``(M * blocks, C, h, w)`` whole numbers, in :data:`FINE` parts of a level; beyond
            :data:`LARGEST` levels they are cut off.
        shape: ``(C, H, W)`` of an image.

    Returns:
        ``(M, C, H, W)`` levels, gray or RGB.

    Example:
        >>> ramp = np.arange(0, 256, 4).reshape(1, 1, 8, 8)
        >>> found = backward(np.rint(forward(ramp) * FINE), (1, 8, 8))
        >>> bool((found == ramp).all())
        True
    """
    channels, height, width = shape
    (down, tall), (across, wide) = blocks(height), blocks(width)
    parts = np.clip(np.asarray(coefficients, np.float64), -LARGEST * FINE, LARGEST * FINE)
    columns, rows = (np.rint(_basis(side) * _SCALE) for side in (tall, wide))
    half = np.floor(columns.T @ parts / _SCALE + 0.5)
    whole = np.floor(half @ rows / _SCALE + 0.5)
    cut = whole.reshape(-1, down, across, channels, tall, wide).transpose(0, 3, 1, 4, 2, 5)
    images = cut.reshape(-1, channels, down * tall, across * wide)[:, :, :height, :width]
    if channels == 3:
        images = np.einsum("ij,njhw->nihw", _TO_RGB, images) / 65536
    found: NDArray[np.uint8] = np.clip(np.floor(images / FINE + 128.5), 0, 255).astype(np.uint8)
    return found
