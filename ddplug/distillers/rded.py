r"""RDED: images put together from the crops of real images that a teacher recognizes best.

.. math::  (x, b)^\star_i = \arg\min_{b} \; \ell\big(f(x_i[b]), c\big), \qquad
           s_k = \text{tile of } m^2 \text{ of the } n m^2 \text{ crops of class } c \text{ with the lowest } \ell

with a trained network :math:`f`, its cross-entropy :math:`\ell`, random crops :math:`x[b]` reduced to :math:`1 / m` of
the side, :math:`n` images a class. Nothing is optimized.

Reference: Sun, Shi, Yu & Lin, "On the Diversity and Realism of Distilled Dataset: An Efficient Dataset Distillation
Paradigm", CVPR 2024, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillation.shards import own_classes
from ddplug.distillers.parts.features import MICRO_BATCH
from ddplug.distillers.parts.images import check_images_per_class
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
from ddplug.distillers.selection.base import Selection
from ddplug.errors import OptionError
from ddplug.functional.crops import check_images, draw_boxes, resample
from ddplug.functional.types import Tensors
from ddplug.utils.checks import at_least
from ddplug.utils.preparation import kept_each

__all__ = ["RDED", "cells"]

_LARGE = 128
"""Side from which on several crops share an image, unless told otherwise."""


_PAPER = Preset(
    {"candidates": 300, "crops": 5, "tiles": "auto", "labels": "soft"},
    "Sun, Shi, Yu & Lin, CVPR 2024, and released defaults; the teacher is yours, in the papers a trained ResNet-18",
)

_PRESETS = {
    "paper": _PAPER,
    **{
        f"{data}-{n}": _PAPER.extended(images_per_class=n, tiles=tiles)
        for data, tiles in {"imagenet-1k": 2, "tiny-imagenet": 1, "cifar100": 1, "cifar10": 1}.items()
        for n in (1, 10, 50)
    },
}


@dataclass(frozen=True)
class RDED(Selection):
    """Realistic, diverse and efficient dataset distillation.

    Attributes:
        images_per_class: images to put together for each class.
        teacher: a network to be trained on the data first, by name (or a function that builds one); or your own trained
            module, which is used in evaluation mode and not changed.
        train_epochs: epochs to train a named teacher for; see :func:`ddplug.distillers.train_teacher`.
        max_samples_per_class: samples of each class that a named teacher is trained on at most.
        candidates: real images of each class to look at, 300 in the paper; as many as needed where that is more.
        crops: random crops of each of them, of which the best is kept; 5 in the paper.
        tiles: crops along a side of an image; ``"auto"`` for 2 from 128 pixels on, else 1, as in the paper.
        least_area: smallest share of an image's area that a crop covers, in (0, 1].
        labels: ``"soft"`` for the teacher's class probabilities of the finished images, ``"hard"`` for the class.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> made = distill(toy_images(), RDED(images_per_class=2, teacher="convnet:width=4,depth=1"), device="cpu")
        >>> made.inputs.shape, made.targets.shape
        (torch.Size([6, 1, 8, 8]), torch.Size([6, 3]))
    """

    name: ClassVar[str] = "rded"
    apart: ClassVar[bool] = True
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    small: ClassVar[Mapping[str, Any]] = {
        **Selection.small,
        "teacher": "convnet:width=8,depth=1,norm=batch",
        "candidates": 9,
    }
    teacher: Teacher = "convnet:width=32"
    train_epochs: int = 10
    max_samples_per_class: int = POOL
    candidates: int = 300
    crops: int = 5
    tiles: int | Literal["auto"] = "auto"
    least_area: float = 0.08
    labels: Literal["soft", "hard"] = "soft"

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, steps=0, train_epochs=1, max_samples_per_class=1, candidates=1, crops=1)
        if not 0 < self.least_area <= 1:
            raise OptionError(f"least_area is {self.least_area}; it must lie above 0 and not above 1")
        if self.tiles != "auto" and (not isinstance(self.tiles, int) or self.tiles < 1):
            raise OptionError(f"tiles is {self.tiles!r}; it must be 'auto' or at least 1")
        check_labels(self.labels)

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        tiles = self._tiles(data.shape)
        check_images_per_class(data, self.images_per_class)
        structure = teacher_module(self.teacher, data)
        tensors = teacher_state(self.teacher, data, self.train_epochs, self.max_samples_per_class, rng)
        drawn = [self._drawn(label, tiles, data, rng) for label in range(data.num_classes)]
        with frozen(structure, tensors, data.device) as teacher:
            labels = own_classes(data.num_classes)
            makes = [partial(self._best, label, *drawn[label], tiles, teacher, data) for label in labels]
            best = kept_each(rng, makes, "classes", data.device)
            images = [self._tile(chosen["index"], chosen["boxes"], tiles, data) for chosen in best]
            # by classes, so that those of a shard have the labels of a whole run
            soft = [predict(teacher, own).softmax(1) for own in images] if self.labels == "soft" else []
        return {"inputs": torch.cat(images), **({"labels": torch.cat(soft)} if soft else {})}

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        """Return the bytes that options need in each stage; see :mod:`ddplug.distillation.memory`."""
        # while they are put together the classes' parts are there too
        images = 2 * sizes.classes * self.images_per_class * sizes.inputs
        return {
            "teacher": {"train_epochs": teacher_bytes(self.teacher, sizes)},
            "choice": {"teacher": sizes.network, "images_per_class": images},
        }

    def _tiles(self, shape: tuple[int, ...]) -> int:
        """Settle the tiles for inputs of a shape."""
        least = min(check_images(self.name, shape))
        tiles = (2 if least >= _LARGE else 1) if isinstance(self.tiles, str) else self.tiles
        if tiles > least:
            raise OptionError(f"tiles is {tiles}, but images are {shape[1]}x{shape[2]}; use at most {least}")
        return tiles

    def _drawn(
        self, label: int, tiles: int, data: LabeledData, rng: torch.Generator
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Draw a class's images and crops of each, in parts: ``(n,)`` positions, and ``(n * crops, 4)`` boxes.

        A class of fewer images than there are to be crops is gone through again.
        """
        number = self.images_per_class * tiles**2
        index = data.draw(label, max(number, min(self.candidates, len(data.class_indices[label]))), rng)
        parts = list(index.split(max(1, MICRO_BATCH // self.crops)))
        return parts, [draw_boxes(len(part) * self.crops, data.shape, self.least_area, rng) for part in parts]

    @torch.no_grad()
    def _best(
        self,
        label: int,
        index: list[Tensor],
        drawn_boxes: list[Tensor],
        tiles: int,
        teacher: nn.Module,
        data: LabeledData,
    ) -> Tensors:
        """Choose of a class's crops ``index`` ``(K,)`` and ``boxes`` ``(K, 4)``; ``K = images_per_class * tiles**2``.

        The lowest loss comes first.
        """
        losses, boxes = [], []
        for part, drawn in zip(index, drawn_boxes, strict=True):
            logits = predict(teacher, self._seen(data.batch(part).repeat_interleave(self.crops, 0), drawn, tiles))
            loss = cross_entropy(logits, torch.full_like(logits[:, 0], label, dtype=torch.int64), reduction="none")
            least, which = loss.cpu().view(len(part), self.crops).min(1)
            losses.append(least)
            boxes.append(drawn.view(len(part), self.crops, 4)[torch.arange(len(part)), which])
        order = torch.cat(losses).argsort(stable=True)[: self.images_per_class * tiles**2]
        return {"index": torch.cat(index)[order], "boxes": torch.cat(boxes)[order]}

    def _seen(self, images: Tensor, boxes: Tensor, tiles: int) -> Tensor:
        """Return what the teacher sees of the crops: at the size they will have, in the middle of an empty image."""
        height, width = images.shape[2:]
        size = (-(-height // tiles), -(-width // tiles))
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        edges = (left, width - size[1] - left, top, height - size[0] - top)
        return pad(resample(images, boxes, size), edges)

    def _tile(self, index: Tensor, boxes: Tensor, tiles: int, data: LabeledData) -> Tensor:
        """Put the ``K`` chosen crops of a class together, ``(images_per_class, *shape)``.

        The first cell of all images takes the best ``images_per_class`` crops, the second the next, and so on: every
        image has its share of the best.
        """
        n = self.images_per_class
        made = torch.empty(n, *data.shape, device=data.device)
        for k, (rows, columns) in enumerate(cells(data.shape, tiles)):
            size = (rows.stop - rows.start, columns.stop - columns.start)
            for part in torch.arange(n).split(MICRO_BATCH):
                images = data.batch(index[k * n + part])
                made[part.to(data.device), :, rows, columns] = resample(images, boxes[k * n + part], size)
        return made


def cells(shape: tuple[int, ...], tiles: int) -> list[tuple[slice, slice]]:
    """Cut an image of shape ``(C, H, W)`` into ``tiles * tiles`` cells whose sides differ by one pixel at most.

    Example:
        >>> [rows for rows, _ in cells((1, 8, 2), 2)]
        [slice(0, 4, None), slice(0, 4, None), slice(4, 8, None), slice(4, 8, None)]
    """
    edges = [[k * side // tiles for k in range(tiles + 1)] for side in shape[1:]]
    rows, columns = ([slice(a, b) for a, b in pairwise(axis)] for axis in edges)
    return [(row, column) for row in rows for column in columns]
