r"""MTT: learn images that lead a network, in a few steps, to where real data led an expert in many.

.. math::  L = \frac{\|\theta_N - \theta^*_{t+M}\|^2}{\|\theta^*_t - \theta^*_{t+M}\|^2}, \qquad
           \theta_0 = \theta^*_t, \quad \theta_{n+1} = \theta_n - \alpha \nabla_\theta \ell(\theta_n; A_n(S_n))

with an expert's weights :math:`\theta^*_t` after the epoch :math:`t`, batches :math:`S_n` of the synthetic images, an
augmentation :math:`A_n` of its own for each image, and a learning rate :math:`\alpha` that is learned as well. The
gradient is the exact one of :func:`ddplug.functional.unroll`, in the memory of one step where that of all is too much.
Options are TESLA's approximation, DATM's learned labels and growing window of epochs, and FTD's flat experts
(:class:`ddplug.distillers.ExpertTraining`).

References: Cazenavette, Wang, Torralba, Efros & Zhu, "Dataset Distillation by Matching Training Trajectories", CVPR
2022, algorithm 1; Cui, Wang, Si & Hsieh, "Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory", ICML
2023; Du et al., "Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation", CVPR 2023; Guo et al.,
"Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching", ICLR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softmax

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes, available, needed, sizes_of
from ddplug.distillation.protocol import Metrics, State
from ddplug.distillation.settling import settled
from ddplug.distillers.base import ImageDistiller
from ddplug.distillers.parts.experts import ExpertSource
from ddplug.distillers.parts.images import initial_images, small_images
from ddplug.distillers.parts.training import TRAIN_BATCH, structure, unflatten
from ddplug.distillers.presets import Preset
from ddplug.errors import OptionError
from ddplug.functional import augmentation as augment
from ddplug.functional.optim import momentum_step
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.functional.unrolling import unroll
from ddplug.networks.functional import forward, minibatch_loss
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.checks import at_least, one_of

__all__ = ["MTT"]

_GRADIENTS: Mapping[str, Mapping[str, bool]] = {
    "auto": {},
    "exact": {},
    "unrolled": {"recompute": False},
    "tesla": {"carry": False},
}
"""How the gradient is taken, and what :func:`ddplug.functional.unroll` is told."""

_MOMENTUM = {"inputs": 0.5, "log_rate": 0.5, "labels": 0.9}
"""Of SGD, as published."""

_LOGIT = 5.0
"""Logit of an image's own class, the others being 0, where no expert recognizes the image."""

_EXPERTS = 5
"""Experts that are trained at the start if it is not said how many."""


_MTT = "Cazenavette et al., CVPR 2022, the authors' commands as DC-BENCH lists them (Cui et al., NeurIPS 2022)"
_MTT_IMAGENET = "Cazenavette et al., CVPR 2022, table of the released instructions"
_FTD = "Du et al., CVPR 2023, released table; without its averaging of the images; experts with rho 0.01 and alpha "
_DATM = (
    "Guo et al., ICLR 2024, released configurations; the window's growth takes all steps; experts as FTD's, alpha 0.3"
)
_DEPTHS = {"tiny-imagenet": "convnet:depth=4", "imagenet-subset": "convnet:depth=5"}
"""Networks of larger images."""


def _matched(
    source: str,
    data: str,
    images_per_class: int,
    syn_steps: int,
    expert_epochs: int,
    window: tuple[int, int, int],
    learning_rate: float,
    lr_lr: float,
    *,
    teacher: float = 0.01,
    batch: int = 0,
    zca: bool = False,
    **more: Any,
) -> Preset:
    """Turn a column of a table into a preset; ``window`` is the least start, the first bound and the last."""
    lowest, early, highest = window
    return Preset(
        {
            "images_per_class": images_per_class,
            "steps": 5000,
            "network": _DEPTHS.get(data, "convnet"),
            "num_experts": 100,
            "epoch_steps": 0,
            "syn_steps": syn_steps,
            "expert_epochs": expert_epochs,
            "min_start_epoch": lowest,
            "max_start_epoch": highest,
            "early_start_epoch": 0 if early == highest else early,
            "train_learning_rate": teacher,
            "learning_rate": learning_rate,
            # theirs moves the rate itself, ours its logarithm: the same first step
            "lr_rate": lr_lr / teacher**2,
            "batch_synthetic": batch,
            "init_from": "real",
            "augment": "auto",
            "gradient": "exact",
            **more,
        },
        f"{source}; with ZCA" if zca else source,
    )


