"""What the methods that move images share: where images start, the step, the two kinds of pools, and the set.

A method of this kind is one loss. It looks at real data through a network, which gives a *view*, and moves the images
against the gradient of a loss between them and the view. So a new one is a frozen dataclass with two functions,
:meth:`ImageDistiller.view` and :meth:`ImageDistiller.loss`. On :class:`ImageDistiller` it draws a new view for every
step; on :class:`RenewedPool` it keeps views of untrained networks and uses them many times; on :class:`AgedPool` it
keeps views of networks that are themselves being trained. Images move by Adam, or by :class:`Momentum`.
"""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes, Stages
from ddplug.distillation.protocol import Metrics, State
from ddplug.distillation.settling import Suits, settled
from ddplug.distillers.parts.images import balanced_labels, initial_images, pick_augmentation, small_images, to_set
from ddplug.distillers.parts.pools import after_use, aged_pool, replace_view, stack_views, staggered, view_at
from ddplug.distillers.parts.shares import each_part
from ddplug.distillers.parts.training import TRAIN_BATCH, trained_on_real
from ddplug.functional import augmentation as augment
from ddplug.functional.optim import adam_start, adam_step, momentum_step
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network
from ddplug.networks.forms import AUTO
from ddplug.networks.functional import initial_parameters, prefixed, stateless
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least
from ddplug.utils.former import TakesFormerSpellings

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AgedPool", "ImageDistiller", "Momentum", "RenewedPool", "with_pool"]


