"""How long something takes, told from its first parts while it is being done, where that is long.

What has to be told of a whole run is a :class:`Forecast`; of parts that only look alike from outside, :class:`Parts`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

__all__ = ["LONG", "Forecast", "Parts", "forecasting", "parts"]

LONG = 60.0
"""Seconds from which on it is told how long something takes: of two parts that are shorter one hears nothing."""

_PROBE = 2.0
"""Seconds of parts that an estimate is made from."""


class Parts:
    """Parts of one kind, of which it is told once how long all take, where that is long.

    Args:
        work: of all parts, in any unit.
        tell: takes the seconds of all, those before the parts included.
        began: when the whole began, by the clock; now if not given.
        probe: seconds of parts that the estimate is made from.
        clock: gives seconds.

    Example:
        >>> now, told = iter(range(0, 100, 3)), []
        >>> some = Parts(50, told.append, clock=lambda: next(now))
        >>> some.done()
        >>> told
        [150.0]
    """

    def __init__(
        self,
        work: float,
        tell: Callable[[float], object],
        *,
        began: float | None = None,
        probe: float = _PROBE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left, self._tell, self._probe, self._clock = work, tell, probe, clock
        self._last = clock()
        self._began = self._last if began is None else began
        self._busy = self._worked = 0.0
        self._warm = self._told = False
        self._ahead = 0.0

    def done(self, work: float = 1.0) -> None:
        """Count a part that has just been done."""
        ahead, self._ahead = self._ahead, 0.0
        self._count(work - ahead)

    def partly(self, share: float) -> None:
        """Count a share of the part that is being done; all shares of it are no more than the part."""
        share = min(share, 1.0 - self._ahead)
        self._ahead += share
        self._count(share)

    def _count(self, work: float) -> None:
        if self._told:
            return
        now = self._clock()
        took, self._last = now - self._last, now
        self._left -= work
        if self._warm or took >= self._probe:  # else the first one warms up
            self._busy, self._worked = self._busy + took, self._worked + work
        self._warm = True
        if self._busy < self._probe:
            return
        left = self._left * self._busy / self._worked
        if now - self._began + left >= LONG and left >= LONG / 4:
            self._told = True
            self._tell(now - self._began + left)


class Forecast:
    """Tells how long a run of :func:`ddplug.distill` takes, where that is long; one of its ``callbacks``.

    Args:
        tell: takes what it is about and its seconds. That is ``""`` for all, those of the preparation included, or what
            each part of a long preparation is, as ``"networks"``.
        clock: gives seconds.

    Example:
        >>> from ddplug import distill
        >>> from ddplug.testing import toy_images
        >>> forecast = Forecast(lambda part, seconds: print(part or "all", seconds))
        >>> len(distill(toy_images(), "random", images_per_class=1, callbacks=[forecast], device="cpu"))  # at once
        3
    """

    def __init__(self, tell: Callable[[str, float], object], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._clock = tell, clock
        self._began = clock()
        self._steps: Parts | None = None
        self._around: Parts | None = None

    @contextmanager
    def parts(self, number: int, what: str, *, counted: bool = False) -> Iterator[Callable[[], object]]:
        """Watch the parts of a preparation.

        Args:
            number: of parts.
            what: each of them is.
            counted: whether these parts, within another part, are shares of that one; else they are not watched there.

        Yields:
            What is to be called after each part.
        """
        if self._around is not None:
            yield partial(self._around.partly, 1 / number) if counted else _nothing
            return
        self._around = Parts(number, partial(self._tell, what), clock=self._clock)
        try:
            yield self._around.done
        finally:
            self._around = None

    def start(self, total: int, done: int, name: str) -> None:
        """Begin to watch the steps."""
        self._steps = Parts(total - done, partial(self._tell, ""), began=self._began, clock=self._clock)

    def step(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Count a step."""
        if self._steps is not None:
            self._steps.done()

    def close(self) -> None:
        """Do nothing more."""


_FORECAST: ContextVar[Forecast | None] = ContextVar("forecast", default=None)


@contextmanager
def forecasting(forecast: Forecast | None) -> Iterator[None]:
    """Let what is done within, in parts, be watched; ``None`` for by nobody."""
    token = _FORECAST.set(forecast)
    try:
        yield
    finally:
        _FORECAST.reset(token)


def _nothing() -> None:
    """Count nothing."""


@contextmanager
def parts(number: int, what: str, *, counted: bool = False) -> Iterator[Callable[[], object]]:
    """Watch parts, if anybody wants to be told; see :meth:`Forecast.parts`."""
    forecast = _FORECAST.get()
    if forecast is None:
        yield _nothing
    else:
        with forecast.parts(number, what, counted=counted) as done:
            yield done
