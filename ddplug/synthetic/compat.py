"""Whether a set and data, or two sets, belong to the same space."""

from __future__ import annotations

from dataclasses import replace

import torch

from ddplug.data.labeled import LabeledData
from ddplug.errors import DataError
from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["difference", "same_space"]


def same_space(synthetic: SyntheticSet, data: LabeledData, what: str, device: torch.device) -> LabeledData:
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
    for name, mine, theirs in (
        ("shape", synthetic.shape, data.shape),
        ("number of classes", synthetic.num_classes, data.num_classes),
    ):
        if mine != theirs:
            raise DataError(
                f"the set and the {what} data {data.name!r} differ in {name}: {mine} and {theirs}; "
                "use the data that the set was made from"
            )
    if len(data) == 0:
        raise DataError(f"the {what} data {data.name!r} have 0 samples; give at least one")
    data = data.to(device) if data.scratch is None else data
    return replace(data, preprocess=synthetic.preprocess.to(data.device))


def difference(train: SyntheticSet, validation: SyntheticSet) -> str | None:
    """Say in what the two differ that must agree."""
    for what, mine, theirs in (
        ("shape", train.shape, validation.shape),
        ("number of classes", train.num_classes, validation.num_classes),
        ("class names", train.class_names, validation.class_names),
        ("preprocessing", train.preprocess.kind, validation.preprocess.kind),
    ):
        if mine != theirs:
            return f"they differ in {what}, {mine} and {theirs}"
    others = validation.preprocess.tensors()
    differing = [name for name, tensor in train.preprocess.tensors().items() if not torch.equal(tensor, others[name])]
    return f"they differ in the {differing[0]} of their preprocessing" if differing else None
