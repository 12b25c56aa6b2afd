"""Herding: real samples whose running mean follows the mean of their class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddplug.distillers.selection.base import FeatureSelection

__all__ = ["Herding", "herd"]


@dataclass(frozen=True)
class Herding(FeatureSelection):
    r"""Add, one at a time, the sample that brings the mean of the chosen features closest to that of the class.

    .. math:: i_{k+1} = \arg\min_i \lVert (k + 1) \mu - S_k - f_i \rVert, \qquad S_k = \sum_{j \le k} f_{i_j}

    Reference:
        Welling, "Herding Dynamical Weights to Learn", ICML 2009; the rule on features is that of Rebuffi et al.,
        "iCaRL: Incremental Classifier and Representation Learning", CVPR 2017, algorithm 4.

    Example:
        >>> Herding(features="convnet:width=32", train_epochs=5).name
        'herding'
    """

    name: ClassVar[str] = "herding"
    apart: ClassVar[bool] = True

    def move(self, rng: torch.Generator) -> None:
        """Nothing is drawn."""

    def choose(self, features: Tensor, number: int, rng: torch.Generator) -> Tensor:
        return herd(features, number)


def herd(features: Tensor, number: int) -> Tensor:
    """Choose rows greedily so that the mean of the first ``k`` follows the mean of all.

    Args:
        features: ``(n, d)``.
        number: rows to choose, at most ``n``; none is chosen twice.

    Returns:
        ``(number,)`` int64 rows in the order they were chosen, on the CPU.

    Example:
        >>> herd(torch.tensor([[0.0], [1.0], [5.0], [6.0]]), 2).tolist()
        [1, 2]
    """
    # about the mean the rule reads argmin |g_i - t| with t = -sum of the chosen g: one matrix-vector product a pick
    centered = features - features.mean(0)
    cost = centered.square().sum(1)
    target = torch.zeros_like(centered[0])
    chosen: list[Tensor] = []
    for _ in range(number):
        pick = (cost - 2 * (centered @ target)).argmin()
        target = target - centered[pick]
        cost[pick] = torch.inf
        chosen.append(pick)
    return torch.stack(chosen).cpu()
