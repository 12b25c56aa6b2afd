r"""FRePo: images and soft labels on which ridge regression, in the features of many networks, predicts real data.

.. math::  L = \frac1N \Big\| F Z^\top \Big(Z Z^\top + \lambda \tfrac{\operatorname{tr} Z Z^\top}{M} I\Big)^{-1}
           \big(P - \tfrac1C\big) - \big(T - \tfrac1C\big) \Big\|^2

with the features :math:`Z` of the synthetic images, their class probabilities :math:`P`, and the features :math:`F` and
one-hot labels :math:`T` of real images. Only the head of a network is ever solved for; the features come from a *pool*
of networks that are themselves being trained on the synthetic set, each at another age.

Reference: Zhou, Nezhadarya & Ba, "Dataset Distillation using Neural Feature Regression", NeurIPS 2022, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softmax

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillers.parts.images import balanced_labels, initial_images, pick_augmentation, small_images, to_set
from ddplug.distillers.parts.pools import after_use, staggered_pool, view_at
from ddplug.errors import OptionError
from ddplug.functional import augmentation as augment
from ddplug.functional.optim import adam_start, adam_step
from ddplug.functional.resize import enlarge
from ddplug.functional.ridge import best_labels, centered, nearest_distribution, predict
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network
from ddplug.networks.functional import forward, initial_parameters, prefixed, sgd_step, stateless, unprefixed
from ddplug.synthetic.compat import same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least

__all__ = ["FRePo", "solve_labels"]

_LOGIT = 5.0
"""Logit of an image's own class at the start, the others being 0: with ten classes a probability of 0.94."""


@dataclass(frozen=True)
class FRePo:
    """Neural feature regression with pooling.

    The defaults were chosen on a held-out part of MNIST, for minutes on a CPU. They differ from the paper in what is
    said below; the preset ``paper`` goes back to its schedule.

    Attributes:
        images_per_class: synthetic images of each class.
        steps: updates of the images and labels.
        network: the architecture whose instances give the features.
        learning_rate: of the images, for Adam; it falls to a tenth by a cosine over ``steps``.
        label_rate: the same of the labels' logits; 0 for hard labels.
        batch_real: real images of each class behind one loss.
        init_from: ``"noise"``, ``"real"`` or ``"kmeans"`` images to start from.
        augment: operations joined by ``_`` for the training of the pool's networks, ``"auto"`` for what suits the data,
            or ``""``; networks are then trained on the result in the same way.
        pool_size: networks in the pool.
        max_age: training steps after which a network is replaced by a new one.
        reuse: updates of the images in one state of a network, all on the same real batch; 1 in the paper.
        advance: training steps a network then takes on the synthetic set; 1 in the paper, 0 for networks that are
            never trained.
        network_learning_rate: of the networks' SGD.
        factor: in the place of one image, ``factor**2`` small ones in the same room (:mod:`ddplug.functional.resize`).

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> method = FRePo(images_per_class=1, network="convnet:width=8,depth=1", pool_size=2, max_age=2)
        >>> distill(toy_images(), method, steps=3, device="cpu").targets.shape
        torch.Size([3, 3])
    """

    name: ClassVar[str] = "frepo"
    images_per_class: int = 10
    steps: int = 1500
    network: Network = "convnet:width=32"
    learning_rate: float = 0.01
    label_rate: float = 0.01
    batch_real: int = 64
    init_from: str = "kmeans"
    augment: str = "auto"
    pool_size: int = 10
    max_age: int = 300
    reuse: int = 5
    advance: int = 10
    network_learning_rate: float = 0.1
    factor: int = 1

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, steps=0, batch_real=1, learning_rate=0, label_rate=0, pool_size=1)
        at_least(self, max_age=0, reuse=1, advance=0, network_learning_rate=0)

    @property
    def _each(self) -> int:
        return small_images(self.images_per_class, self.factor)

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        augment.check(pick_augmentation(self.augment, data), data.shape)
        inputs = initial_images(self.init_from, data, self._each, rng, self.factor)
        labels = _LOGIT * self._one_hot(data)
        state = adam_start({"inputs": inputs, "labels": labels})
        make = partial(self._view, state=state, data=data, rng=rng)
        return {**state, **staggered_pool(self.pool_size, self.max_age if self.advance else 0, make)}

    def step(self, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator) -> tuple[Tensors, Tensors]:
        done = int(state["done"]) + 1
        k = int(torch.randint(self.pool_size, (), generator=rng))
        view = view_at(state, k)
        inputs, labels = (state[name].detach().requires_grad_() for name in ("inputs", "labels"))
        loss = self._loss(inputs, labels, view, data)
        gradients = torch.autograd.grad(loss, [inputs, labels])
        rate = 0.55 + 0.45 * math.cos(math.pi * min(done / max(self.steps, 1), 1))
        moved = {
            **adam_step(state, {"inputs": gradients[0]}, self.learning_rate * rate),
            **adam_step(state, {"labels": gradients[1]}, self.label_rate * rate),
        }
        after = {**state, **moved}
        make = partial(self._view, state=after, data=data, rng=rng)
        used = after_use(after, k, make, reuse=self.reuse, advance=self.advance, max_age=self.max_age)
        return {**after, **used}, {"loss": loss.detach()}

    def result(self, state: Mapping[str, Tensor], data: LabeledData) -> SyntheticSet:
        recipe = Recipe.paper(pick_augmentation(self.augment, data))
        own = balanced_labels(data, self._each)
        targets = self._targets(state["labels"], data) if self.label_rate else own
        return to_set(data, state["inputs"], targets, recipe)

    def memory(self, sizes: Sizes) -> dict[str, int]:
        """Return the bytes that options need at the least; see :mod:`ddplug.distillation.memory`."""
        images = sizes.classes * self._each
        view = sizes.network + sizes.classes * self.batch_real * sizes.features
        kernel = 8 * images**2 + 2 * images * sizes.features  # in float64
        return {"pool_size": 2 * self.pool_size * view, "images_per_class": images * sizes.activations + kernel}

    def _one_hot(self, data: LabeledData) -> Tensor:
        return one_hot(balanced_labels(data, self._each), data.num_classes).float()

    def _targets(self, labels: Tensor, data: LabeledData) -> Tensor:
        """Return the class probabilities ``(M, C)`` that logits stand for; one-hot where labels are not learned."""
        if self.label_rate:
            return softmax(labels, 1)
        return labels * 0 + self._one_hot(data)

    def _loss(self, inputs: Tensor, labels: Tensor, view: Mapping[str, Tensor], data: LabeledData) -> Tensor:
        """Mean squared error of the regression on a view's real features."""
        module = stateless(self.network, data.shape, data.num_classes, embedding=True)
        support = forward(module, unprefixed("network.", view), enlarge(inputs, data.shape))
        targets = centered(self._targets(labels, data), data.num_classes)
        predictions = predict(view["features"], support, targets)
        return (predictions - self._real_targets(data)).square().sum(1).mean()

    def _real_targets(self, data: LabeledData) -> Tensor:
        return centered(balanced_labels(data, self.batch_real), data.num_classes)

    def _view(
        self,
        network: Tensors | None,
        steps: int,
        state: Mapping[str, Tensor],
        data: LabeledData,
        rng: torch.Generator,
    ) -> Tensors:
        """Train a network, or a new one, for some steps, and see a new real batch through it.

        Returns:
            The network's numbers under ``network.*``, and the ``features`` ``(C * batch_real, D)``, sorted by class.
        """
        network = self._trained(network or initial_parameters(self.network, data, rng), steps, state, data, rng)
        images = torch.cat([data.sample(label, self.batch_real, rng) for label in range(data.num_classes)])
        with torch.no_grad():
            module = stateless(self.network, data.shape, data.num_classes, embedding=True)
            features = forward(module, network, images)
        return {**prefixed("network.", network), "features": features}

    def _trained(
        self, network: Tensors, steps: int, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator
    ) -> Tensors:
        """Train a network on the whole synthetic set, as whoever uses the set will: cross-entropy with soft labels."""
        module = stateless(self.network, data.shape, data.num_classes)
        targets = self._targets(state["labels"], data)
        for _ in range(steps):
            images = augment.augment(enlarge(state["inputs"], data.shape), pick_augmentation(self.augment, data), rng)
            network = sgd_step(module, network, images, targets, self.network_learning_rate)
        return network


