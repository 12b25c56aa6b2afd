r"""IDC: gradient matching of small images, in networks that are being trained on real data.

.. math::  L = \sum_c D\big(\nabla_\theta \ell(\theta; A_\omega(B_c)),
           \nabla_\theta \ell(\theta; A_\omega(f(S_c)))\big)

with the enlargement :math:`f` of small images (:mod:`ddplug.functional.resize`), a Siamese augmentation
:math:`A_\omega`, and for :math:`D` the squared or the absolute difference of the gradients of convolutions.
:mod:`ddplug.distillers.dc` trains its networks on the synthetic images, where gradients soon vanish. Here they are
trained on real data. So the real side never depends on the synthetic images: a *pool* holds networks at all ages with
their real gradients, and a step costs the synthetic images alone.

Reference: Kim et al., "Dataset Condensation via Efficient Synthetic-Data Parameterization", ICML 2022, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillation.protocol import State
from ddplug.distillers.base import AgedPool, Momentum
from ddplug.distillers.parts.views import gradient_loss, gradient_loss_bytes, gradient_view, kept_gradients, of_rank
from ddplug.distillers.presets import Preset
from ddplug.functional.losses import GRADIENT_DISTANCES
from ddplug.functional.types import Tensors
from ddplug.networks.functional import unprefixed
from ddplug.utils.checks import one_of

__all__ = ["IDC"]


# 2,000 networks, each with 100 updates of the images and a pass over 2,000 or 500 real images after each
_PAPER = Preset(
    {
        "network": "convnet",
        "batch_real": 64,
        "init_from": "real",
        "augment": "color_crop_cutout",
        "pool_size": 1,
        "reuse": 1,
        "steps": 200_000,
        "factor": 2,
    },
    "Kim et al., ICML 2022, and released defaults; SGD without momentum at ten times the rate for the networks",
)


def _published(distance: str, rate: float, deviation: float, passes: int) -> dict[str, Any]:
    """Options for data: the published rate is that of 10 images per class and of pixels in 0..1, not standardized."""
    steps = -(-passes // 64)
    return {
        "distance": distance,
        "learning_rate": rate / 10 / deviation**2,
        "advance": steps,
        "max_age": 99 * steps,
    }


_DATA = {
    "mnist": _published("l1", 1e-4, 0.31, 500),
    "fashion-mnist": _published("l1", 1e-4, 0.35, 500),
    "svhn": _published("mse", 5e-3, 0.20, 500),
    "cifar10": _published("mse", 5e-3, 0.20, 2000),
}


_PRESETS = {
    "paper": _PAPER.extended(**_DATA["cifar10"]),
    **{f"{data}-{n}": _PAPER.extended(images_per_class=n, **more) for data, more in _DATA.items() for n in (1, 10, 50)},
}


@dataclass(frozen=True)
class IDC(Momentum, AgedPool):
    """Gradient matching with several small images instead of one ("information-intensive condensation").

    Attributes:
        network: the architecture whose gradients are matched.
        batch_real: real images of each class behind one gradient.
        distance: ``"mse"``, ``"l1"``, ``"layerwise"`` or ``"cosine"``, of the gradients of convolutions (of all weights
            of networks that have none).
        advance: training steps on real data that a network then takes.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> method = IDC(images_per_class=1, network="convnet:width=8,depth=1", pool_size=2, max_age=2)
        >>> distill(toy_images(), method, steps=3, device="cpu").inputs.shape
        torch.Size([12, 1, 4, 4])
    """

    name: ClassVar[str] = "idc"
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    distance: str = "mse"
    factor: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("gradient distance", self.distance, GRADIENT_DISTANCES)

    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Take the gradients of a new real batch of each class in a network that has been trained."""
        network, module = unprefixed("network.", state), self._module(data, training=False)
        drawn = gradient_view(self.network, network, self._strategy(data), data, self.batch_real, rng)
        return kept_gradients(module, drawn, _matched(module), data)

    def loss(self, state: State, view: Mapping[str, Any], data: LabeledData) -> Tensor:
        module = self._module(data, training=False)
        return gradient_loss(module, view, state["inputs"], _matched(module), data, self.distance)

    def _view_bytes(self, sizes: Sizes) -> int:
        return sizes.network + sizes.classes * sizes.of_rank(_least_rank(sizes.module))

    def _loss_bytes(self, sizes: Sizes) -> int:
        return gradient_loss_bytes(sizes, self._each, _least_rank(sizes.module))


def _least_rank(module: nn.Module) -> int:
    """Return the dimensions of the weights of convolutions, ``(out, in, ...)``; without any, of linear layers'."""
    return 3 if of_rank(module, 3) else 2


def _matched(module: nn.Module) -> list[str]:
    """Name the parameters whose gradients are matched."""
    return of_rank(module, _least_rank(module))
