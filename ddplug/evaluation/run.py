"""What the rows of one evaluation share: what is done already, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ddplug.evaluation.finished import Finished
from ddplug.evaluation.pace import Load, Pace
from ddplug.utils.forecast import Forecast, forecasting
from ddplug.utils.progress import above, hidden, shown
from ddplug.utils.text import roughly

__all__ = ["Progress", "Run", "preparing"]

Progress = bool | Callable[[str], object]
"""Whether to say on standard error how long it takes, each row and each step; or what takes the lines of it."""


def _says(progress: Progress) -> Callable[[str], object] | None:
    """Return what takes the lines, if anybody is told."""
    return above if progress is True else progress or None


@contextmanager
def preparing(progress: Progress) -> Iterator[None]:
    """Let what is done before networks are trained say how long it takes, and show how far it is."""
    say = _says(progress)
    if say is None:
        yield
        return
    with shown(progress is True and not hidden()), forecasting(Forecast(partial(_foretold, say))):
        yield


def _foretold(say: Callable[[str], object], part: str, seconds: float) -> None:
    say(f"{part} takes about {roughly(seconds)}, before networks are trained")


class Run:
    """What is done already, and how far it is.

    Args:
        loads: of the rows, in order.
        what: is done, to say how long it takes.
        progress: see :data:`Progress`.
        finished: what is done, in a file or nowhere.
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
        finished: Finished | None = None,
        *,
        quick: bool = False,
    ) -> None:
        say = _says(progress)
        self.finished = finished or Finished(None)
        self.pace = Pace(loads, say, what, quick=quick) if say is not None else None
        self.bars = progress is True
