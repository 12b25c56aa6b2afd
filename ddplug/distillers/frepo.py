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
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softmax

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillation.protocol import State
from ddplug.distillers.base import AgedPool
from ddplug.distillers.parts.images import balanced_labels
from ddplug.distillers.parts.training import trained_on_set
from ddplug.distillers.presets import Preset
from ddplug.functional.optim import adam_step, share_done
from ddplug.functional.resize import enlarge
from ddplug.functional.ridge import best_labels, centered, nearest_distribution, predict
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network
from ddplug.networks.functional import forward, initial_parameters, prefixed, stateless, unprefixed
from ddplug.synthetic.compat import same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.checks import at_least, values_at_least
from ddplug.utils.surroundings import own_surroundings

__all__ = ["FRePo", "solve_labels"]

_LOGIT = 5.0
"""Logit of an image's own class at the start, the others being 0: with ten classes a probability of 0.94."""


# 1,024 real images in a batch whatever the classes, so 102 of each of ten; Adam stands for LAMB
_PRESETS = {
    "paper": Preset(
        {
            "network": "convnet:norm=batch",
            "batch_real": 102,
            "learning_rate": 3e-4,
            "label_rate": 3e-4,
            "init_from": "real",
            "augment": "",
            "pool_size": 10,
            "max_age": 100,
            "reuse": 1,
            "advance": 1,
            "steps": 500_000,
        },
        "Zhou, Nezhadarya & Ba, NeurIPS 2022, and released defaults; Adam instead of LAMB",
    )
}


@dataclass(frozen=True)
class FRePo(AgedPool):
    """Neural feature regression with pooling.

    The defaults were chosen on a held-out part of MNIST, for minutes on a CPU. They differ from the paper in what is
    said below; the preset ``paper`` goes back to its schedule.

    Attributes:
        steps: updates of the images and labels.
        network: the architecture whose instances give the features.
        learning_rate: that of the images, for Adam; it falls to a tenth by a cosine over ``steps``.
        label_rate: learning rate of the labels' logits; 0 for hard labels.
        batch_real: real images of each class behind one loss.
        augment: operations joined by ``_`` for the training of the pool's networks, ``"auto"`` for what suits the data,
            or ``""``; networks are then trained on the result in the same way.
        advance: training steps a network then takes on the synthetic set; 1 in the paper, 0 for networks that are
            never trained.

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
    anneals: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    steps: int = 1500
    max_age: int = 300
    reuse: int = 5
    label_rate: float = 0.01

    @property
    def soft_labels(self) -> bool:
        """Whether the sets have soft labels."""
        return self.label_rate > 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, label_rate=0)

    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Take the ``features`` ``(C * batch_real, D)``, sorted by class, that a network gives a new real batch."""
        network = unprefixed("network.", state)
        images = torch.cat([data.sample(label, self.batch_real, rng) for label in range(data.num_classes)])
        with torch.no_grad():
            features = forward(self._module(data, embedding=True), network, images)
        return {**prefixed("network.", network), "features": features}

    def loss(self, state: State, view: Mapping[str, Any], data: LabeledData) -> Tensor:
        """Mean squared error of the regression on a view's real features."""
        module, images = self._module(data, embedding=True), enlarge(state["inputs"], data.shape)
        support = forward(module, unprefixed("network.", view), images)
        predictions = predict(view["features"], support, centered(self._shares(state, data), data.num_classes))
        goals = centered(balanced_labels(data, self.batch_real), data.num_classes)
        return (predictions - goals).square().sum(1).mean()

    @property
    def _learned(self) -> tuple[str, ...]:
        return ("inputs", "labels") if self.label_rate else ("inputs",)

    @property
    def _first_ages(self) -> int:
        return self.max_age if self.advance else 0

    def _labels(self, data: LabeledData) -> Tensors:
        return {"labels": _LOGIT * self._one_hot(data)} if self.label_rate else {}

    def _moved(self, state: State, gradients: Mapping[str, Tensor]) -> Tensors:
        done = int(state["done"]) + 1
        share = 0.55 + 0.45 * math.cos(math.pi * share_done(done, self.steps))
        rates = {"inputs": self.learning_rate * share, "labels": self.label_rate * share}
        moved: Tensors = {}
        for name, gradient in gradients.items():
            moved |= adam_step(state, {name: gradient}, rates[name])
        return moved

    def _trained(self, network: Tensors, steps: int, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Train a network on the whole synthetic set, as whoever uses the set will: cross-entropy with soft labels."""
        images, rate = (state["inputs"], self._shares(state, data)), self.network_learning_rate
        batches, strategy = [slice(None)] * steps, self._strategy(data)
        return trained_on_set(self._module(data), network, images, batches, data, strategy, rate=rate, rng=rng)

    def _targets(self, state: State, data: LabeledData) -> Tensor:
        return softmax(state["labels"], 1) if self.label_rate else super()._targets(state, data)

    def _shares(self, state: State, data: LabeledData) -> Tensor:
        """Return the class probabilities ``(M, C)`` of the images; one-hot where labels are not learned."""
        return self._targets(state, data) if self.label_rate else self._one_hot(data)

    def _one_hot(self, data: LabeledData) -> Tensor:
        return one_hot(balanced_labels(data, self._each), data.num_classes).float()

    def _view_bytes(self, sizes: Sizes) -> int:
        return sizes.network + sizes.classes * self.batch_real * sizes.features

    def _real_bytes(self, sizes: Sizes) -> int:
        # networks are trained on the images, and look at the real ones of all classes together
        return max(sizes.trained(sizes.classes * self._each), sizes.seen(sizes.classes * self.batch_real))

    def _loss_bytes(self, sizes: Sizes) -> int:
        images = sizes.classes * self._each
        kernel = 8 * images**2 + 2 * images * sizes.features  # in float64
        return super()._loss_bytes(sizes) + kernel


@own_surroundings()
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
    values_at_least(1, networks=networks, batch_real=batch_real)
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
