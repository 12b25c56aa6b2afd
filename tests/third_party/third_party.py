"""A method, a network and a data set of somebody else's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ddplug.data.labeled import LabeledData
from ddplug.data.loaders import from_arrays
from ddplug.distillation.protocol import Metrics, State
from ddplug.distillers.parts.images import balanced_labels, check_images_per_class, to_set
from ddplug.distillers.presets import Preset
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe


@dataclass(frozen=True)
class MeanPull:
    """Pull real samples towards the mean of their class.

    Attributes:
        images_per_class: samples of each class.
        steps: pulls.
        pull: share of the way that a step goes.
    """

    name: ClassVar[str] = "mean-pull"
    presets: ClassVar[Mapping[str, Preset]] = {"strong": Preset({"pull": 0.9}, "a paper of theirs")}
    images_per_class: int = 1
    steps: int = 5
    pull: float = 0.2

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        check_images_per_class(data, self.images_per_class)
        images = [data.sample(label, self.images_per_class, rng) for label in range(data.num_classes)]
        means = [data.batch(members).mean(0) for members in data.class_indices]
        return {"images": torch.stack(images), "means": torch.stack(means)}

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        gap = state["means"][:, None] - state["images"]
        return {**state, "images": state["images"] + self.pull * gap}, {"loss": gap.square().mean()}

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        labels = balanced_labels(data, self.images_per_class)
        return to_set(data, state["images"].flatten(0, 1), labels, Recipe.quick())


def linear(shape: tuple[int, ...], num_classes: int, bias: int = 1) -> nn.Module:
    """Make a linear classifier."""
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), num_classes, bias=bool(bias)))


def stripes(*, split: str = "train", **_: Any) -> LabeledData:
    """Make images of horizontal and of vertical stripes."""
    rng = torch.Generator().manual_seed(0 if split == "train" else 1)
    targets = torch.arange(40) % 2
    lines = torch.randint(0, 256, (40, 1, 8, 1), generator=rng, dtype=torch.uint8).expand(40, 1, 8, 8)
    inputs = torch.where(targets.bool()[:, None, None, None], lines, lines.mT)
    return from_arrays(inputs, targets, class_names=("upright", "level"), name="stripes")
