"""Batches of a memory: drawn from a generator, augmented, and with soft labels that fit the learner's outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddplug.avalanche.buffer import DistilledBuffer
from ddplug.avalanche.schema import Rows, read
from ddplug.avalanche.translation import differences, translated
from ddplug.functional import augmentation as operations

__all__ = ["MemoryBatches", "augmented", "match_width", "repeat_to_size", "stored_rows"]


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
    augment: str
    rng: torch.Generator
    translate: float = 0.0
    _upcoming: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def batch(self, moves: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return inputs, labels, task labels and, where there are any, soft labels.

        Args:
            moves: differences to translate the inputs by. A memory smaller than a batch is then repeated to fill it,
                so that each of its rows meets several.
        """
        index = self._next()
        if moves is not None and len(moves):
            index = index.repeat(max(1, self.size // len(index)))
        index = index.to(self.rows.y.device)
        x = augmented(self.rows.x[index], self.augment, self.rng)
        if moves is not None:
            x = translated(x, moves, self.translate, self.rng)
        return x, self.rows.y[index], self.rows.t[index], None if self.soft is None else self.soft[index]

    def moves(self, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
        """Return the differences within the (task, class) pairs of a batch of the stream, as fine as the memory is."""
        mine = torch.stack([self.rows.t, self.rows.y]).unique(dim=1).shape[1]
        groups = torch.stack([t, y]).unique(dim=1, return_inverse=True)[1]
        return differences(x, groups, max(1, round(len(self.rows.y) / mine)), self.rng)

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


def augmented(x: Tensor, augment: str, rng: torch.Generator) -> Tensor:
    """Transform ``(n, C, H, W)`` images, each by an operation of its own."""
    return operations.apply(x, operations.draw(augment, len(x), rng, common=False)) if augment else x


def stored_rows(policy: Any) -> tuple[Rows, Tensor | None]:
    """Return the rows of a memory and its soft labels."""
    if isinstance(policy, DistilledBuffer):
        return policy.rows(), policy.soft_targets()
    return read(policy.buffer)[0], None


def match_width(soft: Tensor, out: Tensor) -> Tensor:
    """Cut or zero-pad ``(n, K)`` probabilities to the outputs' width, so that each row sums to one again."""
    soft = pad(soft, (0, max(0, out.shape[1] - soft.shape[1])))[:, : out.shape[1]].to(out.dtype)
    return soft / soft.sum(1, keepdim=True).clamp_min(1e-12)
