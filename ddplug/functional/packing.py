"""Numbers of 1, 2 or 4 bits, several to a byte."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ddplug.errors import OptionError

__all__ = ["BITS", "best_span", "check_bits", "pack", "packed_bytes", "unpack"]

BITS = (1, 2, 4, 8)
"""Bits that a number may take. The codes of each lie on those of the next: 255 is a multiple of 1, 3, 15 and 255."""


def check_bits(bits: int, shape: tuple[int, ...], preprocess: str = "") -> None:
    """Check that numbers of samples of a shape can be stored in a number of bits.

    Args:
        bits: that a number takes.
        shape: of a sample.
        preprocess: kind of the preprocessing.

    Raises:
        OptionError: bits are none of :data:`BITS`, or below 8 the samples are no images or are whitened by ZCA.
    """
    if bits not in BITS:
        raise OptionError(f"bits is {bits!r}; it must be one of {', '.join(map(str, BITS))}")
    if bits < 8 and len(shape) != 3:
        raise OptionError(f"bits is {bits}, which is for images, not inputs of shape {shape}; use 8")
    if bits < 8 and preprocess == "zca":
        raise OptionError(f"bits is {bits}, but images whitened by zca need all 8; use 8, or standardize")


def best_span(values: Tensor, bits: int) -> Tensor:
    """Find where equal levels are to begin and end, so that rounding to them does little harm.

    Rounding to the nearest level and fitting the levels to what is rounded to them, a regression, take turns, as in
    Lloyd's algorithm: no turn makes the squared error larger. It begins at the extremes, which suit images that have a
    black background, and where evenly spread values want to begin, which a few stray ones cannot move far; the better
    end is taken.

    Args:
        values: ``(C, n)`` float64, each row with levels of its own.
        bits: one of :data:`BITS`.

    Returns:
        ``(2, C)`` float32, the lowest and the highest of the ``2**bits`` levels.

    Example:
        >>> best_span(torch.tensor([[0.0, 0.2, 0.8, 1.0]], dtype=torch.float64), 1)
        tensor([[0.1000],
                [0.9000]])
    """
    return torch.stack([_best_of_channel(row, bits) for row in values], 1)


def _best_of_channel(values: Tensor, bits: int) -> Tensor:
    """Return the ``(2,)`` span of ``(n,)`` values; pixels have few that differ, each of which is looked at once."""
    different, times = np.unique(values.cpu().numpy(), return_counts=True)
    own, weights = torch.from_numpy(different), torch.from_numpy(times / len(values))
    middle = (weights * own).sum()
    reach = 3**0.5 * (1 - 2.0**-bits) * (weights * (own - middle).square()).sum().sqrt()
    starts = ((own[0], own[-1]), (middle - reach, middle + reach))
    (span, error), (other_span, other) = (_fitted(own, weights, *start, (1 << bits) - 1) for start in starts)
    return (span if error <= other else other_span).float().to(values.device)


def _fitted(values: Tensor, weights: Tensor, low: Tensor, high: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Fit first and last level, from some to begin with; give their mean squared error too.

    Args:
        values: ``(n,)``.
        weights: ``(n,)`` share of each.
        low: first level to begin with.
        high: last level to begin with.
        steps: from the one to the other.
    """
    mean = (weights * values).sum()
    for _ in range(_TURNS):
        codes = _nearest(values, low, high, steps)
        middle = (weights * codes).sum()
        spread = (weights * (codes - middle).square()).sum()
        along = (weights * (codes - middle) * (values - mean)).sum()
        slope = along / torch.where(spread > 0, spread, 1.0)
        before, (low, high) = (low, high), (mean - slope * middle, mean + slope * (steps - middle))
        if all(map(torch.equal, before, (low, high))):
            break
    rounded = low + (high - low) / steps * _nearest(values, low, high, steps)
    return torch.stack([low, high]), (weights * (rounded - values).square()).sum()


def _nearest(values: Tensor, low: Tensor, high: Tensor, steps: int) -> Tensor:
    unit = ((high - low) / steps).clamp_min(torch.finfo(values.dtype).tiny)
    return ((values - low) / unit).round().clamp(0, steps)


_TURNS = 30
"""Of fitting levels, at the most; they hardly move after ten."""


def packed_bytes(numbers: int, bits: int) -> int:
    """Return the bytes of a row of numbers.

    Example:
        >>> packed_bytes(784, 1), packed_bytes(9, 4)
        (98, 5)
    """
    return -(-numbers * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Put several codes into a byte, the first into its highest bits; each row begins with a new byte.

    Args:
        codes: ``(M, n)`` uint8 multiples of ``255 / (2**bits - 1)``.
        bits: one of :data:`BITS`.

    Returns:
        ``(M, packed_bytes(n, bits))`` uint8; what is left of the last byte of a row is 0.

    Example:
        >>> pack(torch.tensor([[255, 0, 255, 255]], dtype=torch.uint8), 1)
        tensor([[176]], dtype=torch.uint8)
    """
    rows, each = len(codes), 8 // bits
    spare = packed_bytes(codes.shape[1], bits) * each - codes.shape[1]
    numbers = torch.nn.functional.pad(codes // (255 // ((1 << bits) - 1)), (0, spare)).view(rows, -1, each)
    return (numbers << _shifts(bits, codes.device)).sum(2, dtype=torch.uint8)


def unpack(packed: Tensor, numbers: int, bits: int) -> Tensor:
    """Take the codes out of bytes again; the inverse of :func:`pack`.

    Args:
        packed: ``(M, packed_bytes(numbers, bits))`` uint8.
        numbers: in a row.
        bits: one of :data:`BITS`.

    Returns:
        ``(M, numbers)`` uint8 codes.

    Example:
        >>> unpack(torch.tensor([[176]], dtype=torch.uint8), 4, 1)
        tensor([[255,   0, 255, 255]], dtype=torch.uint8)
    """
    levels = (1 << bits) - 1
    found = (packed[:, :, None] >> _shifts(bits, packed.device)) & levels
    return found.flatten(1)[:, :numbers] * (255 // levels)


def _shifts(bits: int, device: torch.device) -> Tensor:
    return torch.arange(8 - bits, -1, -bits, dtype=torch.uint8, device=device)
