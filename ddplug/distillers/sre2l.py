r"""SRe2L and CDA: images recovered from a trained network, by its outputs and its batch-normalization statistics.

.. math::  L = \ell\big(f(A(S)), y\big) + r \sum_l w_l \big( \|\sigma_l^2(A(S)) - \hat\sigma_l^2\|_2
                + \|\mu_l(A(S)) - \hat\mu_l\|_2 \big)

with the mean and variance of what reaches each batch-normalization layer :math:`l` of the frozen network, the running
ones it has from its training, and random crops, flips and shifts :math:`A`. The real data are only seen by the teacher.

Reference: Yin, Xing & Shen, "Squeeze, Recover and Relabel: Dataset Condensation at ImageNet Scale From A New
Perspective", NeurIPS 2023, section 3. The curriculum of the crops: Yin & Shen, "Dataset Distillation in Large Data Era
via Curriculum Data Augmentation" (CDA), 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Preprocess, pieces
from ddplug.distillation.memory import Sizes
from ddplug.distillers.parts.images import balanced_labels, check_images_per_class, initial_images, to_set
from ddplug.distillers.parts.teachers import (
    Teacher,
    check_labels,
    frozen,
    predict,
    teacher_bytes,
    teacher_module,
    teacher_state,
)
from ddplug.distillers.parts.training import POOL
from ddplug.distillers.presets import Preset
from ddplug.errors import OptionError
from ddplug.functional.crops import check_images, draw_boxes, resample
from ddplug.functional.optim import adam_start, adam_step, cosine_fall, share_done
from ddplug.functional.types import Tensors
from ddplug.networks.functional import prefixed, unprefixed
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least
from ddplug.utils.former import TakesFormerSpellings
from ddplug.utils.teams import spread

__all__ = ["SRe2L", "batch_norm_matching", "clamped"]

_BETAS = (0.5, 0.9)
_STRETCH = 4 / 3

Statistics = tuple[Tensor, Tensor, Tensor]
"""What reaches a batch-normalization layer, ``(n, channels, ...)``, and its running mean and variance, ``(channels,)``
each."""


_TEACHER = "the teacher is yours, in the papers a trained ResNet-18"

# shifts of 32 of 224 pixels
_PAPER = Preset(
    {
        "steps": 4000,
        "learning_rate": 0.25,
        "match": 0.01,
        "first_layer": 10.0,
        "batch_size": 100,
        "least_area": 0.08,
        "flip": True,
        "jitter": 1 / 7,
        "init_from": "noise",
        "labels": "soft",
    },
    f"Yin, Xing & Shen, NeurIPS 2023, and released scripts (1,000 to 4,000 steps); {_TEACHER}",
)
_CDA = Preset(
    {**_PAPER.options, "curriculum": True},
    f"Yin & Shen (CDA), 2023, and released scripts (1,000 to 4,000 steps); {_TEACHER}",
)

_PRESETS = {
    "paper": _PAPER,
    **{f"imagenet-1k-{n}": _PAPER.extended(images_per_class=n) for n in (10, 50, 100, 200)},
    **{f"imagenet-1k-{n}-cda": _CDA.extended(images_per_class=n) for n in (50, 100, 200)},
    **{f"tiny-imagenet-{n}": _PAPER.extended(images_per_class=n, learning_rate=0.1, match=1.0) for n in (50, 100)},
    **{f"tiny-imagenet-{n}-cda": _CDA.extended(images_per_class=n, learning_rate=0.4, match=0.05) for n in (50, 100)},
    # 4 of 32 pixels, and no crops or flips
    "cifar100-50": _PAPER.extended(images_per_class=50, steps=1000, jitter=0.125, least_area=1.0, flip=False),
}


@dataclass(frozen=True)
class SRe2L(metaclass=TakesFormerSpellings):
    """Squeeze, recover and relabel; with ``curriculum`` the recovery of CDA.

    Attributes:
        images_per_class: synthetic images of each class.
        steps: updates of the images; 1,000 to 4,000 in the papers.
        teacher: a network with batch normalization to be trained on the data first, by name (or a function that builds
            one); or your own trained module, which is used in evaluation mode and not changed.
        train_epochs: epochs to train a named teacher for; see :func:`ddplug.distillers.train_teacher`.
        max_samples_per_class: samples of each class that a named teacher is trained on at most.
        learning_rate: that of Adam on the images, at first; it falls to zero by a cosine.
        match: weight :math:`r` of the statistics.
        first_layer: weight :math:`w_0` of the first layer's statistics; the others have the weight 1.
        batch_size: images that go through the teacher together, whose statistics are matched; of as many classes as
            there are.
        least_area: smallest share of an image's area that a random crop covers, in (0, 1]; 1 for no crops.
        curriculum: begin with whole images, and let that share fall to ``least_area`` by a cosine.
        flip: mirror half of the images at random; ``"auto"`` where the data's own augmentation has it.
        jitter: shift the images, around the border, by up to this share of a side; 0 for no shifts.
        init_from: ``"noise"``, as in the papers, ``"real"`` or ``"kmeans"`` images to start from.
        labels: ``"soft"`` for the teacher's class probabilities of the finished images, ``"hard"`` for the class.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> method = SRe2L(images_per_class=2, teacher="convnet:width=4,depth=1,norm=batch")
        >>> distill(toy_images(), method, steps=2, device="cpu").inputs.shape
        torch.Size([6, 1, 8, 8])
    """

    name: ClassVar[str] = "sre2l"
    anneals: ClassVar[bool] = True
    real_images: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    small: ClassVar[Mapping[str, Any]] = {"images_per_class": 2, "teacher": "convnet:width=8,depth=1,norm=batch"}
    images_per_class: int = 10
    steps: int = 300
    teacher: Teacher = "convnet:width=32,norm=batch"
    train_epochs: int = 10
    max_samples_per_class: int = POOL
    learning_rate: float = 0.25
    match: float = 0.01
    first_layer: float = 10.0
    batch_size: int = 100
    least_area: float = 0.08
    curriculum: bool = False
    flip: bool | Literal["auto"] = "auto"
    jitter: float = 0.125
    init_from: str = "noise"
    labels: Literal["soft", "hard"] = "soft"

    @property
    def soft_labels(self) -> bool:
        """Whether the sets have soft labels."""
        return self.labels == "soft"

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, steps=0, train_epochs=1, max_samples_per_class=1, batch_size=1)
        at_least(self, learning_rate=0, match=0, first_layer=0, jitter=0)
        for name, high in (("least_area", 1), ("jitter", 0.5)):
            if not getattr(self, name) <= high:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be at most {high}")
        if not self.least_area > 0:
            raise OptionError(f"least_area is {self.least_area}; it must be above 0")
        if self.flip not in (True, False, "auto"):
            raise OptionError(f"flip is {self.flip!r}; it must be True, False or 'auto'")
        check_labels(self.labels)

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        check_images_per_class(data, self.images_per_class)
        self._check_augmentation(data)
        structure = teacher_module(self.teacher, data)
        if not list(_batch_norms(structure)):
            raise OptionError(
                f"teacher {_named(self.teacher)} has no batch normalization with running statistics, which sre2l "
                "matches; use one that has, e.g. 'convnet:width=32,norm=batch', or another method, e.g. rded"
            )
        tensors = teacher_state(self.teacher, data, self.train_epochs, self.max_samples_per_class, rng)
        inputs = initial_images(self.init_from, data, self.images_per_class, rng)
        return {**adam_start({"inputs": inputs}), **prefixed("teacher.", tensors), "range": _valid_range(data)}

    def step(self, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator) -> tuple[Tensors, Tensors]:
        past = share_done(int(state["done"]), self.steps)
        labels, gradient = balanced_labels(data, self.images_per_class), torch.zeros_like(state["inputs"])
        total = torch.zeros((), device=data.device)
        batches = self._batches(data)
        drawn = [self._drawn(len(rows), past, data, rng) for rows in batches]
        with frozen(teacher_module(self.teacher, data), unprefixed("teacher.", state), data.device) as teacher:

            def moved(k: int) -> Tensors:
                images = state["inputs"][batches[k]].requires_grad_()
                loss = self._loss(teacher, drawn[k](images), labels[batches[k]])
                return {"gradient": torch.autograd.grad(loss, images)[0], "loss": loss.detach()}

            for rows, part in zip(batches, spread(len(batches), moved, data.device), strict=True):
                gradient[rows] = part["gradient"]
                total += part["loss"] * len(rows) / len(labels)
        rate = self.learning_rate * cosine_fall(past)
        after = adam_step(state, {"inputs": gradient}, rate, _BETAS)
        after["inputs"] = clamped(after["inputs"], data.preprocess, state["range"])
        return {**state, **after}, {"loss": total}

    def result(self, state: Mapping[str, Tensor], data: LabeledData) -> SyntheticSet:
        targets = balanced_labels(data, self.images_per_class)
        if self.labels == "soft":
            with frozen(teacher_module(self.teacher, data), unprefixed("teacher.", state), data.device) as teacher:
                targets = predict(teacher, state["inputs"]).softmax(1)
        return to_set(data, state["inputs"], targets, Recipe.paper(data.augmentation))

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        """Return the bytes that options need in each stage; see :mod:`ddplug.distillation.memory`."""
        images = sizes.classes * self.images_per_class
        return {
            "teacher": {"train_epochs": teacher_bytes(self.teacher, sizes)},
            "step": {
                "teacher": sizes.network,
                # the images before and after an update, Adam's two moments of them, and the gradient
                "images_per_class": 7 * images * sizes.inputs,
                "batch_size": min(self.batch_size, images) * sizes.backward,
            },
        }

    def _check_augmentation(self, data: LabeledData) -> None:
        """Refuse crops, flips and shifts of what is no image."""
        if self.least_area < 1 or self.jitter or self._flips(data):
            try:
                check_images(self.name, data.shape)
            except OptionError:
                raise OptionError(
                    f"sre2l crops, flips and shifts (C, H, W) images, and the inputs have the shape {data.shape}; use "
                    "least_area=1, flip=False and jitter=0 with a teacher of your own, or another method, e.g. kmeans"
                ) from None

    def _flips(self, data: LabeledData) -> bool:
        return "flip" in data.augmentation.split("_") if self.flip == "auto" else bool(self.flip)

    def _batches(self, data: LabeledData) -> Sequence[Tensor]:
        """Cut the rows into batches that take the classes in turn, so that each has as many of them as it can."""
        rows = torch.arange(data.num_classes * self.images_per_class, device=data.device)
        mixed = rows.view(data.num_classes, -1).T.flatten()
        return torch.split(mixed, self.batch_size)

    def _drawn(self, n: int, past: float, data: LabeledData, rng: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Draw what crops and mirrors each of ``n`` images by itself and shifts all alike.

        It depends on the share ``past`` (in [0, 1]) of the steps that are done.
        """
        flips, boxes, flip, shifts = self._flips(data), None, None, list[int]()
        if self.least_area < 1 or flips:
            whole = cosine_fall(past) if self.curriculum else 0.0
            least = self.least_area + (1 - self.least_area) * whole
            boxes = draw_boxes(n, data.shape, least, rng, stretch=_STRETCH)
            flip = torch.rand(n, generator=rng) < 0.5 if flips else None
        if self.jitter:
            reach = [int(self.jitter * side) for side in data.shape[1:]]
            shifts = [int(torch.randint(-r, r + 1, (), generator=rng)) for r in reach]

        def apply(images: Tensor) -> Tensor:
            if boxes is not None:
                images = resample(images, boxes, (images.shape[2], images.shape[3]), flip)
            return images.roll(shifts, (2, 3)) if shifts else images

        return apply

    def _loss(self, teacher: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        with _watched(teacher) as seen:
            loss = cross_entropy(teacher(images), labels)
        return loss + self.match * batch_norm_matching(seen, self.first_layer)


def batch_norm_matching(layers: Sequence[Statistics], first: float) -> Tensor:
    r"""Sum over layers of the distances of a batch's means and variances from the running ones.

    .. math:: \sum_l w_l \big( \|\sigma_l^2 - \hat\sigma_l^2\|_2 + \|\mu_l - \hat\mu_l\|_2 \big), \qquad
              w_0 = \text{first}, \; w_l = 1

    Args:
        layers: for each layer what reaches it, and its running mean and variance; variances of batches are divided by
            the number of values.
        first: weight of the first layer.

    Returns:
        0-d loss.

    Reference: Yin, Xing & Shen, NeurIPS 2023, section 3.

    Example:
        >>> batch_norm_matching([(torch.tensor([[1.0], [3.0]]), torch.zeros(1), torch.ones(1))], first=10)
        tensor(20.)
    """
    total = layers[0][0].new_zeros(())
    for number, (x, mean, variance) in enumerate(layers):
        rest = [0, *range(2, x.ndim)]
        distance = torch.linalg.vector_norm(x.var(rest, unbiased=False) - variance)
        distance = distance + torch.linalg.vector_norm(x.mean(rest) - mean)
        total = total + distance * (1.0 if number else first)
    return total


def clamped(inputs: Tensor, preprocess: Preprocess, limits: Tensor) -> Tensor:
    """Bring model-space inputs back into a range of pixel values.

    Args:
        inputs: ``(n, *shape)`` in model space.
        preprocess: the way to pixels and back.
        limits: ``(2, C)`` lowest and highest pixel value of each channel.
    """
    low, high = (edge.view(1, -1, *[1] * (inputs.ndim - 2)) for edge in limits)
    return preprocess.forward(torch.minimum(torch.maximum(preprocess.inverse(inputs), low), high))


def _valid_range(data: LabeledData) -> Tensor:
    """Return the ``(2, C)`` range of pixel values: all of it where the data are bytes, else what the data have."""
    if data.inputs.dtype == torch.uint8:
        return torch.tensor([0.0, 1.0], device=data.device)[:, None].repeat(1, data.shape[0])
    ends = [part.transpose(0, 1).flatten(1).aminmax(dim=1) for part in pieces(data.inputs)]
    low, high = torch.stack([e.min for e in ends]).amin(0), torch.stack([e.max for e in ends]).amax(0)
    return torch.stack([low, high]).to(data.device)  # where the inputs of memory-mapped data are not


def _batch_norms(module: nn.Module) -> Iterator[nn.Module]:
    """Return the batch-normalization layers that keep running statistics."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
            yield layer


def _named(teacher: Teacher) -> str:
    return type(teacher).__name__ if isinstance(teacher, nn.Module) else repr(teacher)


@contextmanager
def _watched(teacher: nn.Module) -> Iterator[list[Statistics]]:
    """Collect what reaches the batch-normalization layers of a frozen teacher, in the order in which it does."""
    seen: list[Statistics] = []

    def keep(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        # during the call a layer has the teacher's tensors
        mean, variance = layer.running_mean, layer.running_var
        assert isinstance(mean, Tensor) and isinstance(variance, Tensor)  # for mypy: see _batch_norms
        seen.append((arguments[0], mean, variance))

    hooks = [layer.register_forward_pre_hook(keep) for layer in _batch_norms(teacher)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
