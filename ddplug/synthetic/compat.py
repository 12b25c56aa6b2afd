"""Whether sets, or a set and real data, belong to the same space."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import torch

from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Preprocess
from ddplug.errors import DataError

__all__ = ["Space", "difference", "first_difference", "same_preprocess", "same_space"]


class Space(Protocol):
    """What a set and real data have in common: the inputs that networks see, and their classes.

    Attributes:
        shape: of one input.
        num_classes: number of classes.
        class_names: one name a class.
        preprocess: the map from pixels to model space.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def preprocess(self) -> Preprocess: ...


def same_space(synthetic: Space, data: LabeledData, what: str, device: torch.device) -> LabeledData:
    """Put real data into the model space of a set, and onto a device if they are in memory.

    Args:
        synthetic: the set.
        data: real data.
        what: ``"test"`` or ``"train"``, for messages.
        device: to work on; memory-mapped data, which may be larger than it, stay where they are.

    Returns:
        The data with the set's preprocessing.

    Raises:
        DataError: shapes or numbers of classes differ, or there are no data.
    """
    problem = first_difference(_sizes(synthetic, data))
    if problem:
        raise DataError(
            f"the set and the {what} data {data.name!r} differ in {problem}; use the data that the set was made from"
        )
    if len(data) == 0:
        raise DataError(f"the {what} data {data.name!r} have 0 samples; give at least one")
    data = data.to(device) if data.scratch is None else data
    return replace(data, preprocess=synthetic.preprocess.to(data.device))


def difference(one: Space, other: Space) -> str | None:
    """Return in what two differ that must agree: shape, classes and their names, or preprocessing.

    Args:
        one: a set, or real data.
        other: another, on the same device.

    Returns:
        What differs and how, to stand after "they differ in"; ``None`` where nothing does.

    Example:
        >>> from ddplug.testing import toy_images
        >>> difference(toy_images((3, 2)), toy_images((3, 2, 4))), difference(toy_images(), toy_images())
        ('number of classes: 2 and 3', None)
    """
    names = ("class names", one.class_names, other.class_names)
    return first_difference([*_sizes(one, other), names]) or _in_preprocess(one.preprocess, other.preprocess)


def same_preprocess(one: Preprocess, other: Preprocess) -> bool:
    """Return whether two preprocessings are the same map, number by number."""
    return _in_preprocess(one, other) is None


def first_difference(parts: Iterable[tuple[str, object, object]]) -> str | None:
    """Return the first of several parts in which two things differ.

    Args:
        parts: name of each part, and what it is in the one and in the other.

    Example:
        >>> first_difference([("shape", (1, 8, 8), (1, 8, 8)), ("bits", 8, 4)])
        'bits: 8 and 4'
    """
    return next((f"{name}: {mine} and {theirs}" for name, mine, theirs in parts if mine != theirs), None)


def _sizes(one: Space, other: Space) -> list[tuple[str, Any, Any]]:
    return [("shape", one.shape, other.shape), ("number of classes", one.num_classes, other.num_classes)]


def _in_preprocess(one: Preprocess, other: Preprocess) -> str | None:
    """Return in what two preprocessings differ."""
    if one.kind != other.kind:
        return f"preprocessing: {one.kind} and {other.kind}"
    theirs = other.tensors()
    differing = [name for name, tensor in one.tensors().items() if not torch.equal(tensor, theirs[name])]
    return f"the {differing[0]} of their preprocessing" if differing else None
