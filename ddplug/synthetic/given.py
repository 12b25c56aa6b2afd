"""A set as it is given to a function: the set itself, or the file of one."""

from __future__ import annotations

import os
from typing import TypeAlias

from ddplug.errors import OptionError
from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["AnySet", "as_set"]

AnySet: TypeAlias = SyntheticSet | str | os.PathLike[str]
"""What :func:`as_set` takes."""


def as_set(given: AnySet) -> SyntheticSet:
    """Return a set, or read it from a file.

    Args:
        given: the set; or its file, or the name of one that comes with the package.

    Raises:
        OptionError: it is something else, or the file cannot be read.
        FormatError: the file holds no valid set.

    Example:
        >>> as_set("mnist-8kB").nbytes
        7810
    """
    if isinstance(given, SyntheticSet):
        return given
    if isinstance(given, (str, bytes, os.PathLike)):
        return SyntheticSet.load(os.fsdecode(given))
    raise OptionError(
        f"the set is a {type(given).__name__}; give a SyntheticSet, as ddplug.distill makes them, or the file of one"
    )
