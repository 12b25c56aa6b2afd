"""ClassMean: the average image of each class, the smallest summary there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillers.parts.features import mean_input
from ddplug.distillers.selection.base import Selection, each_class, shuffled

__all__ = ["ClassMean"]


@dataclass(frozen=True)
class ClassMean(Selection):
    r"""Average each class in model space.

    .. math:: s_c = \frac{1}{n_c} \sum_{i: y_i = c} x_i

    One image a class by nature. With ``images_per_class = n > 1`` each class is split at random into ``n`` parts of
    equal size up to one, and each part is averaged; the mean of the ``n`` images is then still that of the class.

    Args:
        images_per_class: averages to make of each class.

    Example:
        >>> ClassMean().images_per_class
        1
    """

    name: ClassVar[str] = "class-mean"
    apart: ClassVar[bool] = True
    real_images: ClassVar[bool] = False
    images_per_class: int = 1

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        def average(members: Tensor, rng: torch.Generator) -> Tensor:
            parts = shuffled(members, rng).tensor_split(min(self.images_per_class, len(members)))
            return torch.stack([mean_input(data, part.sort().values) for part in parts])

        return {"inputs": each_class(data, self.images_per_class, average, rng, shuffled)}
