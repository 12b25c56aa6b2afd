"""Tables with names over their columns, from CSV and Parquet: numbers to learn from, and one column of labels."""

from __future__ import annotations

import csv
import math
import os
import re
import shlex
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ddplug.errors import DataError, MissingExtraError, OptionError, unknown
from ddplug.utils.notes import note
from ddplug.utils.paths import check_regular
from ddplug.utils.text import known_by, one_line, os_reason

__all__ = [
    "MAX_LIST",
    "Table",
    "cells",
    "numbers_if_whole",
    "place_of",
    "place_of_persons",
    "read_csv",
    "read_parquet",
    "tell_of_missing",
    "text_lines",
]

MAX_LIST = 256 << 20
"""Bytes that a list may have, of pictures or of persons."""

_MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
"""What stands in cells that have no value."""

_MAYBE_MISSING = (_MISSING - {""}) | {"<na>"}
"""What stands for a label that is not there, though a class may be called so."""

_INDEX = re.compile(r"|unnamed: \d+|index|idx|id|row|rownames|level_0", re.IGNORECASE)
"""What columns that number the rows are called; pandas leaves its index without a name."""

_TRUTHS = {"true": 1.0, "false": 0.0}

_SEPARATORS = ",;\t"

_SAID = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)
"""First line in which Excel says what separates the cells."""

_QUOTED = re.compile(r'"[^"]*"')

_LINES_OF_HEAD = 20
"""Lines that a head may have: names in quotes may hold breaks."""

_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
"""A whole number as tables have it; Python would read ``1_2`` as 12."""


@dataclass(frozen=True)
class Table:
    """Numbers and labels.

    Attributes:
        inputs: ``(N, F)`` float32.
        labels: ``(N,)`` integers or texts.
        columns: names of the ``F`` columns.
        target: name of the column of labels.
        persons: ``(N,)`` whose each row is, where a column says so; ``()`` otherwise.
    """

    inputs: NDArray[np.float32]
    labels: NDArray[Any]
    columns: tuple[str, ...]
    target: str
    persons: tuple[str, ...] = ()


