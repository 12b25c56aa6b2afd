"""Whether stored images lie nearer to the training data than to data that had no part in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.networks.factory import Network
from ddplug.networks.functional import forward, initial_parameters, stateless
from ddplug.privacy.intervals import lowest_by_chance

__all__ = ["Nearest", "closest", "nearest", "spaces"]

_BLOCK = 1000

Space = Callable[[Tensor], Tensor]
"""Function of ``(n, *shape)`` inputs in model space: ``(n, D)`` rows, between which distances are taken."""


@dataclass(frozen=True, eq=False)
class Nearest:
    """How near stored samples are to the training data, in one space.

    Attributes:
        space: ``"pixels"``, or ``"features"`` of a random network.
        ratios: ``(M,)`` distance of each stored sample to the nearest training sample, over that to the nearest
            held-out one; a copy has 0.
        positions: ``(M,)`` of the nearest training samples.
        reference: ``(n,)`` the same ratios of other held-out samples, which are no copies: what chance gives.
    """

    space: str
    ratios: Tensor
    positions: Tensor
    reference: Tensor

    @property
    def near(self) -> int:
        """Stored samples that are nearer to a training sample than any of the other held-out samples is, relatively."""
        return int((self.ratios < self.reference.min()).sum())

    @property
    def by_chance(self) -> float:
        """How many of them there would be if stored samples were held-out ones."""
        return len(self.ratios) / (len(self.reference) + 1)

    @property
    def found(self) -> bool:
        """Whether there are more than chance gives; wrongly so in at most one of a thousand cases."""
        return lowest_by_chance(self.near, len(self.ratios), len(self.reference)) <= 0.001

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON-ready values."""
        ends = {name: _summary(values) for name, values in (("stored", self.ratios), ("held_out", self.reference))}
        counts = {"nearer_than_all_held_out": self.near, "by_chance": self.by_chance, "found": self.found}
        return {"space": self.space, **ends, **counts}


def _summary(ratios: Tensor) -> dict[str, float]:
    return {"median": float(ratios.median()), "least": float(ratios.min())}


def spaces(data: LabeledData, network: Network, rng: torch.Generator) -> Mapping[str, Space]:
    """Return the spaces that distances are taken in: pixels, and features of a network drawn at random."""
    module = stateless(network, data.shape, data.num_classes, embedding=True, training=False)
    parameters = initial_parameters(network, data, rng)
    return {
        "pixels": lambda x: data.preprocess.inverse(x).flatten(1),
        "features": lambda x: forward(module, parameters, x),
    }


@torch.no_grad()
def closest(space: Space, queries: Tensor, data: LabeledData) -> tuple[Tensor, Tensor]:
    """Find the nearest sample of some data to each query.

    Args:
        space: that distances are taken in.
        queries: ``(m, D)`` rows of it.
        data: real data; a block at a time is turned into it.

    Returns:
        ``(m,)`` distances and ``(m,)`` positions.
    """
    distances = torch.full((len(queries),), float("inf"), device=queries.device)
    positions = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for block in torch.arange(len(data)).split(_BLOCK):
        # without the product of matrices, which does not see that two rows are equal
        found = torch.cdist(queries, space(data.batch(block)), compute_mode="donot_use_mm_for_euclid_dist")
        least = found.min(1)
        better = least.values < distances
        distances = torch.where(better, least.values, distances)
        positions = torch.where(better, block.to(positions.device)[least.indices], positions)
    return distances, positions


@torch.no_grad()
def nearest(
    stored: Tensor, data: LabeledData, held_out: Sequence[LabeledData], known: Mapping[str, Space]
) -> list[Nearest]:
    """Compare stored samples with the training data and with held-out data.

    Args:
        stored: ``(M, *shape)`` in model space, as networks see them.
        data: training data.
        held_out: two parts of what had no part in the set: the one that distances are taken to, and one to compare
            with.
        known: see :func:`spaces`.
    """
    other, third = held_out
    found = []
    for name, space in known.items():
        ratios, positions = _ratios(space, space(stored), data, other)
        reference, _ = _ratios(space, space(third.batch(torch.arange(len(third)))), data, other)
        found.append(Nearest(name, ratios.cpu(), positions.cpu(), reference.cpu()))
    return found


def _ratios(space: Space, queries: Tensor, data: LabeledData, other: LabeledData) -> tuple[Tensor, Tensor]:
    distances, positions = closest(space, queries, data)
    return distances / closest(space, queries, other)[0].clamp_min(1e-12), positions
