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
from typing import ClassVar

import torch
from torch import Tensor, nn

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillers.parts.images import balanced_labels, initial_images, pick_augmentation, small_images, to_set
from ddplug.distillers.parts.pools import fill, pick, replaced
from ddplug.distillers.parts.views import class_outputs, draw_view, real_statistics
from ddplug.functional import augmentation as augment
from ddplug.functional.losses import mean_matching
from ddplug.functional.optim import momentum_step
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network
from ddplug.networks.functional import initial_parameters, stateless
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least
from ddplug.utils.progress import progress

__all__ = ["DM"]


@dataclass(frozen=True)
class DM:
    """Distribution matching.

    The defaults were chosen on a held-out part of MNIST, for minutes on a CPU; the published settings are presets.

    Attributes:
        images_per_class: synthetic images of each class.
        steps: updates of the images; the paper takes 20,000 with its own loop.
        network: the architecture whose random instances give the features.
        learning_rate: of the images, for one image per class; multiplied by ``images_per_class``, because the mean
            over a class divides each image's gradient by it.
        momentum: of the images' SGD.
        batch_real: real images of each class behind one mean; 256 in the paper.
        init_from: ``"noise"``, ``"real"`` or ``"kmeans"`` images to start from.
        augment: operations for the Siamese augmentation joined by ``_``, ``"auto"`` for what suits the data, or ``""``.
        pool_size: networks in the pool; 0 for the published loop (a new network and a new real batch at every step).
        renew: steps after which the oldest network of the pool is replaced by a new one; 0 for never.
        factor: in the place of one image, ``factor**2`` small ones in the same room (:mod:`ddplug.functional.resize`).

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> distill(toy_images(), DM(images_per_class=1, network="convnet:width=8,depth=1", pool_size=2), steps=3).shape
        (1, 8, 8)
    """

    name: ClassVar[str] = "dm"
    images_per_class: int = 10
    steps: int = 500
    network: Network = "convnet:width=32"
    learning_rate: float = 1.0
    momentum: float = 0.5
    batch_real: int = 64
    init_from: str = "kmeans"
    augment: str = "auto"
    pool_size: int = 60
    renew: int = 0
    factor: int = 1

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, steps=0, batch_real=1, pool_size=0, renew=0, learning_rate=0, momentum=0)

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        augment.check(pick_augmentation(self.augment, data), data.shape)
        inputs = initial_images(
            self.init_from, data, small_images(self.images_per_class, self.factor), rng, self.factor
        )
        state = {"inputs": inputs, "velocity": torch.zeros_like(inputs), "done": torch.tensor(0)}
        return {**state, **fill([self._view(data, rng) for _ in progress(range(self.pool_size), "pool")])}

    def step(self, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator) -> tuple[Tensors, Tensors]:
        done = int(state["done"])
        if self.pool_size and self.renew and done and done % self.renew == 0:
            state = replaced(state, done // self.renew % self.pool_size, self._view(data, rng))
        view = pick(state, self.pool_size, rng) if self.pool_size else self._view(data, rng)
        inputs = state["inputs"].detach().requires_grad_()
        images = enlarge(inputs, data.shape)
        features = class_outputs(self._module(data), images, torch.arange(data.num_classes), view)
        loss = mean_matching(view["means"], features.mean(1))
        (gradient,) = torch.autograd.grad(loss, inputs)
        rate = self.learning_rate * self.images_per_class
        moved = momentum_step(state, gradient, rate, self.momentum)
        return {**state, **moved, "done": torch.tensor(done + 1)}, {"loss": loss.detach()}

    def result(self, state: Mapping[str, Tensor], data: LabeledData) -> SyntheticSet:
        recipe = Recipe.paper(pick_augmentation(self.augment, data))
        labels = balanced_labels(data, small_images(self.images_per_class, self.factor))
        return to_set(data, state["inputs"], labels, recipe)

    def memory(self, sizes: Sizes) -> dict[str, int]:
        """Return the bytes that options need at the least; see :mod:`ddplug.distillation.memory`."""
        images = sizes.classes * small_images(self.images_per_class, self.factor)
        view = sizes.network + sizes.classes * sizes.features
        # while a pool is stacked its parts are there too
        return {"pool_size": 2 * self.pool_size * view, "images_per_class": images * sizes.activations}

    def _view(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Draw a network and an augmentation for each class, and the mean features ``means`` ``(C, D)``."""
        view = draw_view(
            initial_parameters(self.network, data, rng), pick_augmentation(self.augment, data), data.num_classes, rng
        )
        means = real_statistics(self._module(data), view, data, self.batch_real, rng, lambda features: features.mean(1))
        return {**view, "means": means}

    def _module(self, data: LabeledData) -> nn.Module:
        return stateless(self.network, data.shape, data.num_classes, embedding=True)
