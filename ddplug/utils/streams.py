"""Standard output and error as they come: closed, ``None`` (``pythonw``, services) or of a kind of their own."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from typing import Any

__all__ = ["columns", "complain", "disconnect", "is_terminal", "reconnect"]


def is_terminal(stream: Any) -> bool:
    """Return whether somebody is looking at a stream, which may be ``None``, closed or something without ``isatty``."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def columns(otherwise: int = 80) -> int:
    """Return how many characters a line of standard output has.

    Args:
        otherwise: where nobody is looking at it.
    """
    return shutil.get_terminal_size().columns or otherwise if is_terminal(sys.stdout) else otherwise


def complain(line: str) -> None:
    """Write a line to standard error, if there is one that takes it: there is nobody else to tell."""
    with suppress(AttributeError, ValueError, OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def disconnect(stream: Any) -> None:
    """Point a stream that failed nowhere: the interpreter flushes it once more when it ends."""
    with suppress(AttributeError, ValueError, OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def reconnect() -> None:
    """Point standard streams that were closed before the program began nowhere.

    Else the next file that is opened gets the number of one, and what a library prints lands in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
