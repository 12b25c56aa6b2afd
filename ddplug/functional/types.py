"""Types that the functions here take and return."""

from __future__ import annotations

from torch import Tensor

__all__ = ["Tensors"]

Tensors = dict[str, Tensor]
"""Parameters and buffers of a network by name."""
