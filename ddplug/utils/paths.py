"""Paths as people give them: ``~`` is the home folder, and what can be no file's name is refused in one line."""

from __future__ import annotations

import errno
import os
import re
import stat

from ddplug.errors import OptionError

__all__ = ["check_regular", "local", "unfit_for_windows"]

_LONGEST = 255
"""Bytes that a name may have, on every file system in use."""

_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.IGNORECASE | re.DOTALL
)
"""Names that are devices in every folder of Windows, whatever their ending."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_VARIABLE = re.compile(r"^\$(\w+|\{\w+\})(?=/|$)|(?<=/)\$(\w+|\{\w+\})(?=/)")
"""What a shell replaces by the value of a variable: at the beginning, or the name of a folder on the way."""

_WINDOWS = os.name == "nt"


def unfit_for_windows(name: str) -> bool:
    """Return whether Windows takes a name for a device, or for another one, since it drops dots and spaces at the end.

    Args:
        name: of a file or a folder.

    Example:
        >>> unfit_for_windows("nul.safetensors"), unfit_for_windows("set."), unfit_for_windows("console")
        (True, True, False)
    """
    return name not in (".", "..") and (_DEVICE.fullmatch(name) is not None or name.endswith((".", " ")))


def local(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """Turn a path that somebody gave into one that the system takes.

    Args:
        path: the path; ``~`` and ``~user`` at its beginning are home folders, ``./~`` is a file of that name.

    Returns:
        The path, not made absolute.

    Raises:
        OptionError: it is no path, empty, ``-``, an address as of the web or of a store, holds a NUL character or one
            that the system's encoding lacks, a name that is too long, one that Windows keeps for itself, there, or one
            that is a variable of a shell and no file, or that ends with a line break and is none; or it names the home
            of a user that does not exist.

    Example:
        >>> local("sets/~one.safetensors"), local("~") == os.path.expanduser("~")
        ('sets/~one.safetensors', True)
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise OptionError(f"a path is {path!r}, a {type(path).__name__}; give a text or a pathlib.Path") from None
    if not text:
        raise OptionError("a path is ''; name a file or a folder")
    if "\0" in text:
        raise OptionError(f"the path {text!r} holds a NUL character, which no file's name can; leave it out")
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        bad = text[error.start]
        raise OptionError(f"the path {text!r} holds {bad!r}, which no file's name can here; leave it out") from None
    if text.endswith(("\r", "\n")) and not os.path.lexists(text):
        raise OptionError(
            f"the path {text!r} ends with a line break, as from a script with line ends of Windows; leave it out, or "
            "save the script with those of Unix"
        )
    if text == "-":
        raise OptionError("the path is '-', but files are read and written by name here; name one (./- for that very)")
    if _ADDRESS.match(text):
        raise OptionError(f"{text} is an address, but files are read and written here; copy it, or mount it, first")
    _check_names(text)
    variable = _VARIABLE.search(text)
    if variable is not None and not os.path.lexists(text[: variable.end()]):
        raise OptionError(
            f"the path {text} holds {variable[0]}, which only a shell replaces; give os.path.expandvars(path)"
        )
    found = os.path.expanduser(text)
    if found.startswith("~"):
        user = text.split(os.sep)[0]
        raise OptionError(f"the path {text} begins with {user}, the home of a user that does not exist; say ./{text}")
    return found


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse to read what is no file: a pipe would be waited for, and a device may never end.

    Args:
        path: from :func:`local`.

    Raises:
        OSError: it is something else, or is not there.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")


def _check_names(text: str) -> None:
    """Refuse names that no file can have here."""
    for name in re.split(r"[/\\]" if _WINDOWS else "/", text):
        if len(os.fsencode(name)) > _LONGEST:
            raise OptionError(f"the path with {name[:40]}...: File name too long; choose another path")
        if _WINDOWS and unfit_for_windows(name):
            raise OptionError(f"the path {text} holds {name!r}, which Windows keeps for itself; choose another name")
