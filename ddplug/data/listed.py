"""Pictures that a CSV file names with their classes, as most medical data come."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddplug.data.images import Folder
from ddplug.data.labels import Names
from ddplug.data.tables import MAX_LIST, cells, numbers_if_whole, place_of, place_of_persons, tell_of_missing
from ddplug.errors import DataError, OptionError
from ddplug.utils.notes import note

__all__ = ["Listed", "persons_of"]

_FILES = ("filename", "file_name", "file", "image", "image_id", "image_path", "filepath", "path", "id", "name")
_LABELS = ("label", "class", "target", "diagnosis", "dx", "category", "y")
_LOWER = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_ENDINGS = ("", *_LOWER, *map(str.upper, _LOWER))
"""What a picture's name may lack."""

_PARTS = ("split", "subset", "fold", "partition", "set", "phase", "dataset")
"""What columns are called that say which part of the data a picture belongs to."""


@dataclass(frozen=True)
class _Told:
    """What a list tells of pictures.

    Attributes:
        one: of a picture.
        all: of all pictures.
        usual: names of its column.
        ask: what to do where it may be one of several columns.
    """

    one: str
    all: str
    usual: tuple[str, ...]
    ask: str


_CLASSES = _Told("class", "classes", _LABELS, "add target=COLUMN (--target COLUMN), one of")
_PERSONS = _Told(
    "person",
    "persons",
    ("person", "person_id", "patient", "patient_id", "patientid", "subject", "subject_id"),
    "call it person; there are",
)


class Listed(Folder):
    """Images in a folder whose names and classes stand in a CSV file.

    Args:
        path: the folder.
        labels: the file, with a head: a column of names, relative to the folder and with or without an ending, and one
            of classes.
        target: name of the column of classes; ``None`` where it is called as usual, or is the only other one.
        size: see :class:`~ddplug.data.images.Folder`.
        progress: show a progress bar while the images' headers are looked at.

    Raises:
        DataError: the file cannot be read, or names a picture that is not there or lies outside the folder.
        OptionError: a column is not known.
    """

    def __init__(
        self, path: Path, labels: Path, target: str | None, size: tuple[int, int] | None, progress: bool
    ) -> None:
        if not path.is_dir():
            raise DataError(f"{path} is not a folder; give the one that holds the pictures")
        classes, again = _said(path, labels, target, _CLASSES)
        if again:
            note(f"{labels}: {again} lines name a picture that was named before; each picture is read once")
        texts = list(classes.values())
        tell_of_missing(labels, texts)
        self.path, self.size, self.progress, self._wanted = path, size, progress, None
        numbers, self.classes = Names().encode(numbers_if_whole(texts), path.resolve().name)
        self._samples = sorted(zip(classes, numbers.tolist(), strict=True))
        self.labels = labels

    @property
    def key(self) -> str:
        """What stays the same when files change."""
        return repr((super().key, str(self.labels.resolve())))

    def source(self) -> Iterator[str]:
        """Describe the files and their classes, line by line."""
        yield from super().source()
        yield hashlib.sha256(repr((self.classes, [label for _, label in self._samples])).encode()).hexdigest()


def persons_of(folder: Folder, root: Path, file: Path, column: str | None = None) -> tuple[str, ...]:
    """Return whose each picture of a folder is.

    Args:
        folder: of pictures, in their order.
        root: folder that names of pictures are relative to.
        file: CSV file with a head: a column of names, as of :class:`Listed`, and one of persons.
        column: name of that of the persons; ``None`` where it is called as usual, or is the only other one.

    Raises:
        DataError: the file cannot be read, or a picture has no person.
        OptionError: a column is not known.
    """
    found, _ = _said(root, file, column, _PERSONS)
    for picture in folder.paths:
        if os.path.normpath(picture) not in found:
            name = os.path.relpath(picture, root)
            raise DataError(f"{file} does not say whose {name} is; add a row for each picture")
    return tuple(found[os.path.normpath(picture)] for picture in folder.paths)


