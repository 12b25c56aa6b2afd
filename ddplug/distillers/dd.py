r"""DD: learn images, and the learning rates to train on them at, by differentiating through the training.

.. math::  \min_{X, \eta} \; \mathbb{E}_{\theta_0} \, \mathbb{E}_B \; \ell(\theta_T; B),
           \qquad \theta_t = \theta_{t-1} - \eta_t \nabla_\theta \ell(\theta_{t-1}; X_{t \bmod S})

with the cross-entropy :math:`\ell`, real batches :math:`B`, and :math:`T` steps that take the groups of images
:math:`X_1, \dots, X_S` in turn. The initial weights :math:`\theta_0` are one draw that the images are for (fixed), or
drawn anew for each update (random). The gradient is the exact one of :func:`ddplug.functional.unroll`.

Reference: Wang, Zhu, Torralba & Efros, "Dataset Distillation", arXiv 1811.10959, algorithm 1 and section 3.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillation.settling import Suits, settled
from ddplug.distillers.parts.images import balanced_labels, initial_images, small_images, to_set
from ddplug.distillers.presets import Preset
from ddplug.errors import OptionError
from ddplug.functional.optim import adam_start, adam_step, cosine_fall, share_done
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.functional.unrolling import unroll
from ddplug.networks.factory import Network, has_batch_norm, name_of
from ddplug.networks.forms import AUTO
from ddplug.networks.functional import forward, initial_parameters, minibatch_loss, prefixed, stateless, unprefixed
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.learned import LearnedTraining
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least, one_of
from ddplug.utils.fingerprints import fingerprint
from ddplug.utils.former import TakesFormerSpellings

__all__ = ["DD", "unrolled_preset"]

_INITIALIZATIONS = ("random", "fixed")
"""Whether the images are for any initial network, or for one."""

_BETAS = (0.5, 0.999)
"""Adam's, as published."""


