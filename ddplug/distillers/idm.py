r"""IDM: match mean features in a queue of networks that are being trained, and be classified rightly by them.

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
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillers.parts.images import balanced_labels, initial_images, pick_augmentation, small_images, to_set
from ddplug.distillers.parts.pools import after_use, staggered_pool, view_at
from ddplug.distillers.parts.training import trained_on_real
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

__all__ = ["IDM"]


@dataclass(frozen=True)
class IDM:
    """Improved distribution matching.

    Attributes:
        images_per_class: synthetic images of each class.
        steps: updates of the images.
        network: the architecture that gives the features.
        learning_rate: of the images, for one image per class; multiplied by ``images_per_class`` as in
            :class:`~ddplug.distillers.DM`.
        momentum: of the images' SGD.
        batch_real: real images of each class behind one mean.
        init_from: ``"noise"``, ``"real"`` or ``"kmeans"`` images to start from.
        augment: operations for the Siamese augmentation joined by ``_``, ``"auto"`` for what suits the data, or ``""``.
        calibration: weight of the cross-entropy in a network that is always right; 0 for none.
        pool_size: networks in the queue.
        max_age: training steps after which a network is replaced by a new one.
        reuse: updates of the images in one state of a network, all on the same real batch; 1 in the paper.
        advance: training steps on real data that a network then takes.
        network_learning_rate: of the networks' SGD.
        factor: in the place of one image, ``factor**2`` small ones in the same room (:mod:`ddplug.functional.resize`).

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
    images_per_class: int = 10
    steps: int = 500
    network: Network = "convnet:width=32"
    learning_rate: float = 0.2
    momentum: float = 0.5
    batch_real: int = 64
    init_from: str = "kmeans"
    augment: str = "auto"
    calibration: float = 0.5
    pool_size: int = 10
    max_age: int = 200
    reuse: int = 10
    advance: int = 10
    network_learning_rate: float = 0.1
    factor: int = 2

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, steps=0, batch_real=1, learning_rate=0, momentum=0, calibration=0)
        at_least(self, pool_size=1, max_age=0, reuse=1, advance=0, network_learning_rate=0)

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
        view = sizes.network + sizes.classes * sizes.features
        return {
            "pool_size": 2 * self.pool_size * view,
            "images_per_class": sizes.classes * self._each * sizes.activations,
        }

    def _loss(self, inputs: Tensor, view: Tensors, data: LabeledData) -> Tensor:
        labels = torch.arange(data.num_classes)
        outputs = class_outputs(self._module(data), enlarge(inputs, data.shape), labels, view)
        features, logits = outputs.tensor_split([-data.num_classes], -1)
        errors = cross_entropy(logits.flatten(0, 1), balanced_labels(data, self._each), reduction="sum") / self._each
        return mean_matching(view["means"], features.mean(1)) + self.calibration * view["accuracy"] * errors

    def _view(self, network: Tensors | None, steps: int, *, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Train a network, or a new one, on real data for some steps, and see a new real batch through it.

        Returns:
            What :func:`ddplug.distillers.parts.views.draw_view` gives, the mean features ``means`` ``(C, D)``, and the
            ``accuracy``.
        """
        strategy = pick_augmentation(self.augment, data)
        network = trained_on_real(
            stateless(self.network, data.shape, data.num_classes),
            network or initial_parameters(self.network, data, rng),
            data,
            strategy,
            steps=steps,
            rate=self.network_learning_rate,
            rng=rng,
        )
        view = draw_view(network, strategy, data.num_classes, rng)
        statistic = partial(_means, num_classes=data.num_classes)
        means = real_statistics(self._module(data), view, data, self.batch_real, rng, statistic)
        features, guesses = means.tensor_split([-data.num_classes], 1)
        return {**view, "means": features, "accuracy": guesses.diagonal().mean()}

    def _module(self, data: LabeledData) -> nn.Module:
        return stateless(self.network, data.shape, data.num_classes, outputs=True)


def _means(outputs: Tensor, num_classes: int) -> Tensor:
    """Mean features of each class, and behind them the shares of its images that are taken for each class."""
    features, logits = outputs.tensor_split([-num_classes], -1)
    return torch.cat([features, one_hot(logits.argmax(-1), num_classes).to(features)], -1).mean(1)
