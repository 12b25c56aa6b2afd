"""Whose each record is: named by a column, by a file with a name a line, or by a list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.data.tables import MAX_LIST, cells, text_lines
from ddplug.errors import DataError, OptionError
from ddplug.utils.checks import as_python
from ddplug.utils.paths import local

__all__ = ["Persons", "Whose", "owned", "whose"]

Whose: TypeAlias = str | os.PathLike[str] | Sequence[Any] | NDArray[Any] | Tensor
"""What :func:`ddplug.data.load_dataset` takes: a column or a file, or a person for each record."""

Persons: TypeAlias = str | Path | tuple[str, ...]
"""The same, told apart: the name of a column, a file, or names."""

_TABLES = (".csv", ".tsv")


def whose(persons: Whose) -> Persons:
    """Tell a column from a file and a list: a text that is no file is the name of a column.

    Args:
        persons: as they were given.

    Raises:
        OptionError: it is nothing of the kind.

    Example:
        >>> whose("patient"), whose([7, 7, 8])
        ('patient', ('7', '7', '8'))
    """
    if isinstance(persons, str) and not os.path.isfile(os.path.expanduser(persons)):
        return persons
    if isinstance(persons, (str, os.PathLike)):
        return Path(local(persons))
    try:
        return tuple(map(str, as_python(persons)))
    except TypeError:
        raise OptionError(
            f"persons is a {type(persons).__name__}; give a column, a file, or a list with one for each record"
        ) from None


def owned(data: LabeledData, persons: Persons | None) -> LabeledData:
    """Say whose each record is.

    Args:
        data: real data in the order in which they came; what a column of theirs says stays.
        persons: a file or names, one for each record.

    Raises:
        OptionError: it is a column, and the data have none.
        DataError: the file cannot be read, or there are more names than records, or fewer.
    """
    if persons is None or data.persons:
        return data
    if isinstance(persons, str):
        raise OptionError(
            f"persons is {persons!r}: there is no such file, and {data.name!r} has no columns; give a text file with a "
            "name a line, one for each record"
        )
    names = _read(persons) if isinstance(persons, Path) else persons
    if len(names) != len(data):
        who = persons if isinstance(persons, Path) else "persons"
        raise DataError(
            f"{who} names {len(names)}, and {data.name!r} has {len(data)} records; name one for each, in their order"
        )
    return replace(data, persons=names)


def _read(path: Path) -> tuple[str, ...]:
    """Read a name a line; a CSV file has a head before them, as other tables have."""
    if path.suffix.casefold() in _TABLES:
        rows = [row for _, row in cells(path, MAX_LIST)]
        if rows and len(rows[0]) > 1:
            raise DataError(f"{path} has {len(rows[0])} columns; keep a head and the column of the persons alone")
        found = [row[0].strip() for row in rows[1:]]
    else:
        found = [line.strip() for line in text_lines(path, MAX_LIST)]
    for number, name in enumerate(found, 1):
        if not name:
            raise DataError(f"{path}: name {number} is empty; give each record a person")
    return tuple(found)
