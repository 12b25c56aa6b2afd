"""Warm processes that judge candidates one by one: torch and the sets are loaded once, and a crash costs a candidate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any

import torch

from ddplug.search.candidate import Report
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.checks import values_at_least, whole
from ddplug.utils.devices import visible_gpus
from ddplug.utils.processes import Pool, Task

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
        common = {"OMP_NUM_THREADS": str(threads), **(environment or {})}
        self._pool = Pool([{**common, **one} for one in own], partial(torch.set_num_threads, threads), SyntheticSet)

    def run(self, task: Task, *, limit: float | None = None, report: Report = lambda value, step: None) -> Any:
        """Have the next idle worker do a task, and return what it returns; see :meth:`ddplug.utils.processes.Pool.run`.

        Args:
            task: what to do.
            limit: seconds, soon after which its process is ended; ``None`` waits for ever.
            report: is told interim accuracies. What it raises ends the task, and goes through.
        """
        return self._pool.run(task, limit, report)

    def close(self) -> None:
        """End all processes, whatever they do; a second call does nothing."""
        self._pool.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