def cells(path: Path, max_memory: int) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a CSV file, separated by what stands most in its head, outside quotes: comma, semicolon or tab.

    A first line such as ``sep=;``, which Excel writes, says it instead.

    Args:
        path: the file, in UTF-8.
        max_memory: bytes that it may have.

    Yields:
        Number of the line and the cells, the head first; rows without a cell are left out.

    Raises:
        DataError: the file cannot be read, is too large, or a row has more or fewer cells than the head.
    """
    with _opened(path, max_memory) as file:
        separator = _separator(file)
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
        width = 0
        try:
            for row in reader:
                if not any(row):
                    continue
                width = width or len(row)
                if len(row) != width:
                    raise DataError(
                        f"{path}, line {reader.line_num}: {len(row)} cells under {width} names; make them as many"
                    )
                yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{path} is not a CSV file that can be read ({one_line(error)}); fix it") from None


def text_lines(path: Path, max_memory: int) -> list[str]:
    """Read the lines of a text file, without empty ones at its end.

    Args:
        path: the file, in UTF-8.
        max_memory: bytes that it may have.

    Raises:
        DataError: the file cannot be read, or is too large.
    """
    with _opened(path, max_memory) as file:
        return file.read().rstrip().splitlines()


@contextmanager
def _opened(path: Path, max_memory: int) -> Iterator[TextIO]:
    """Open a text file, and say in one line what keeps it from being read."""
    _check_size(path, max_memory)
    try:
        check_regular(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise DataError(f"cannot read {path}: {os_reason(error)}; check the path") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text in UTF-8; save it so, or name what it is, as npz:FILE") from None


def _separator(file: TextIO) -> str:
    """Find what separates the cells, and leave the file where its head begins."""
    said = _SAID.fullmatch(file.readline())
    if said:
        return said[1]
    file.seek(0)
    head = ""
    for line in islice(file, _LINES_OF_HEAD):
        head += line
        if head.strip() and head.count('"') % 2 == 0:
            break
    file.seek(0)
    return max(_SEPARATORS, key=_QUOTED.sub("", head).count)


def read_csv(
    path: Path, target: str | None, ignore: Sequence[str], max_memory: int, persons: str | None = None
) -> Table:
    """Read a CSV file with a head.

    Args:
        path: the file.
        target: name of the column of labels.
        ignore: names of columns to leave out.
        max_memory: bytes that the file may have.
        persons: name of the column that says whose each row is, which is not learned from.

    Raises:
        OptionError: no target is given, or a column is not there.
        DataError: a cell is empty or no number where it must be one, or the file cannot be read.
    """
    rows = cells(path, max_memory)
    names = [name.strip() for name in next(rows, (0, []))[1]]
    label, kept, person = _columns(path, names, target, ignore, persons)
    numbers, labels, lines, owners = array("f"), list[str](), array("q"), list[str]()
    for line, row in rows:
        lines.append(line)
        labels.append(_label(path, line, names[label], row[label]))
        owners += [] if person is None else [_person(path, line, names[person], row[person])]
        try:
            numbers.extend([_number(row[k]) for k in kept])
        except ValueError:
            raise _no_number(path, line, names, row, kept) from None
    inputs = np.frombuffer(numbers, np.float32).reshape(-1, len(kept)) if labels else np.zeros((0, 1), np.float32)
    return _table(path, inputs, labels, owners, names, label, kept, lines)


def _table(
    path: Path,
    inputs: NDArray[np.float32],
    labels: Sequence[Any],
    owners: Sequence[str],
    names: Sequence[str],
    label: int,
    kept: Sequence[int],
    lines: Sequence[int],
) -> Table:
    """Put together what was read, and tell of what looks as if it were no number or no class."""
    columns = _told_apart([names[k] for k in kept])
    _check_finite(path, inputs, columns, lines)
    _tell_of_counts(path, inputs, columns)
    tell_of_missing(path, labels)
    return Table(inputs, numbers_if_whole(labels), columns, names[label], tuple(owners))


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Number the names that several columns have, as pandas does: ``a``, ``a.1``; names tell which column is which."""
    found: dict[str, None] = {}
    for name in names:
        others = (f"{name}.{number}" for number in count(1))
        found[name if name not in found else next(other for other in others if other not in found)] = None
    return tuple(found)


def tell_of_missing(path: Path, labels: Sequence[Any]) -> None:
    """Tell of labels that may be what stands for none."""
    missing = [label for label in labels if isinstance(label, str) and label.casefold() in _MAYBE_MISSING]
    if missing:
        note(
            f"{path}: {len(missing)} labels are {missing[0]!r}, which is taken for a class; drop these rows if it is "
            "not one"
        )


def _tell_of_counts(path: Path, inputs: NDArray[np.float32], columns: Sequence[str]) -> None:
    """Tell of columns that number the rows, as pandas writes an index: these tell classes that lay together.

    After a draw of rows the numbers are in any order, and some are not there; half of them must be.
    """
    if len(inputs) < 3:
        return
    for name, values in zip(columns, inputs.T, strict=True):
        if _INDEX.fullmatch(name) is None or values.min() < 0 or values.max() >= 2 * len(values):
            continue
        if bool((values == np.floor(values)).all()) and len(np.unique(values)) == len(values):
            note(
                f"{path}: column {name!r} numbers the rows, and is learned from; leave it out by ignore=[{name!r}] "
                f"(--ignore {shlex.quote(name)}) if it is an index"
            )


