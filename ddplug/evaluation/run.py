"""What the rows of one evaluation share: what is done already, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ddplug.evaluation.finished import Finished
from ddplug.evaluation.pace import Load, Pace
from ddplug.utils.progress import above

__all__ = ["Progress", "Run"]

Progress = bool | Callable[[str], object]
"""Whether to say on standard error how long it takes, each row and each step; or what takes the lines of it."""


class Run:
    """What is done already, and how far it is.

    Args:
        loads: of the rows, in order.
        what: is done, to say how long it takes.
        progress: see :data:`Progress`.
        checkpoint: file that keeps what is done; ``None`` for none.
        quick: whether networks are trained by the quick protocol.

    Attributes:
        finished: what is done.
        pace: how far it is; ``None`` where nobody is told.
        bars: whether steps are shown.
    """

    def __init__(
        self,
        loads: Sequence[Load] = (),
        what: str = "",
        progress: Progress = False,
        checkpoint: str | Path | None = None,
        *,
        quick: bool = False,
    ) -> None:
        say = above if progress is True else progress or None
        self.finished = Finished(checkpoint)
        self.pace = Pace(loads, say, what, quick=quick) if say is not None else None
        self.bars = progress is True
