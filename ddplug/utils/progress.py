"""Progress of work that comes before the first step of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

from ddplug.utils.forecast import parts
from ddplug.utils.streams import is_terminal

__all__ = ["above", "hidden", "progress", "shown"]

_HIDDEN: ContextVar[bool] = ContextVar("hidden", default=True)
"""Whether progress before the first step is hidden."""


def hidden(forced: bool = False) -> bool:
    """Return whether a progress bar has nobody to look at it.

    Args:
        forced: whether it is wanted where standard error is not a terminal too.
    """
    return sys.stderr is None or not (forced or is_terminal(sys.stderr))


def above(line: str) -> None:
    """Write a line to standard error, above a progress bar if there is one."""
    if sys.stderr is None:
        return
    with suppress(AttributeError, ValueError, OSError):  # nobody may be there to read it, which is no reason to stop
        tqdm.write(line, file=sys.stderr)


@contextmanager
def shown(wanted: bool) -> Iterator[None]:
    """Let what takes long before the first step show a progress bar, or not."""
    token = _HIDDEN.set(not wanted)
    try:
        yield
    finally:
        _HIDDEN.reset(token)


def progress(items: Sequence[Any], what: str) -> Iterator[Any]:
    """Go through things that take long before the first step, with a progress bar where the steps have one.

    How long it takes is told where somebody asks (:mod:`ddplug.utils.forecast`).

    Args:
        items: to go through.
        what: each of them is.

    Example:
        >>> [2 * k for k in progress(range(3), "network")]
        [0, 2, 4]
    """
    with parts(len(items), what) as done:
        for item in tqdm(items, desc=f"preparing: {what}", file=sys.stderr, disable=_HIDDEN.get(), leave=False):
            yield item
            done()
