"""Differentiable augmentation whose draws are data: the same draw can be applied to real and to synthetic images.

A *strategy* names operations joined by ``_``, e.g. ``"color_crop_cutout_flip_scale_rotate"``; one of them, drawn
uniformly, is applied to a batch. Operations joined by ``+`` count as one and are all applied, each with numbers of its
own, as in ordinary training: ``"crop+flip+color"`` for photographs. ``"affine"`` is for drawings, and not one of the
published ones: it turns, stretches, shears and moves in one interpolation, where ``"scale+rotate"`` blurs twice. A draw
(:class:`Draw`) with one row is *Siamese*: every image gets the same transformation.

Reference: Zhao & Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021, section 3 and
table of operations; ranges as in the published experiments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from ddplug.errors import OptionError, unknown
from ddplug.utils.surroundings import own_surroundings

__all__ = [
    "ALL_OPERATIONS",
    "OPERATIONS",
    "Draw",
    "apply",
    "augment",
    "check",
    "cutmix",
    "draw",
    "joint",
    "resolve",
    "warp",
]

BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP, CUTOUT, SCALE, ROTATE = 0.125, 0.5, 1.2, 15.0
TURN, STRETCH, SHEAR, MOVE = 20.0, 0.25, 0.2, 0.1
"""Of an affine change: degrees, logarithms of factors, shear, and shares of a side, each up to this either way."""
_NUMBERS = 3
"""Uniform numbers a row carries at the least: as many as the neediest published operation takes."""


def _color(x: Tensor, u: Tensor) -> Tensor:
    """Brightness, saturation and contrast, in this order."""
    u = u[:, :3].view(-1, 3, 1, 1, 1)
    x = x + (u[:, 0] - 0.5) * BRIGHTNESS
    gray = x.mean(1, keepdim=True)
    x = (x - gray) * (u[:, 1] * SATURATION) + gray
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * (u[:, 2] + CONTRAST) + mean


def _shift(x: Tensor, offset: Tensor, dim: int) -> Tensor:
    """Shift each image by its own ``(n,)`` integer offset along a dimension, filling with zeros."""
    size = x.shape[dim]
    reach = int(CROP * size + 0.5)
    source = torch.arange(size, device=x.device) + offset.view(-1, 1) + reach
    shape = [len(x), 1, 1, 1]
    shape[dim] = size
    edges = (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0)
    return pad(x, edges).gather(dim, source.expand(len(x), -1).view(shape).expand_as(x))


def _integer(u: Tensor, low: int, high: int) -> Tensor:
    """Turn uniform numbers in [0, 1) into integers in ``low..high``, both included."""
    return (u * (high - low + 1)).long().clamp_max(high - low) + low


def _crop(x: Tensor, u: Tensor) -> Tensor:
    for dim in (2, 3):
        reach = int(CROP * x.shape[dim] + 0.5)
        x = _shift(x, _integer(u[:, dim - 2], -reach, reach), dim)
    return x


def _cutout(x: Tensor, u: Tensor) -> Tensor:
    hit = []
    for dim in (2, 3):
        size = x.shape[dim]
        side = int(CUTOUT * size + 0.5)
        first = _integer(u[:, dim - 2], 0, size - side % 2) - side // 2
        position = torch.arange(size, device=x.device) - first.view(-1, 1)
        hit.append((position >= 0) & (position < side))
    return x * ~(hit[0].unsqueeze(2) & hit[1].unsqueeze(1)).unsqueeze(1)


def _flip(x: Tensor, u: Tensor) -> Tensor:
    return torch.where(u[:, 0].view(-1, 1, 1, 1) < 0.5, x.flip(3), x)


def warp(x: Tensor, rows: list[Tensor], outside: str = "zeros") -> Tensor:
    """Sample at affine coordinates.

    Args:
        x: ``(n, C, H, W)``.
        rows: the six ``(n,)`` or ``(1,)`` entries of the 2 x 3 matrices, row by row.
        outside: what comes in from there, ``"zeros"`` or as the ``"border"`` is.
    """
    theta = torch.stack(rows, 1).view(-1, 2, 3).to(x.dtype)
    grid = affine_grid(theta, [len(theta), *x.shape[1:]], align_corners=False)
    return grid_sample(x, grid.expand(len(x), -1, -1, -1), "bilinear", outside, align_corners=False)


def _scale(x: Tensor, u: Tensor) -> Tensor:
    factor = 1 / SCALE + u[:, :2] * (SCALE - 1 / SCALE)
    zero = torch.zeros_like(factor[:, 0])
    return warp(x, [factor[:, 0], zero, zero, zero, factor[:, 1], zero])


def _rotate(x: Tensor, u: Tensor) -> Tensor:
    angle = (u[:, 0] - 0.5) * 2 * ROTATE * math.pi / 180
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return warp(x, [cos, -sin, zero, sin, cos, zero])


def _affine(x: Tensor, u: Tensor) -> Tensor:
    """Turn, stretch, shear and move, each image by its own numbers; what comes in from outside is as the border is."""
    reach = u.new_tensor([TURN * math.pi / 180, STRETCH, STRETCH, SHEAR, 2 * MOVE, 2 * MOVE])
    angle, across, down, shear, right, low = ((2 * u[:, :6] - 1) * reach).unbind(1)
    cos, sin, across, down = angle.cos(), angle.sin(), across.exp(), down.exp()
    rows = [cos * across, (shear * cos - sin) * down, right, sin * across, (shear * sin + cos) * down, low]
    return warp(x, rows, "border")


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
    "affine": _affine,
}
"""Name -> function of ``(n, C, H, W)`` images and ``(n or 1, k)`` uniform numbers in [0, 1)."""

_NAMES = tuple(OPERATIONS)

ALL_OPERATIONS = "_".join(_NAMES[:-1])
"""The strategy of all published operations, for photographs."""

_NEEDS = {"color": 3, "crop": 2, "cutout": 2, "flip": 1, "scale": 2, "rotate": 1, "affine": 6}
"""Uniform numbers that an operation takes."""


def _position(operation: str) -> int:
    """Number an operation, or several joined by ``+``: beyond the single ones comes the set of them as bits."""
    parts = operation.split("+")
    if len(parts) == 1:
        return _NAMES.index(operation)
    return len(_NAMES) + sum(1 << _NAMES.index(part) for part in parts)


def _parts(position: int) -> list[str]:
    """Return the single operations that a number stands for, in the order of :data:`OPERATIONS`."""
    if position < len(_NAMES):
        return [_NAMES[position]]
    return [name for k, name in enumerate(_NAMES) if (position - len(_NAMES)) >> k & 1]


def _applied(x: Tensor, position: int, numbers: Tensor) -> Tensor:
    """Transform images by what a number stands for; several operations take their numbers one behind the other."""
    first = 0
    for name in _parts(position):
        x = OPERATIONS[name](x, numbers[:, first:])
        first += _NEEDS[name]
    return x


@dataclass(frozen=True, eq=False)
class Draw:
    """What was drawn: an operation and its numbers for each row.

    Attributes:
        operation: ``(n,)`` int64 on the CPU, position in :data:`OPERATIONS`, or -1 for no operation; beyond these
            positions a set of operations that are all applied, as bits.
        numbers: ``(n, 3)`` float32 in [0, 1), or more where several operations need them.
    """

    operation: Tensor
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.operation)

    def __getitem__(self, rows: slice) -> Draw:
        return Draw(self.operation[rows], self.numbers[rows])

    def repeat_interleave(self, n: int) -> Draw:
        """Repeat every row ``n`` times, as for the ``n`` images of each class."""
        return Draw(self.operation.repeat_interleave(n), self.numbers.repeat_interleave(n, 0))


def check(strategy: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    """Split a strategy into its operations.

    Args:
        strategy: operations joined by ``_``, or by ``+`` where all are applied; ``""`` for none.
        shape: of one input.

    Returns:
        The operations, those joined by ``+`` as one.

    Raises:
        OptionError: an operation is unknown or stands twice in a sum, or the inputs are not ``(C, H, W)`` images.

    Example:
        >>> check("crop_rotate", (1, 28, 28))
        ('crop', 'rotate')
    """
    names = tuple(strategy.split("_")) if strategy else ()
    for name in names:
        parts = name.split("+")
        for part in parts:
            if part not in OPERATIONS:
                raise unknown("augmentation", part, OPERATIONS)
        if len({*parts}) < len(parts):
            raise OptionError(f"augmentation {name!r} has an operation twice; name each once")
    if names and len(shape) != 3:
        raise OptionError(f"augmentation {strategy!r} needs (C, H, W) images, not inputs of shape {shape}; use ''")
    return names


def resolve(strategy: str, shape: tuple[int, ...]) -> str:
    """Return a strategy with ``"auto"`` replaced by what suits the inputs.

    Args:
        strategy: operations joined by ``_``; ``""`` for none; ``"auto"`` for every operation on images, less those that
            need colors, mirror or hide a part on images of one channel (a mirrored digit is another one), and for none
            on inputs that are not images.
        shape: of one input.

    Returns:
        Operations joined by ``_``, or ``""``.

    Raises:
        OptionError: an operation is unknown, or the inputs are not ``(C, H, W)`` images.

    Example:
        >>> resolve("auto", (1, 28, 28)), resolve("auto", (30,)), resolve("flip", (3, 32, 32))
        ('crop_scale_rotate', '', 'flip')
    """
    if strategy != "auto":
        check(strategy, shape)
        return strategy
    if len(shape) != 3:
        return ""
    return "crop_scale_rotate" if shape[0] == 1 else ALL_OPERATIONS


def joint(strategy: str, *, few: bool = True) -> str:
    """Return what ordinary training wants, of operations that keep the label: all at once.

    Args:
        strategy: operations joined by ``_``; ``""`` for none.
        few: whether the images are few for their task, as in a small set: color is changed too then. In 30 kB of
            CIFAR-10 that brings three points, in 300 kB half a point.

    Returns:
        ``"crop+flip"``, or ``"crop+flip+color"``, where images may be mirrored, as photographs may; ``"affine"`` where
        they may be moved, stretched and turned; else those of these that the strategy has, joined by ``+``.

    Example:
        >>> joint(ALL_OPERATIONS), joint("crop_scale_rotate"), joint(""), joint("crop_flip"), joint("crop_rotate")
        ('crop+flip+color', 'affine', '', 'crop+flip', 'crop+rotate')
    """
    names = strategy.split("_")
    moves = ("crop", "scale", "rotate")
    wanted = ("crop", "flip", *["color"] * few) if "flip" in names else moves
    if wanted is moves and {*moves} <= {*names}:
        return "affine"
    return "+".join(name for name in wanted if name in names)


def draw(strategy: str, n: int, rng: torch.Generator, *, common: bool = True) -> Draw:
    """Draw a transformation for each of ``n`` rows.

    Args:
        strategy: operations joined by ``_``; ``""`` for none.
        n: number of rows; 1 for a Siamese draw.
        rng: generator on the CPU.
        common: whether one operation is drawn for all rows (with numbers of their own), as in the published training
            loop, or one for each row, as for the classes of a Siamese step.

    Returns:
        The draw.
    """
    if not strategy:
        return Draw(torch.full((n,), -1), torch.zeros(n, _NUMBERS))
    known = torch.tensor([_position(name) for name in strategy.split("_")])
    picks = torch.randint(len(known), (1 if common else n,), generator=rng)
    needs = (sum(_NEEDS[name] for name in _parts(int(position))) for position in known)
    return Draw(known[picks].expand(n), torch.rand(n, max(_NUMBERS, *needs), generator=rng))


def apply(x: Tensor, drawn: Draw) -> Tensor:
    """Transform images by a draw; differentiable in ``x``.

    Args:
        x: ``(n, C, H, W)`` in model space.
        drawn: of ``n`` rows, or of one row for all images.

    Returns:
        ``(n, C, H, W)``.
    """
    if x.is_meta:  # there are no values to change
        return x
    numbers = drawn.numbers.to(x)
    present = drawn.operation.unique().tolist()
    if len(present) == 1:
        return x if present[0] < 0 else _applied(x, present[0], numbers)
    out = x
    for operation in present:
        rows = (drawn.operation == operation).nonzero().flatten().to(x.device)
        if operation >= 0:
            changed = _applied(x[rows], operation, numbers[rows])
            out = out.index_copy(0, rows, changed)
    return out


@own_surroundings(gradients=False)
def augment(x: Tensor, strategy: str, rng: torch.Generator) -> Tensor:
    """Transform a batch as in ordinary training: one operation, numbers of its own for each image.

    Args:
        x: ``(n, C, H, W)`` in model space.
        strategy: operations joined by ``_``; ``""`` for none.
        rng: generator on the CPU.

    Returns:
        ``(n, C, H, W)``.
    """
    return apply(x, draw(strategy, len(x), rng)) if strategy else x


@own_surroundings(gradients=False)
def cutmix(x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paste the same rectangle of another image of the batch into each image, and mix their labels.

    The share of the area is drawn uniformly from 0 to 1, the other images are a permutation of the batch. Other than as
    published the rectangle is not cut off at the border, so that the share that is pasted is the one that was drawn,
    but for rounding to whole pixels.

    Args:
        x: ``(n, C, H, W)`` images.
        y: ``(n, classes)`` probabilities.
        rng: generator on the CPU.

    Returns:
        The images, and the probabilities, each its own times the share that is left of it, plus the other's times the
        share that was pasted.

    Reference: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV
        2019, equations 1 and 2.

    Example:
        >>> x, y = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)]), torch.eye(2)
        >>> mixed, labels = cutmix(x, y, torch.Generator().manual_seed(1))
        >>> bool((mixed.mean((1, 2, 3)) == labels[:, 1]).all())
        True
    """
    height, width = x.shape[2:]
    others = torch.randperm(len(x), generator=rng).to(x.device)
    side = float(torch.rand((), generator=rng)) ** 0.5
    tall, wide = round(side * height), round(side * width)
    top = int(torch.randint(height - tall + 1, (), generator=rng))
    left = int(torch.randint(width - wide + 1, (), generator=rng))
    mixed = x.clone()
    mixed[:, :, top : top + tall, left : left + wide] = x[others, :, top : top + tall, left : left + wide]
    pasted = tall * wide / (height * width)
    return mixed, (1 - pasted) * y + pasted * y[others]
