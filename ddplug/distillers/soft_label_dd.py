r"""Soft-label DD: learn the labels too, so that an image can stand for several classes, and fewer images do for all.

As :mod:`ddplug.distillers.dd`, where the training steps take the cross-entropy with learned weights of the classes

.. math::  \ell(\theta; X, Y) = -\frac1M \sum_{i=1}^M \sum_c Y_{ic} \log \operatorname{softmax}(f_\theta(X_i))_c

and :math:`Y` is learned with :math:`X` and the learning rates. Its rows need not be probabilities. Learned alone, with
real images, it is label distillation.

Reference: Sucholutsky & Schonlau, "Soft-Label Dataset Distillation and Text Dataset Distillation", IJCNN 2021; Bohdal,
Yang & Hospedales, "Flexible Dataset Distillation: Learn Labels Instead of Images", arXiv 2006.08572; Li, Togo, Ogawa &
Haseyama, "Soft-Label Anonymous Gastric X-ray Image Distillation", ICIP 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillers.dd import DD, unrolled_preset
from ddplug.distillers.parts.images import initial_images, small_images
from ddplug.distillers.presets import Preset
from ddplug.functional.types import Tensors
from ddplug.utils.checks import at_least

__all__ = ["SoftLabelDD", "shared_labels"]


def shared_labels(images: int, classes: int) -> Tensor:
    """Share classes out among images as evenly as can be, in order.

    Args:
        images: number ``M`` of images, at least 1.
        classes: number ``C`` of classes.

    Returns:
        ``(M, C)`` labels whose rows add up to 1: one class an image where there are enough images, otherwise equal
        parts of neighboring classes.

    Example:
        >>> shared_labels(2, 4)
        tensor([[0.5000, 0.5000, 0.0000, 0.0000],
                [0.0000, 0.0000, 0.5000, 0.5000]])
    """
    if images >= classes:
        return one_hot(torch.arange(images) * classes // images, classes).float()
    shares = one_hot(torch.arange(classes) * images // classes, images).float().T
    return shares / shares.sum(1, keepdim=True)


_SUCHOLUTSKY = "Sucholutsky & Schonlau, IJCNN 2021, released scripts; the network is ours of that kind"


_PRESETS = {
    "paper": unrolled_preset("mnist", 1, "fixed", 0.01, 350, _SUCHOLUTSKY),
    "mnist-1-fixed": unrolled_preset("mnist", 1, "fixed", 0.01, 350, _SUCHOLUTSKY),
    "cifar10-10-fixed": unrolled_preset("cifar10", 10, "fixed", 0.001, 350, _SUCHOLUTSKY),
}


@dataclass(frozen=True)
class SoftLabelDD(DD):
    """Dataset distillation with learned labels.

    Attributes:
        images: synthetic images in all, which may be fewer than the classes; 0 for ``images_per_class`` of each.
        learn_images: whether images are learned, or labels and learning rates only; begin with real images then.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> made = distill(toy_images(), SoftLabelDD(images=2, network="convnet:width=4,depth=1", steps=2))
        >>> made.inputs.shape, made.targets.shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 3]))
    """

    name: ClassVar[str] = "soft-label-dd"
    soft_labels: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    images: int = 0
    learn_images: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, images=0)

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        state = super().init(data, rng)
        idle = () if self.learn_images else ("first.inputs", "second.inputs")
        return {name: tensor for name, tensor in state.items() if name not in idle}

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        """Return the bytes that options need in each stage; see :mod:`ddplug.distillation.memory`."""
        stages = super().memory(sizes)
        share = min(1.0, self.images / sizes.classes) if self.images else 1.0
        images = int(share * stages["sweep"]["images_per_step"])
        return {**stages, "sweep": {**stages["sweep"], "images_per_step": images}}

    def _classes(self, data: LabeledData) -> tuple[Tensor, Tensor]:
        """Return for each image the first class it begins with, ascending, and its number among those of that class."""
        classes = data.num_classes
        number = small_images(self.images or classes * self.images_per_class, self._reduction)
        first = shared_labels(number, classes).gt(0).int().argmax(1)
        return first, torch.arange(number) - torch.searchsorted(first, first)

    def _samples(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        classes, rank = self._classes(data)
        most = int(rank.max()) + 1
        images = initial_images(self.init_from, data, most, rng, self._reduction)
        return {"inputs": images[classes * most + rank], "labels": shared_labels(len(classes), data.num_classes)}

    def _labels(self, tensors: Mapping[str, Tensor], data: LabeledData) -> Tensor:
        return tensors["labels"]

    def _batches(self, data: LabeledData) -> list[Tensor]:
        step = self._classes(data)[1] // small_images(self.images_per_step, self._reduction)
        return [(step == number).nonzero().flatten() for number in range(int(step.max()) + 1)]