_BATCHES = {"mnist": -(-60_000 // 1024), "cifar10": -(-50_000 // 1024)}
"""Updates in one epoch over the real data."""


def unrolled_preset(
    data: str, images_per_class: int, initialization: str, rate: float, epochs: int, source: str
) -> Preset:
    """Turn a row of the published tables into a preset."""
    batches = _BATCHES[data]
    return Preset(
        {
            "network": {"mnist": "lenet:init=xavier", "cifar10": "alexnet"}[data],
            "images_per_class": images_per_class,
            "images_per_step": 1,
            "epochs": 3,
            "initialization": initialization,
            "networks": 1,
            "train_learning_rate": rate,
            "learning_rate": 0.01,
            "clip": 0.0,
            "batch_real": 1024,
            "init_from": "noise",
            "steps": epochs * batches,
            "halve_every": epochs // 10 * batches,
        },
        source,
    )


_WANG = "Wang et al., arXiv 1811.10959, and released defaults; the network is ours of that kind"

_PRESETS = {
    "paper": unrolled_preset("mnist", 10, "random", 0.02, 400, _WANG),
    "mnist-10": unrolled_preset("mnist", 10, "random", 0.02, 400, _WANG),
    "mnist-1-fixed": unrolled_preset("mnist", 1, "fixed", 0.02, 400, _WANG),
    "cifar10-10": unrolled_preset("cifar10", 10, "random", 0.001, 400, _WANG),
    "cifar10-10-fixed": unrolled_preset("cifar10", 10, "fixed", 0.001, 400, _WANG),
}


@dataclass(frozen=True)
class DD(metaclass=TakesFormerSpellings):
    """Dataset distillation by unrolled training.

    Attributes:
        images_per_class: synthetic images of each class.
        images_per_step: images of each class in one step of training; the next step takes the next ones.
        epochs: times that the training goes through all images.
        steps: updates of images and learning rates.
        network: the architecture that is trained; ``"auto"`` for lenet:init=xavier where the data are images, conv1d
            where they are series, and mlp where they are rows of numbers.
        initialization: ``"random"``, a new initial network for each update, or ``"fixed"``, one for all: far more
            accurate, with that very network only (:func:`ddplug.evaluation.train_as_learned`).
        networks: initial networks that the gradient of an update is averaged over, where they are random.
        train_learning_rate: value that the learned rates start at; they stay positive.
        learning_rate: learning rate of Adam, for images and (logarithms of small) rates.
        halve_every: updates after which the learning rate is halved, again and again, as published; 0 for a cosine that
            falls to zero over ``steps``.
        clip: largest norm of the gradient of images, labels or rates; longer ones, which long unrolls give now and then
            and Adam remembers for a thousand updates, are shortened to it. 0 for no limit, as published.
        batch_real: real images that the trained network is judged on.
        init_from: ``"noise"``, ``"real"`` or ``"kmeans"`` images to start from.
        factor: instead of one image, ``factor**2`` small ones in the same number of bytes
            (:mod:`ddplug.functional.resize`); images only. ``"auto"`` for 2 where the data are images, else 1.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> made = distill(toy_images(), DD(network="convnet:width=4,depth=1", steps=2))
        >>> made.shape, len(made.provenance["training"]["rates"])
        ((1, 8, 8), 3)
    """

    name: ClassVar[str] = "dd"
    real_images: ClassVar[bool] = False
    bfloat16: ClassVar[bool] = True
    suits: ClassVar[Suits] = {
        "network": {"image": "lenet:init=xavier", "series": "conv1d", "row": "mlp"},
        "factor": {"image": 2, "series": 1, "row": 1},
    }
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    small: ClassVar[Mapping[str, Any]] = {
        "images_per_class": 2,
        "network": "convnet:width=8,depth=1",
        "networks": 2,
        "batch_real": 4,
    }
    images_per_class: int = 1
    images_per_step: int = 1
    epochs: int = 3
    steps: int = 2000
    network: Network = AUTO
    initialization: Literal["random", "fixed"] = "random"
    networks: int = 1
    train_learning_rate: float = 0.02
    learning_rate: float = 0.01
    halve_every: int = 0
    clip: float = 0.1
    batch_real: int = 1024
    init_from: str = "noise"
    factor: int | Literal["auto"] = 1

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, images_per_step=1, epochs=1, steps=0, networks=1, batch_real=1)
        at_least(self, train_learning_rate=1e-6, learning_rate=0, halve_every=0, clip=0)
        one_of("initialization", self.initialization, _INITIALIZATIONS)

    @property
    def _each(self) -> int:
        return small_images(self.images_per_class, self._reduction)

    @property
    def _reduction(self) -> int:
        """By how much images are stored smaller, once that is settled."""
        return 1 if isinstance(self.factor, str) else self.factor

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        return settled(self, data.shape)._begun(data, rng)

    def _begun(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        if has_batch_norm(self._module(data)):
            raise OptionError(
                f"{self.name} does not take batch normalization: the running statistics of {self.network!r} are not "
                "part of what is unrolled; use a network without, e.g. lenet or convnet (norm=instance)"
            )
        learned = {**self._samples(data, rng), "rates": self._raw_rates(data)}
        state = adam_start({name: tensor.to(data.device) for name, tensor in learned.items()})
        if self.initialization == "fixed":
            seed = torch.randint(2**63 - 1, (), generator=rng)
            network = initial_parameters(self.network, data, torch.Generator().manual_seed(int(seed)))
            state |= {"seed": seed, **prefixed("network.", network)}
        return state

    def step(self, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator) -> tuple[Tensors, Tensors]:
        return settled(self, data.shape)._stepped(state, data, rng)

    def _stepped(self, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator) -> tuple[Tensors, Tensors]:
        names = [name.removeprefix("first.") for name in state if name.startswith("first.")]
        learned = {name: state[name].detach().requires_grad_() for name in names}
        index = torch.randperm(len(data), generator=rng)[: self.batch_real]
        real = data.batch(index), data.labels(index)
        number = self.networks if self.initialization == "random" else 1
        gradients, losses = {name: torch.zeros_like(tensor) for name, tensor in learned.items()}, []
        for _ in range(number):
            network = unprefixed("network.", state) or initial_parameters(self.network, data, rng)
            loss = self._loss({**state, **learned}, network, data, *real)
            found = torch.autograd.grad(loss / number, list(learned.values()))
            gradients = {name: gradients[name] + gradient for name, gradient in zip(names, found, strict=True)}
            losses.append(loss.detach())
        gradients = {name: self._clipped(gradient) for name, gradient in gradients.items()}
        moved = adam_step(state, gradients, self.learning_rate * self._left(int(state["done"])), _BETAS)
        rates = softplus(moved["rates"])
        return {**state, **moved}, {"loss": torch.stack(losses).mean(), "mean_rate": rates.mean()}

    def result(self, state: Mapping[str, Tensor], data: LabeledData) -> SyntheticSet:
        return settled(self, data.shape)._finished(state, data)

    def _finished(self, state: Mapping[str, Tensor], data: LabeledData) -> SyntheticSet:
        rates, batches = softplus(state["rates"]), self._batches(data)
        training = LearnedTraining(
            network=name_of(self.network),
            seed=int(state["seed"]) if "seed" in state else None,
            weights=fingerprint(unprefixed("network.", state)) if "seed" in state else "",
            batches=tuple(tuple(batch.tolist()) for batch in batches),
            rates=tuple(rates.tolist()),
        )
        recipe = Recipe(
            epochs=self.epochs,
            learning_rate=float(rates.mean()),
            momentum=0.0,
            weight_decay=0.0,
            batch_size=len(batches[0]),
            schedule="constant",
        )
        made = to_set(data, state["inputs"], self._labels(state, data).detach().clone(), recipe)
        return replace(made, provenance={"training": training.to_json()})

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        """Return the bytes that options need in each stage; see :mod:`ddplug.distillation.memory`."""
        images = sizes.classes * min(self._each, small_images(self.images_per_step, self._reduction))
        steps = self.epochs * -(-self.images_per_class // self.images_per_step)
        weights = {"epochs": steps * sizes.network}
        return {
            "start": {"init_from": sizes.start(self.init_from)},
            "loss": {**weights, "batch_real": self.batch_real * sizes.backward},
            # one step's graph, and that of its gradient
            "sweep": {**weights, "images_per_step": images * sizes.twice},
        }

    @property
    def anneals(self) -> bool:
        """Whether an update depends on how many there are to be."""
        return not self.halve_every

    def _left(self, done: int) -> float:
        """Return the share of the learning rate that is left after ``done`` updates."""
        if self.halve_every:
            return float(0.5 ** (done // self.halve_every))
        return cosine_fall(share_done(done, self.steps))

    def _clipped(self, gradient: Tensor) -> Tensor:
        return gradient * (self.clip / (gradient.norm() + 1e-6)).clamp(max=1) if self.clip else gradient

    def _samples(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Return what is learned besides the rates, to start from."""
        return {"inputs": initial_images(self.init_from, data, self._each, rng, self._reduction)}

    def _labels(self, tensors: Mapping[str, Tensor], data: LabeledData) -> Tensor:
        """Return the labels that the images are trained on with."""
        return balanced_labels(data, self._each)

    def _batches(self, data: LabeledData) -> list[Tensor]:
        """Return the positions of each step's images, for one epoch."""
        positions = torch.arange(data.num_classes * self._each).view(data.num_classes, -1)
        return [part.flatten() for part in positions.split(small_images(self.images_per_step, self._reduction), 1)]

    def _raw_rates(self, data: LabeledData) -> Tensor:
        """Return, for each step of the training, the number whose softplus is the rate to start from."""
        steps = len(self._batches(data)) * self.epochs
        rates = torch.full((steps,), self.train_learning_rate, dtype=torch.float64)
        return (rates + (-torch.expm1(-rates)).log()).float()  # as log(expm1(rates)), which overflows

    def _module(self, data: LabeledData) -> nn.Module:
        # in evaluation mode: a network that drops out at random cannot be recomputed
        return stateless(self.network, data.shape, data.num_classes, training=False)

    def _loss(self, tensors: Mapping[str, Tensor], network: Tensors, data: LabeledData, x: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy on a real batch after training on the images; differentiable in what is learned."""
        module = self._module(data)
        batches = [batch.to(data.device) for batch in self._batches(data)]
        weights = {name: network[name] for name, _ in module.named_parameters()}
        samples = [enlarge(tensors["inputs"], data.shape), self._labels(tensors, data)]
        trained = unroll(minibatch_loss(module, network, batches), weights, samples, softplus(tensors["rates"]))
        return cross_entropy(forward(module, {**network, **trained}, x), y)
