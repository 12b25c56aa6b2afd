"""Items of a stream's dataset straight from where they lie: the same items in the same order, in half of the time.

Avalanche nests datasets: an experience is a subset of a subset of the whole, with transforms on the way, and every item
asks every layer for its place anew. For small items that is a third of the time of stock replay. Here the places are
looked up once for all items.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from avalanche.benchmarks.utils import AvalancheDataset, DataAttribute
from avalanche.benchmarks.utils.data import _FlatDataWithTransform
from avalanche.benchmarks.utils.data_loader import MultiDatasetDataLoader
from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData
from avalanche.benchmarks.utils.transform_groups import EmptyTransformGroups
from torch.utils.data import Dataset

__all__ = ["Direct", "direct", "read_directly", "values"]

_Step = Callable[..., Any]


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
