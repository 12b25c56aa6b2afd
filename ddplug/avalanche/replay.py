"""Batches of a memory: drawn from a generator, augmented, and with soft labels that fit the learner's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from ddplug.avalanche.buffer import DistilledBuffer
from ddplug.avalanche.schema import Rows, read
from ddplug.avalanche.translation import differences, translated
from ddplug.avalanche.variations import STREAM, own_variation
from ddplug.functional import augmentation as operations
from ddplug.utils.randomness import temporary_seed

__all__ = [
    "Augment",
    "MemoryBatches",
    "augmented",
    "check_augment",
    "match_width",
    "mild",
    "repeat_to_size",
    "resolved",
    "stored_rows",
]

Augment: TypeAlias = str | Callable[..., Tensor]
"""Operations of :mod:`ddplug.functional.augmentation`, a function of one input, or ``"stream"``."""

_TURN, _STRETCH, _MOVE = math.pi / 12, 0.1, 0.1
"""Most of what drawings are turned by, and of what they are stretched and moved by, as a share of their side."""

_LOOKED_AT = 500
"""Images that the background is found in."""


@dataclass
class MemoryBatches:
    """The memory on a device, for the length of one experience, and the batches drawn from it.

    Attributes:
        rows: all of it.
        soft: ``(n, K)`` probabilities, or ``None``.
        size: rows a batch, unless the memory is smaller.
        augment: operations drawn for each row.
        rng: for order, augmentation and translation.
        translate: strength of :func:`ddplug.avalanche.translation.translated`.
    """

    rows: Rows
    soft: Tensor | None
    size: int
    augment: Augment
    rng: torch.Generator
    translate: float = 0.0
    _upcoming: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    @cached_property
    def background(self) -> Tensor | None:
        """The most usual value of each channel of images, ``(C, 1, 1)``: drawings stand on it."""
        x = self.rows.x[:_LOOKED_AT]
        return x.transpose(0, 1).flatten(1).median(1).values.view(-1, 1, 1) if x.ndim == 4 else None

    def batch(self, moves: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return inputs, labels, task labels and, where there are any, soft labels.

        Args:
            moves: differences to translate the inputs by. A memory smaller than a batch is then repeated to fill it,
                so that each of its rows meets several.
        """
        index = self._next()
        if moves is not None and len(moves) and (times := self.size // len(index)) > 1:
            index = index.repeat(times)
        index = index.to(self.rows.y.device)
        x = augmented(self.rows.x.index_select(0, index), self.augment, self.rng, self.background)
        if moves is not None:
            x = translated(x, moves, self.translate, self.rng)
        return x, self.rows.y[index], self.rows.t[index], None if self.soft is None else self.soft[index]

    def moves(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Return the differences within the (task, class) pairs of a batch of the stream, as fine as the memory is."""
        return differences(x, t * (1 + y.max()) + y, self._per_pair, self.rng)

    @cached_property
    def _per_pair(self) -> int:
        """Rows of a (task, class) pair, on average."""
        pairs: int = torch.stack([self.rows.t, self.rows.y]).unique(dim=1).shape[1]
        return max(1, round(len(self.rows.y) / pairs))

    def _next(self) -> Tensor:
        n = len(self.rows.y)
        if n <= self.size:
            return torch.arange(max(n, 2)) % n  # a single row comes twice: batch norm refuses a batch of one
        while len(self._upcoming) < self.size:
            self._upcoming = torch.cat([self._upcoming, torch.randperm(n, generator=self.rng)])
        index, self._upcoming = self._upcoming[: self.size], self._upcoming[self.size :]
        return index


def repeat_to_size(memory: Any, size: int, *, exactly: bool = False) -> Any:
    """Repeat a dataset until it fills a batch, or a whole number of batches."""
    n = len(memory)
    times = size // math.gcd(n, size) if exactly else -(-size // max(n, 1))
    return memory.subset(list(range(n)) * times) if times > 1 else memory


def check_augment(augment: Augment) -> None:
    """Refuse operations that are not known."""
    if not callable(augment) and augment != STREAM:
        operations.resolve(augment, (1, 1, 1))


def resolved(augment: Augment, shape: tuple[int, ...], dataset: Any) -> Augment:
    """Return the operations for inputs of a shape, or the function: what was given, or a dataset's own variation."""
    if augment == STREAM:
        return own_variation(dataset)
    return augment if callable(augment) else operations.resolve(augment, shape)


def mild(x: Tensor, rng: torch.Generator) -> Tensor:
    """Vary ``(n, *shape)`` inputs as ordinary training does, and no more.

    Images of one channel are turned by up to 15 degrees, and stretched and moved by up to a tenth, all in one
    interpolation: three in a row, as in :mod:`ddplug.functional.augmentation`, blur small images. Those of more
    channels are cropped and mirrored, and other inputs stay as they are.
    """
    n = len(x)
    if x.ndim != 4:
        return x
    if x.shape[1] > 1:
        return operations.apply(x, operations.draw("crop+flip", n, rng))
    angle, across, down, *moves = (2 * torch.rand(5, n, generator=rng) - 1).to(x).unbind()
    angle, across, down = angle * _TURN, 1 + _STRETCH * across, 1 + _STRETCH * down
    right, low = (2 * _MOVE * move for move in moves)
    rows = [angle.cos() * across, -angle.sin() * down, right, angle.sin() * across, angle.cos() * down, low]
    return _warped(x, torch.stack(rows, 1))


def _warped(x: Tensor, entries: Tensor) -> Tensor:
    """Sample ``(n, C, H, W)`` images at affine coordinates, zeros outside.

    One product for all images: :func:`torch.nn.functional.affine_grid` takes four times as long as the sampling.

    Args:
        x: the images.
        entries: ``(n, 6)``, of the 2 x 3 matrices.
    """
    height, width = x.shape[2:]
    grid = (entries.reshape(-1, 3) @ _points(height, width).to(x)).view(-1, 2, height, width).permute(0, 2, 3, 1)
    return grid_sample(x, grid, "bilinear", "zeros", align_corners=False)


@lru_cache(8)
def _points(height: int, width: int) -> Tensor:
    """Return where the pixels of an image lie, ``(3, height * width)``: across and down from -1 to 1, and a 1."""
    plain: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever the defaults are at the first call
    down, across = (torch.linspace(1 / side - 1, 1 - 1 / side, side, **plain) for side in (height, width))
    return torch.stack([across.repeat(height), down.repeat_interleave(width), torch.ones(height * width, **plain)])


def augmented(x: Tensor, augment: Augment, rng: torch.Generator, background: Tensor | None = None) -> Tensor:
    """Transform ``(n, *shape)`` inputs, each by an operation of its own.

    Args:
        x: the inputs.
        augment: operations, which are for images ``(C, H, W)``, or a function of one input.
        rng: generator on the CPU; a function finds the global one seeded from it.
        background: ``(C, 1, 1)`` that images are filled up with; ``None`` for 0.
    """
    if not augment:
        return x
    ground = x.new_zeros(()) if background is None else background
    if augment is mild:
        return mild(x - ground, rng) + ground
    if callable(augment):
        with temporary_seed(int(torch.randint(2**31, (), generator=rng))):
            return torch.stack([augment(row) for row in x])
    return operations.apply(x - ground, operations.draw(augment, len(x), rng, common=False)) + ground


def stored_rows(policy: Any) -> tuple[Rows, Tensor | None]:
    """Return the rows of a memory and its soft labels."""
    if isinstance(policy, DistilledBuffer):
        return policy.rows(), policy.soft_targets()
    return read(policy.buffer)[0], None


def match_width(soft: Tensor, out: Tensor) -> Tensor:
    """Cut or zero-pad ``(n, K)`` probabilities to the outputs' width, so that each row sums to one again."""
    soft = pad(soft, (0, max(0, out.shape[1] - soft.shape[1])))[:, : out.shape[1]].to(out.dtype)
    return soft / soft.sum(1, keepdim=True).clamp_min(1e-12)