def solve_labels(
    images: SyntheticSet,
    data: LabeledData,
    *,
    network: Network = "convnet:width=32",
    networks: int = 10,
    batch_real: int = 64,
    rng: torch.Generator,
) -> SyntheticSet:
    r"""Return any set of images the soft labels that ridge regression asks for, in closed form.

    The labels minimize the squared error of the regression from the images to real ones, summed over the features of
    random networks (:func:`ddplug.functional.best_labels`). They are centered targets that may leave the probability
    simplex, on which the library trains: each becomes the nearest distribution.

    Args:
        images: synthetic or selected images; their labels are not looked at.
        data: real data of the same shape and classes.
        network: the architecture whose random instances give the features.
        networks: number of instances, at least 1.
        batch_real: real images of each class seen through each of them, at least 1.
        rng: generator on the CPU.

    Returns:
        The set with ``(M, C)`` soft labels.

    Raises:
        DataError: the images and the data differ in shape or classes.
        OptionError: a number is outside its range.

    Reference: Nguyen, Chen & Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021, equation 4.

    Example:
        >>> from ddplug import distill
        >>> from ddplug.testing import toy_images
        >>> made = distill(toy_images(), "class-mean", device="cpu")
        >>> rng = torch.Generator().manual_seed(0)
        >>> solve_labels(made, toy_images(), network="convnet:width=8,depth=1", rng=rng).hard_targets
        tensor([0, 1, 2])
    """
    for name, number in (("networks", networks), ("batch_real", batch_real)):
        if number < 1:
            raise OptionError(f"{name} is {number}; it must be at least 1")
    data = same_space(images, data, "train", data.device)
    inputs = images.enlarged().inputs.to(data.device)
    module = stateless(network, data.shape, data.num_classes, embedding=True)
    targets = centered(balanced_labels(data, batch_real), data.num_classes)

    def views() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for _ in range(networks):
            tensors = initial_parameters(network, data, rng)
            real = torch.cat([data.sample(label, batch_real, rng) for label in range(data.num_classes)])
            yield forward(module, tensors, real), targets, forward(module, tensors, inputs)

    with torch.no_grad():
        solved = best_labels(views()) + 1 / data.num_classes
    return replace(images, targets=nearest_distribution(solved).float().to(images.inputs.device), half_labels=False)