def _datm(lr_y: float, threshold: float = 1.0) -> dict[str, Any]:
    return {"label_rate": lr_y, "threshold": threshold, "steps": 10_000, "grow_steps": 10_000, "zca": True}


_TABLE = {
    "cifar10-1": _matched(_MTT, "cifar10", 1, 50, 2, (0, 2, 2), 100, 1e-7, zca=True),
    "cifar10-10": _matched(_MTT, "cifar10", 10, 30, 2, (0, 20, 20), 100, 1e-5, teacher=1e-3, zca=True),
    "cifar10-50": _matched(_MTT, "cifar10", 50, 30, 2, (0, 40, 40), 1000, 1e-5, teacher=1e-3),
    "cifar100-1": _matched(_MTT, "cifar100", 1, 20, 3, (0, 20, 20), 1000, 1e-5, zca=True),
    "cifar100-10": _matched(_MTT, "cifar100", 10, 20, 2, (0, 20, 20), 1000, 1e-5),
    "cifar100-50": _matched(_MTT, "cifar100", 50, 80, 2, (0, 40, 40), 1000, 1e-5, batch=125, zca=True),
    "tiny-imagenet-1": _matched(_MTT, "tiny-imagenet", 1, 10, 2, (0, 10, 10), 1e4, 1e-4),
    "tiny-imagenet-10": _matched(_MTT, "tiny-imagenet", 10, 20, 2, (0, 40, 40), 1e4, 1e-4, batch=200),
    "tiny-imagenet-50": _matched(_MTT, "tiny-imagenet", 50, 20, 2, (0, 40, 40), 1e4, 1e-4, batch=300),
    "imagenet-subset-1": _matched(_MTT_IMAGENET, "imagenet-subset", 1, 20, 2, (0, 10, 10), 1e5, 1e-6),
    "imagenet-subset-10": _matched(_MTT_IMAGENET, "imagenet-subset", 10, 20, 2, (0, 10, 10), 1e5, 1e-6, batch=20),
    "ftd-cifar10-1": _matched(_FTD + "0.3", "cifar10", 1, 50, 2, (0, 2, 2), 100, 1e-7),
    "ftd-cifar10-10": _matched(_FTD + "0.3", "cifar10", 10, 30, 2, (0, 20, 20), 100, 1e-5, teacher=1e-3),
    "ftd-cifar10-50": _matched(_FTD + "1", "cifar10", 50, 30, 2, (0, 40, 40), 1000, 1e-5),
    "ftd-cifar100-1": _matched(_FTD + "unknown", "cifar100", 1, 40, 3, (0, 20, 20), 1000, 1e-5),
    "ftd-cifar100-10": _matched(_FTD + "unknown", "cifar100", 10, 20, 2, (0, 40, 40), 1000, 1e-5),
    "ftd-cifar100-50": _matched(_FTD + "unknown", "cifar100", 50, 80, 2, (0, 40, 40), 1000, 1e-5, batch=1000),
    "ftd-tiny-imagenet-1": _matched(_FTD + "unknown", "tiny-imagenet", 1, 30, 2, (0, 10, 10), 1e4, 1e-4),
    "ftd-tiny-imagenet-10": _matched(_FTD + "unknown", "tiny-imagenet", 10, 20, 2, (0, 40, 40), 1e4, 1e-4, batch=500),
    "datm-cifar10-1": _matched(_DATM, "cifar10", 1, 80, 2, (0, 4, 4), 100, 1e-7, batch=10, **_datm(5, 1.1)),
    "datm-cifar10-10": _matched(_DATM, "cifar10", 10, 80, 2, (0, 10, 20), 100, 1e-5, batch=100, **_datm(2)),
    "datm-cifar10-50": _matched(_DATM, "cifar10", 50, 80, 2, (0, 20, 40), 1000, 1e-5, batch=500, **_datm(2)),
    "datm-cifar10-500": _matched(_DATM, "cifar10", 500, 40, 2, (40, 60, 60), 50, 1e-5, batch=1000, **_datm(10)),
    "datm-cifar10-1000": _matched(_DATM, "cifar10", 1000, 100, 2, (40, 60, 60), 50, 1e-5, batch=1000, **_datm(10)),
    "datm-cifar100-1": _matched(_DATM, "cifar100", 1, 40, 3, (0, 10, 20), 1000, 1e-5, batch=1000, **_datm(10)),
    "datm-cifar100-10": _matched(_DATM, "cifar100", 10, 80, 2, (0, 30, 50), 1000, 1e-5, batch=1000, **_datm(10)),
    "datm-cifar100-50": _matched(_DATM, "cifar100", 50, 80, 2, (20, 70, 70), 1000, 1e-5, batch=1000, **_datm(10)),
    "datm-cifar100-100": _matched(_DATM, "cifar100", 100, 80, 2, (30, 70, 70), 50, 1e-5, batch=1000, **_datm(10)),
    "datm-tiny-imagenet-1": _matched(_DATM, "tiny-imagenet", 1, 40, 2, (0, 15, 20), 1e4, 1e-4, batch=1000, **_datm(10)),
    "datm-tiny-imagenet-10": _matched(
        _DATM, "tiny-imagenet", 10, 40, 2, (10, 50, 50), 100, 1e-4, batch=500, **_datm(10)
    ),
    "datm-tiny-imagenet-50": _matched(
        _DATM, "tiny-imagenet", 50, 20, 2, (40, 70, 70), 100, 1e-4, batch=1000, **_datm(10)
    ),
}
"""Trajectory matching; experts are trained beforehand, on data with ZCA where it says so."""

