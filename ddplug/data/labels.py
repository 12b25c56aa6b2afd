"""Labels of any kind as classes ``0..C-1``, each of which keeps its name."""

from __future__ import annotations

import operator
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddplug.data.checks import refuse_masked, refuse_meta
from ddplug.errors import DataError
from ddplug.utils.checks import scalar
from ddplug.utils.notes import note

__all__ = ["Label", "Names", "to_label", "to_labels"]

Label: TypeAlias = int | str


def to_labels(values: Any, what: str) -> NDArray[Any]:
    """Turn labels, integers or texts, into a ``(N,)`` array of int64 or of texts.

    Args:
        values: a tensor, or what :func:`numpy.asarray` takes; a column, ``(N, 1)``, is as good.
        what: how to call the data in an error.

    Raises:
        DataError: they are neither integers nor texts, or not one a sample.
    """
    given = values
    if isinstance(values, (list, tuple)) and values and all(isinstance(value, Tensor) for value in values):
        values = [to_label(value, f"{what}, sample {index}") for index, value in enumerate(values)]
    if isinstance(values, Tensor):
        refuse_meta(values, f"{what}: the labels")
        values = values.detach().cpu().to_dense()
    try:
        array = np.asanyarray(values)
    except (TypeError, ValueError):  # numpy knows no bfloat16
        differs = not isinstance(values, Tensor)
        reason = "differ in shape" if differs else f"are {values.dtype}"
        raise DataError(f"{what}: the labels {reason}; give one whole number per sample, shape (N,)") from None
    refuse_masked(array, f"{what}: the labels")
    array = np.asarray(array)  # rows of a matrix are matrices
    if array.dtype.kind in "SU" and isinstance(values, (list, tuple)) and len(set(map(type, values))) > 1:
        array = np.array([*values, None], dtype=object)[:-1]  # numpy makes a text of None, NaN and numbers
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.size == 0:
        return np.zeros(len(array) if array.ndim else 0, np.int64)
    if array.ndim == 0:
        raise DataError(f"{what}: the labels are one {type(given).__name__}; give a list or an array, one per sample")
    if array.ndim != 1:
        raise DataError(
            f"{what}: the labels have the shape {array.shape}; give one per sample, shape (N,){_one_of(array, given)}"
        )
    return _plain(array, given, what)


def _one_of(array: NDArray[Any], given: Any) -> str:
    """Say how rows of labels become labels: of those that are one-hot only the place of the 1 is no loss."""
    if array.ndim != 2:
        return ""
    if len(array) == 1:
        return "; give labels[0]"
    numbers = array.dtype.kind in "biuf"
    if not numbers or not bool((array >= 0).all()) or not np.allclose(array.astype(float).sum(1), 1, atol=1e-3):
        return "; of several columns give one: each sample has one class"
    if hasattr(given, "idxmax"):  # a table of pandas
        return "; of one-hot labels give labels.idxmax(axis=1)"
    return f"; of one-hot labels give {'labels.argmax(1)' if hasattr(given, 'argmax') else 'np.argmax(labels, 1)'}"


def _plain(array: NDArray[Any], given: Any, what: str) -> NDArray[Any]:
    """Turn ``(N,)`` values of one type into int64 or texts; ``given`` is what they came as."""
    if array.dtype.kind == "O":
        labels = [to_label(value, f"{what}, sample {index}") for index, value in enumerate(array.tolist())]
        return joined(labels, what)
    if array.dtype.kind == "S":
        return np.char.decode(array, "utf-8", "backslashreplace")  # one text for each label
    if array.dtype.kind == "U":
        return array
    if array.dtype.kind not in "iub":
        number = array.dtype.kind == "f"
        whole = number and bool((array == np.floor(array)).all())
        nan = " with NaN" if number and bool(np.isnan(array).any()) else ""
        hint = f" ({_as_integers(given)})" if whole else "; drop the samples without a label" if nan else ""
        raise DataError(f"{what}: the labels are {array.dtype}{nan}; give integers, 0, 1, 2, ..., or texts{hint}")
    if array.dtype == np.uint64 and array.max() >= 2**63:
        raise _too_large(what)
    return array.astype(np.int64)


