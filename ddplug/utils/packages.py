"""Versions of installed packages, and those that are known to break others."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

from ddplug.errors import OptionError

__all__ = ["FILELOCK", "check_filelock", "dotted", "install_extra", "is_at_least", "leading_numbers", "version_of"]

FILELOCK = (3, 12)
"""First version of filelock with which every experiment of NNI 3.0 hangs."""


def version_of(name: str) -> str | None:
    """Return the installed version of a package, ``None`` where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def leading_numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: what follows, such as ``rc1``, does not matter here."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def is_at_least(text: str | None, limit: tuple[int, ...]) -> bool:
    """Return whether a version is installed and not below a limit."""
    return text is not None and leading_numbers(text) >= limit


def check_filelock() -> None:
    """Refuse the versions of filelock that make every experiment of NNI hang at its start, without a word.

    Raises:
        OptionError: such a version is installed.
    """
    found = version_of("filelock")
    if is_at_least(found, FILELOCK):
        raise OptionError(f'filelock {found} makes NNI hang; run pip install "filelock<{dotted(FILELOCK)}"')


def install_extra(extra: str) -> str:
    """Return the command that installs what an extra brings, however ddplug itself came here.

    It names the packages and not ``ddplug[extra]``, which a clone, or a copy that no index has, could not be got by.

    Args:
        extra: of ddplug's, such as ``"avalanche"``.

    Example:
        >>> install_extra("avalanche")
        'pip install "avalanche-lib==0.6.*"'
    """
    try:
        found = [each.split(";") for each in requires("ddplug") or ()]
    except PackageNotFoundError:  # it is run from its folder, and was never installed
        found = []
    wanted = [what.strip() for what, *marks in found if f"extra=={extra}" in re.sub("[ '\"]", "", "".join(marks))]
    return "pip install " + (" ".join(f'"{what}"' for what in wanted) or f"-e '.[{extra}]'")


def dotted(numbers: tuple[int, ...]) -> str:
    """Write a version as people do, ``3.12``."""
    return ".".join(map(str, numbers))
