"""Room that threads share: each takes what it needs, and waits where the others have it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

__all__ = ["Room"]


class Room:
    """So much of something as may be in use at once.

    Args:
        size: of the whole; who needs more gets it, alone.

    Example:
        >>> room = Room(10)
        >>> with room.taken(4), room.taken(6):
        ...     room.used
        10
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._changed = Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Take some of the room, once it is there, and give it back at the end."""
        with self._changed:
            self._changed.wait_for(lambda: not self.used or self.used + amount <= self.size)
            self.used += amount
        try:
            yield
        finally:
            with self._changed:
                self.used -= amount
                self._changed.notify_all()