@dataclass(frozen=True)
class ImageDistiller(metaclass=TakesFormerSpellings):
    """A method that moves images; subclasses are frozen dataclasses with defaults of their own.

    Attributes:
        images_per_class: synthetic images of each class.
        steps: updates of the images.
        network: the architecture through whose instances images are compared; ``"auto"`` for convnet:width=32 where
            the data are images, conv1d where they are series, and mlp where they are rows of numbers.
        learning_rate: learning rate of the images.
        init_from: ``"noise"``, ``"real"`` or ``"kmeans"`` images to start from, or a method that selects, by name with
            options, as ``"difficulty"``.
        augment: operations for the Siamese augmentation joined by ``_``, ``"auto"`` for what suits the data, or ``""``.
        factor: instead of one image, ``factor**2`` small ones in the same number of bytes
            (:mod:`ddplug.functional.resize`); images only. ``"auto"`` for 2 where the data are images, else 1.
    """

    name: ClassVar[str]
    real_images: ClassVar[bool] = False
    bfloat16: ClassVar[bool] = True
    suits: ClassVar[Suits] = {
        "network": {"image": "convnet:width=32", "series": "conv1d", "row": "mlp"},
        "factor": {"image": 2, "series": 1, "row": 1},
    }
    small: ClassVar[Mapping[str, Any]] = {"images_per_class": 2, "network": "convnet:width=8,depth=1"}
    images_per_class: int = 10
    steps: int = 500
    network: Network = AUTO
    learning_rate: float = 0.01
    init_from: str = "kmeans"
    augment: str = "auto"
    factor: int | Literal["auto"] = 1

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, steps=0, learning_rate=0)

    @abstractmethod
    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> Mapping[str, Any]:
        """Look at real data: everything about a loss that is random or does not depend on the images.

        Args:
            state: the state; where networks are trained, with the one to look through under ``network.*``.
            data: real data.
            rng: generator on the CPU.

        Returns:
            Tensors by name, which a pool can stack.
        """

    @abstractmethod
    def loss(self, state: State, view: Mapping[str, Any], data: LabeledData) -> Tensor:
        """Compare the images with a view.

        Args:
            state: the state, in which what is learned (``inputs``, the images as they are stored) requires a gradient.
            view: what :meth:`view` gave.
            data: real data, for its shape and classes.

        Returns:
            0-d loss.
        """

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        own = settled(self, data.shape)
        augment.check(own._strategy(data), data.shape)
        inputs = initial_images(own.init_from, data, own._each, rng, own.reduction)
        state = own._optimized({"inputs": inputs, **own._labels(data)})
        return {**state, **own._kept(state, data, rng)}

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        own = settled(self, data.shape)
        state, view = own._drawn(state, data, rng)
        learned = {name: state[name].detach().requires_grad_() for name in own._learned}
        loss = own.loss({**state, **learned}, view, data)
        gradients = torch.autograd.grad(loss, list(learned.values()))
        after = {**state, **own._moved(state, dict(zip(learned, gradients, strict=True)))}
        return {**after, **own._used(after, view, data, rng)}, {"loss": loss.detach()}

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        targets = settled(self, data.shape)._targets(state, data)
        return to_set(data, state["inputs"], targets, Recipe.paper(self._strategy(data)))

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        """Return the bytes that options need in each stage; see :mod:`ddplug.distillation.memory`."""
        # before and after a step, what the optimizer keeps of them, and their gradient
        images = 5 * sizes.classes * self.images_per_class * sizes.inputs
        return {
            "start": {"init_from": sizes.start(self.init_from)},
            "step": {"images_per_class": images + self._loss_bytes(sizes)},
        }

    @property
    def _each(self) -> int:
        """Images of each class as they are stored."""
        return small_images(self.images_per_class, self.reduction)

    @property
    def reduction(self) -> int:
        """By how much images are stored smaller, once that is settled."""
        return 1 if isinstance(self.factor, str) else self.factor

    @property
    def _learned(self) -> tuple[str, ...]:
        """Names of what the loss is differentiated in."""
        return ("inputs",)

    def _strategy(self, data: LabeledData) -> str:
        return pick_augmentation(self.augment, data)

    def _module(self, data: LabeledData, **options: bool) -> nn.Module:
        """Return the network's structure; see :func:`ddplug.networks.stateless`."""
        return stateless(self.network, data.shape, data.num_classes, **options)

    def _labels(self, data: LabeledData) -> Tensors:
        """Return what is learned besides the images, to start from."""
        return {}

    def _targets(self, state: State, data: LabeledData) -> Tensor:
        """Return the labels of the images: classes, or probabilities ``(M, C)``."""
        return balanced_labels(data, self._each)

    def _optimized(self, learned: Tensors) -> Tensors:
        """Return what is learned, with what the optimizer keeps of it."""
        return adam_start(learned)

    def _moved(self, state: State, gradients: Mapping[str, Tensor]) -> Tensors:
        """Take a step of the optimizer; return what it changes."""
        return adam_step(state, gradients, self.learning_rate)

    def _kept(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Return what is kept from step to step besides the images."""
        return {}

    def _drawn(
        self, state: State, data: LabeledData, rng: torch.Generator
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return the view for a step, and the state, in which that may have changed something."""
        return state, self.view(state, data, rng)

    def _used(self, state: State, view: Mapping[str, Any], data: LabeledData, rng: torch.Generator) -> Tensors:
        """Return what changes in the state after a step besides the images."""
        return {}

    def _view_bytes(self, sizes: Sizes) -> int:
        """Bytes of a view: a network and a feature vector a class."""
        return sizes.network + sizes.classes * sizes.features

    def _loss_bytes(self, sizes: Sizes) -> int:
        """Bytes of the loss and its gradient: a pass of all images."""
        return sizes.classes * self._each * sizes.backward


@dataclass(frozen=True)
class Momentum(ImageDistiller):
    """Moves the images by SGD.

    Attributes:
        learning_rate: that of the images, for one image per class; multiplied by ``images_per_class``, because the mean
            over a class divides each image's gradient by it.
        momentum: momentum of the images' SGD.
    """

    momentum: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, momentum=0)

    @property
    def _rate(self) -> float:
        return self.learning_rate * self.images_per_class

    def _optimized(self, learned: Tensors) -> Tensors:
        return {**learned, "velocity": torch.zeros_like(learned["inputs"])}

    def _moved(self, state: State, gradients: Mapping[str, Tensor]) -> Tensors:
        moved = momentum_step(state, gradients["inputs"], self._rate, self.momentum)
        # SGD needs no count of steps, but some methods keep one
        return {**moved, "done": torch.tensor(int(state["done"]) + 1)} if "done" in state else moved


def with_pool(stages: Stages, pool: int, real: int) -> dict[str, dict[str, int]]:
    """Add a pool to the stages of a run: it is filled, and kept in every step.

    Args:
        stages: without it, as :meth:`ImageDistiller.memory` counts.
        pool: bytes of all its views.
        real: that looking at real images for a view takes.
    """
    own = {name: dict(parts) for name, parts in stages.items()}
    # while a pool is stacked its parts are there too
    return {**own, "pool": {"pool_size": 2 * pool, "batch_real": real}, "step": {**own["step"], "pool_size": pool}}


