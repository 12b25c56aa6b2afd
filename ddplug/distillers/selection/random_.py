"""Random: real samples drawn uniformly, the baseline that everything has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillers.selection.base import Selection, each_class, shuffled

__all__ = ["Random"]


@dataclass(frozen=True)
class Random(Selection):
    """Draw real samples of each class uniformly, none twice.

    Example:
        >>> Random(images_per_class=10).name
        'random'
    """

    name: ClassVar[str] = "random"
    apart: ClassVar[bool] = True

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        def draw(members: Tensor, rng: torch.Generator) -> Tensor:
            return shuffled(members, rng)[: self.images_per_class]

        return {"index": each_class(data, self.images_per_class, draw, rng, shuffled)}
