"""Paths as people give them: ``~`` is the home folder, and what can be no file's name is refused in one line."""

from __future__ import annotations

import os

from ddplug.errors import OptionError

__all__ = ["local"]


def local(path: str | os.PathLike[str]) -> str:
    """Turn a path that somebody gave into one that the system takes.

    Args:
        path: the path; ``~`` and ``~user`` at its beginning are home folders, ``./~`` is a file of that name.

    Returns:
        The path, not made absolute.

    Raises:
        OptionError: it is empty, ``-``, holds a NUL character, or names the home of a user that does not exist.

    Example:
        >>> local("sets/~one.safetensors"), local("~") == os.path.expanduser("~")
        ('sets/~one.safetensors', True)
    """
    text = os.fspath(path)
    if not text:
        raise OptionError("a path is ''; name a file or a folder")
    if "\0" in text:
        raise OptionError(f"the path {text!r} holds a NUL character, which no file's name can; leave it out")
    if text == "-":
        raise OptionError("the path is '-', but files are read and written by name here; name one (./- for that very)")
    found = os.path.expanduser(text)
    if found.startswith("~"):
        user = text.split(os.sep)[0]
        raise OptionError(f"the path {text} begins with {user}, the home of a user that does not exist; say ./{text}")
    return found
