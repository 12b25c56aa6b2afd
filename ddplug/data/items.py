"""Items of data sets, as PyTorch, torchvision and Hugging Face give them: which part is the input, which the label."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
    default_convert,
)

from ddplug.data.checks import channels_first, to_inputs
from ddplug.data.images import from_pil, mode_of
from ddplug.data.labels import Label, Names, to_label
from ddplug.errors import DataError
from ddplug.utils.notes import note
from ddplug.utils.text import one_line

__all__ = ["INPUTS", "LABELS", "Items", "MixedModesError", "unwrapped"]

INPUTS = ("image", "img", "pixel_values", "images", "input", "inputs", "x")
LABELS = ("label", "labels", "target", "targets", "class", "y", "fine_label")


class MixedModesError(DataError):
    """Some pictures are gray and some are in color: :meth:`Items.in_color` reads them."""


def unwrapped(dataset: Any, name: str) -> Any:
    """Return the data set that a ``DataLoader`` reads, whole or as far as it reads it; anything else as it is.

    Args:
        dataset: a loader or a data set.
        name: how to call it in an error.

    Raises:
        DataError: the loader draws in a way that is neither all of the data nor a subset.
    """
    if not isinstance(dataset, DataLoader):
        return dataset
    whole: Any = dataset.dataset
    if dataset.collate_fn not in (default_collate, default_convert):
        own = getattr(dataset.collate_fn, "__qualname__", type(dataset.collate_fn).__name__)
        note(f"{name}: the DataLoader's collate_fn ({own}) is not called: the items of its data set are read")
    drawn: Any = dataset.sampler if dataset.batch_sampler is None else dataset.batch_sampler
    if type(drawn) is BatchSampler:
        drawn = drawn.sampler
    if isinstance(whole, IterableDataset) or isinstance(drawn, SequentialSampler):
        return whole
    if isinstance(drawn, SubsetRandomSampler):
        return Subset(whole, sorted(map(int, drawn.indices)))
    if isinstance(drawn, RandomSampler) and not drawn.replacement and drawn.num_samples == len(whole):
        return whole
    raise DataError(f"{name}: the DataLoader draws by a {type(drawn).__name__}; give the data set itself or a Subset")


class Items:
    """The items of a map-style data set, each an input and its label.

    Args:
        dataset: anything with ``__len__`` and ``__getitem__``, whose items are pairs, or dictionaries as Hugging Face
            ``datasets`` have them.
        name: how to call it in an error.

    Raises:
        DataError: its features name several inputs or labels.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name
        features = getattr(dataset, "features", None)
        self._features: Mapping[str, Any] = features if isinstance(features, Mapping) else {}
        self._columns = (self._column("Image", INPUTS), self._column("ClassLabel", LABELS))
        self._mode: str | None = None
        self._color = False

    def in_color(self) -> Items:
        """Return the same items, with gray pictures in color too."""
        found = copy.copy(self)
        found._color, found._mode = True, None
        return found

    def names(self) -> Names:
        """Return the names that the data set has for its labels."""
        label = self._columns[1]
        if label is not None:
            return Names.given(_feature(self._features[label]).names, self._name, own=True)
        return _names_of(self._dataset, self._name)

    def read(self, index: int) -> tuple[Tensor, Label]:
        """Read one item; whatever goes wrong in there is the data's fault and named.

        Raises:
            MixedModesError: it is a picture in color and those before it are gray, or the other way round.
        """
        what = f"{self._name}, item {index}"
        try:
            item = self._dataset[index]
        except Exception as error:
            raise _unreadable(what, error) from error
        value, label = self._pair(item, what)
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Image.Image):
            value = value[0]  # data sets of conversations have lists of pictures
        if isinstance(value, Image.Image):
            try:
                mode = "RGB" if self._color else mode_of(value)
                value = from_pil(value, mode)
            except Exception as error:
                raise _unreadable(what, error) from error
            if mode != (self._mode or mode):
                raise MixedModesError(f"{what} is of the mode {mode}, others are {self._mode}; convert them to one")
            self._mode = mode
        if isinstance(value, Mapping):
            keys = ", ".join(map(repr, list(value)[:3]))
            raise DataError(f"{what}: the input is a dictionary of {keys}; decode it, to a PIL image or an array")
        if np.ndim(value) == 0 and np.ndim(label) > 0:
            raise DataError(f"{what}: its first part is a single {type(value).__name__}; give (input, label) pairs")
        inputs = to_inputs(value, what).cpu()
        return channels_first(inputs.unsqueeze(0))[0], to_label(label, what)

    def _pair(self, item: Any, what: str) -> tuple[Any, Any]:
        if isinstance(item, Mapping):
            value, label = (
                item[column] if column in item else _only(item, names, what)
                for column, names in zip(self._columns, (INPUTS, LABELS), strict=True)
            )
            return value, label
        if not isinstance(item, (tuple, list)):
            raise DataError(f"{what} is a {type(item).__name__}; give (input, label) pairs or dictionaries")
        if len(item) != 2:
            raise DataError(f"{what} has {len(item)} parts; give (input, label) pairs or dictionaries")
        return item[0], item[1]

    def _column(self, kind: str, names: tuple[str, ...]) -> str | None:
        """Return the one column of a kind of Hugging Face's features; ``None`` where there is none."""
        found = [str(key) for key, feature in self._features.items() if type(_feature(feature)).__name__ == kind]
        if len(found) > 1 and names[0] not in found:
            raise DataError(
                f"{self._name}: {' and '.join(found)} are all of the kind {kind}; keep one, by "
                f"dataset.remove_columns({found[1:]})"
            )
        return names[0] if len(found) > 1 else found[0] if found else None


