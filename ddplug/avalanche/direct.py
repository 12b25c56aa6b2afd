"""Items of a stream's dataset straight from where they lie: the same items in the same order, in less time.

Avalanche nests datasets: an experience is a subset of a subset of the whole, with transforms on the way, and every item
asks every layer for its place anew. For small items that is a third of the time of stock replay. Here the places are
looked up once for all items. Where these lie in tensors, and nothing changes them on the way but a table of class
labels, a batch is taken from the tensors at once, and no item is made.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.classification_dataset import lookup
from avalanche.benchmarks.utils.data import _FlatDataWithTransform
from avalanche.benchmarks.utils.data_loader import MultiDatasetDataLoader
from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData
from avalanche.benchmarks.utils.transform_groups import DefaultTransformGroups, EmptyTransformGroups, TransformGroups
from avalanche.benchmarks.utils.transforms import TupleTransform
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate

__all__ = ["Batches", "Direct", "direct", "read_directly", "values"]

_Step = Callable[..., Any]

_Column = tuple[Tensor, Tensor]
"""A tensor, and for each item which of its rows belongs to it."""


class Direct(Dataset[Any]):
    """The items of an ``AvalancheDataset``, under its present transforms.

    Args:
        dataset: whose items they are; see :func:`direct` for which it may be.
    """

    def __init__(self, dataset: Any) -> None:
        flat = dataset._flat_data
        every = np.arange(len(flat))
        leaves = list(_leaves(flat, every, every, (), flat._transform_groups.current_group))
        self.sources = [(leaf, steps) for leaf, _, _, steps in leaves]
        owner, place = np.zeros_like(every), np.zeros_like(every)
        for number, (_, at, places, _) in enumerate(leaves):
            owner[at], place[at] = number, places
        self.owner, self.place = (array("q", each.astype(np.int64).tobytes()) for each in (owner, place))
        shown = [own for own in dataset._data_attributes.values() if own.use_in_getitem]
        self.shown = [(own.name, values(own)) for own in shown]

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, index: int) -> Any:
        leaf, steps = self.sources[self.owner[index]]
        item = leaf[self.place[index]]
        for step in steps:
            item = step(item)
        if not self.shown:
            return item
        if isinstance(item, dict):
            return {**item, **{name: own[index] for name, own in self.shown}}
        return [*item, *[own[index] for _, own in self.shown]]

    def columns(self) -> list[_Column] | None:
        """Return what the parts of items are rows of; ``None`` where a part has to be made of each item."""
        if len(self.sources) != 1 or type(self.sources[0][0]) is not TensorDataset:
            return None
        leaf, steps = self.sources[0]
        tables = _tables(steps)
        if tables is None or not all(_is_plain(tensor) for tensor in leaf.tensors):
            return None
        places = torch.tensor(self.place, dtype=torch.int64)
        found = [(tensor, places) for tensor in leaf.tensors]
        numbers = [own for _, own in self.shown]
        if tables:
            if len(found) < 2 or found[1][0].ndim != 1 or found[1][0].is_floating_point():
                return None
            labels = found[1][0][places].tolist()
            try:
                for table in tables:
                    labels = [table[label] for label in labels]
            except (IndexError, TypeError):  # said when the item is asked for
                return None
            numbers.insert(0, labels)
        if any(type(number) is not int for own in numbers for number in own):
            return None
        at = torch.arange(len(self))
        made = [(torch.tensor(own, dtype=torch.int64), at) for own in numbers]
        return [found[0], made[0], *found[2:], *made[1:]] if tables else [*found, *made]


class Batches:
    """Makes batches of some items, as the default collation does.

    Args:
        items: a dataset, at best from :func:`direct`.
        collate: makes a batch of a list of items.
    """

    def __init__(self, items: Any, collate: Callable[[list[Any]], Any]) -> None:
        self.items = items
        self.collate = collate
        plain = isinstance(items, Direct) and collate is default_collate
        self.columns = items.columns() if plain else None

    def __call__(self, index: Sequence[int]) -> Any:
        """Return the batch of the items at these places."""
        if self.columns is None:
            return self.collate([self.items[i] for i in index])
        picked = torch.tensor(index, dtype=torch.int64)
        return [column.index_select(0, places[picked]) for column, places in self.columns]


class _Places(Dataset[int]):
    """Stands for a dataset whose items are taken later, all of a batch at once."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> int:
        return index


