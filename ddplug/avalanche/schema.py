"""How the items of a stream look: an experience read into tensors, and tensors written as a dataset that mirrors it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from avalanche.benchmarks.utils import (
    AvalancheDataset,
    DataAttribute,
    TaskAwareSupervisedClassificationDataset,
    TaskLabels,
    TensorDataAttribute,
)
from avalanche.benchmarks.utils.classification_dataset import ClassificationDataset
from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ddplug.avalanche.direct import Batches, direct, values
from ddplug.errors import DataError
from ddplug.utils.randomness import temporary_seed
from ddplug.utils.text import one_line

__all__ = [
    "SOFT_TARGETS",
    "Pair",
    "Rows",
    "Schema",
    "check_item",
    "known_pairs",
    "pairs_of",
    "read",
    "some_of_each",
    "write",
]

SOFT_TARGETS = "soft_targets"
"""Name of the data attribute that carries soft labels."""

_CHUNK = 256
"""Items collated at once."""

Pair = tuple[int, int]
"""A task label and a class label."""

_KINDS = (TaskAwareSupervisedClassificationDataset, ClassificationDataset, AvalancheDataset)


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples as tensors.

    Attributes:
        x: ``(n, *shape)`` floating point, as the stream gives them under its ``eval`` transforms.
        y: ``(n,)`` int64 class labels.
        t: ``(n,)`` int64 task labels, zeros where the stream has none.
    """

    x: Tensor
    y: Tensor
    t: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Schema:
    """How the items of a stream look, so that a memory can mirror them.

    Attributes:
        shape: of one input.
        dtype: of the inputs.
        tensor_label: whether a label comes as a 0-d tensor rather than an ``int``.
        label_dtype: of such a tensor.
        task_labels: whether items end with a task label.
        kind: Avalanche's class of the stream's datasets; a concatenation has that of its first part.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    tensor_label: bool = False
    label_dtype: torch.dtype = torch.int64
    task_labels: bool = True
    kind: type = TaskAwareSupervisedClassificationDataset


class _Stored(Dataset[tuple[Tensor, Any]]):
    """Inputs and labels in memory; ``TensorDataset`` cannot give ``int`` labels."""

    def __init__(self, x: Tensor, y: Tensor | list[int]) -> None:
        self.x = x
        self.y = y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.x[index], self.y[index]


def some_of_each(dataset: Any, most: int, rng: torch.Generator) -> tuple[list[int], dict[int, float]] | None:
    """Draw positions of at most so many samples of each class.

    Args:
        dataset: of a stream.
        most: of a class.
        rng: generator on the CPU.

    Returns:
        The positions in ascending order, and how many samples of the dataset one of a class stands for; ``None`` where
        the dataset does not know its labels, or has no more.
    """
    labels = getattr(dataset, "targets", None)
    if labels is None:
        return None
    targets = torch.as_tensor([int(label) for label in values(labels)])
    counts = targets.bincount()
    if int(counts.max()) <= most:
        return None
    order = torch.randperm(len(targets), generator=rng)
    picks = [(targets[order] == label).nonzero()[:most, 0] for label in targets.unique()]
    found: list[int] = order[torch.cat(picks)].sort().values.tolist()
    return found, {label: max(1.0, number / most) for label, number in enumerate(counts.tolist())}


def check_item(dataset: Any) -> None:
    """Refuse what a memory could not take after training, before it: items are looked at as they are trained on too.

    Raises:
        DataError: see :func:`read`; or training items have another shape than those of ``eval``.
    """
    if not len(dataset):
        return
    with temporary_seed(0):
        looked = dataset.eval() if isinstance(dataset, AvalancheDataset) else dataset
        remembered = _schema(looked, looked[0])
        trained = _schema(dataset, dataset[0])
    if trained.shape != remembered.shape:
        raise DataError(
            f"inputs have the shape {trained.shape} in training and {remembered.shape} under the eval transforms, by "
            "which they are remembered; give both transforms the same size"
        )


def read(dataset: Any) -> tuple[Rows, Schema]:
    """Read a dataset of a stream, each item once, under its ``eval`` transforms.

    Transforms that draw at random draw the same every time, and leave the global random state alone.

    Args:
        dataset: of the items ``(x, y)`` or ``(x, y, task label)``.

    Returns:
        Its samples, and how its items look. An empty dataset has rows of length and shape 0.

    Raises:
        DataError: inputs are not finite floating-point tensors of one shape, labels are not whole numbers, or items
            have other parts.
    """
    if len(dataset) == 0:
        none = torch.zeros(0, dtype=torch.int64)
        return Rows(torch.zeros(0, 0), none, none), Schema((0,), torch.float32)
    dataset = dataset.eval() if isinstance(dataset, AvalancheDataset) else dataset
    collate = getattr(dataset, "collate_fn", None) or default_collate
    with temporary_seed(0):
        schema = _schema(dataset, dataset[0])
        batch = Batches(direct(dataset), collate)
        try:
            cuts = [range(start, min(start + _CHUNK, len(dataset))) for start in range(0, len(dataset), _CHUNK)]
            parts = [batch(cut) for cut in cuts]
            x, y = (torch.cat([part[k] for part in parts]) for k in (0, 1))
        except (TypeError, RuntimeError) as error:
            reason = one_line(error)
            raise DataError(f"the experience's items do not form batches: {reason}; give inputs of one shape") from None
    broken = x.reshape(len(x), -1).isfinite().all(1).logical_not()
    if bool(broken.any()):
        raise DataError(f"sample {int(broken.int().argmax())} of the experience holds NaN or infinity; fix or drop it")
    t = torch.cat([part[2] for part in parts]).long() if schema.task_labels else torch.zeros(len(y), dtype=torch.int64)
    return Rows(x, y.long(), t), schema


def _schema(dataset: Any, item: Any) -> Schema:
    """Look at one item."""
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        raise DataError(
            f"the experience's items are {type(item).__name__}, not (x, y); a memory holds inputs and labels"
        )
    x, y = item[0], item[1]
    attribute = getattr(dataset, "targets_task_labels", None)
    task_labels = isinstance(attribute, DataAttribute) and bool(attribute.use_in_getitem)
    if len(item) != 2 + task_labels:
        raise DataError(f"the experience's items have {len(item)} parts; a memory holds (x, y) or (x, y, task label)")
    if not isinstance(x, Tensor) or not x.is_floating_point():
        what = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise DataError(f"the experience's inputs are {what}, not floating-point tensors; add a transform to eval")
    if not _is_whole(y):
        raise DataError(f"the experience's labels are like {one_line(y)}, not whole numbers; give class indices")
    kind = next((kind for kind in _KINDS if isinstance(dataset, kind)), AvalancheDataset)
    label_dtype = y.dtype if isinstance(y, Tensor) else torch.int64
    return Schema(tuple(x.shape), x.dtype, isinstance(y, Tensor), label_dtype, task_labels, kind)


def _is_whole(label: Any) -> bool:
    """Say whether a label is one class index."""
    if isinstance(label, Tensor):
        return not label.is_floating_point() and label.ndim == 0
    try:
        return bool(int(label) == label)
    except (TypeError, ValueError):
        return False


def known_pairs(dataset: Any) -> set[Pair] | None:
    """Return the (task, class) pairs of a dataset from its labels alone; ``None`` where it does not know them."""
    labels, tasks = getattr(dataset, "targets", None), getattr(dataset, "targets_task_labels", None)
    if labels is None:
        return None
    if tasks is None or not tasks.use_in_getitem:
        return {(0, int(label)) for label in set(values(labels))}
    return {(int(task), int(label)) for task, label in set(zip(values(tasks), values(labels), strict=True))}


def pairs_of(dataset: Any) -> set[Pair]:
    """Return the (task, class) pairs of a dataset, without loading it where it knows its labels."""
    pairs = known_pairs(dataset)
    if pairs is None:
        rows = read(dataset)[0]
        pairs = set(zip(rows.t.tolist(), rows.y.tolist(), strict=True))
    return pairs


def _task_labels(tasks: list[int]) -> Any:
    """Return task labels as runs: a single list cannot be concatenated with a stream's ``ConstantSequence``."""
    runs = [ConstantSequence(task, len(list(run))) for task, run in groupby(tasks)]
    return runs[0] if len(runs) == 1 else FlatData(runs)


