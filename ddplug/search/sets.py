"""Set files as a search uses them: checked by fingerprint, loaded once a process, and of one kind with each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ddplug.errors import DataError, OptionError
from ddplug.synthetic.compat import difference
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.held_out import METHOD
from ddplug.synthetic.ready import ready
from ddplug.utils.fingerprints import file_fingerprint, unreadable
from ddplug.utils.text import os_reason

__all__ = ["check_pair", "folder_at", "load_set", "widened"]

_loaded: dict[str, tuple[tuple[int, int], str, SyntheticSet]] = {}
"""By path: modification time and size, fingerprint, and the set."""


def load_set(path: str | Path, fingerprint: str | None = None) -> SyntheticSet:
    """Load a set, once a process while the file stays as it is.

    Args:
        path: of the file.
        fingerprint: what the file must have; see :func:`file_fingerprint`.

    Returns:
        The set, on the CPU; shared by all who load it, so nothing may write to it.

    Raises:
        OptionError: the file cannot be read.
        FormatError: it holds no valid set.
        DataError: it has another fingerprint.
    """
    known = ready(path)
    name = os.path.abspath(path if known is None else known.path)
    try:
        status = os.stat(name)
    except OSError as error:
        raise unreadable(path, error) from None
    stamp = status.st_mtime_ns, status.st_size
    if name not in _loaded or _loaded[name][0] != stamp:
        _loaded[name] = stamp, file_fingerprint(name), SyntheticSet.load(name)
    _, found, made = _loaded[name]
    if fingerprint is not None and found != fingerprint:
        raise DataError(
            f"{path} was altered: its fingerprint is {found[:12]}, not {fingerprint[:12]}; restore it or start over "
            "in a new folder"
        )
    return made


def folder_at(path: str | Path) -> Path:
    """Make a folder and give its absolute path."""
    place = Path(path).absolute()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"cannot make the folder {place}: {os_reason(error)}; choose another") from None
    return place


def widened(x: Tensor, channels: int | None) -> Tensor:
    """Repeat the gray channel of ``(n, 1, H, W)`` inputs ``channels`` times; ``None`` leaves inputs alone.

    Raises:
        OptionError: the inputs are not gray.
    """
    if channels is None:
        return x
    if x.shape[1] != 1:
        raise OptionError(
            f"channels={channels} repeats a gray channel, but inputs are {tuple(x.shape[1:])}; leave it out"
        )
    return x.expand(-1, channels, *x.shape[2:])


def check_pair(train: SyntheticSet, validation: SyntheticSet) -> None:
    """Refuse a validation split that cannot judge networks trained on a set.

    Args:
        train: the set.
        validation: real data with hard labels, in the model space of the set.

    Raises:
        DataError: shapes, classes or preprocessing differ, the split is no real data, or the set was made from all data
            that the split was cut from.
    """
    differing = difference(train, validation)
    problem = f"they differ in {differing}" if differing else _unreal(validation) or _seen(train, validation)
    if problem:
        raise DataError(f"the validation split does not suit the set: {problem}; cut one off with `ddplug holdout`")


def _unreal(validation: SyntheticSet) -> str | None:
    """Return why a set is no real data, if it is not."""
    if validation.targets.ndim == 2:
        return "it has soft labels"
    for part in _accounts(validation):
        if part.get("method") not in (None, METHOD):
            return f"it was made by {part['method']!r}"
    return None


def _seen(train: SyntheticSet, validation: SyntheticSet) -> str | None:
    """Return a line about it if the set was made from data that hold the split."""
    sources = {part.get("cut_from") for part in _data_of(validation)} - {None}
    if any(part.get("fingerprint") in sources for part in _data_of(train)):
        return (
            "the set was made from all of the data, including what is held out; distill again with the same "
            "`--validation`"
        )
    return None


def _accounts(made: SyntheticSet) -> list[Mapping[str, Any]]:
    """Return the provenance of a set and of the parts that were merged into it; files may hold anything there."""
    merged: Any = made.provenance.get("merged", ())
    parts = (made.provenance, *(merged if isinstance(merged, list) else ()))
    return [part for part in parts if isinstance(part, Mapping)]


def _data_of(made: SyntheticSet) -> list[Mapping[str, Any]]:
    """Return what the provenance says of the data."""
    return [part["data"] for part in _accounts(made) if isinstance(part.get("data"), Mapping)]