def direct(dataset: Any) -> Any:
    """Return a dataset with the same items that are read faster, or the dataset itself where that is not known.

    Args:
        dataset: of an experience.
    """
    flat = getattr(dataset, "_flat_data", None)
    if not isinstance(dataset, AvalancheDataset) or type(flat) is not _FlatDataWithTransform:
        return dataset
    if type(dataset).__getitem__ is not AvalancheDataset.__getitem__:
        return dataset
    made = Direct(dataset)
    # those with FFCV have a loader of their own
    return dataset if any(hasattr(leaf, "ffcv_info") for leaf, _ in made.sources) else made


def values(sequence: Any) -> Any:
    """Return the values of a data attribute, such as the labels of a dataset, as a list; what is of another kind stays.

    Args:
        sequence: an attribute, or what its values lie in.
    """
    if type(sequence).__getitem__ is DataAttribute.__getitem__:
        sequence = sequence.data
    if type(sequence) is ConstantSequence:
        return [sequence[0]] * len(sequence) if len(sequence) else []
    if type(sequence) is not FlatData:
        return sequence
    places = range(len(sequence)) if sequence._indices is None else sequence._indices
    if len(sequence._datasets) == 1:
        own = sequence._datasets[0]
        if type(own) is ConstantSequence:
            return [own[0]] * len(sequence) if len(sequence) else []
        own = values(own)
        return [own[place] for place in places]
    parts = [values(part) for part in sequence._datasets]
    at = np.fromiter(places, np.int64, len(sequence))
    owner = np.searchsorted(sequence._cumulative_sizes, at, side="right")
    inner = at - np.array([0, *sequence._cumulative_sizes])[owner]
    return [parts[number][place] for number, place in zip(owner.tolist(), inner.tolist(), strict=True)]


def read_directly(loader: Any) -> None:
    """Let Avalanche's loader of an experience read items directly; other loaders stay as they are."""
    if isinstance(loader, MultiDatasetDataLoader):
        loader.datasets = [direct(dataset) for dataset in loader.datasets]
        if len(loader.datasets) == 1:
            batches = Batches(loader.datasets[0], loader.loader_kwargs["collate_fn"])
            if batches.columns is not None:
                loader.datasets = [_Places(len(batches.items))]
                loader.loader_kwargs["collate_fn"] = batches


def _leaves(
    node: Any, at: np.ndarray[Any, Any], places: np.ndarray[Any, Any], steps: Sequence[_Step], group: str
) -> Iterator[tuple[Any, np.ndarray[Any, Any], np.ndarray[Any, Any], Sequence[_Step]]]:
    """Yield the datasets that items lie in, whose items these are, their places there, and what is done to each then.

    Args:
        node: a dataset.
        at: ``(n,)`` whose items to look for.
        places: ``(n,)`` their places in it.
        steps: what is done after it, the innermost first.
        group: of transforms.
    """
    if type(node) is not _FlatDataWithTransform:
        yield node, at, places, steps
        return
    both = (node._frozen_transform_groups, node._transform_groups)
    own = [partial(groups, group_name=group) for groups in both if _does(groups, group)]
    if node._indices is not None:  # some of which are computed when asked for
        places = np.array([node._indices[place] for place in places.tolist()], dtype=np.int64)
    bounds = [0, *node._cumulative_sizes]
    for child, first, last in zip(node._datasets, bounds, bounds[1:], strict=False):
        mine = (first <= places) & (places < last)
        if mine.any():
            yield from _leaves(child, at[mine], places[mine] - first, (*own, *steps), group)


def _does(groups: Any, group: str) -> bool:
    """Say whether transform groups do anything to an item; all but the empty ones make a list of it at least."""
    return groups is not None and not (isinstance(groups, EmptyTransformGroups) and not groups.transform_groups[group])


def _tables(steps: Sequence[_Step]) -> list[Sequence[Any]] | None:
    """Return the tables that labels are looked up in, if that is all that steps do; ``None`` if they do more."""
    kinds = (TransformGroups, DefaultTransformGroups, EmptyTransformGroups)
    found: list[Sequence[Any]] = []
    for step in steps:
        assert isinstance(step, partial)
        groups: Any = step.func
        if type(groups) not in kinds:
            return None
        done = groups.transform_groups[step.keywords["group_name"]]
        if done is None:
            continue
        if type(done) is not TupleTransform:
            return None
        for part, change in enumerate(done.transforms):
            if change is None:
                continue
            own = isinstance(change, partial) and change.func is lookup and not change.keywords
            if part != 1 or not own or type(change.args[0]) not in (list, tuple):
                return None
            found.append(change.args[0])
    return found


def _is_plain(tensor: Tensor) -> bool:
    """Say whether rows of a tensor put together are just what collation makes of them."""
    return type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.is_contiguous()
