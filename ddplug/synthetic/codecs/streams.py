"""The streams that codecs give: bytes, as uint8 tensors, and numbers in them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ddplug.errors import FormatError

__all__ = ["floats_in", "levels_in", "of_bytes", "of_floats"]


def of_bytes(content: bytes) -> Tensor:
    """Return bytes as a ``(n,)`` uint8 tensor of their own."""
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def of_floats(values: Tensor) -> Tensor:
    """Return numbers as the bytes of little-endian float32, the same on every machine."""
    return of_bytes(values.numpy().astype("<f4").tobytes())


def floats_in(stream: Tensor) -> Tensor:
    """Return the ``(n,)`` float32 numbers that :func:`of_floats` made a stream of."""
    return torch.from_numpy(np.frombuffer(bytes(stream.numpy()), "<f4").astype(np.float32))


def levels_in(stream: Tensor, codec: str) -> Tensor:
    """Return the ``(2, C)`` levels in a stream of ``8 * C`` bytes.

    Raises:
        FormatError: one is NaN or infinite.
    """
    levels = floats_in(stream).view(2, -1)
    if not bool(levels.isfinite().all()):
        raise FormatError(f"codec {codec}: its levels are not finite")
    return levels
