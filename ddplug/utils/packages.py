"""Versions of installed packages, and those that are known to break others."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from ddplug.errors import OptionError

__all__ = ["check_filelock"]

_FILELOCK = (3, 12)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: what follows, such as ``rc1``, does not matter here."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _at_least(text: str | None, limit: tuple[int, ...]) -> bool:
    return text is not None and _numbers(text) >= limit


def check_filelock() -> None:
    """Refuse the versions of filelock that make every experiment of NNI hang at its start, without a word.

    Raises:
        OptionError: such a version is installed.
    """
    found = _version("filelock")
    if _at_least(found, _FILELOCK):
        raise OptionError(f'filelock {found} makes NNI hang; run pip install "filelock<{_dotted(_FILELOCK)}"')


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
