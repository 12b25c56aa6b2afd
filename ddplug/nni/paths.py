"""Paths of files on their way through NNI to a trial."""

from __future__ import annotations

import os
from pathlib import Path

from ddplug.errors import OptionError

__all__ = ["normal_path"]


def normal_path(path: str | Path, what: str) -> str:
    """Make a path absolute, so that trials find the file from wherever they run.

    Args:
        path: of a file.
        what: how to call it in an error.

    Raises:
        OptionError: it holds ``//`` or ``#``, which NNI takes for the start of a comment.

    Example:
        >>> normal_path("/data/./made.safetensors", "train")
        '/data/made.safetensors'
        >>> normal_path("/data/#1.safetensors", "train")
        Traceback (most recent call last):
        ...
        ddplug.errors.OptionError: train is '/data/#1.safetensors'; NNI drops what follows // or #: rename it
    """
    if not isinstance(path, (str, os.PathLike)):
        raise OptionError(f"{what} is a {type(path).__name__}; give the path of a file")
    absolute = os.path.abspath(path)
    if "//" in absolute or "#" in absolute:
        raise OptionError(f"{what} is {absolute!r}; NNI drops what follows // or #: rename it")
    return absolute
