"""Whatever holds real labeled data, turned into :class:`~ddplug.data.LabeledData`: the one door of all functions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from torch.utils.data import DataLoader, Dataset

from ddplug.data.datasets import load
from ddplug.data.items import INPUTS, LABELS
from ddplug.data.labeled import LabeledData
from ddplug.data.loaders import from_arrays, from_dataset
from ddplug.errors import DataError
from ddplug.utils.surroundings import own_surroundings

__all__ = ["Data", "as_labeled"]

Data: TypeAlias = LabeledData | Dataset[Any] | DataLoader[Any] | tuple[Any, Any] | str | os.PathLike[str]
"""What :func:`as_labeled` takes."""

_WHAT_TO_CALL: Mapping[str, str] = {
    "DataFrame": "ddplug.from_arrays(frame[columns].to_numpy(float), frame[label])",
    "Tensor": "ddplug.from_arrays(inputs, labels)",
    "ndarray": "ddplug.from_arrays(inputs, labels)",
    "bytes": "the name as a text",
    "NoneType": 'a torch Dataset, ddplug.load_dataset("digits") or ddplug.from_arrays(inputs, labels)',
}
"""Type of what is no labeled data -> what to give instead."""

_KEYS = ((INPUTS, ("data", "X")), (LABELS, ()))
"""What arrays of inputs and of labels are called in dictionaries, those of scikit-learn included."""


@own_surroundings()
def as_labeled(data: Any, split: str = "train", *, what: str = "data") -> LabeledData:
    """Return labeled data, whatever holds them.

    Args:
        data: labeled data, which are given back as they are; a torch ``Dataset`` or ``DataLoader``
            (:func:`ddplug.data.from_dataset`); ``(inputs, labels)``, two arrays or tensors
            (:func:`ddplug.data.from_arrays`); a synthetic set with hard labels; a data set's name or a folder of images
            (:func:`ddplug.data.load_dataset`).
        split: the part that is meant by a name or a folder, ``"train"`` or ``"test"``.
        what: how to call the data in an error.

    Returns:
        The data, with all of the options of those functions as they are by default.

    Raises:
        DataError: it is nothing of the kind, or the data are unfit.
        OptionError: the name is not known, or needs a folder.

    Example:
        >>> len(as_labeled("digits", "test")), as_labeled(([[0.0], [1.0]], ["off", "on"])).class_names
        (359, ('off', 'on'))
    """
    if isinstance(data, LabeledData):
        return data
    if isinstance(data, (str, os.PathLike)):
        return load(data, split=split)
    if hasattr(data, "pixels") and hasattr(data, "preprocess"):  # a set, of real data perhaps: its items are no pixels
        return from_arrays(data.pixels(), data.targets, preprocess=data.preprocess, class_names=data.class_names)
    if isinstance(data, tuple) and len(data) == 2 and all(map(_is_data, data)):
        raise DataError(f"{what}: these are two data sets, as for training and for tests; give one of them, data[0]")
    if isinstance(data, tuple) and len(data) == 2 and not isinstance(data[0], (tuple, Mapping)):  # no two items
        return from_arrays(*data)
    fit = isinstance(data, DataLoader) or hasattr(data, "__getitem__")
    if fit and not isinstance(data, Mapping) and type(data).__name__ not in _WHAT_TO_CALL:
        return from_dataset(data)
    raise DataError(f"{what}: {_instead_of(data)}")


def _instead_of(data: Any) -> str:
    """Say what to give in the place of what holds no labeled data."""
    kind = type(data).__name__
    if kind in _WHAT_TO_CALL:
        return f"a {kind} holds no labeled data; give {_WHAT_TO_CALL[kind]}"
    if isinstance(data, Mapping):
        return f"a {kind} of {', '.join(map(repr, list(data)[:5]))} is not a data set; {_of_mapping(data)}"
    if isinstance(data, Iterator):
        return f"a {kind} is not a data set; give list(...) of it"
    return f"a {kind} is not a data set; give a torch Dataset, the name of a data set, a folder, or LabeledData"


def _is_data(part: Any) -> bool:
    """Tell whether one of two is a data set by itself, ``(inputs, labels)`` included; an item has one label."""
    if isinstance(part, (tuple, list)) and len(part) == 2:
        return len(getattr(part[1], "shape", ())) == 1 and len(part[1]) > 1
    return isinstance(part, (Dataset, DataLoader, LabeledData))


def _of_mapping(data: Mapping[Any, Any]) -> str:
    """Say what to give in the place of a dictionary: of arrays, or of the parts of a data set."""
    inputs, labels = (next((name for name in (*names, *more) if name in data), None) for names, more in _KEYS)
    if inputs is not None and labels is not None:
        return f"give ddplug.from_arrays(data[{inputs!r}], data[{labels!r}])"
    return "give one of its values, or ddplug.from_arrays(inputs, labels)"