def write(rows: Rows, schema: Schema, soft: Tensor | None = None, logits: Tensor | None = None) -> Any:
    """Write samples as a dataset whose items look like a stream's.

    Args:
        rows: the samples.
        schema: how the stream's items look.
        soft: ``(n, K)`` class probabilities, carried as the data attribute ``"soft_targets"``, which no item shows.
        logits: ``(n, K)`` outputs of a learner, with which items end.

    Returns:
        An ``AvalancheDataset`` of the stream's kind, without transforms, that concatenates and collates with it. It
        has ``targets``, and ``targets_task_labels`` where the stream has; it holds nothing but the tensors given.
    """
    labels = rows.y.tolist()
    stored = _Stored(rows.x.to(schema.dtype), rows.y.to(schema.label_dtype) if schema.tensor_label else labels)
    attributes = [DataAttribute(labels, "targets")]
    if schema.task_labels:
        attributes.append(TaskLabels(_task_labels(rows.t.tolist())))
    if soft is not None:
        # rows of their own, and dropped with the samples: a subset then carries no more than it shows
        payload = FlatData([[row.clone() for row in soft]], discard_elements_not_in_indices=True)
        attributes.append(DataAttribute(payload, SOFT_TARGETS))
    if logits is not None:
        payload = FlatData([[row.clone() for row in logits.float()]], discard_elements_not_in_indices=True)
        attributes.append(TensorDataAttribute(payload, "logits", use_in_getitem=True))
    return schema.kind([stored], data_attributes=attributes)
