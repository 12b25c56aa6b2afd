"""Sheets of small images for a file, and the same for a notebook, with names that may come from a hostile file."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from ddplug.utils.checks import values_at_least

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# matplotlib is imported where something is drawn: it writes to the home folder, and most commands draw nothing

__all__ = ["as_html", "drawable", "file_of", "first_of_each", "opened", "sheet"]

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

_ROWS = 20
"""Classes that a notebook shows."""

_TILE = 32
"""Screen pixels of an image's height in a notebook, at the least; at the most twice that."""


def drawable(shape: Sequence[int]) -> bool:
    """Tell whether samples of a shape are images of one or three channels.

    Example:
        >>> drawable((1, 8, 8)), drawable((64,))
        (True, False)
    """
    return len(shape) == 3 and shape[0] in (1, 3)


def first_of_each(labels: Tensor, classes: int, per_row: int = 10) -> Tensor:
    """Return the positions of the first samples of each class, class after class.

    Example:
        >>> first_of_each(torch.tensor([1, 0, 1, 1]), 2, 2)
        tensor([1, 0, 2])
    """
    return torch.cat([index[:per_row] for _, index in _members(labels, classes)])


def sheet(images: Tensor, labels: Tensor, class_names: Sequence[str], per_row: int = 10) -> Figure:
    """Draw images as a grid, a class a row, small ones enlarged without smoothing.

    What does not fit is left out, and the figure says so.

    Args:
        images: ``(M, H, W)`` or ``(M, H, W, 3)`` uint8.
        labels: ``(M,)`` int64 class indices.
        class_names: one name a class.
        per_row: images of a class to show, at least 1.

    Returns:
        The figure.

    Raises:
        OptionError: ``per_row`` is below 1.
    """
    values_at_least(1, per_row=per_row)
    shrink = math.ceil(max(images.shape[1:3]) / 1024)
    images = images[:, ::shrink, ::shrink]
    enlarge = max(1, math.ceil(_LEAST / min(images.shape[1:3])))
    enlarge = max(1, min(enlarge, 1024 // max(images.shape[1:3])))
    height, width = (side * enlarge + _GAP for side in images.shape[1:3])
    members = _members(labels, len(class_names))
    columns = min(per_row, max(len(index) for _, index in members), max(1, _MOST // width))
    rows = members[: max(1, _MOST // height)]
    canvas = torch.cat([_row(images[index[:columns]], enlarge, columns) for _, index in rows])
    notes = _notes(members, len(rows), columns)
    return _framed(canvas, [_shown(class_names[label]) for label, _ in rows], notes)


def _members(labels: Tensor, classes: int) -> list[tuple[int, Tensor]]:
    """Return the positions of the samples of each class that has any."""
    labels = labels.cpu()
    members = [(label, (labels == label).nonzero().flatten()) for label in range(classes)]
    return [(label, index) for label, index in members if len(index)]


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


def file_of(figure: Figure, kind: str = "png") -> bytes:
    """Return a figure as a file of a kind that matplotlib writes; as PNG the same bytes for the same figure."""
    content = io.BytesIO()
    figure.savefig(content, format=kind, metadata={"Software": None} if kind == "png" else None)
    return content.getvalue()


def opened(figure: Figure) -> Image.Image:
    """Return a figure as a picture, which notebooks display and ``.show()`` opens in a window."""
    return Image.open(io.BytesIO(file_of(figure)))


def as_html(
    text: str, class_names: Sequence[str] = (), images: Tensor | None = None, labels: Tensor | None = None
) -> str:
    """Describe something for a notebook: a line of text, and a row of images a class; nothing is fetched.

    Args:
        text: what it is.
        class_names: one name a class.
        images: ``(M, H, W)`` or ``(M, H, W, 3)`` uint8, all of which are shown; ``None`` for none.
        labels: ``(M,)`` int64 class indices of the images.

    Returns:
        HTML whose texts are escaped, since names may come from a hostile file.

    Example:
        >>> as_html("<set>")
        '<div><div>&lt;set&gt;</div></div>'
    """
    parts = [f"<div>{html.escape(text)}</div>"]
    if images is not None and labels is not None:
        members = _members(labels, len(class_names))
        left = ' style="text-align:left"'
        rows = [(html.escape(class_names[k]), _picture(images[index], class_names[k])) for k, index in members[:_ROWS]]
        parts += [
            "<table>",
            *(f"<tr><th{left}>{name}</th><td{left}>{image}</td></tr>" for name, image in rows),
            "</table>",
        ]
        parts += [f"<div>{_ROWS} of {len(members)} classes shown</div>"] * (len(members) > _ROWS)
    return f"<div>{''.join(parts)}</div>"


def _picture(images: Tensor, name: str) -> str:
    """Lay images side by side as one picture within the page."""
    shrink = math.ceil(images.shape[1] / (2 * _TILE))
    images = images[:, ::shrink, ::shrink]
    height = images.shape[1] * max(1, _TILE // images.shape[1])
    color = (0, 0) * (images.ndim - 3)
    strip = torch.cat(list(pad(images, (*color, 0, 1), value=255)), dim=1)
    content = io.BytesIO()
    Image.fromarray(strip.numpy()).save(content, format="png", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
    style = f"height:{height}px;max-width:none;image-rendering:pixelated;margin:0"
    return f'<img src="{source}" alt="{html.escape(f"{len(images)} images of {name}")}" style="{style}">'