def _feature(feature: Any) -> Any:
    """Return the feature of what a column has lists of, and any other as it is."""
    return getattr(feature, "feature", feature)


def _unreadable(what: str, error: Exception) -> DataError:
    return DataError(f"{what} cannot be read: {type(error).__name__}: {one_line(error)}; fix the dataset")


def _only(item: Mapping[Any, Any], names: tuple[str, ...], what: str) -> Any:
    """Return the one value of a dictionary that goes by one of some names."""
    keys = {str(key).casefold(): key for key in item}
    found = [keys[name] for name in names if name in keys]
    if len(found) != 1:
        has = " and ".join(found) if found else "none of " + ", ".join(names)
        some = ", ".join(repr(key) for key in list(item)[:8])
        raise DataError(f"{what} is a dictionary (dict) of {some}, with {has}; give (input, label) pairs, or keep one")
    return item[found[0]]


def _names_of(dataset: Any, name: str) -> Names:
    """Return the names that a data set, or what it is a part or a union of, has for its labels."""
    if isinstance(dataset, Subset):
        return Items(dataset.dataset, name).names()
    if isinstance(dataset, ConcatDataset):
        tables = [table for part in dataset.datasets if (table := Items(part, name).names().table) is not None]
        if any(table != tables[0] for table in tables):
            raise DataError(
                f"{name}: the parts of the ConcatDataset have other classes or number them differently; make them "
                "equal, or give class_names for all of them"
            )
        return Names(tables[0], own=True) if tables else Names()
    classes = _own_names(dataset)
    if classes is None:
        return Names()
    names = Names.given(classes, name, own=True)
    change = getattr(dataset, "target_transform", None)
    return names if change is None or names.table is None else _changed(names.table, change)


def _own_names(dataset: Any) -> Any:
    """Return the names that a data set says that its labels have.

    The numbers of ``class_to_idx`` are those that torchvision gives, whatever the order of ``classes``; a class may
    have several names there, as in ImageNet, and then ``classes`` has them together.
    """
    try:
        classes, numbers = getattr(dataset, "classes", None), getattr(dataset, "class_to_idx", None)
    except Exception as error:  # of somebody else's code
        raise DataError(
            f"the names of the classes of {type(dataset).__name__} cannot be read: {type(error).__name__}: "
            f"{one_line(error)}; give class_names"
        ) from error
    if isinstance(classes, str) or not hasattr(classes, "__len__"):
        classes = None
    if not isinstance(numbers, Mapping) or not numbers or not all(isinstance(n, int) for n in numbers.values()):
        return classes
    return numbers if classes is None or set(map(str, numbers)) == set(map(str, classes)) else classes


def _changed(table: Mapping[Label, str], change: Callable[[Any], Any]) -> Names:
    """Return the names by the labels after a ``target_transform``; none where it makes one of several."""
    changed: dict[Label, str] = {}
    for label, name in table.items():
        try:
            after = to_label(change(label), name)
        except Exception:  # a label that no sample has may be beyond what the function takes
            continue
        if after in changed:
            return Names()
        changed[after] = name
    try:
        return Names(dict(sorted(changed.items())) or None, own=True)
    except TypeError:  # texts and numbers
        return Names()
