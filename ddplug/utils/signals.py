"""Requests to stop: SIGTERM and SIGHUP, which clusters and closing terminals send, end work as Ctrl-C does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop", "saving", "stoppable"]

_GRACE = 5.0
"""Seconds after a request in which others are taken for the same one: what was begun is being put away."""


class Stop:
    """What was asked of a block of :func:`stoppable`.

    Attributes:
        number: of the last signal that asked to stop; that of Ctrl-C where none did.
        asked: whether one did.
    """

    def __init__(self) -> None:
        self.number = int(signal.SIGINT)
        self.asked = False
        self._since = -float("inf")
        self._saving = 0
        self._waiting = False

    @property
    def name(self) -> str:
        """Name of the signal, e.g. ``"SIGTERM"``."""
        return signal.Signals(self.number).name

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise ``KeyboardInterrupt``, once in a while, and not within :func:`saving`."""
        if time.monotonic() - self._since < _GRACE:
            return
        if self._saving:
            # what is being written to save an interrupted run needs no second interrupt
            self.number, self._waiting = number, not self.asked
            return
        self._raise(number)

    def _raise(self, number: int) -> None:
        self.number, self.asked, self._waiting, self._since = number, True, False, time.monotonic()
        raise KeyboardInterrupt

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Let requests wait until the block has ended; see :func:`saving`."""
        self._saving += 1
        try:
            yield
        finally:
            self._saving -= 1
            if self._waiting and not self._saving:
                self._raise(self.number)


_STOPS: list[Stop] = []
"""The one block that requests go to, if there is any: signals belong to the process."""


def _ours(number: int) -> bool:
    """Return whether nobody else wants a signal: what was set or ignored (``nohup``) stays as it is."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


@contextmanager
def stoppable(*, passing_on: bool = True) -> Iterator[Stop]:
    """Let SIGTERM and SIGHUP raise ``KeyboardInterrupt`` in a block, as Ctrl-C does.

    A second signal soon after the first changes nothing: it cannot tear what the first made the program save. In a
    block within such a block, outside the main thread, and for signals that somebody else handles or ignores, nothing
    changes.

    Args:
        passing_on: after the block let the signal do to the process what it does without this, in the place of raising.
    """
    if _STOPS or threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    stop = Stop()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names) if _ours(number)}
    _STOPS.append(stop)
    for number in before:
        signal.signal(number, stop.handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _STOPS.clear()
        if passing_on and stop.asked and stop.number != signal.SIGINT:
            signal.raise_signal(stop.number)


@contextmanager
def saving() -> Iterator[None]:
    """Let requests to stop wait until a block of writing has ended.

    Example:
        >>> with stoppable(), saving():
        ...     "written"
        'written'
    """
    if _STOPS and threading.current_thread() is threading.main_thread():
        with _STOPS[0].saving():
            yield
    else:
        yield
