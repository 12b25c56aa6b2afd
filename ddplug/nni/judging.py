"""How a candidate of NNI is judged: as everywhere, its accuracies reported, and in a trial against the clock."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import nni
import torch
from nni.runtime.env_vars import trial_env_vars

from ddplug.search.judging import Case, Work, metric_of
from ddplug.search.protocol import Result, over_time
from ddplug.utils.notes import note

__all__ = ["case_of", "in_trial", "judge", "warn_of_stock_engine", "watchdog"]

_GRACE = 2.0
"""Seconds beyond the time limit that a step in progress gets before its process is ended."""


def in_trial() -> bool:
    """Return whether this process is a trial that a training service started; it may be ended at will."""
    return trial_env_vars.NNI_PLATFORM is not None


def case_of(sample: Mapping[str, Any], settings: Mapping[str, Any], journal: str | None = None) -> Case:
    """Return the case of a candidate; in a trial it says in which.

    Args:
        sample: label -> choice, JSON-ready.
        settings: everything else that the metric depends on, JSON-ready.
        journal: path of the journal; ``None`` keeps none.
    """
    if not in_trial():
        return Case(sample, settings, journal)
    current: Mapping[str, Any] = nni.trial._params or {}
    return Case(sample, settings, journal, nni.get_trial_id(), current.get("parameter_id"))


@functools.cache
def warn_of_stock_engine() -> None:
    """Say once a process if this is a trial of NNI's own engine for architectures, which mixes results up."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if in_trial() and getattr(spec, "name", "") == "nni.nas.execution.training_service":
        note(
            "this trial was started by NNI's own training-service engine, which may list its result under another "
            "candidate; use ddplug.nni.ProxyExperiment, or read the journal"
        )


def _expire(case: Case, limit: float) -> None:
    """End the process of a trial that takes too long, after writing down why."""
    failure = f"{over_time(limit)}; it hung in one step and its process was ended"
    try:
        case.append(Result(None, failure, seconds=limit))
        sys.stderr.write(f"ddplug: error: {failure}\n")
        sys.stderr.flush()
    finally:
        os._exit(1)


@contextlib.contextmanager
def watchdog(case: Case, limit: float | None, grace: float = _GRACE) -> Iterator[None]:
    """End the process, with a line in the journal, if what is inside takes longer than the time limit.

    Between steps the limit is kept by the training itself; this is for a step that never ends. Where even the
    interpreter is held up, so that no line can be written, the process still ends, three seconds later.

    Args:
        case: what is judged.
        limit: seconds; nothing is done where there is none.
        grace: seconds beyond it.
    """
    if limit is None:
        yield
        return
    timer = threading.Timer(limit + grace, functools.partial(_expire, case, limit))
    timer.daemon = True
    timer.start()
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback_later(limit + grace + 3, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()


def _report(value: float, step: int) -> None:
    if nni.get_current_parameter() is not None:
        nni.report_intermediate_result(value)


def judge(case: Case, work: Work, *, time_limit: float | None = None, threads: int | None = None) -> float:
    """Return a candidate's metric: from the journal if it is known, else by training; report it to NNI.

    The result is in the journal before NNI hears of it.

    Args:
        case: the candidate and how it is judged.
        work: trains and scores it.
        time_limit: seconds, kept in a trial even against a step that never ends.
        threads: of torch in a trial; ``None`` leaves them alone.

    Returns:
        Accuracy in [0, 1].

    Raises:
        CandidateError: it failed; the journal says why.
    """
    if in_trial() and threads is not None:
        torch.set_num_threads(threads)
    with watchdog(case, time_limit if in_trial() else None):
        record = case.settle(work, _report)
    metric = metric_of(record)
    if nni.get_current_parameter() is not None:
        nni.report_final_result(metric)
    return metric
