"""What samples take in bytes, and how many of them a number of bytes holds."""

from __future__ import annotations

from typing import TypeAlias

import torch

from ddplug.data.labeled import LabeledData
from ddplug.functional.resize import reduced_shape
from ddplug.synthetic.codecs.plain import Plain
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.surroundings import own_surroundings

__all__ = ["Stored", "bytes_of", "images_within", "rows_within"]

Stored: TypeAlias = "int | tuple[int, ...]"
"""How small inputs are stored: the factor that images are reduced by (:mod:`ddplug.functional.resize`), or a shape."""


def images_within(nbytes: int, data: LabeledData, stored: Stored = 1, bits: int = 8) -> int:
    """Return how many real samples of each class fit into a number of bytes, quantized and with hard labels.

    Args:
        nbytes: as :attr:`ddplug.synthetic.SyntheticSet.nbytes` counts.
        data: gives the samples.
        stored: factor that images are stored smaller by, or shape that inputs are stored as.
        bits: that a number takes; see :meth:`ddplug.synthetic.SyntheticSet.quantize`.

    Returns:
        At most what the smallest class has; 0 where not even one of each class fits.

    Raises:
        OptionError: see :func:`rows_within`.

    Example:
        >>> from ddplug.testing import toy_images
        >>> data = toy_images((12, 11))  # 8x8 pixels and a label, 2 classes; 8 bytes for the levels
        >>> images_within(1000, data), images_within(100, data), images_within(10_000, data)
        (7, 0, 11)
    """
    return min(rows_within(nbytes, data, stored, bits) // data.num_classes, *map(len, data.class_indices))


def rows_within(nbytes: int, data: LabeledData, stored: Stored = 1, bits: int = 8) -> int:
    """Return how many samples with hard labels fit into a number of bytes, quantized; 0 where none does.

    Args:
        nbytes: as :attr:`ddplug.synthetic.SyntheticSet.nbytes` counts.
        data: gives the shape of a sample and the number of classes.
        stored: factor that images are stored smaller by, or shape that inputs are stored as.
        bits: that a number takes; see :meth:`ddplug.synthetic.SyntheticSet.quantize`.

    Raises:
        OptionError: see :func:`ddplug.functional.reduced_shape` and :func:`ddplug.functional.packing.check_bits`.

    Example:
        >>> from ddplug.testing import toy_images
        >>> data = toy_images()  # 8x8 gray images, and a byte for each label; 8 bytes for the levels
        >>> rows_within(137, data), rows_within(138, data), rows_within(138, data, 2), rows_within(138, data, (1, 4, 2))
        (1, 2, 7, 14)
    """
    one, two = (bytes_of(rows, data, stored, bits) for rows in (1, 2))
    return max(0, (nbytes - (2 * one - two)) // (two - one))


@own_surroundings()
def bytes_of(rows: int, data: LabeledData, stored: Stored = 1, bits: int = 8) -> int:
    """Return the bytes of a number of samples with hard labels, quantized.

    Args:
        rows: number of samples.
        data: gives the shape of a sample and the number of classes.
        stored: factor that images are stored smaller by, or shape that inputs are stored as.
        bits: that a number takes, or 32 for float32.

    Raises:
        OptionError: see :func:`rows_within`.
    """
    shape = reduced_shape(data.shape, stored) if isinstance(stored, int) else stored
    inputs, targets = torch.zeros(rows, *shape), torch.zeros(rows, dtype=torch.int64)
    made = SyntheticSet(inputs, targets, data.num_classes, data.preprocess, network_shape=data.shape)
    return made.compress(Plain(bits)).nbytes