def read_parquet(
    path: Path, target: str | None, ignore: Sequence[str], max_memory: int, persons: str | None = None
) -> Table:
    """Read a Parquet file; see :func:`read_csv`.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError(
            f"{path}: Parquet needs pyarrow; run pip install pyarrow, or save the table as CSV"
        ) from None
    _check_size(path, max_memory)
    try:
        check_regular(path)
        found = parquet.ParquetFile(path)
        need = 4 * found.metadata.num_rows * found.metadata.num_columns
        if need > max_memory:
            raise DataError(f"{path}: {_too_large(need, max_memory)}")
        table = found.read()
    except OSError as error:
        raise DataError(f"cannot read {path}: {one_line(error, most=200)}; check the path") from None
    except ValueError as error:  # pyarrow's own errors are such
        raise (
            error
            if isinstance(error, DataError)
            else DataError(f"{path} is not a Parquet file that can be read ({one_line(error, most=200)}); fix it")
        ) from None
    names = list(table.column_names)
    label, kept, person = _columns(path, names, target, ignore, persons)
    columns = []
    for k in kept:
        values = table.column(k).to_numpy()
        if values.dtype.kind not in "biuf":
            raise _category(path, names[k], f"of the type {table.schema.field(k).type}")
        columns.append(values.astype(np.float32))
    inputs = np.stack(columns, 1) if len(table) else np.zeros((0, 1), np.float32)
    labels = [_label(path, row, names[label], value) for row, value in enumerate(table.column(label).to_pylist())]
    owners = list[str]()
    if person is not None:
        said = enumerate(table.column(person).to_pylist())
        owners = [_person(path, row, names[person], value) for row, value in said]
    return _table(path, inputs, labels, owners, names, label, kept, range(len(inputs)))


def _check_size(path: Path, max_memory: int) -> None:
    size = os.path.getsize(path) if os.path.isfile(path) else 0
    if size > max_memory:
        raise DataError(f"{path}: {_too_large(size, max_memory)}")


def _too_large(size: int, max_memory: int) -> str:
    return (
        f"it takes {size / 2**20:.0f} MiB, above max_memory = {max_memory / 2**20:.0f} MiB; give a part of the rows, "
        "or load_dataset a larger max_memory"
    )


def _columns(
    path: Path, names: list[str], target: str | None, ignore: Sequence[str], persons: str | None
) -> tuple[int, list[int], int | None]:
    """Return the positions of the column of labels, of those to learn from, and of that of the persons."""
    if len(names) < 2:
        raise DataError(
            f"{path} has {len(names)} columns; it must have a header row of column names, one of them for the "
            "labels, with a comma, a semicolon or a tab between them"
        )
    if all(_is_number(name) for name in names):
        raise DataError(f"{path} begins with numbers; put a row with the names of its columns before them")
    if target is None:
        some = ", ".join(map(repr, names[-5:]))
        raise OptionError(
            f"which column of {path} holds the labels is not given; add target=COLUMN (--target COLUMN), such as one "
            f"of the last: {some}"
        )
    label, *ignored = (place_of(path, name, names) for name in (target, *ignore))
    person = None if persons is None else place_of_persons(path, persons, names)
    if person == label:
        raise OptionError(f"column {persons!r} of {path} holds the labels; give that of the persons, or a file")
    kept = [k for k in range(len(names)) if k not in (label, person) and k not in ignored]
    if not kept:
        raise OptionError(f"{path}: no column is left to learn from; ignore fewer")
    return label, kept, person


def place_of_persons(path: Path, name: str, names: Sequence[str]) -> int:
    """Return the position of the column that says whose each row is; see :func:`place_of`."""
    try:
        return place_of(path, name, names)
    except OptionError as error:
        raise OptionError(f"{error}; nor is there a file of that name") from None


def place_of(path: Path, name: Any, names: Sequence[str]) -> int:
    """Return the position of the one column of a name.

    Raises:
        OptionError: there is none.
        DataError: there are several.
    """
    found = [k for k, own in enumerate(names) if name == own]
    found = found or [k for k, own in enumerate(names) if known_by(str(name)) == known_by(own)]
    if not found:
        more = "; its first line must hold the names of the columns" if any(map(_is_number, names)) else ""
        raise OptionError(f"{unknown(f'column of {path}', name, list(names))}{more}")
    if len(found) > 1:
        raise DataError(f"{path}: {len(found)} columns are called {name!r}; rename all but one")
    return found[0]


def _number(text: str) -> float:
    """Read a number, or a truth, as pandas.get_dummies makes them."""
    truth = _TRUTHS.get(text.strip().casefold())
    if "_" in text:  # an identifier, where Python has a way to write long numbers
        raise ValueError(text)
    return float(text) if truth is None else truth


def _is_number(text: str) -> bool:
    try:
        _number(text)
    except ValueError:
        return False
    return True


def _label(path: Path, line: int, name: str, value: Any) -> Any:
    """Take a label as it stands, unless there is none."""
    value = value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
    if isinstance(value, (dict, list)):
        raise DataError(
            f"{path}: column {name!r} of the labels holds a {type(value).__name__} a row; name one of texts or numbers"
        )
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{path}, line {line}: column {name!r} of the labels is empty; fill it in or drop the row")
    return value.strip() if isinstance(value, str) else value


def _person(path: Path, line: int, name: str, value: Any) -> str:
    """Take a person as a text, unless there is none."""
    if value is None or not str(value).strip():
        raise DataError(f"{path}, line {line}: column {name!r} of the persons is empty; fill it in or drop the row")
    return str(value).strip()


def numbers_if_whole(labels: Sequence[Any]) -> NDArray[Any]:
    """Make integers of labels that all are such, as ``"3"`` or ``3.0``, and texts of others, as of 1 beside 01."""
    different = {label: str(label) for label in labels}
    if all(_WHOLE.fullmatch(text) and abs(float(text)) < 2**53 for text in different.values()):
        numbers = {label: int(float(text)) for label, text in different.items()}
        if len({text.partition(".")[0].lstrip("+") for text in different.values()}) == len(set(numbers.values())):
            return np.array([numbers[label] for label in labels])
    return np.array([str(label) for label in labels])


def _no_number(path: Path, line: int, names: list[str], row: list[str], kept: list[int]) -> DataError:
    """Say which cell of a row is no number."""
    column = next(k for k in kept if not _is_number(row[k]))
    if row[column].strip().casefold() in _MISSING:
        return _missing(path, line, names[column])
    if _is_number(row[column].replace(",", ".", 1)):
        return DataError(
            f"{path}, line {line}: column {names[column]!r} holds {row[column]!r}; write decimals with a point, "
            "and thousands without a separator (as by pandas.read_csv with decimal=',' or thousands=',', and "
            "frame.to_csv)"
        )
    return _category(path, names[column], f"{one_line(row[column], most=40)!r} in line {line}")


def _missing(path: Path, line: int, column: str) -> DataError:
    return DataError(
        f"{path}, line {line}: column {column!r} has no value; fill it in (as by frame.fillna), drop the row, or leave "
        f"the column out by ignore=[{column!r}] (--ignore {shlex.quote(column)})"
    )


def _category(path: Path, column: str, what: str) -> DataError:
    return DataError(
        f"{path}: column {column!r} is not a column of numbers ({what}); turn it into numbers (as by "
        f"pandas.get_dummies), or leave it out by ignore=[{column!r}] (--ignore {shlex.quote(column)})"
    )


def _check_finite(path: Path, inputs: NDArray[np.float32], names: Sequence[str], lines: Sequence[int]) -> None:
    """Refuse what is no finite number; ``lines`` are the numbers of the rows."""
    sound = np.isfinite(inputs)
    if not sound.all():
        row, column = map(int, np.argwhere(~sound)[0])
        value = inputs[row, column]
        if math.isnan(value):
            raise _missing(path, lines[row], names[column])
        raise DataError(
            f"{path}, line {lines[row]}: column {names[column]!r} is infinite or too large for float32; fix it"
        )
