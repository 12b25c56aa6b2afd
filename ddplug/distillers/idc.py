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
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillers.parts.images import balanced_labels, initial_images, pick_augmentation, small_images, to_set
from ddplug.distillers.parts.pools import after_use, staggered_pool, view_at
from ddplug.distillers.parts.training import batch_norm_updated, trained_on_real
from ddplug.distillers.parts.views import draw_view, real_gradients, synthetic_gradients
from ddplug.errors import unknown
from ddplug.functional import augmentation as augment
from ddplug.functional.losses import GRADIENT_DISTANCES, gradient_matching
from ddplug.functional.optim import momentum_step
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network
from ddplug.networks.functional import initial_parameters, prefixed, stateless
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least

__all__ = ["IDC"]


@dataclass(frozen=True)
class IDC:
    """Gradient matching with several small images in the place of one ("information-intensive condensation").

    Attributes:
        images_per_class: synthetic images of each class.
        steps: updates of the images.
        network: the architecture whose gradients are matched.
        learning_rate: of the images, for one image per class; multiplied by ``images_per_class``, because the mean
            over a class divides each image's gradient by it.
        momentum: of the images' SGD.
        batch_real: real images of each class behind one gradient.
        init_from: ``"noise"``, ``"real"`` or ``"kmeans"`` images to start from.
        augment: operations for the Siamese augmentation joined by ``_``, ``"auto"`` for what suits the data, or ``""``.
        distance: ``"mse"``, ``"l1"``, ``"layerwise"`` or ``"cosine"``, of the gradients of convolutions (of all weights
            of networks that have none).
        pool_size: networks in the pool.
        max_age: training steps after which a network is replaced by a new one.
        reuse: updates of the images in one state of a network, all against the same real gradients; 1 in the paper.
        advance: training steps on real data that a network then takes.
        network_learning_rate: of the networks' SGD.
        factor: in the place of one image, ``factor**2`` small ones in the same room (:mod:`ddplug.functional.resize`).

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
    images_per_class: int = 10
    steps: int = 500
    network: Network = "convnet:width=32"
    learning_rate: float = 0.01
    momentum: float = 0.5
    batch_real: int = 64
    init_from: str = "kmeans"
    augment: str = "auto"
    distance: str = "mse"
    pool_size: int = 10
    max_age: int = 200
    reuse: int = 10
    advance: int = 10
    network_learning_rate: float = 0.1
    factor: int = 2

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, steps=0, batch_real=1, learning_rate=0, momentum=0)
        at_least(self, pool_size=1, max_age=0, reuse=1, advance=0, network_learning_rate=0)
        if self.distance not in GRADIENT_DISTANCES:
            raise unknown("gradient distance", self.distance, GRADIENT_DISTANCES)

    @property
    def _each(self) -> int:
        return small_images(self.images_per_class, self.factor)

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        augment.check(pick_augmentation(self.augment, data), data.shape)
        inputs = initial_images(self.init_from, data, self._each, rng, self.factor)
        state = {"inputs": inputs, "velocity": torch.zeros_like(inputs)}
        return {**state, **staggered_pool(self.pool_size, self.max_age, partial(self._view, data=data, rng=rng))}

    def step(self, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator) -> tuple[Tensors, Tensors]:
        k = int(torch.randint(self.pool_size, (), generator=rng))
        inputs = state["inputs"].detach().requires_grad_()
        loss = self._loss(inputs, view_at(state, k), data)
        (gradient,) = torch.autograd.grad(loss, inputs)
        moved = momentum_step(state, gradient, self.learning_rate * self.images_per_class, self.momentum)
        make = partial(self._view, data=data, rng=rng)
        used = after_use(state, k, make, reuse=self.reuse, advance=self.advance, max_age=self.max_age)
        return {**state, **moved, **used}, {"loss": loss.detach()}

    def result(self, state: Mapping[str, Tensor], data: LabeledData) -> SyntheticSet:
        recipe = Recipe.paper(pick_augmentation(self.augment, data))
        return to_set(data, state["inputs"], balanced_labels(data, self._each), recipe)

    def memory(self, sizes: Sizes) -> dict[str, int]:
        """Return the bytes that options need at the least; see :mod:`ddplug.distillation.memory`."""
        view = sizes.network * (1 + sizes.classes)
        # the gradients' own graph is as large as that of the activations; that of the last layer's is not asked for
        images = 2 * sizes.classes * self._each * (sizes.activations - sizes.features)
        return {"pool_size": 2 * self.pool_size * view, "images_per_class": images}

    def _loss(self, inputs: Tensor, view: Tensors, data: LabeledData) -> Tensor:
        synthetic = synthetic_gradients(self._module(data), view, enlarge(inputs, data.shape), data.num_classes)
        ranks = {name: gradients.ndim - 1 for name, gradients in synthetic.items()}
        least = 3 if max(ranks.values()) >= 3 else 2  # (out, in, ...) of a convolution, (out, in) of a linear layer
        names = [name for name, rank in ranks.items() if rank >= least]
        real = [view[f"real.{name}"] for name in names]
        return gradient_matching(real, [synthetic[name] for name in names], self.distance)

    def _view(self, network: Tensors | None, steps: int, *, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Train a network, or a new one, on real data for some steps, and take the gradients of a new real batch.

        Returns:
            What :func:`ddplug.distillers.parts.views.draw_view` gives, and for each parameter the classes' gradients
            ``(C, *shape)`` under ``real.*``.
        """
        strategy = pick_augmentation(self.augment, data)
        module = stateless(self.network, data.shape, data.num_classes)
        network = trained_on_real(
            module,
            network or initial_parameters(self.network, data, rng),
            data,
            strategy,
            steps=steps,
            rate=self.network_learning_rate,
            rng=rng,
        )
        view = draw_view(batch_norm_updated(module, network, data, rng), strategy, data.num_classes, rng)
        return {**view, **prefixed("real.", real_gradients(self._module(data), view, data, self.batch_real, rng))}

    def _module(self, data: LabeledData) -> nn.Module:
        return stateless(self.network, data.shape, data.num_classes, training=False)
