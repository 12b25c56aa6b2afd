"""Pictures of the samples of a set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ddplug.errors import DataError
from ddplug.synthetic.ranges import Images, in_units
from ddplug.utils.pictures import drawable, sheet
from ddplug.utils.surroundings import own_surroundings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Pictured", "grid", "image_bytes"]


class Pictured(Images, Protocol):
    """What is asked of a set whose classes are shown."""

    @property
    def hard_targets(self) -> Tensor:
        """``(M,)`` int64 class indices."""

    @property
    def class_names(self) -> Sequence[str]:
        """One name a class."""


@own_surroundings()
def image_bytes(synthetic: Images) -> Tensor:
    """Return the images of a set as bytes, black to white in their own range, clipped to what a picture can show.

    Args:
        synthetic: a set of gray or RGB images.

    Returns:
        ``(M, H, W)`` or ``(M, H, W, 3)`` uint8, on the CPU.

    Raises:
        DataError: the inputs are not images with one or three channels.

    Example:
        >>> from ddplug.data.preprocess import Identity
        >>> from ddplug.synthetic import SyntheticSet
        >>> one = SyntheticSet(torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([0]), 1, Identity())
        >>> image_bytes(one)
        tensor([[[  0, 255]]], dtype=torch.uint8)
    """
    if not drawable(synthetic.shape):
        raise DataError(
            f"inputs of the shape {synthetic.shape} are not images of one or three channels; export to npz instead"
        )
    shown = (in_units(synthetic) * 255).round_().clamp_(0, 255).to(torch.uint8)
    return shown[:, 0] if synthetic.shape[0] == 1 else shown.permute(0, 2, 3, 1)


@own_surroundings()
def grid(synthetic: Pictured, per_row: int = 10) -> Figure:
    """Draw a set as a grid, a class a row, small images enlarged without smoothing.

    Values are shown as :func:`image_bytes` has them. What does not fit is left out, and the figure says so.

    Args:
        synthetic: a set of gray or RGB images.
        per_row: images of a class to show, at least 1.

    Returns:
        The figure.

    Raises:
        DataError: the inputs are not images with one or three channels.
        OptionError: ``per_row`` is below 1.

    Example:
        >>> from ddplug.data.preprocess import Identity
        >>> from ddplug.synthetic import SyntheticSet
        >>> made = SyntheticSet(torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]), 2, Identity())
        >>> [label.get_text() for label in grid(made).texts]
        ['0', '1']
    """
    return sheet(image_bytes(synthetic), synthetic.hard_targets, synthetic.class_names, per_row)
