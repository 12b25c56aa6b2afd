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
from typing import ClassVar

import torch
from torch import Tensor, nn

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillers.parts.images import balanced_labels, initial_images, pick_augmentation, small_images, to_set
from ddplug.distillers.parts.pools import fill, pick
from ddplug.distillers.parts.training import batch_norm_updated
from ddplug.distillers.parts.views import draw_view, real_gradients, synthetic_gradients
from ddplug.errors import unknown
from ddplug.functional import augmentation as augment
from ddplug.functional.losses import GRADIENT_DISTANCES, gradient_matching
from ddplug.functional.optim import momentum_step
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network
from ddplug.networks.functional import initial_parameters, prefixed, sgd_step, stateless, unprefixed
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least
from ddplug.utils.progress import progress

__all__ = ["DC", "LOOPS", "loops"]

LOOPS: Mapping[int, tuple[int, int]] = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
"""Images per class -> published outer and inner loops."""


def loops(images_per_class: int) -> tuple[int, int]:
    """Return the outer and inner loops for any number of images per class.

    The published table where it has an entry; between and beyond, as many outer loops as images per class and about
    500 inner epochs in all, which is what the table's entries amount to.

    Example:
        >>> loops(10), loops(25)
        ((10, 50), (25, 20))
    """
    return LOOPS.get(images_per_class, (images_per_class, max(1, 500 // images_per_class)))


@dataclass(frozen=True)
class DC:
    """Gradient matching ("dataset condensation").

    One step is one update of the images; the paper takes 1,000 networks, which are ``1000 * outer_loop`` steps.

    Attributes:
        images_per_class: synthetic images of each class.
        steps: updates of the images.
        network: the architecture whose gradients are matched.
        learning_rate: of the images.
        momentum: of the images' SGD.
        batch_real: real images of each class behind one gradient.
        init_from: ``"noise"``, ``"real"`` or ``"kmeans"`` images to start from.
        augment: operations for the Siamese augmentation joined by ``_``, ``"auto"`` for what suits the data, or ``""``.
        distance: ``"layerwise"`` (the paper's), ``"mse"``, ``"l1"`` or ``"cosine"``.
        outer_loop: image updates for each network; 0 for :func:`loops`.
        inner_loop: epochs of network training between two of them; 0 for :func:`loops`.
        network_learning_rate: of the network's SGD.
        batch_train: images in a step of the network.
        pool_size: networks whose real gradients are taken once and used again and again, where ``outer_loop`` is 1, so
            that no network is ever trained; 0 for the published loop, and without effect where networks are trained.
        factor: in the place of one image, ``factor**2`` small ones in the same room (:mod:`ddplug.functional.resize`).

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> distill(toy_images(), DC(images_per_class=2, network="convnet:width=8,depth=1"), steps=3).shape
        (1, 8, 8)
    """

    name: ClassVar[str] = "dc"
    images_per_class: int = 10
    steps: int = 1000
    network: Network = "convnet:width=32"
    learning_rate: float = 0.1
    momentum: float = 0.5
    batch_real: int = 256
    init_from: str = "noise"
    augment: str = ""
    distance: str = "layerwise"
    outer_loop: int = 0
    inner_loop: int = 0
    network_learning_rate: float = 0.01
    batch_train: int = 256
    pool_size: int = 60
    factor: int = 1

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, steps=0, batch_real=1, learning_rate=0, momentum=0)
        at_least(self, outer_loop=0, inner_loop=0, network_learning_rate=0, batch_train=1, pool_size=0)
        if self.distance not in GRADIENT_DISTANCES:
            raise unknown("gradient distance", self.distance, GRADIENT_DISTANCES)

    @property
    def _pooled(self) -> bool:
        return self.pool_size > 0 and self._outer_loop == 1

    @property
    def _outer_loop(self) -> int:
        return self.outer_loop or loops(self.images_per_class)[0]

    @property
    def _each(self) -> int:
        return small_images(self.images_per_class, self.factor)

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        augment.check(pick_augmentation(self.augment, data), data.shape)
        inputs = initial_images(self.init_from, data, self._each, rng, self.factor)
        state = {"inputs": inputs, "velocity": torch.zeros_like(inputs), "done": torch.tensor(0)}
        if self._pooled:
            views = (initial_parameters(self.network, data, rng) for _ in progress(range(self.pool_size), "pool"))
            return {**state, **fill([self._view(network, data, rng) for network in views])}
        return {**state, **prefixed("network.", initial_parameters(self.network, data, rng))}

    def step(self, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator) -> tuple[Tensors, Tensors]:
        view = (
            pick(state, self.pool_size, rng) if self._pooled else self._view(unprefixed("network.", state), data, rng)
        )
        inputs = state["inputs"].detach().requires_grad_()
        synthetic = synthetic_gradients(self._module(data), view, enlarge(inputs, data.shape), data.num_classes)
        # by name: a state that comes from a checkpoint has its tensors in another order
        real = [view[f"real.{name}"] for name in synthetic]
        loss = gradient_matching(real, list(synthetic.values()), self.distance)
        (gradient,) = torch.autograd.grad(loss, inputs)
        moved = momentum_step(state, gradient, self.learning_rate, self.momentum)
        done = int(state["done"]) + 1
        after = {**state, **moved, "done": torch.tensor(done)}
        if not self._pooled:
            over = done % self._outer_loop == 0
            network = unprefixed("network.", view)
            network = (
                initial_parameters(self.network, data, rng)
                if over
                else self._trained(network, moved["inputs"], data, rng)
            )
            after |= prefixed("network.", network)
        return after, {"loss": loss.detach()}

    def result(self, state: Mapping[str, Tensor], data: LabeledData) -> SyntheticSet:
        recipe = Recipe.paper(pick_augmentation(self.augment, data))
        return to_set(data, state["inputs"], balanced_labels(data, self._each), recipe)

    def memory(self, sizes: Sizes) -> dict[str, int]:
        """Return the bytes that options need at the least; see :mod:`ddplug.distillation.memory`."""
        view = sizes.network * (1 + sizes.classes)
        # the gradients' own graph is as large as that of the activations
        images = 2 * sizes.classes * self._each * sizes.activations
        kept = {"pool_size": 2 * self.pool_size * view} if self._pooled else {"network": view}
        return {**kept, "images_per_class": images}

    def _view(self, network: Tensors, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Draw an augmentation for each class, and take the gradients that new real batches give in a network.

        Returns:
            The network's numbers under ``network.*``, ``operation`` ``(C,)`` and ``numbers`` ``(C, 3)`` of the
            augmentation, and for each parameter the classes' gradients ``(C, *shape)`` under ``real.*``.
        """
        network = batch_norm_updated(stateless(self.network, data.shape, data.num_classes), network, data, rng)
        view = draw_view(network, pick_augmentation(self.augment, data), data.num_classes, rng)
        return {**view, **prefixed("real.", real_gradients(self._module(data), view, data, self.batch_real, rng))}

    def _module(self, data: LabeledData) -> nn.Module:
        return stateless(self.network, data.shape, data.num_classes, training=False)

    def _trained(self, network: Tensors, inputs: Tensor, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Train a network on the images for ``inner_loop`` epochs of SGD, augmented image by image."""
        module = stateless(self.network, data.shape, data.num_classes)
        strategy = pick_augmentation(self.augment, data)
        targets = balanced_labels(data, self._each)
        for _ in range(self.inner_loop or loops(self.images_per_class)[1]):
            for index in torch.randperm(len(inputs), generator=rng).to(data.device).split(self.batch_train):
                images = augment.augment(enlarge(inputs[index], data.shape), strategy, rng)
                network = sgd_step(module, network, images, targets[index], self.network_learning_rate)
        return network
