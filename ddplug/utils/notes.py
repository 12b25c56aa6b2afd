"""Notes: what was done that somebody may not expect, said once and on one line."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from ddplug.utils.text import one_line

__all__ = ["Note", "note", "notes_on_stderr"]


class Note(UserWarning):
    """Something was left out, put in or changed, and the work goes on."""


def note(text: str) -> None:
    """Warn of what was done."""
    warnings.warn(text, Note, stacklevel=3)


@contextlib.contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Print notes as one line each instead of as warnings of Python, for a program."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        other = warnings.showwarning
        said: set[str] = set()  # two parts of one folder may have the same to say

        def show(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
            if not issubclass(category, Note):
                other(message, category, *where, **options)
            elif sys.stderr is not None and str(message) not in said:
                said.add(str(message))
                # nobody may be there to read it, which is no reason to stop
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write(f"ddplug: note: {one_line(message)}\n")
                    sys.stderr.flush()

        warnings.showwarning = show
        yield
