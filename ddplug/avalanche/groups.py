"""The memory of one group of samples: a few images, as small as they can be stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ddplug.avalanche.schema import Rows, Schema, write
from ddplug.data.preprocess import Identity
from ddplug.errors import DataError
from ddplug.functional.resize import enlarge
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.pictures import grid
from ddplug.synthetic.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "ClassMemory",
    "GroupKey",
    "GroupMemory",
    "by_label",
    "dataset_of",
    "drawn",
    "label_bytes",
    "pack",
    "rows_of",
    "soft_targets_of",
    "stored_bytes",
]


@dataclass(frozen=True)
class GroupKey:
    """What a memory keeps apart: a class of a task, and of one experience where the domain shifts.

    Attributes:
        label: class label.
        task: task label, 0 where the stream has none.
        experience: number of the experience; ``None`` unless domains are told apart.

    Example:
        >>> GroupKey(3) == GroupKey(3, task=0), GroupKey(3) == GroupKey(3, task=1)
        (True, False)
    """

    label: int
    task: int = 0
    experience: int | None = None

    @property
    def place(self) -> tuple[int, int, int]:
        """What groups are sorted by for people: task, class, experience."""
        return self.task, self.label, -1 if self.experience is None else self.experience

    @property
    def title(self) -> str:
        """The class, with the task and the experience where they are told apart."""
        known = (("task", self.task or None), ("experience", self.experience))
        rest = ", ".join(f"{what} {number}" for what, number in known if number is not None)
        return f"{self.label} ({rest})" if rest else str(self.label)


@dataclass(frozen=True, eq=False)
class GroupMemory:
    """The memory of one group, self-contained, all tensors on the CPU.

    Attributes:
        group: whose memory it is.
        stored: ``(n, *shape)`` uint8 codes or float32 inputs, reduced if the memory's factor says so.
        levels: ``(2, C)`` float32 values that the codes 0 and 255 stand for in each channel, ``(2, 1)`` for inputs
            that are not images; ``None`` for float32.
        soft: ``(n, K)`` float32 class probabilities, or ``None``.
        seen: how many real samples the images stand for.
        real: how many of the ``n`` rows are real samples; they are the last ones.
        recipe: how the distiller wants its images trained on.
        schema: how the stream's items look.
    """

    group: GroupKey
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

    def prefix(self, n: int) -> GroupMemory:
        """Keep the first ``n`` images: of the distilled and of the real ones, in proportion."""
        made = len(self) - self.real
        real = max(n - made, min(self.real, round(n * self.real / len(self)))) if len(self) else 0
        keep = torch.tensor([*range(n - real), *range(made, made + real)], dtype=torch.int64)
        soft = None if self.soft is None else self.soft[keep]
        return replace(self, stored=self.stored[keep], soft=soft, real=real)

    @property
    def nbytes(self) -> int:
        """Bytes of the images with their levels and of the labels: 1 a hard label (4 above class 255), 4 a soft number.

        Nothing is counted for a group without images.
        """
        if not len(self):
            return 0
        levels = 0 if self.levels is None else self.levels.numel() * 4
        labels = len(self) * label_bytes(self.group.label) if self.soft is None else self.soft.numel() * 4
        return self.stored.numel() * self.stored.element_size() + levels + labels


@dataclass(frozen=True, eq=False)
class ClassMemory:
    """The memory of a class as Avalanche's own code looks at it: an object that has a ``buffer``.

    Attributes:
        parts: the groups of the class; more than one where tasks or domains are kept apart.
    """

    parts: tuple[GroupMemory, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def buffer(self) -> Any:
        """The images as an ``AvalancheDataset``."""
        return dataset_of(self.parts)


def by_label(groups: Iterable[GroupMemory]) -> dict[int, ClassMemory]:
    """Return the memory of each class under its plain label, in the order that the classes were first seen in."""
    parts: dict[int, tuple[GroupMemory, ...]] = {}
    for memory in groups:
        parts[memory.group.label] = (*parts.get(memory.group.label, ()), memory)
    return {label: ClassMemory(mine) for label, mine in parts.items()}


def rows_of(groups: Iterable[GroupMemory]) -> Rows:
    """Return the inputs and labels of some groups, one after the other."""
    parts = [memory.rows() for memory in groups]
    if not parts:
        none = torch.zeros(0, dtype=torch.int64)
        return Rows(torch.zeros(0, 0), none, none)
    return Rows(*(torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y", "t")))


def soft_targets_of(groups: Iterable[GroupMemory]) -> Tensor | None:
    """Return the ``(N, K)`` soft labels of :func:`rows_of`, padded with zeros to the widest; ``None`` if hard."""
    parts = [memory.soft for memory in groups if memory.soft is not None and len(memory.soft)]
    width = max((part.shape[1] for part in parts), default=0)
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts]) if parts else None


def dataset_of(groups: Sequence[GroupMemory]) -> Any:
    """Return some groups, at least one, as an ``AvalancheDataset`` whose items look like the stream's."""
    return write(rows_of(groups), groups[-1].schema, soft_targets_of(groups))


def drawn(groups: Iterable[GroupMemory], per_row: int) -> Figure:
    """Draw some groups, each a row with its label before it, small images enlarged.

    Args:
        groups: in any order; they are drawn by task, class and experience.
        per_row: images of a group to show, at least 1.

    Raises:
        DataError: they hold nothing, or no images of one or three channels.
        OptionError: ``per_row`` is below 1.
    """
    held = sorted((memory for memory in groups if len(memory)), key=lambda memory: memory.group.place)
    if not held:
        raise DataError("the memory is empty; train on an experience first")
    parts = [memory.images() for memory in held]
    labels = torch.arange(len(held)).repeat_interleave(torch.tensor([len(part) for part in parts]))
    names = tuple(memory.group.title for memory in held)
    return grid(SyntheticSet(torch.cat(parts), labels, len(held), Identity(), class_names=names), per_row)


def label_bytes(label: int) -> int:
    """Bytes that a hard label takes."""
    return 1 if label < 256 else 4


def stored_bytes(shape: tuple[int, ...], storage: str) -> tuple[int, int]:
    """Return the bytes of an image of a shape, and those of a group's levels; see :func:`pack`."""
    if storage == "float32":
        return 4 * math.prod(shape), 0
    return math.prod(shape), 8 * (shape[0] if len(shape) == 3 else 1)


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
    # inputs that are not images count as one channel: levels for each column would take more bytes than the numbers
    laid = images if images.ndim == 4 else images.flatten(1)[:, None]
    if not len(images):
        return images.to(torch.uint8), torch.zeros(2, laid.shape[1])
    made = SyntheticSet(laid, torch.zeros(len(laid), dtype=torch.int64), 1, Identity()).quantize()
    return made.codes().reshape(images.shape), made.levels
