"""Arrays of NumPy in one ``.npz`` file, as data sets in one piece or in parts."""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ddplug.data.labeled import LabeledData
from ddplug.data.loaders import from_arrays
from ddplug.data.preprocess import Preprocess
from ddplug.errors import DataError
from ddplug.utils.notes import note
from ddplug.utils.paths import check_regular
from ddplug.utils.text import one_line, os_reason

__all__ = ["opened_npz"]

_NAMES = (
    ("x", "y"),
    ("X", "y"),
    ("images", "labels"),
    ("inputs", "targets"),
    ("features", "labels"),
    ("embeddings", "labels"),
    ("pixels", "targets"),
    ("data", "target"),
)
"""What arrays of inputs and of labels are called in ``.npz`` files."""

_PARTS: Mapping[str, tuple[str, ...]] = {
    "train": ("{}_train", "train_{}", "{}"),
    "test": ("{}_test", "test_{}", "{}_val", "val_{}"),
}
"""Part of a data set -> how its arrays are then called."""


@contextlib.contextmanager
def opened_npz(path: Path, max_memory: int) -> Iterator[Callable[[str, str | Preprocess], LabeledData | None]]:
    """Open a file of arrays, and tell of those in it that are not read.

    Args:
        path: the file.
        max_memory: bytes that all of its arrays may take.

    Yields:
        Function of a part, ``"train"`` or ``"test"``, and a preprocessing that gives that part; ``None`` where
        there is none to test on.

    Raises:
        DataError: the file cannot be read, is too large, or holds no arrays that are called as data are.
    """
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            need = sum(info.file_size for info in archive.infolist())
        if need > max_memory:
            raise DataError(
                f"{path}: its arrays take {need / 2**20:.0f} MiB, above max_memory = {max_memory / 2**20:.0f} MiB; "
                "give a part of them, or load_dataset a larger max_memory"
            )
        with _archive(path) as held:
            _tell_of_others(path, held)
            yield partial(_part, path, held)
    except OSError as error:
        raise DataError(f"cannot read {path}: {os_reason(error)}; check the path") from None
    except (zipfile.BadZipFile, EOFError, KeyError, NotImplementedError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not an .npz file that can be read ({one_line(error, most=200)}); np.savez writes one"
        ) from None


def _forms(part: str, held: Any) -> Iterator[tuple[str, str]]:
    """Give what the arrays of inputs and of labels of a part are called, as far as both are there."""
    for form in _PARTS[part]:
        for names in _NAMES:
            inputs, labels = (form.format(name) for name in names)
            if inputs in held and labels in held:
                yield inputs, labels


def _tell_of_others(path: Path, held: Any) -> None:
    """Tell of arrays that are called like data and not read: those of one part lack inputs or labels, or come twice."""
    read = {name for part in _PARTS for name in next(_forms(part, held), ())}
    called = {form.format(name) for forms in _PARTS.values() for form in forms for names in _NAMES for name in names}
    others = [name for name in held if name in called - read and "val" not in name.split("_")]
    if read and others:
        note(f"{path}: {len(others)} of {len(list(held))} arrays are not read: {', '.join(others[:5])}")


def _archive(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except ValueError:  # it ends as an archive does, and does not begin so
        raise zipfile.BadZipFile("it does not begin as one") from None


def _part(path: Path, held: Any, part: str, preprocess: str | Preprocess) -> LabeledData | None:
    """Make a part of the arrays of a file; ``None`` where it has no such part."""
    found = next(_forms(part, held), None)
    if found is not None:
        classes = _array(path, held, "class_names").tolist() if "class_names" in held else None
        inputs, labels = (_array(path, held, name) for name in found)
        return from_arrays(inputs, labels, preprocess=preprocess, class_names=classes, name=path.stem)
    if part == "test":
        return None
    raise DataError(
        f"{path} holds {', '.join(list(held)[:8])}; call the arrays x and y, x_train, y_train, x_test and y_test, or "
        "as MedMNIST does: train_images, train_labels, test_images, test_labels"
    )


def _check_size(archive: zipfile.ZipFile, name: str) -> None:
    """Refuse an array that claims more than the file has, before numpy makes room for what it claims."""
    member = archive.getinfo(name if name in archive.namelist() else f"{name}.npy")
    with archive.open(member) as file:
        header = np.lib.format.read_array_header_1_0
        if np.lib.format.read_magic(file) != (1, 0):
            header = np.lib.format.read_array_header_2_0
        shape, _, kind = header(file)
    if math.prod(shape) * kind.itemsize > member.file_size and not kind.hasobject:
        raise ValueError("fewer bytes than its shape claims")


def _array(path: Path, held: Any, name: str) -> Any:
    try:
        _check_size(held.zip, name)
        return held[name]
    except Exception as error:  # of objects, or damaged: what unpacks archives and arrays raises anything
        if isinstance(error, (zipfile.BadZipFile, zlib.error, EOFError)):
            raise DataError(f"{path}: array {name!r} is damaged ({one_line(error)}); save it again") from None
        reason = "Python objects, which are never loaded" if "allow_pickle" in str(error) else one_line(error)
        raise DataError(
            f"{path}: array {name!r} holds {reason}; save plain numbers or texts "
            "(array.astype(str)), and inputs of one shape"
        ) from None
