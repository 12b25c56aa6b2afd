"""Random: real samples drawn uniformly, the baseline that everything has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillers.selection.base import Selection, each_class

__all__ = ["Random"]


@dataclass(frozen=True)
class Random(Selection):
    """Draw real samples of each class uniformly, none twice.

    Example:
        >>> Random(images_per_class=10).name
        'random'
    """

    name: ClassVar[str] = "random"

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        def draw(members: Tensor) -> Tensor:
            return members[torch.randperm(len(members), generator=rng)[: self.images_per_class]]

        return {"index": each_class(data, self.images_per_class, draw)}
