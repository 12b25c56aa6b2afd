"""Add a method: a frozen dataclass of hyper-parameters and three functions of explicit state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

import ddplug
from ddplug.distillation import Metrics, State
from ddplug.distillers.parts.images import balanced_labels, check_images_per_class, to_set
from ddplug.testing import check_distiller


@dataclass(frozen=True)
class MeanPull:
    """Pull images from random real ones towards the mean of a real batch of their class.

    Attributes:
        images_per_class: images to make of each class.
        steps: updates.
        rate: share of the way to the batch's mean that an image goes in a step.
        batch: real images of each class in a batch.
    """

    name: ClassVar[str] = "mean-pull"
    images_per_class: int = 1
    steps: int = 20
    rate: float = 0.1
    batch: int = 16

    def init(self, data: ddplug.LabeledData, rng: torch.Generator) -> State:
        """Start from real images."""
        check_images_per_class(data, self.images_per_class)
        return {"images": torch.cat([data.sample(c, self.images_per_class, rng) for c in range(data.num_classes)])}

    def step(self, state: State, data: ddplug.LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        """Move every image; the state that came in stays as it is."""
        means = torch.stack([data.sample(c, self.batch, rng).mean(0) for c in range(data.num_classes)])
        gap = means.repeat_interleave(self.images_per_class, 0) - state["images"]
        return {"images": state["images"] + self.rate * gap}, {"loss": gap.square().mean()}

    def result(self, state: State, data: ddplug.LabeledData) -> ddplug.SyntheticSet:
        """Hand over the images with the data's preprocessing, and how to train on them."""
        recipe = ddplug.Recipe.quick(data.augmentation)
        return to_set(data, state["images"], balanced_labels(data, self.images_per_class), recipe)


def main() -> None:
    """Check the contract and use the method; an entry point in the group ddplug.distillers gives it a name."""
    check_distiller(MeanPull())
    print("the contract holds")
    synthetic = ddplug.distill(ddplug.load_dataset("digits"), MeanPull())
    print(f"{len(synthetic)} images, {synthetic.nbytes} bytes")


if __name__ == "__main__":
    main()