_PRESETS = {"paper": _TABLE["cifar10-10"], **_TABLE}


@dataclass(frozen=True)
class MTT(ImageDistiller):
    """Matching training trajectories.

    The defaults were tried on a held-out part of MNIST, for minutes on a CPU; the published settings, and those of FTD
    and DATM, are presets.

    Attributes:
        network: the architecture of the experts; ``"auto"`` as in other methods.
        augment: operations joined by ``_`` for the training on both sides, ``"auto"`` for what suits the data, or
            ``""``.
        experts: folder of experts from ``ddplug experts``, memory-mapped; ``""`` to train a few at the start and keep
            them in the state (and so in the checkpoint).
        num_experts: experts to take from the folder, the first ones, or to train; 0 for all in the folder, or 5.
        epoch_steps: SGD steps that count as an epoch of experts trained at the start; 0 for a pass over the data.
        syn_steps: training steps on the synthetic images.
        expert_epochs: epochs of the expert that these steps are to make up for.
        min_start_epoch: first epoch of an expert that the synthetic training may start after.
        max_start_epoch: the first one that it may not.
        early_start_epoch: ``max_start_epoch`` at the first update, from where it grows; 0 for the same throughout.
        grow_steps: updates until it has grown, in a straight line.
        train_learning_rate: that of experts trained at the start, and what the learned rate starts at.
        lr_rate: learning rate of the logarithm of the learned rate; 0 to keep it.
        label_rate: learning rate of the labels' logits; 0 for hard labels.
        batch_synthetic: images a training step takes; 0 for all.
        gradient: ``"exact"``, with each step computed again; ``"unrolled"``, the same with the graphs of all steps in
            memory, faster where they fit; ``"auto"``, unrolled where they take no more than half of the memory that is
            left when the run begins, else exact; ``"tesla"``, which leaves out what a step does to later ones.
        threshold: the images stay as they are in an update whose loss is above it; 0 for no limit.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> method = MTT(network="convnet:width=4,depth=1", num_experts=1, epoch_steps=2, syn_steps=2)
        >>> made = distill(toy_images(), method, steps=2, device="cpu")
        >>> made.shape, made.recipe.learning_rate > 0
        ((1, 8, 8), True)
    """

    name: ClassVar[str] = "mtt"
    bfloat16: ClassVar[bool] = False  # experts are kept, for any run
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    small: ClassVar[Mapping[str, Any]] = {**ImageDistiller.small, "num_experts": 1, "epoch_steps": 1, "syn_steps": 2}
    images_per_class: int = 1
    steps: int = 300
    learning_rate: float = 20.0
    experts: str = ""
    num_experts: int = 0
    epoch_steps: int = 40
    syn_steps: int = 10
    expert_epochs: int = 1
    min_start_epoch: int = 0
    max_start_epoch: int = 5
    early_start_epoch: int = 0
    grow_steps: int = 0
    train_learning_rate: float = 0.05
    lr_rate: float = 0.02
    label_rate: float = 0.0
    batch_synthetic: int = 0
    gradient: Literal["auto", "exact", "unrolled", "tesla"] = "auto"
    threshold: float = 0.0

    @property
    def soft_labels(self) -> bool:
        """Whether the sets have soft labels."""
        return self.label_rate > 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, num_experts=0, epoch_steps=0, syn_steps=1, expert_epochs=1)
        at_least(self, min_start_epoch=0, max_start_epoch=self.min_start_epoch + 1, early_start_epoch=0, grow_steps=0)
        at_least(self, train_learning_rate=1e-6, lr_rate=0, label_rate=0, batch_synthetic=0)
        at_least(self, threshold=0)
        if self.early_start_epoch and not self.min_start_epoch < self.early_start_epoch <= self.max_start_epoch:
            raise OptionError(
                f"early_start_epoch is {self.early_start_epoch}; it must be 0, or above min_start_epoch "
                f"{self.min_start_epoch} and at most max_start_epoch {self.max_start_epoch}"
            )
        if self.early_start_epoch and not self.grow_steps:
            raise OptionError(
                f"early_start_epoch is {self.early_start_epoch} and grow_steps is 0; say how many updates it grows for"
            )
        one_of("gradient", self.gradient, _GRADIENTS)

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        return settled(self, data.shape)._begun(data, rng)

    def _begun(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        augment.check(self._strategy(data), data.shape)
        inputs = initial_images(self.init_from, data, self._each, rng, self.reduction)
        experts = self._source.begin(data, rng)
        learned = {"inputs": inputs, "log_rate": torch.tensor(math.log(self.train_learning_rate)).to(data.device)}
        if self.label_rate:
            learned["labels"] = self._logits(enlarge(inputs, data.shape), experts, data)
        velocities = {f"velocity.{name}": torch.zeros_like(tensor) for name, tensor in learned.items()}
        begun = {**learned, **velocities, **experts, "done": torch.tensor(0)}
        # for the whole run, wherever it is taken up again: the two differ in rounding
        return {**begun, "unrolled": torch.tensor(self._fits_unrolled(data))} if self.gradient == "auto" else begun

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        own = settled(self, data.shape)
        view = own.view(state, data, rng)
        learned = {name: state[name].detach().requires_grad_() for name in _MOMENTUM if name in state}
        loss = own.loss({**state, **learned}, view, data)
        after = {**state, "done": torch.tensor(int(state["done"]) + 1)}
        if not self.threshold or float(loss.detach()) <= self.threshold:
            gradients = torch.autograd.grad(loss, list(learned.values()))
            after |= own._moved(state, dict(zip(learned, gradients, strict=True)))
        return after, {"loss": loss.detach(), "learned_rate": after["log_rate"].exp()}

    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> Mapping[str, Any]:
        """Draw an expert's weights ``start`` and ``goal``, and the batches and augmentations of the training between.

        All that is random is drawn here, because steps are computed more than once.
        """
        source, done = self._source, int(state["done"])
        k = int(torch.randint(source.count(state), (), generator=rng))
        epoch = int(torch.randint(self.min_start_epoch, self._limit(done), (), generator=rng))
        ends = source.weights(state, k, [epoch, epoch + self.expert_epochs])
        start, goal = (weights.to(data.device) for weights in ends)
        return {"start": start, "goal": goal, **self._draws(len(state["inputs"]), data, rng)}

    def loss(self, state: State, view: Mapping[str, Any], data: LabeledData) -> Tensor:
        """Distance to the goal after training on the images, as a share of the distance before."""
        module = structure(self.network, data)
        loss = minibatch_loss(
            module,
            _buffers(module, data),
            [batch.to(data.device) for batch in view["batches"]],
            lambda images, step: augment.apply(images, view["draws"][step]),
        )
        samples = [enlarge(state["inputs"], data.shape), self._targets(state, data)]
        rates = state["log_rate"].exp().expand(self.syn_steps)
        start: Tensor = view["start"]
        goal: Tensor = view["goal"]
        how: Any = _GRADIENTS["unrolled" if bool(state.get("unrolled", False)) else self.gradient]
        ends, goals = unroll(loss, unflatten(start, module), samples, rates, **how), unflatten(goal, module)
        left = torch.stack([(ends[name] - there).square().sum() for name, there in goals.items()]).sum()
        return left / (start - goal).square().sum()

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        made = super().result(state, data)
        return replace(made, recipe=replace(made.recipe, learning_rate=float(state["log_rate"].exp())))

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        stages = super().memory(sizes)
        snapshots = 0 if self.experts else self.max_start_epoch + self.expert_epochs
        experts = (self.num_experts or _EXPERTS) * snapshots * sizes.network
        return {
            **stages,
            # while trajectories are stacked their parts are there too
            "experts": {"num_experts": 2 * experts, "epoch_steps": sizes.trained(TRAIN_BATCH)},
            # the weights of all steps
            "step": {**stages["step"], "num_experts": experts, "syn_steps": self.syn_steps * sizes.network},
        }

    def _loss_bytes(self, sizes: Sizes) -> int:
        images = sizes.classes * self._each
        images = min(images, small_images(self.batch_synthetic, self.reduction)) if self.batch_synthetic else images
        # of every other step the graph and that of its gradient, which the last layer is hardly in
        others = self.syn_steps - 1 if self.gradient == "unrolled" else 0
        return images * (sizes.twice + 2 * others * (sizes.activations - sizes.features))

    def _fits_unrolled(self, data: LabeledData) -> bool:
        """Tell whether the graphs of all steps take no more than half of the memory that is left."""
        free = available(data.device)
        stages = replace(self, gradient="unrolled").memory(sizes_of(self.network, data))
        return free is not None and 2 * needed(stages) <= free

    @property
    def _source(self) -> ExpertSource:
        return ExpertSource(
            network=self.network,
            folder=self.experts,
            number=self.num_experts or (0 if self.experts else _EXPERTS),
            epochs=self.max_start_epoch - 1 + self.expert_epochs,
            epoch_steps=self.epoch_steps,
            learning_rate=self.train_learning_rate,
            augment=self.augment,
        )

    def _moved(self, state: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Tensors:
        """Move what is learned, each by its own SGD."""
        rates = {"inputs": self.learning_rate, "log_rate": self.lr_rate, "labels": self.label_rate}
        after: Tensors = {}
        for name, gradient in gradients.items():
            part = {"inputs": state[name], "velocity": state[f"velocity.{name}"]}
            moved = momentum_step(part, gradient, rates[name], _MOMENTUM[name])
            after |= {name: moved["inputs"], f"velocity.{name}": moved["velocity"]}
        return after

    def _limit(self, done: int) -> int:
        """Return the first epoch that an update may not start after."""
        first = self.early_start_epoch or self.max_start_epoch
        share = min(done / self.grow_steps, 1) if self.grow_steps else 1
        return first + int((self.max_start_epoch - first) * share)

    def _draws(self, images: int, data: LabeledData, rng: torch.Generator) -> dict[str, Any]:
        """Draw the ``batches`` of the training steps and an augmentation for each image of a step, ``draws``."""
        batches = self._batches(images, rng)
        return {"batches": batches, "draws": [augment.draw(self._strategy(data), len(b), rng) for b in batches]}

    def _batches(self, images: int, rng: torch.Generator) -> list[Tensor]:
        """Return the positions of each training step's images: all are taken before any is taken again."""
        batches: list[Tensor] = []
        while len(batches) < self.syn_steps:
            each = small_images(self.batch_synthetic, self.reduction) or images
            batches += torch.randperm(images, generator=rng).split(each)
        return batches[: self.syn_steps]

    def _targets(self, state: State, data: LabeledData) -> Tensor:
        return softmax(state["labels"], 1) if self.label_rate else super()._targets(state, data)

    def _logits(self, inputs: Tensor, experts: Mapping[str, Tensor], data: LabeledData) -> Tensor:
        """Return the mean logits ``(M, C)`` of the images in the trained experts that recognize them."""
        module, own = structure(self.network, data), super()._targets(experts, data)
        total = torch.zeros(len(inputs), data.num_classes).to(inputs)
        seen = torch.zeros(len(inputs), 1).to(inputs)
        for k in range(self._source.count(experts)):
            (weights,) = self._source.weights(experts, k, [-1])
            tensors = {**_buffers(module, data), **unflatten(weights.to(data.device), module)}
            with torch.no_grad():
                logits = forward(module, tensors, inputs)
            right = (logits.argmax(1) == own).to(inputs).unsqueeze(1)
            total, seen = total + right * logits, seen + right
        return torch.where(seen > 0, total / seen.clamp(min=1), _LOGIT * one_hot(own, data.num_classes))


def _buffers(module: nn.Module, data: LabeledData) -> Tensors:
    return {name: buffer.to(data.device) for name, buffer in module.named_buffers()}
