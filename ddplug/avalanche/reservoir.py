"""The few real samples of a group: those of one experience, or those that wait in an online stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ddplug.avalanche.groups import GroupKey
from ddplug.avalanche.schema import Rows

__all__ = ["Reservoir", "by_group", "joined"]


@dataclass(frozen=True, eq=False)
class Reservoir:
    """A uniform draw from the samples of a group since the last distillation, or all of them.

    Attributes:
        x: ``(n, *shape)`` float32 samples.
        seen: how many there were.
    """

    x: Tensor
    seen: int

    @property
    def nbytes(self) -> int:
        """Bytes of the samples."""
        return self.x.numel() * self.x.element_size()

    def add(self, x: Tensor, size: int, rng: torch.Generator) -> Reservoir:
        """Draw again with more samples, each of all so far staying with the same probability.

        Args:
            x: ``(n, *shape)`` new samples, in their order.
            size: samples to keep at most; 0 just counts.
            rng: generator on the CPU.

        Returns:
            A new reservoir; the old one stays as it is.

        Reference: Vitter, "Random Sampling with a Reservoir", 1985, algorithm R.

        Example:
            >>> rng = torch.Generator().manual_seed(0)
            >>> reservoir = Reservoir(torch.zeros(0, 2), 0).add(torch.zeros(3, 2), 2, rng)
            >>> tuple(reservoir.x.shape), reservoir.seen
            ((2, 2), 3)
        """
        if not size:
            return Reservoir(x[:0], self.seen + len(x))
        seen, rows = self.seen, list(self.x)
        for row in x:
            seen += 1
            if len(rows) < size:
                rows.append(row)
                continue
            index = int(torch.randint(seen, (), generator=rng))
            if index < size:
                rows[index] = row
        return Reservoir(torch.stack(rows), seen)


def by_group(rows: Rows, each: Mapping[int, float], experience: int | None) -> dict[GroupKey, Reservoir]:
    """Sort samples into groups, all of them, in the order of tasks and classes.

    Args:
        rows: the samples of an experience.
        each: how many samples of the experience one of a class stands for; 1 of a class that is not named.
        experience: its number, if it is a domain of its own.
    """
    pairs = torch.stack([rows.t, rows.y], 1)
    groups = {}
    for pair in pairs.unique(dim=0):
        task, label = pair.tolist()
        x = rows.x[(pairs == pair).all(1)].float()
        groups[GroupKey(label, task, experience)] = Reservoir(x, round(each.get(label, 1.0) * len(x)))
    return groups


def joined(
    waiting: Mapping[GroupKey, Reservoir], new: Mapping[GroupKey, Reservoir], size: int, rng: torch.Generator
) -> dict[GroupKey, Reservoir]:
    """Add new samples to those that wait; see :meth:`Reservoir.add`."""
    added = dict(waiting)
    for group, more in new.items():
        added[group] = added.get(group, Reservoir(more.x[:0], 0)).add(more.x, size, rng)
    return added