@dataclass(frozen=True)
class RenewedPool(ImageDistiller):
    """Keeps views and draws one of them for each step; a step then costs the synthetic images alone.

    Attributes:
        batch_real: real images of each class in a view.
        pool_size: networks in the pool; 0 for the published loop (a new network and a new real batch at every step).
        renew: steps after which the oldest network of the pool is replaced by a new one; 0 for never.
    """

    small: ClassVar[Mapping[str, Any]] = {**ImageDistiller.small, "batch_real": 4, "pool_size": 2}
    batch_real: int = 64
    pool_size: int = 60
    renew: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, batch_real=1, pool_size=0, renew=0)

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        stages, pool = super().memory(sizes), self.pool_size * self._view_bytes(sizes)
        return with_pool(stages, pool, sizes.seen(self.batch_real))

    def work(self, most: int = sys.maxsize) -> dict[str, int]:
        """Return how often each part of the work is done that is not in every step, for an estimate of the time.

        Args:
            most: samples that a class has, at most.
        """
        renewed = max(0, self.steps - 1) // self.renew if self.renew and self.pool_size else 0
        return {"views": self.pool_size + renewed}

    def trial(self, **more: int) -> Self:
        """Return the method with next to no work in ``init``, or with more of some parts, for timing them.

        Args:
            more: how much more of what :meth:`work` names.
        """
        return replace(self, init_from="noise", pool_size=1 + more.get("views", 0))

    def _kept(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        def new(data: LabeledData, state: State) -> Mapping[str, Any]:
            return self.view(state, data, rng)

        views = each_part([new] * self.pool_size, data, state, rng, "pool")
        return {"done": torch.tensor(0), **stack_views(views)}

    def _drawn(
        self, state: State, data: LabeledData, rng: torch.Generator
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        if not self.pool_size:
            return super()._drawn(state, data, rng)
        done = int(state["done"])
        if self.renew and done and done % self.renew == 0:
            state = replace_view(state, done // self.renew % self.pool_size, dict(self.view(state, data, rng)))
        return state, view_at(state, int(torch.randint(self.pool_size, (), generator=rng)))


@dataclass(frozen=True)
class AgedPool(ImageDistiller):
    """Keeps views of networks at all ages: each is trained a little after a number of uses, and replaced when old.

    Attributes:
        batch_real: real images of each class in a view.
        pool_size: networks in the pool.
        max_age: training steps after which a network is replaced by a new one.
        reuse: updates of the images in one state of a network, all against the same real batch; 1 in the papers.
        advance: training steps that a network then takes.
        network_learning_rate: learning rate of the networks' SGD.
    """

    small: ClassVar[Mapping[str, Any]] = {**RenewedPool.small, "max_age": 16}
    batch_real: int = 64
    pool_size: int = 10
    max_age: int = 200
    reuse: int = 10
    advance: int = 10
    network_learning_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, batch_real=1, pool_size=1, max_age=0, reuse=1, advance=0, network_learning_rate=0)

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        stages, pool = super().memory(sizes), self.pool_size * self._view_bytes(sizes)
        return with_pool(stages, pool, self._real_bytes(sizes))

    @property
    def _first_ages(self) -> int:
        """Training steps below which the networks' ages are spread at the start."""
        return self.max_age

    def _real_bytes(self, sizes: Sizes) -> int:
        """Bytes that the training of a network and a view of it take."""
        return sizes.trained(max(self.batch_real, TRAIN_BATCH))

    def _trained(self, network: Tensors, steps: int, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Train a network for some steps, on real data."""
        rate = self.network_learning_rate
        return trained_on_real(self._module(data), network, data, self._strategy(data), steps=steps, rate=rate, rng=rng)

    def _aged_view(
        self, network: Tensors | None, steps: int, *, state: State, data: LabeledData, rng: torch.Generator
    ) -> Tensors:
        """Train a network, or a new one, for some steps, and look at real data through it."""
        network = self._trained(network or initial_parameters(self.network, data, rng), steps, state, data, rng)
        return dict(self.view({**state, **prefixed("network.", network)}, data, rng))

    def _kept(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        ages = staggered(self.pool_size, self._first_ages)

        def new(age: int, data: LabeledData, state: State) -> Tensors:
            return self._aged_view(None, age, state=state, data=data, rng=rng)

        return aged_pool(each_part([partial(new, age) for age in ages], data, state, rng, "networks"), ages)

    def _drawn(
        self, state: State, data: LabeledData, rng: torch.Generator
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        k = int(torch.randint(self.pool_size, (), generator=rng))
        return state, {**view_at(state, k), "position": k}

    def _used(self, state: State, view: Mapping[str, Any], data: LabeledData, rng: torch.Generator) -> Tensors:
        make = partial(self._aged_view, state=state, data=data, rng=rng)
        return after_use(state, view["position"], make, reuse=self.reuse, advance=self.advance, max_age=self.max_age)