def _as_integers(given: Any) -> str:
    """Say how labels that are whole numbers, but of a type with fractions, become integers."""
    if isinstance(given, Tensor):
        return "labels.long()"
    return "labels.astype(int)" if hasattr(given, "astype") else "np.asarray(labels, int)"


def _too_large(what: str) -> DataError:
    return DataError(f"{what}: the labels do not fit 64 bits; number the classes 0, 1, 2, ...")


def to_label(value: Any, what: str) -> Label:
    """Turn one label into an ``int`` or a text.

    Args:
        value: an integer or a text, or an array or a tensor that holds a single one.
        what: how to call it in an error.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, (Tensor, np.ndarray, np.generic, list, tuple)):
        if isinstance(value, Tensor):
            refuse_meta(value, f"{what}: the label's numbers")
            value = value.detach().cpu()
        found = np.asarray(value)
        if found.size != 1:
            raise DataError(
                f"{what}: the label has the shape {found.shape}; give one integer or text (of a one-hot label, argmax)"
            )
        value = found.item()
        if isinstance(value, str):
            return value
    try:
        return operator.index(value)
    except TypeError:
        hint = f" (int({value!r}))" if isinstance(value, float) and value.is_integer() else ""
        raise DataError(
            f"{what}: the label is {value!r}; it must be an integer, 0, 1, 2, ..., or a text{hint}"
        ) from None


def joined(labels: list[Label], what: str) -> NDArray[Any]:
    """Make one array of labels that were read one by one.

    Raises:
        DataError: some are texts and others are not, or they do not fit int64.
    """
    texts = sum(isinstance(label, str) for label in labels)
    if texts not in (0, len(labels)):
        raise DataError(f"{what}: {texts} of {len(labels)} labels are texts and the others integers; give one kind")
    try:
        return np.array(labels, dtype=str if texts else np.int64)
    except OverflowError:
        raise _too_large(what) from None


@dataclass(frozen=True)
class Names:
    """The names of labels.

    Attributes:
        table: label -> name, in the order of the classes; ``None`` where the labels are all there is.
        own: whether the data brought them: such names may be of classes that are not there.
    """

    table: Mapping[Label, str] | None = None
    own: bool = False

    @staticmethod
    def given(class_names: Any, what: str, own: bool = False) -> Names:
        """Take names as they are given.

        Args:
            class_names: one name a label, counted from 0; or label -> name, as ``id2label`` has them; or
                name -> label, as ``class_to_idx``; or ``None``.
            what: how to call the data in an error.
            own: see :class:`Names`.

        Raises:
            DataError: it is none of these.
        """
        if class_names is None:
            return Names()
        if hasattr(class_names, "to_dict") and hasattr(class_names, "index"):
            class_names = class_names.to_dict()  # of a pandas series, whose index may be in any order
        if isinstance(class_names, Mapping):
            return Names(_table(class_names, what) or None, own)
        if isinstance(class_names, (set, frozenset)):
            raise DataError(f"{what}: class_names is a set, which has no order; give sorted(class_names)")
        if isinstance(class_names, str) or not isinstance(class_names, Iterable):
            raise DataError(f"{what}: class_names is {class_names!r}; give one name per class, such as ['cat', 'dog']")
        names = [_name(name, what) for name in class_names]
        return Names(dict(enumerate(names)) if names else None, own)

    def encode(self, labels: NDArray[Any], what: str) -> tuple[Tensor, tuple[str, ...]]:
        """Number the labels ``0..C-1``, in the order of the names or, without any, of the labels.

        Args:
            labels: ``(N,)`` from :func:`to_labels`, at least one.
            what: how to call the data in an error.

        Returns:
            ``(N,)`` int64 classes and their names.

        Raises:
            DataError: there are fewer than two classes, a label without a name, or a name without a sample.
        """
        values, inverse = np.unique(labels, return_inverse=True)
        present: list[Label] = values.tolist()
        if isinstance(present[0], str) and not present[0].strip():
            raise DataError(f"{what}: {int((inverse == 0).sum())} samples have an empty text for a label; drop them")
        table = self._for(present, what)
        self._check_missing(table, present, what)
        if len(present) < 2:
            raise DataError(f"{what}: every sample has label {present[0]}; at least 2 classes are needed")
        known = set(present)
        classes = [label for label in table if label in known]
        _tell_of_twins([table[label] for label in classes], what)
        if classes == list(range(len(classes))):
            targets = torch.from_numpy(labels)
        else:
            position = {label: number for number, label in enumerate(classes)}
            targets = torch.from_numpy(np.array([position[label] for label in present])[inverse])
        return targets, tuple(table[label] for label in classes)

    def _for(self, present: list[Label], what: str) -> Mapping[Label, str]:
        """Return the names by the labels that are there, all of which have one."""
        table: Mapping[Label, str] | None = self.table
        text = isinstance(present[0], str)
        if table is not None and text and not all(isinstance(label, str) for label in table):
            table = {name: name for name in table.values()}
        if table is not None and text:
            # names of a data set whose labels say something else
            table = None if self.own and not set(present) <= set(table) else table
        if table is None:
            table = {label: str(label) for label in present}
            return table if text else _not_negative(table, present, what)
        if present == list(range(1, len(table) + 1)) and list(table) == list(range(len(table))):
            return {number + 1: name for number, name in enumerate(table.values())}
        nameless = [label for label in present if label not in table]
        if nameless and not text:
            _not_negative(table, nameless, what)
        if nameless:
            names = "names" if text else f"names ({min(table)}..{max(table)})"
            raise DataError(f"{what}: label {nameless[-1]} is beyond the {len(table)} class {names}; name every class")
        return table

    def _check_missing(self, table: Mapping[Label, str], present: list[Label], what: str) -> None:
        known = set(present)
        missing = [label for label in table if label not in known]
        if not missing:
            return
        some = ", ".join(_shown(label, table[label]) for label in islice(missing, 5))
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        if not self.own:
            raise DataError(
                f"{what}: no sample has label {some}{more}; add some, or give class_names as {{label: name}} of those "
                "that are there"
            )
        note(f"{what}: no sample has label {some}{more}, of {len(table)} classes; the data are of {len(present)}")


def _name(value: Any, what: str) -> str:
    """Return a name as a text: ImageNet has tuples of words, and arrays have texts of their own.

    Raises:
        DataError: it is none.
    """
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, (list, tuple, np.ndarray)) and np.size(value):
        return ", ".join(_name(word, what) for word in value)
    value = scalar(value)
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{what}: a class name is {value!r}; give each class a name")
    return str(value)


def _shown(label: Label, name: str) -> str:
    return name if label == name else f"{label} ({name})"


def _not_negative(table: Mapping[Label, str], present: list[Label], what: str) -> Mapping[Label, str]:
    """Refuse negative labels, which often mean that there is none."""
    low = present[0]
    if isinstance(low, int) and low < 0:
        raise DataError(f"{what}: label {low} is negative; drop samples without a label, or number the classes from 0")
    return table


def _tell_of_twins(names: Iterable[str], what: str) -> None:
    """Tell of classes that may be one: a file system or a hand wrote the name in another way."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        found.setdefault(unicodedata.normalize("NFKC", name).casefold().strip(), []).append(name)
    alike = [twins for key, twins in found.items() if len(twins) > 1 and len(key) > 1]  # letters are of both cases
    if alike:
        some = " and ".join(map(ascii, alike[0]))
        note(
            f"{what}: classes {some} differ only in spaces, the case of letters or their encoding; join them if they "
            "are one"
        )


def _joined_names(pairs: Iterable[tuple[int, str]]) -> dict[int, str]:
    """Return label -> name; ImageNet has several names for a class, which are one as in :func:`_name`."""
    found: dict[int, list[str]] = {}
    for label, name in pairs:
        found.setdefault(label, []).append(name)
    return {label: ", ".join(names) for label, names in found.items()}


def _table(names: Mapping[Any, Any], what: str) -> dict[Label, str]:
    """Return label -> name of a mapping in either direction; JSON makes texts of numbers."""
    pairs = list(names.items())
    if all(isinstance(name, str) and not isinstance(label, str) for name, label in pairs):
        pairs = [(label, name) for name, label in pairs]
    try:
        named = _joined_names((int(label), _name(name, what)) for label, name in pairs)
        return {label: named[label] for label in sorted(named)}
    except (TypeError, ValueError):
        if all(isinstance(label, str) for label, _ in pairs):
            return {label: _name(name, what) for label, name in pairs}
        raise DataError(f"{what}: class_names is {dict(names)!r}; give label -> name, such as {{0: 'cat'}}") from None
