"""What every trial found, written down by the trial itself: the one record that no scheduler can mix up.

A journal is a file of JSON lines, one :class:`Record` a line. Every record is appended with one ``O_APPEND`` write and
flushed to the disk, so that many processes may share a journal on a local disk, and a crash costs the line being
written at most. A line ends in the first digits of the SHA-256 of what stands before; one that was altered is left out,
and those of earlier versions, which have none, are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ddplug.errors import FormatError, OptionError
from ddplug.search.protocol import Result
from ddplug.utils.checks import as_python
from ddplug.utils.files import check_writable
from ddplug.utils.text import os_reason

__all__ = ["Journal", "Record", "key"]


@dataclass(frozen=True)
class Record:
    """What became of one candidate: a success with its metric, or a failure with its reason.

    Attributes:
        key: what :func:`key` gives for the candidate, the evaluator's settings and its files.
        sample: the candidate, label -> choice, JSON-ready.
        result: what became of it.
        settings: what else the key was made of, for people who read the file.
        trial: a search framework's name of the trial, such as NNI's of the trial job; ``None`` outside a trial.
        parameter: its number of the parameters that the trial received, ``None`` outside a trial.
        pid: the process that wrote it.

    Raises:
        OptionError: it has both a metric and a failure or neither, or the metric is not finite.
    """

    key: str
    sample: Mapping[str, Any]
    result: Result
    settings: Mapping[str, Any] = field(default_factory=dict)
    trial: str | None = None
    parameter: int | None = None
    pid: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        if (self.metric is None) == (self.failure is None):
            raise OptionError(
                f"a record has metric {self.metric} and failure {self.failure!r}; give exactly one of them"
            )
        if self.metric is not None and not math.isfinite(self.metric):
            raise OptionError(f"a record has the metric {self.metric}; record a failure that says so instead")

    @property
    def metric(self) -> float | None:
        """Accuracy in [0, 1] on the validation split, higher is better; ``None`` where it failed."""
        return self.result.metric

    @property
    def failure(self) -> str | None:
        """One line that says why it failed, ``None`` where it did not."""
        return self.result.failure

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values, those of the result among the others."""
        values: dict[str, Any] = {}
        for name, value in asdict(self).items():
            values |= value if name == "result" else {name: value}
        # lines of candidates without interim scores are as they always were
        return values if values["at"] else {name: value for name, value in values.items() if name != "at"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Record:
        """Build a record of what :meth:`to_json` gives, as JSON gives it back; what it does not know is left out."""
        # lists were tuples; what is inside a mapping stays as it is
        frozen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        result = Result(**{entry.name: frozen[entry.name] for entry in fields(Result) if entry.name in frozen})
        return cls(**{entry.name: frozen[entry.name] for entry in fields(cls) if entry.name in frozen}, result=result)


def _own(value: Any) -> Any:
    """Return a number or an array of numpy or torch as Python's own, for JSON."""
    found = as_python(value)
    if found is value:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return found


def _canonical(value: Any, what: str) -> str:
    """Write JSON in the one way that depends on the content alone."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_own)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{what} cannot be written as JSON: {error}; use numbers, text, booleans and lists") from None


def key(sample: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Name a candidate under an evaluator's settings; equal content gives an equal name, in any process.

    Args:
        sample: the candidate, label -> choice; tuples and lists count as the same, and so do a number of numpy or torch
            and Python's own.
        settings: everything else the metric depends on, fingerprints of the files included.

    Returns:
        SHA-256 in hexadecimal.

    Raises:
        OptionError: something is not JSON-ready, or not finite.

    Example:
        >>> key({"width": 8, "depth": 2}, {"epochs": 3}) == key({"depth": 2, "width": 8}, {"epochs": 3})
        True
        >>> key({"width": 8}, {"epochs": 3}) == key({"width": 8}, {"epochs": 4})
        False
    """
    text = _canonical([dict(sample), dict(settings)], "a candidate or its settings")
    return hashlib.sha256(text.encode()).hexdigest()


_START = b'{"key": "'
"""How every line begins, torn ones included."""

_SEAL = re.compile(rb', "sum": "([^"]*)"}')
_DIGITS = 16


def _sealed(line: bytes) -> bytes:
    """Add the checksum to a line."""
    return line[:-1] + b', "sum": "' + _sum(line) + b'"}'


def _sum(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:_DIGITS].encode()


def _sound(line: bytes) -> bool:
    """Return whether a line is what was written, as far as it says what that was."""
    found = _SEAL.fullmatch(line[-_DIGITS - 12 :])
    if found is None:
        return b'"sum"' not in line[-_DIGITS - 12 :]
    before = line[: len(line) - len(found[0])] + b"}"
    return _sum(before) == found[1]


_REQUIRED = {"key", "sample", "metric"}
"""What every line has."""


class Journal:
    """A file of records that many processes append to.

    Args:
        path: the file; made with the first record, its folder must exist.

    Raises:
        OptionError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     journal = Journal(folder + "/journal.jsonl")
        ...     journal.append(Record(key({"width": 8}, {}), {"width": 8}, Result(0.5)))
        ...     journal.find(key({"width": 8}, {})).metric
        0.5
    """

    def __init__(self, path: str | Path) -> None:
        self.path = check_writable(path)

    def append(self, record: Record) -> None:
        """Add a record; it is on the disk when this returns.

        Raises:
            OptionError: something in it is not JSON-ready or not finite, or the file cannot be written.
        """
        try:
            line = _sealed(json.dumps(record.to_json(), allow_nan=False, default=_own).encode()) + b"\n"
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"a record of {dict(record.sample)} cannot be written as JSON: {error}; use numbers and text"
            ) from None
        try:
            self._write(line)
        except OSError as error:
            raise OptionError(
                f"cannot write {self.path}: {os_reason(error)}; free space or choose another path"
            ) from None

    def _write(self, line: bytes) -> None:
        """Write a line with one call, on a line of its own even where the last writer died."""
        place = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        try:
            size = os.fstat(place).st_size
            if size:
                os.lseek(place, size - 1, os.SEEK_SET)
                # two processes may both see a torn line: an empty line more does no harm
                line = line if os.read(place, 1) == b"\n" else b"\n" + line
            written = os.write(place, line)
            if written != len(line):
                raise OSError(None, f"only {written} of {len(line)} bytes were written")
            os.fsync(place)
        finally:
            os.close(place)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Return the lines that are not empty, with their numbers; a crash may leave zeros at the end."""
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise OptionError(f"cannot read {self.path}: {os_reason(error)}") from None
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line := line.strip(b"\0\r "):
                yield number, line

    def _ours(self) -> list[bytes]:
        """Return the lines of a journal, and refuse another file: nothing may be appended to that."""
        lines = list(self._lines())
        if lines and not any(line.startswith(_START[: len(line)]) for _, line in lines):
            raise FormatError(f"{self.path} is not a journal: see line {lines[0][0]}; choose another path")
        return [line for _, line in lines]

    def _parse(self, line: bytes) -> Record | None:
        """Build a record of a line, ``None`` of one that is torn, altered or none of ours."""
        if not _sound(line):
            return None
        try:
            values = json.loads(line)
            known = values.keys() >= _REQUIRED and isinstance(values["sample"], dict)
            return Record.from_json(values) if known else None
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None

    def read(self) -> list[Record]:
        """Return every record, oldest first; an absent file is an empty journal, and bad lines are left out.

        Raises:
            OptionError: the file cannot be read.
            FormatError: it is not a journal: it has lines, and none begins as ours do.
        """
        records = (self._parse(line) for line in self._ours())
        return [record for record in records if record is not None]

    def of(self, key: str) -> list[Record]:
        """Return the records under a key, oldest first, without parsing the others.

        Raises:
            OptionError: the file cannot be read.
            FormatError: it is not a journal.
        """
        start = _START + key.encode() + b'"'
        records = (self._parse(line) for line in self._ours() if line.startswith(start))
        return [record for record in records if record is not None]

    def find(self, key: str) -> Record | None:
        """Return the last success under a key, or ``None``.

        Raises:
            OptionError: the file cannot be read.
            FormatError: it is not a journal.
        """
        found = [record for record in self.of(key) if record.metric is not None]
        return found[-1] if found else None

    def results(self) -> list[Record]:
        """Return the last success of every key that has one, in the order of their first success."""
        return list({record.key: record for record in self.read() if record.metric is not None}.values())

    def failures(self) -> list[Record]:
        """Return the last failure of every key that has no success, in the order of their first failure."""
        done = {record.key for record in self.results()}
        return list({record.key: record for record in self.read() if record.key not in done}.values())
