"""What inputs are, told by their shape, and the network that suits each kind."""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["AUTO", "SUITED", "form_of"]

AUTO = "auto"
"""In the place of a network's name: the one that suits the inputs."""

SUITED: Mapping[str, str] = {"image": "convnet", "series": "conv1d", "row": "mlp"}
"""Form of the inputs -> the network that suits them."""

_LEAST_LENGTH = 8
"""Values of a series that a network which halves it three times needs."""


def form_of(shape: tuple[int, ...]) -> str:
    """Return what inputs of a shape are: ``"image"``, ``"series"`` or ``"row"``.

    Args:
        shape: of one input: ``(C, H, W)`` is an image unless it has a single pixel, ``(C, L)`` a series unless it has
            fewer than 8 values a channel; everything else is a row of numbers.

    Returns:
        A key of :data:`SUITED`.

    Example:
        >>> form_of((1, 28, 28)), form_of((3, 128)), form_of((768,)), form_of((512, 1, 1))
        ('image', 'series', 'row', 'row')
    """
    if len(shape) == 3 and math.prod(shape[1:]) > 1:
        return "image"
    return "series" if len(shape) == 2 and shape[1] >= _LEAST_LENGTH else "row"
