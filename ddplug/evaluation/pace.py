"""How long judging will take, told from the first seconds of the real work, and how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ddplug.utils.text import roughly

__all__ = ["LONG", "Load", "Pace"]

LONG = 5.0
"""Seconds from which on it is said how long all takes; of less nothing is said."""

_LONGER = 120.0
"""Seconds from which on it is said what would take less."""

_SHORTER = "; fewer repeats (--repeats){} or a smaller network (--network) take less"
_QUICK = ", recipe='quick' (--protocol quick)"

_PROBE = 1.0
"""Seconds of steps that an estimate is made from."""

_CALL = 8
"""Cost of a step besides its samples, in samples."""

_TESTING = 1 / 3
"""Cost of testing a network on a sample, by that of training it on one: forward without backward."""


@dataclass(frozen=True)
class Load:
    """What one row costs.

    Attributes:
        name: of the row.
        networks: to train.
        steps: of each.
        batch: samples a step.
        tested: samples that each is tested on.
        weight: of this architecture, where several are compared.
    """

    name: str
    networks: int
    steps: int
    batch: float
    tested: int
    weight: float = 1.0

    @property
    def work(self) -> float:
        """The cost, in samples that a network is trained on."""
        return self.networks * (self.steps * self.step + self.weight * _TESTING * self.tested)

    @property
    def step(self) -> float:
        """The cost of one step of one network."""
        return self.weight * (self.batch + _CALL)


class Pace:
    """Tells how long a number of rows takes, and says so if it is long.

    Args:
        loads: of the rows, in order.
        say: takes each line.
        what: is done, for the first line.
        quick: whether it is done by the quick protocol already.
        clock: gives seconds.

    Example:
        >>> now, lines = iter(range(100)), []
        >>> pace = Pace([Load("dm", 1, 60, 1, 0)], lines.append, "training", clock=lambda: next(now))
        >>> pace.begin()
        >>> for _ in range(60):
        ...     pace.tick(1)
        >>> pace.end("90.0")
        >>> lines
        ['training takes about 60 seconds in all', 'dm: 90.0']
    """

    def __init__(
        self,
        loads: Sequence[Load],
        say: Callable[[str], object],
        what: str,
        *,
        quick: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loads, self._say, self._what, self._clock = loads, say, what, clock
        self._shorter = _SHORTER.format("" if quick else _QUICK)
        self._left = sum(load.work for load in loads)
        self._row = -1
        self._own = 0.0  # work of the present row that is left
        self._last: float | None = None
        self._busy, self._worked = 0.0, 0.0
        self._began = clock()
        self._kept = 0
        self._told: bool | None = None
        """Whether the duration was said; ``None`` before it was estimated."""

    def begin(self) -> None:
        """Begin the next row."""
        self._row += 1
        self._own, self._last = self._loads[self._row].work, None

    def tick(self, networks: int) -> None:
        """Count a step that a number of networks took."""
        load = self._loads[self._row]
        work = min(self._own, networks * load.step)
        self._own -= work
        self._left -= work
        now = self._clock()
        if self._last is not None:  # the first step of a row warms up
            self._busy += now - self._last
            self._worked += work
        self._last = now
        if self._told is None and self._busy >= _PROBE:
            whole = now - self._began + self._remaining()
            self._told = whole > LONG
            if self._told:
                before = f"; {self._kept} networks were done before" if self._kept else ""
                shorter = self._shorter if whole >= _LONGER else ""
                self._say(f"{self._what} takes about {roughly(whole)} in all{before}{shorter}")

    def skip(self, networks: int) -> None:
        """Leave out networks that were done before."""
        load = self._loads[self._row]
        self._kept += networks
        work = min(self._own, load.work * networks / load.networks)
        self._own -= work
        self._left -= work

    def end(self, text: str) -> None:
        """Finish the row, which came to a text."""
        self._left -= self._own
        self._own = 0.0
        if self._told:
            number, last = len(self._loads), self._row == len(self._loads) - 1
            place = f"{self._row + 1} of {number}: " if number > 1 else ""
            rest = "" if last else f" (about {roughly(self._remaining())} left)"
            self._say(f"{place}{self._loads[self._row].name}: {text}{rest}")

    def _remaining(self) -> float:
        return self._left * self._busy / self._worked if self._worked else 0.0