def _said(path: Path, file: Path, column: str | None, told: _Told) -> tuple[dict[str, str], int]:
    """Return what a list says of each picture, and how many of its lines name one again."""
    found: dict[str, str] = {}
    again = 0
    rows = cells(file, MAX_LIST)
    head = [name.strip() for name in next(rows, (0, []))[1]]
    name, own = _columns(file, head, column, told)
    if told is _CLASSES:
        _tell_of_parts(file, head, own)
    if _is_picture(path, head[name]):
        raise DataError(f"{file} begins with a picture, {head[name]}; put a row of column names first")
    for line, row in rows:
        picture, text = _found(path, row[name].strip(), file, line), row[own].strip()
        if not text:
            raise DataError(f"{file}, line {line}: column {head[own]!r} is empty; fill it in or drop the row")
        again += picture in found
        if found.setdefault(picture, text) != text:
            raise DataError(
                f"{file}, line {line}: {row[name].strip()} has {told.one} {text!r}, and {found[picture]!r} in a "
                "line before; keep one"
            )
    if not found:
        raise DataError(f"{file} names no picture; give a header row and one row for each picture")
    return found, again


def _tell_of_parts(file: Path, head: Sequence[str], label: int) -> None:
    """Tell of a column that divides the pictures, and is not read."""
    said = [name for k, name in enumerate(head) if k != label and name.casefold() in _PARTS]
    if said:
        note(
            f"{file}: column {said[0]!r} is not read, and a fifth of each class is the test part; if it says "
            "which picture is for tests, put the pictures of each class into folders within train and test"
        )


def _columns(path: Path, head: Sequence[str], column: str | None, told: _Told) -> tuple[int, int]:
    """Return the positions of the columns of names and of what is told of pictures."""
    if len(head) < 2:
        raise DataError(f"{path} has {len(head)} columns; it must have one of file names and one of {told.all}")
    plain = [name.casefold() for name in head]
    file = next((place_of(path, name, plain) for name in _FILES if name in plain), 0)
    if column is not None:
        own = (place_of_persons if told is _PERSONS else place_of)(path, column, head)
        if own == file:
            raise OptionError(
                f"column {column!r} of {path} holds the names of the pictures; give that of the {told.all}"
            )
        return file, own
    usual = [place_of(path, name, plain) for name in told.usual if name in plain]
    others = usual[:1] or [k for k in range(len(head)) if k != file]
    if len(others) != 1:
        raise OptionError(f"which column of {path} holds the {told.all} is not given; {told.ask}: {', '.join(head)}")
    return file, others[0]


def _is_picture(folder: Path, name: str) -> bool:
    """Tell whether a name that no column has is that of a file."""
    return "." in name and os.path.isfile(os.path.join(folder, name))


def _found(folder: Path, name: str, labels: Path, line: int) -> str:
    """Return the path of a picture, which must be in the folder; one picture has one path."""
    where = f"{labels}, line {line}"
    if not name or os.path.isabs(name) or ".." in Path(name).parts or "\0" in name:
        raise DataError(f"{where}: {name!r} is not a path inside {folder}; name the picture as it is called there")
    found = _file(folder, name) or _file(folder, name.replace("\\", "/"))  # as Windows writes paths
    if found is None:
        beside = next((base for base in (folder.parent, labels.parent) if _file(base, name)), None)
        more = f"give images:{beside}, from where it is called so" if beside else "drop the row, or add the picture"
        raise DataError(f"{where}: {name} is not in {folder}; {more}")
    return found


def _file(folder: Path, name: str) -> str | None:
    """Return the path of a picture whose name may lack the ending; ``None`` where there is none."""
    paths = (os.path.normpath(os.path.join(folder, name + ending)) for ending in _ENDINGS)
    return next(filter(os.path.isfile, paths), None)
