"""The few real samples that an online memory keeps until it distills again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Queue", "enqueue"]


@dataclass(frozen=True, eq=False)
class Queue:
    """A uniform draw from the samples of a group since the last distillation.

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


def enqueue(queue: Queue | None, x: Tensor, size: int, rng: torch.Generator) -> Queue:
    """Add samples, each of all so far staying with the same probability.

    Args:
        queue: so far, or ``None``.
        x: ``(n, *shape)`` new samples, in their order.
        size: samples to keep at most.
        rng: generator on the CPU.

    Returns:
        A new queue; the old one stays as it is.

    Reference: Vitter, "Random Sampling with a Reservoir", 1985, algorithm R.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> queue = enqueue(None, torch.zeros(3, 2), 2, rng)
        >>> tuple(queue.x.shape), queue.seen
        ((2, 2), 3)
    """
    seen = 0 if queue is None else queue.seen
    rows = [] if queue is None else list(queue.x)
    for row in x:
        seen += 1
        if len(rows) < size:
            rows.append(row)
            continue
        place = int(torch.randint(seen, (), generator=rng))
        if place < size:
            rows[place] = row
    return Queue(torch.stack(rows), seen)
