"""Add a method: a view of real data, a loss between images and view, and its hyper-parameters with their presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

import ddplug
from ddplug.distillation import State
from ddplug.distillers import ImageDistiller, Preset
from ddplug.distillers.parts.views import class_outputs, draw_view, real_statistics
from ddplug.functional import enlarge
from ddplug.networks import initial_parameters
from ddplug.testing import check_distiller


def moments(features: Tensor) -> Tensor:
    """Join the means and deviations of ``(C, n, D)`` features over the images of a class, ``(C, 2 * D)``."""
    return torch.cat([features.mean(1), features.std(1, correction=0)], 1)


@dataclass(frozen=True)
class Moments(ImageDistiller):
    """Match means and deviations of features in random networks, by Adam.

    Attributes:
        batch_real: real images of each class in a view.
        deviations: weight of the deviations; 0 for means only.
    """

    name: ClassVar[str] = "moments"
    presets: ClassVar[Mapping[str, Preset]] = {"means": Preset({"deviations": 0.0}, "an example")}
    small: ClassVar[Mapping[str, Any]] = {**ImageDistiller.small, "batch_real": 4}
    images_per_class: int = 1
    steps: int = 30
    learning_rate: float = 0.05
    batch_real: int = 32
    deviations: float = 1.0

    def view(self, state: State, data: ddplug.LabeledData, rng: torch.Generator) -> Mapping[str, Tensor]:
        """Draw a network and an augmentation for each class, and look at a real batch through both."""
        view = draw_view(initial_parameters(self.network, data, rng), self._strategy(data), data.num_classes, rng)
        module = self._module(data, embedding=True)
        return {**view, "moments": real_statistics(module, view, data, self.batch_real, rng, moments)}

    def loss(self, state: State, view: Mapping[str, Any], data: ddplug.LabeledData) -> Tensor:
        """Look at the images through the same network and augmentation, and compare."""
        images, labels = enlarge(state["inputs"], data.shape), torch.arange(data.num_classes)
        own = moments(class_outputs(self._module(data, embedding=True), images, labels, view))
        gaps: Tensor = (own - view["moments"]).square()
        means, deviations = gaps.chunk(2, 1)
        return means.sum() + self.deviations * deviations.sum()


def main() -> None:
    """Check the contract and use the method; an entry point or ``registry.register`` gives it a name."""
    check_distiller(Moments())
    print("the contract holds")
    synthetic = ddplug.distill(ddplug.load_dataset("digits"), Moments())
    print(f"{len(synthetic)} images, {synthetic.nbytes} bytes")


if __name__ == "__main__":
    main()
