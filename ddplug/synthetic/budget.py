"""How many samples fit into so many bytes."""

from __future__ import annotations

import torch

from ddplug.data.labeled import LabeledData
from ddplug.functional.resize import reduced_shape
from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["bytes_of", "rows_within"]


def rows_within(nbytes: int, data: LabeledData, factor: int = 1, bits: int = 8) -> int:
    """Return the samples with hard labels that fit into so many bytes, quantized; 0 where none does.

    Args:
        nbytes: as :attr:`ddplug.synthetic.SyntheticSet.nbytes` counts.
        data: gives the shape of a sample and the number of classes.
        factor: by which images are stored smaller; see :mod:`ddplug.functional.resize`.
        bits: that a number takes; see :meth:`ddplug.synthetic.SyntheticSet.quantize`.

    Raises:
        OptionError: see :func:`ddplug.functional.reduced_shape` and :func:`ddplug.functional.packing.check_bits`.

    Example:
        >>> from ddplug.testing import toy_images
        >>> data = toy_images()  # 8x8 grey images, and a byte for each label; 8 bytes for the levels
        >>> rows_within(137, data), rows_within(138, data), rows_within(138, data, factor=2)
        (1, 2, 7)
    """
    one, two = (bytes_of(rows, data, factor, bits) for rows in (1, 2))
    return max(0, (nbytes - (2 * one - two)) // (two - one))


def bytes_of(rows: int, data: LabeledData, factor: int = 1, bits: int = 8) -> int:
    """Return the bytes of so many samples with hard labels, quantized.

    Args:
        rows: number of samples.
        data: gives the shape of a sample and the number of classes.
        factor: by which images are stored smaller.
        bits: that a number takes.
    """
    inputs = torch.zeros(rows, *reduced_shape(data.shape, factor))
    targets = torch.zeros(rows, dtype=torch.int64)
    made = SyntheticSet(inputs, targets, data.num_classes, data.preprocess, network_shape=data.shape)
    return made.quantize(bits=bits).nbytes
