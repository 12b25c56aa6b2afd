"""Warm processes that judge candidates one by one: torch and sets are loaded once, and a crash costs one candidate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any

import torch

from ddplug.search.candidate import Report
from ddplug.search.protocol import over_time
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.checks import values_at_least, whole
from ddplug.utils.devices import visible_gpus
from ddplug.utils.processes import LostError, Pool, Task

__all__ = ["Workers"]


class Workers:
    """Warm processes that judge candidates, for the field ``workers`` of a :class:`~ddplug.search.Judge`.

    Starting a process and importing torch takes seconds, which a search that starts one for each candidate pays each
    time; here it is paid once. Sets in memory are sent once to each process. A candidate that takes its process with it
    costs nothing but itself: it is tried once more in a new process, and has failed, with the reason, if that ends too.

    Any number of judges share them, and threads may ask at once: as many candidates are trained at a time as there are
    workers. Where there are several GPUs, each has one of its own as long as there are enough.

    What uses them in a script stands under ``if __name__ == "__main__":``, and candidates that are functions are those
    of a module or of that script: each process imports it. They end with the process that started them.

    Args:
        number: of processes, at least 1.
        threads: of torch in each; its share of the cores if not given. The last bits of a score may depend on it.
        environment: variables that the processes have besides those of this one.

    Raises:
        OptionError: a number is below 1.

    Example:
        >>> from ddplug.search import Judge, Protocol
        >>> from ddplug.testing import toy_images
        >>> train, rest = toy_images((30, 30)).split(0.4)
        >>> with Workers() as workers:
        ...     judge = Judge(train, rest, Protocol(steps=20, device="cpu"), workers=workers)
        ...     [judge(f"mlp:width={width}").metric for width in (8, 16)]
        [1.0, 1.0]
    """

    def __init__(
        self, number: int = 1, *, threads: int | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.number = whole("number", number)
        values_at_least(1, number=self.number, threads=threads)
        share = max(1, (os.cpu_count() or 1) // self.number)
        threads = min(torch.get_num_threads(), share) if threads is None else whole("threads", threads)
        gpus = visible_gpus()
        own = [{"CUDA_VISIBLE_DEVICES": gpus[n % len(gpus)]} if len(gpus) > 1 else {} for n in range(self.number)]
        # set too, so that a library that is loaded before torch is told does not start more
        given = {name: str(value) for name, value in (environment or {}).items()}
        common = {"OMP_NUM_THREADS": str(threads), **given}
        self._pool = Pool([{**common, **one} for one in own], partial(torch.set_num_threads, threads), SyntheticSet)

    def run(
        self,
        task: Task,
        *,
        limit: float | None = None,
        report: Report = lambda value, step: None,
        written: Callable[[int], Any] = lambda pid: None,
    ) -> Any:
        """Have the next idle worker do a task, once more where its process dies, and return what it returns.

        Args:
            task: what to do.
            limit: seconds, soon after which its process is ended; ``None`` waits for ever.
            report: is told interim accuracies. What it raises ends the task, and goes through.
            written: returns what a process that died had written down of the task, by its number, ``None`` if nothing;
                that is returned then, and nothing is done again.

        Raises:
            OptionError: the task cannot be sent, or not be read there.
            DdplugError: the processes do not start, or were ended. It is a
                :class:`~ddplug.utils.processes.LostError` where two died, or one took too long; its message says so as
                the reason of a failure.
        """
        for last in (False, True):
            try:
                return self._pool.run(task, limit, report)
            except LostError as lost:
                found = written(lost.pid)
                if found is not None:
                    return found
                if lost.late:
                    words = f"{over_time(limit or 0.0)}; it hung in one step and its process was ended"
                    raise LostError(words, lost.pid, late=True) from None
                if last:
                    words = f"{lost}, as the one before; it crashes, or takes more memory than there is"
                    raise LostError(words, lost.pid) from None
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End all processes, whatever they do; a second call does nothing."""
        self._pool.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
