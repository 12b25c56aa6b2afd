"""The memory of one group of samples: a few images, as small as they can be stored."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddplug.avalanche.schema import Rows, Schema, write
from ddplug.data.preprocess import Identity
from ddplug.functional.resize import enlarge
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe

__all__ = ["Group", "Slot", "label_bytes", "pack", "split", "stored_bytes"]


class Group(int):
    """What a memory keeps apart: a class of a task, and of one experience where the domain shifts.

    It is an ``int``, the class label, because Avalanche's own code takes the keys of ``buffer_groups`` for class
    labels. Groups are equal where all three parts are. A group of task 0 and of no experience also equals its plain
    label, so that ``buffer_groups[3]`` finds class 3 of a class-incremental stream.

    Args:
        label: class label.
        task: task label, 0 where the stream has none.
        experience: number of the experience; ``None`` unless domains are told apart.

    Example:
        >>> Group(3) == 3, Group(3, 1) == 3, Group(3, 1) == Group(3, 1), int(Group(3, 1))
        (True, False, True, 3)
    """

    label: int
    task: int
    experience: int | None

    def __new__(cls, label: int, task: int = 0, experience: int | None = None) -> Group:
        group = super().__new__(cls, label)
        group.label, group.task, group.experience = int(label), int(task), experience
        return group

    @property
    def _parts(self) -> tuple[int, int, int | None]:
        return self.label, self.task, self.experience

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Group):
            return self._parts == other._parts
        return self._parts == (other, 0, None)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.label) if self._parts == (self.label, 0, None) else hash(self._parts)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._parts

    def __repr__(self) -> str:
        return f"Group(label={self.label}, task={self.task}, experience={self.experience})"


@dataclass(frozen=True, eq=False)
class Slot:
    """The memory of one group, self-contained, all tensors on the CPU.

    Attributes:
        group: whose it is.
        stored: ``(n, *shape)`` uint8 codes or float32 inputs, reduced if the memory's factor says so.
        levels: ``(2, C)`` float32 values that the codes 0 and 255 stand for in each channel, ``(2, 1)`` for inputs
            that are not images; ``None`` for float32.
        soft: ``(n, K)`` float32 class probabilities, or ``None``.
        seen: how many real samples the slot stands for.
        real: how many of the ``n`` rows are real samples; they are the last ones.
        recipe: how the distiller wants its images trained on.
        schema: how the stream's items look.
    """

    group: Group
    stored: Tensor
    levels: Tensor | None
    soft: Tensor | None
    seen: int
    real: int
    recipe: Recipe
    schema: Schema

    def __len__(self) -> int:
        return len(self.stored)

    def images(self) -> Tensor:
        """Return the ``(n, *shape)`` float32 images, at the stream's resolution."""
        images = self.stored if self.levels is None else Identity().decode(self.stored, self.levels)
        return enlarge(images, self.schema.shape)

    def inputs(self) -> Tensor:
        """Return the ``(n, *shape)`` inputs to train on, in the stream's type."""
        return self.images().to(self.schema.dtype)

    def rows(self) -> Rows:
        """Return the inputs with their labels."""
        x = self.inputs()
        return Rows(x, torch.full((len(x),), self.group.label), torch.full((len(x),), self.group.task))

    def prefix(self, n: int) -> Slot:
        """Keep the first ``n`` images: of the distilled and of the real ones, in proportion."""
        made = len(self) - self.real
        real = max(n - made, min(self.real, round(n * self.real / len(self)))) if len(self) else 0
        keep = torch.tensor([*range(n - real), *range(made, made + real)], dtype=torch.int64)
        soft = None if self.soft is None else self.soft[keep]
        return replace(self, stored=self.stored[keep], soft=soft, real=real)

    @property
    def nbytes(self) -> int:
        """Bytes of the images with their levels and of the labels: 1 a hard label (4 above class 255), 4 a soft number.

        Nothing is counted for a slot without images.
        """
        if not len(self):
            return 0
        levels = 0 if self.levels is None else self.levels.numel() * 4
        labels = len(self) * label_bytes(self.group.label) if self.soft is None else self.soft.numel() * 4
        return self.stored.numel() * self.stored.element_size() + levels + labels

    @property
    def buffer(self) -> Any:
        """The slot as an ``AvalancheDataset``, for code that looks into ``buffer_groups[key].buffer``."""
        return write(self.rows(), self.schema, self.soft)


def label_bytes(label: int) -> int:
    """Bytes that a hard label takes."""
    return 1 if label < 256 else 4


def stored_bytes(shape: tuple[int, ...], storage: str) -> tuple[int, int]:
    """Return the bytes of an image of a shape, and those of a group's levels; see :func:`pack`."""
    if storage == "float32":
        return 4 * math.prod(shape), 0
    return math.prod(shape), 8 * (shape[0] if len(shape) == 3 else 1)


def split(rows: Rows, experience: int | None) -> dict[Group, Tensor]:
    """Sort samples into groups, ``(n, *shape)`` float32 each, in the order of tasks and classes."""
    pairs = torch.stack([rows.t, rows.y], 1)
    unique = pairs.unique(dim=0)
    members = {Group(int(pair[1]), int(pair[0]), experience): (pairs == pair).all(1) for pair in unique}
    return {group: rows.x[mine].float() for group, mine in members.items()}


def pack(images: Tensor, storage: str) -> tuple[Tensor, Tensor | None]:
    """Store ``(n, *shape)`` float32 images.

    Args:
        images: of one group.
        storage: ``"uint8"`` rounds to 256 equal levels between the least and the greatest value: of each channel of
            images ``(C, H, W)``, where they span at least ``[0, 1]``, and of all numbers of other inputs.
            ``"float32"`` keeps the numbers.

    Returns:
        The codes and their levels, or the images and ``None``.
    """
    if storage == "float32":
        return images.clone(), None
    # inputs that are not images count as one channel: levels for each column would take more room than the numbers
    laid = images if images.ndim == 4 else images.flatten(1)[:, None]
    if not len(images):
        return images.to(torch.uint8), torch.zeros(2, laid.shape[1])
    made = SyntheticSet(laid, torch.zeros(len(laid), dtype=torch.int64), 1, Identity()).quantize()
    return made.codes().reshape(images.shape), made.levels
