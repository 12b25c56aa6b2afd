"""Small real distillers for the tests of the loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ddplug.data.labeled import LabeledData
from ddplug.distillation.protocol import Metrics, State
from ddplug.distillers.parts.images import balanced_labels, check_images_per_class, to_set
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe


@dataclass(frozen=True)
class MeanMatching:
    """Matches the mean of each class's synthetic samples to the mean of a random real batch, by plain descent."""

    name: ClassVar[str] = "mean-matching"
    images_per_class: int = 1
    steps: int = 20
    learning_rate: float = 0.1
    batch: int = 4
    noise: float = 0.01

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        check_images_per_class(data, self.images_per_class)
        images = [data.sample(label, self.images_per_class, rng) for label in range(data.num_classes)]
        return {"images": torch.stack(images), "seen": torch.zeros((), dtype=torch.int64, device=data.device)}

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        images = state["images"]
        real = torch.stack([data.sample(label, self.batch, rng).mean(0) for label in range(data.num_classes)])
        gap = images.mean(1) - real
        jitter = self.noise * torch.randn(images.shape, generator=rng).to(images.device)
        moved = images - self.learning_rate * (gap[:, None] + jitter)
        return {"images": moved, "seen": state["seen"] + 1}, {"loss": gap.square().sum()}

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        return to_set(
            data,
            state["images"].flatten(0, 1),
            balanced_labels(data, self.images_per_class),
            Recipe.quick(data.augmentation),
        )
