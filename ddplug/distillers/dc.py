r"""DC: match the gradients that synthetic and real images give in networks trained on the synthetic ones.

.. math::  L = \sum_c D\big(\nabla_\theta \ell(\theta; B_c),\; \nabla_\theta \ell(\theta; S_c)\big)

with the cross-entropy :math:`\ell` and :math:`D` from :func:`ddplug.functional.gradient_matching`. A network starts at
random; ``outer_loop`` times the images take a step on :math:`L` and the network is trained for ``inner_loop`` epochs on
them; then the next network starts. With one image per class ``outer_loop`` is 1: networks are never trained, the real
side does not depend on the synthetic images, and a *pool* of networks and real gradients serves many steps.

Reference: Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillation.protocol import State
from ddplug.distillers.base import Momentum, with_pool
from ddplug.distillers.parts.pools import stack_views, view_at
from ddplug.distillers.parts.shares import each_part
from ddplug.distillers.parts.training import trained_on_set
from ddplug.distillers.parts.views import gradient_loss, gradient_loss_bytes, gradient_view, kept_gradients, of_rank
from ddplug.distillers.presets import Preset, per_data
from ddplug.functional.losses import GRADIENT_DISTANCES
from ddplug.functional.types import Tensors
from ddplug.networks.functional import initial_parameters, prefixed, unprefixed
from ddplug.utils.checks import at_least, one_of

__all__ = ["DC", "loops"]

_LOOPS: Mapping[int, tuple[int, int]] = {
    1: (1, 1),
    10: (10, 50),
    20: (20, 25),
    30: (30, 20),
    40: (40, 15),
    50: (50, 10),
}
"""Images per class -> published outer and inner loops."""


def loops(images_per_class: int) -> tuple[int, int]:
    """Return the outer and inner loops for any number of images per class.

    The published table where it has an entry; between and beyond, as many outer loops as images per class and about
    500 inner epochs in all, which is what the table's entries amount to.

    Example:
        >>> loops(10), loops(25)
        ((10, 50), (25, 20))
    """
    return _LOOPS.get(images_per_class, (images_per_class, max(1, 500 // images_per_class)))


_PAPER = Preset(
    {
        "network": "convnet",
        "batch_real": 256,
        "learning_rate": 0.1,
        "init_from": "noise",
        "pool_size": 0,
        "inner_loop": 0,
        "network_learning_rate": 0.01,
    },
    "Zhao, Mopuri & Bilen, ICLR 2021, section 4.1 and released defaults",
)

_PRESETS = {
    "paper": _PAPER.extended(steps=1000),
    "paper-mlp": Preset(
        {**_PAPER.options, "network": "mlp", "learning_rate": 0.01}, "released instructions for an MLP, ICLR 2021"
    ),
    # 1,000 networks
    **per_data(_PAPER, {n: {"steps": 1000 * loops(n)[0]} for n in (1, 10, 50)}),
}


@dataclass(frozen=True)
class DC(Momentum):
    """Gradient matching ("dataset condensation").

    One step is one update of the images; the paper takes 1,000 networks, which are ``1000 * outer_loop`` steps. The
    defaults are for minutes on a CPU; the published settings are presets.

    Attributes:
        network: the architecture whose gradients are matched.
        learning_rate: learning rate of the images.
        batch_real: real images of each class behind one gradient; 0 for 256 where a pool keeps them, whose noise is
            learned, and 64 where each step draws others.
        distance: ``"layerwise"`` (the paper's), ``"mse"``, ``"l1"`` or ``"cosine"``.
        outer_loop: image updates for each network; 0 for :func:`loops`.
        inner_loop: epochs of network training between two of them; 0 for :func:`loops`, the published number, which
            goes with the rate 0.01.
        network_learning_rate: learning rate of the network's SGD.
        batch_train: images in a step of the network.
        pool_size: networks whose real gradients are taken once and used again and again, where ``outer_loop`` is 1, so
            that no network is ever trained; 0 for the published loop, and without effect where networks are trained.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> distill(toy_images(), DC(images_per_class=2, network="convnet:width=8,depth=1"), steps=3).shape
        (1, 8, 8)
    """

    name: ClassVar[str] = "dc"
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    small: ClassVar[Mapping[str, Any]] = {**Momentum.small, "batch_real": 4, "outer_loop": 2, "inner_loop": 2}
    steps: int = 500
    learning_rate: float = 0.1
    init_from: str = "kmeans"
    augment: str = ""
    batch_real: int = 0
    distance: str = "layerwise"
    outer_loop: int = 0
    inner_loop: int = 5
    network_learning_rate: float = 0.1
    batch_train: int = 256
    pool_size: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, batch_real=0, outer_loop=0, inner_loop=0, network_learning_rate=0, batch_train=1, pool_size=0)
        one_of("gradient distance", self.distance, GRADIENT_DISTANCES)

    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Draw an augmentation and a real batch for each class; for a pool, take their gradients in a network."""
        network = unprefixed("network.", state)
        drawn = gradient_view(self.network, network, self._strategy(data), data, self._batch_real, rng)
        module = self._module(data, training=False)
        return kept_gradients(module, drawn, of_rank(module, self._least_rank), data) if self._pooled else drawn

    def loss(self, state: State, view: Mapping[str, Any], data: LabeledData) -> Tensor:
        module = self._module(data, training=False)
        names = of_rank(module, self._least_rank)
        return gradient_loss(module, view, state["inputs"], names, data, self.distance)

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        stages, pool = super().memory(sizes), self.pool_size * self._view_bytes(sizes)
        real = sizes.trained(self._batch_real)
        if self._pooled:
            return with_pool(stages, pool, real)
        images = sizes.trained(min(self.batch_train, sizes.classes * self._each))
        step = {**stages["step"], "network": sizes.network, "batch_real": real}
        return {**stages, "training": {"network": sizes.network, "batch_train": images}, "step": step}

    @property
    def _rate(self) -> float:
        return self.learning_rate

    @property
    def _least_rank(self) -> int:
        """Dimensions below which a parameter's gradient is not read."""
        return 2 if self.distance == "layerwise" else 0

    @property
    def _pooled(self) -> bool:
        return self.pool_size > 0 and self._outer_loop == 1

    @property
    def _batch_real(self) -> int:
        return self.batch_real or (256 if self._pooled else 64)

    @property
    def _outer_loop(self) -> int:
        return self.outer_loop or loops(self.images_per_class)[0]

    def _kept(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        if not self._pooled:
            return {"done": torch.tensor(0), **self._new_network(data, rng)}

        def new(data: LabeledData, state: State) -> Tensors:
            return self.view(self._new_network(data, rng), data, rng)

        return {"done": torch.tensor(0), **stack_views(each_part([new] * self.pool_size, data, state, rng, "pool"))}

    def _new_network(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        return prefixed("network.", initial_parameters(self.network, data, rng))

    def _drawn(
        self, state: State, data: LabeledData, rng: torch.Generator
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        if not self._pooled:
            return super()._drawn(state, data, rng)
        return state, view_at(state, int(torch.randint(self.pool_size, (), generator=rng)))

    def _used(self, state: State, view: Mapping[str, Any], data: LabeledData, rng: torch.Generator) -> Tensors:
        """Train the network on the images, or begin with a new one."""
        if self._pooled:
            return {}
        if int(state["done"]) % self._outer_loop == 0:
            return self._new_network(data, rng)
        network, images = unprefixed("network.", view), (state["inputs"], self._targets(state, data))
        for _ in range(self.inner_loop or loops(self.images_per_class)[1]):
            order = torch.randperm(len(images[0]), generator=rng).to(data.device)
            network = trained_on_set(
                self._module(data),
                network,
                images,
                order.split(self.batch_train),
                data,
                self._strategy(data),
                rate=self.network_learning_rate,
                rng=rng,
            )
        return prefixed("network.", network)

    def _view_bytes(self, sizes: Sizes) -> int:
        return sizes.network + sizes.classes * sizes.of_rank(self._least_rank)

    def _loss_bytes(self, sizes: Sizes) -> int:
        return gradient_loss_bytes(sizes, self._each, self._least_rank)
