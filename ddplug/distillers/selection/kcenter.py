"""KCenter: real samples that leave no other of their class far from all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddplug.distillers.selection.base import FeatureSelection

__all__ = ["KCenter", "farthest_first"]


@dataclass(frozen=True)
class KCenter(FeatureSelection):
    r"""Cover each class: greedy solution of the k-center problem.

    Starting with the sample nearest to the mean of the class, add the sample farthest from those chosen,

    .. math:: i_{k+1} = \arg\max_i \min_{j \le k} \lVert f_i - f_{i_j} \rVert .

    The largest distance left is at most twice the least possible with centers among the samples (and free choice
    of the first one).

    Reference:
        Gonzalez, "Clustering to Minimize the Maximum Intercluster Distance", 1985; as a coreset: Sener & Savarese,
        "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018, algorithm 1.

    Example:
        >>> KCenter(images_per_class=10).features
        'pixels'
    """

    name: ClassVar[str] = "k-center"
    apart: ClassVar[bool] = True

    def move(self, rng: torch.Generator) -> None:
        """Nothing is drawn."""

    def choose(self, features: Tensor, number: int, rng: torch.Generator) -> Tensor:
        return farthest_first(features, number)


def farthest_first(features: Tensor, number: int) -> Tensor:
    """Choose rows greedily, each the farthest from those before it; the first is the nearest to the mean.

    Args:
        features: ``(n, d)``.
        number: rows to choose, at most ``n``; none is chosen twice.

    Returns:
        ``(number,)`` int64 rows in the order they were chosen, on the CPU.

    Example:
        >>> farthest_first(torch.tensor([[0.0], [1.0], [2.0], [6.0]]), 3).tolist()
        [2, 3, 0]
    """
    chosen = [torch.linalg.vector_norm(features - features.mean(0), dim=1).argmin()]
    nearest = torch.full_like(features[:, 0], torch.inf)
    for _ in range(number - 1):
        # differences, not |a|^2 - 2ab + |b|^2: a copy of a chosen row must be at distance 0 exactly
        nearest = nearest.minimum(torch.linalg.vector_norm(features - features[chosen[-1]], dim=1))
        nearest[chosen[-1]] = -1  # below every distance, so that copies are taken before a row is taken twice
        chosen.append(nearest.argmax())
    return torch.stack(chosen).cpu()
