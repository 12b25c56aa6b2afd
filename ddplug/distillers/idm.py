r"""IDM: match mean features in a pool of networks that are being trained, and be classified rightly by them.

.. math::  L = \sum_c \Big\| \tfrac1{|B_c|} \sum_{x \in B_c} \psi_\theta(A_\omega(x))
           - \tfrac1{n} \sum_{s \in S_c} \psi_\theta(A_\omega(s)) \Big\|^2
           + \lambda \, p_\theta \sum_c \ell(\theta; A_\omega(S_c))

with the cross-entropy :math:`\ell`, weighted by the accuracy :math:`p_\theta` of the network on real images. It is
:mod:`ddplug.distillers.dm` with three additions: four small images in the place of one
(:mod:`ddplug.functional.resize`), networks at all ages from none to lightly trained, and the cross-entropy.

Reference: Zhao, Li, Qin & Yu, "Improved Distribution Matching for Dataset Condensation", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from ddplug.data.labeled import LabeledData
from ddplug.distillation.protocol import State
from ddplug.distillers.base import AgedPool, Momentum
from ddplug.distillers.parts.views import class_outputs, draw_view, real_statistics
from ddplug.distillers.presets import Preset
from ddplug.functional.losses import mean_matching
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.networks.functional import unprefixed
from ddplug.utils.checks import at_least

__all__ = ["IDM"]


# after each of its steps two networks of the pool are trained by 10 steps, and every 30 steps the oldest of 100 leaves
_PAPER = Preset(
    {
        "network": "convnet",
        "batch_real": 256,
        "init_from": "real",
        "augment": "auto",
        "pool_size": 100,
        "reuse": 1,
        "advance": 20,
        "max_age": 600,
        "steps": 20_000,
        "factor": 2,
    },
    "Zhao et al., CVPR 2023, and released defaults; SGD without momentum at ten times the rate for the networks",
)

# the published rate of the images is 0.2, and ours is multiplied by the images
_CIFAR10 = {
    1: {"learning_rate": 0.2, "calibration": 0.5, "batch_real": 5000},
    10: {"learning_rate": 0.02, "calibration": 0.5},
    50: {"learning_rate": 0.004, "calibration": 0.1},
}

_PRESETS = {
    "paper": _PAPER.extended(**_CIFAR10[10]),
    **{f"cifar10-{n}": _PAPER.extended(images_per_class=n, **more) for n, more in _CIFAR10.items()},
}


@dataclass(frozen=True)
class IDM(Momentum, AgedPool):
    """Improved distribution matching.

    Attributes:
        network: the architecture that gives the features.
        batch_real: real images of each class behind one mean.
        calibration: weight of the cross-entropy in a network that is always right; 0 for none.
        advance: training steps on real data that a network then takes.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> method = IDM(images_per_class=1, network="convnet:width=8,depth=1", pool_size=2, max_age=2)
        >>> distill(toy_images(), method, steps=3, device="cpu").inputs.shape
        torch.Size([12, 1, 4, 4])
    """

    name: ClassVar[str] = "idm"
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    learning_rate: float = 0.2
    calibration: float = 0.5
    factor: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, calibration=0)

    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Take the mean features ``means`` ``(C, D)`` of a new real batch, and a network's ``accuracy`` on it."""
        view = draw_view(unprefixed("network.", state), self._strategy(data), data.num_classes, rng)
        module, statistic = self._module(data, outputs=True), partial(_means, num_classes=data.num_classes)
        means = real_statistics(module, view, data, self.batch_real, rng, statistic)
        features, guesses = means.tensor_split([-data.num_classes], 1)
        return {**view, "means": features, "accuracy": guesses.diagonal().mean()}

    def loss(self, state: State, view: Mapping[str, Any], data: LabeledData) -> Tensor:
        module, images = self._module(data, outputs=True), enlarge(state["inputs"], data.shape)
        outputs = class_outputs(module, images, torch.arange(data.num_classes), view)
        features, logits = outputs.tensor_split([-data.num_classes], -1)
        targets = self._targets(state, data)
        errors = cross_entropy(logits.flatten(0, 1), targets, reduction="sum") / self._each
        weight: Tensor = self.calibration * view["accuracy"]
        return mean_matching(view["means"], features.mean(1)) + weight * errors


def _means(outputs: Tensor, num_classes: int) -> Tensor:
    """Mean features of each class, and behind them the shares of its images that are taken for each class."""
    features, logits = outputs.tensor_split([-num_classes], -1)
    return torch.cat([features, one_hot(logits.argmax(-1), num_classes).to(features)], -1).mean(1)
