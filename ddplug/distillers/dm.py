r"""DM: match the mean features of synthetic and real images in many randomly initialized networks.

.. math::  L = \sum_c \Big\| \tfrac1{|B_c|} \sum_{x \in B_c} \psi_\theta(A_\omega(x))
           - \tfrac1{n} \sum_{s \in S_c} \psi_\theta(A_\omega(s)) \Big\|^2

with a network :math:`\psi_\theta` that is never trained and a Siamese augmentation :math:`A_\omega`. The real side does
not depend on the synthetic images. The published loop computes it anew at every step and throws it away; the *pool*
computes it once for a number of networks with their augmentations, and a step costs one small batch.

Reference: Zhao & Bilen, "Dataset Condensation with Distribution Matching", WACV 2023, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillation.protocol import State
from ddplug.distillers.base import Momentum, RenewedPool
from ddplug.distillers.parts.views import class_outputs, draw_view, real_statistics
from ddplug.distillers.presets import Preset, per_data
from ddplug.functional.losses import mean_matching
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.networks.functional import initial_parameters

__all__ = ["DM"]


_PAPER = Preset(
    {"network": "convnet", "batch_real": 256, "init_from": "real", "augment": "auto", "pool_size": 0, "steps": 20_000},
    "Zhao & Bilen, WACV 2023, section 4.1 and released defaults",
)

# the published rate is 1 whatever the images per class, and 10 from 100 on; ours is multiplied by them, so divide
_PRESETS = {
    "paper": _PAPER,
    **per_data(_PAPER, {n: {"learning_rate": 1.0 / n} for n in (1, 10, 50)}),
    **{
        f"cifar10-{n}": _PAPER.extended(images_per_class=n, learning_rate=10.0 / n) for n in (100, 200, 500, 1000, 1250)
    },
}


@dataclass(frozen=True)
class DM(Momentum, RenewedPool):
    """Distribution matching.

    The defaults were chosen on a held-out part of MNIST, for minutes on a CPU; the published settings are presets.

    Attributes:
        steps: updates of the images; the paper takes 20,000 with its own loop.
        network: the architecture whose random instances give the features.
        batch_real: real images of each class behind one mean; 256 in the paper.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> distill(toy_images(), DM(images_per_class=1, network="convnet:width=8,depth=1", pool_size=2), steps=3).shape
        (1, 8, 8)
    """

    name: ClassVar[str] = "dm"
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    learning_rate: float = 1.0

    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Draw a network and an augmentation for each class, and the mean features ``means`` ``(C, D)``."""
        view = draw_view(initial_parameters(self.network, data, rng), self._strategy(data), data.num_classes, rng)
        module = self._module(data, embedding=True)
        means = real_statistics(module, view, data, self.batch_real, rng, lambda features: features.mean(1))
        return {**view, "means": means}

    def loss(self, state: State, view: Mapping[str, Any], data: LabeledData) -> Tensor:
        module, images = self._module(data, embedding=True), enlarge(state["inputs"], data.shape)
        features = class_outputs(module, images, torch.arange(data.num_classes), view)
        return mean_matching(view["means"], features.mean(1))
