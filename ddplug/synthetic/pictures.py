"""Pictures of the samples of a set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddplug.errors import DataError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.ranges import in_units
from ddplug.utils.checks import values_at_least
from ddplug.utils.surroundings import own_surroundings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# matplotlib is imported where something is drawn: it writes to the home folder, and most commands draw nothing

__all__ = ["grid", "image_bytes"]

_DPI = 100

_LEAST = 64
"""Images smaller than this many screen pixels are enlarged."""

_MOST = 12_000
"""Screen pixels of a side: what viewers and the renderer can take."""

_GAP = 4

_MARGIN = 12

_TEXT = 14

_NAME = 28
"""Characters of a class name that are shown."""


@own_surroundings()
def image_bytes(synthetic: SyntheticSet) -> Tensor:
    """Return the images of a set as bytes, black to white in their own range, clipped to what a picture can show.

    Args:
        synthetic: a set of grey or RGB images.

    Returns:
        ``(M, H, W)`` or ``(M, H, W, 3)`` uint8, on the CPU.

    Raises:
        DataError: the inputs are not images with one or three channels.

    Example:
        >>> from ddplug.data.preprocess import Identity
        >>> one = SyntheticSet(torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([0]), 1, Identity())
        >>> image_bytes(one)
        tensor([[[  0, 255]]], dtype=torch.uint8)
    """
    if len(synthetic.shape) != 3 or synthetic.shape[0] not in (1, 3):
        raise DataError(
            f"inputs of the shape {synthetic.shape} are not images of one or three channels; export to npz instead"
        )
    shown = (in_units(synthetic) * 255).round_().clamp_(0, 255).to(torch.uint8)
    return shown[:, 0] if synthetic.shape[0] == 1 else shown.permute(0, 2, 3, 1)


@own_surroundings()
def grid(synthetic: SyntheticSet, per_row: int = 10) -> Figure:
    """Draw a set as a grid, a class a row, small images enlarged without smoothing.

    Values are shown as :func:`image_bytes` has them. What does not fit is left out, and the figure says so.

    Args:
        synthetic: a set of grey or RGB images.
        per_row: images of a class to show, at least 1.

    Returns:
        The figure.

    Raises:
        DataError: the inputs are not images with one or three channels.
        OptionError: ``per_row`` is below 1.

    Example:
        >>> from ddplug.data.preprocess import Identity
        >>> made = SyntheticSet(torch.rand(4, 1, 8, 8), torch.tensor([0, 0, 1, 1]), 2, Identity())
        >>> [label.get_text() for label in grid(made).texts]
        ['0', '1']
    """
    values_at_least(1, per_row=per_row)
    images = image_bytes(synthetic)
    shrink = math.ceil(max(images.shape[1:3]) / 1024)
    images = images[:, ::shrink, ::shrink]
    enlarge = max(1, math.ceil(_LEAST / min(images.shape[1:3])))
    enlarge = max(1, min(enlarge, 1024 // max(images.shape[1:3])))
    height, width = (side * enlarge + _GAP for side in images.shape[1:3])
    members = [(label, (synthetic.hard_targets == label).nonzero().flatten()) for label in range(synthetic.num_classes)]
    members = [(label, index.cpu()) for label, index in members if len(index)]
    columns = min(per_row, max(len(index) for _, index in members), max(1, _MOST // width))
    rows = members[: max(1, _MOST // height)]
    canvas = torch.cat([_row(images[index[:columns]], enlarge, columns) for _, index in rows])
    notes = _notes(members, len(rows), columns)
    return _framed(canvas, [_shown(synthetic.class_names[label]) for label, _ in rows], notes)


def _row(images: Tensor, enlarge: int, columns: int) -> Tensor:
    """Lay ``(n, H, W[, 3])`` images side by side, with white gaps, ``columns`` wide."""
    large = images.repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2)
    color = (0, 0) * (large.ndim - 3)
    spaced = pad(large, (*color, 0, _GAP, 0, _GAP, 0, columns - len(large)), value=255)
    return torch.cat(list(spaced), dim=1)


def _notes(members: list[tuple[int, Tensor]], rows: int, columns: int) -> list[str]:
    """Return what the grid leaves out."""
    most = max(len(index) for _, index in members)
    return [
        f"{shown} of {there} {what} shown"
        for shown, there, what in ((rows, len(members), "classes"), (columns, most, "images per class"))
        if shown < there
    ]


def _shown(name: str) -> str:
    """Shorten a class name and replace what the font cannot draw."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    drawable = "".join(c if c.isprintable() and font.get_char_index(ord(c)) else "?" for c in name[: _NAME + 1])
    return drawable if len(name) <= _NAME else drawable[: _NAME - 1] + "..."


def _framed(canvas: Tensor, names: list[str], notes: list[str]) -> Figure:
    """Put the names next to the rows and the notes below; one canvas pixel is one screen pixel."""
    from matplotlib.figure import Figure

    left = 2 * _MARGIN + 9 * max(map(len, names))
    height, width = canvas.shape[0] + 2 * _MARGIN + 2 * _TEXT * len(notes), canvas.shape[1] + left + _MARGIN
    width = max(width, left + max([9 * len(note) for note in notes], default=0))
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    top = height - _MARGIN
    axes = figure.add_axes(
        (left / width, (top - canvas.shape[0]) / height, canvas.shape[1] / width, canvas.shape[0] / height)
    )
    axes.imshow(canvas.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    step = canvas.shape[0] / len(names)
    size = _TEXT * 72 / _DPI
    for row, name in enumerate(names):
        y = (top - (row + 0.5) * step + _GAP / 2) / height
        figure.text((left - _MARGIN) / width, y, name, ha="right", va="center", fontsize=size, parse_math=False)
    for row, note in enumerate(reversed(notes)):
        y = (_MARGIN + 2 * _TEXT * row) / height
        figure.text(left / width, y, note, ha="left", va="bottom", fontsize=size, color="#555555")
    return figure
