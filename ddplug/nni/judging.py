"""From a sample to a metric that is journalled and reported: the way of every candidate, in NAS and in HPO trials."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import nni
import torch
from nni.runtime.env_vars import trial_env_vars

from ddplug.errors import DdplugError
from ddplug.nni.journal import Journal, Record, key
from ddplug.nni.protocol import CandidateError, Result, over_time, reason

__all__ = ["Case", "in_trial", "judge", "watchdog"]

_GRACE = 2.0
"""Seconds beyond the time limit that a step in progress gets before its process is ended."""

Work = Callable[[Callable[[float], object]], Result]
"""Trains and scores, and reports interim accuracies to the function that it is given."""


def in_trial() -> bool:
    """Return whether this process is a trial that a training service started; it may be ended at will."""
    return trial_env_vars.NNI_PLATFORM is not None


@dataclass(frozen=True)
class Case:
    """What is to be judged and how.

    Attributes:
        sample: the candidate: label -> choice, JSON-ready.
        settings: everything else that the metric depends on, JSON-ready.
        journal: path of the journal; ``None`` keeps none.
        time_limit: seconds, enforced in a trial even against a step that never ends.
        threads: of torch in a trial; ``None`` leaves them alone.
    """

    sample: Mapping[str, Any]
    settings: Mapping[str, Any]
    journal: str | None = None
    time_limit: float | None = None
    threads: int | None = None

    def record(self, result: Result) -> Record:
        """Write up a result."""
        current: Mapping[str, Any] = (nni.trial._params or {}) if in_trial() else {}
        return Record(
            key=key(self.sample, self.settings),
            sample=self.sample,
            result=result,
            settings=self.settings,
            trial=nni.get_trial_id() if in_trial() else None,
            parameter=current.get("parameter_id"),
        )

    def append(self, result: Result) -> None:
        """Write a result into the journal, if there is one."""
        if self.journal is not None:
            Journal(self.journal).append(self.record(result))

    def known(self) -> Record | None:
        """Return the success that the journal has already."""
        return None if self.journal is None else Journal(self.journal).find(key(self.sample, self.settings))


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
def watchdog(case: Case, grace: float = _GRACE) -> Iterator[None]:
    """End the process, with a line in the journal, if what is inside takes longer than the time limit.

    Between steps the limit is kept by the training itself; this is for a step that never ends. Where even the
    interpreter is held up, so that no line can be written, the process still ends, three seconds later.

    Args:
        case: with the time limit; nothing is done where there is none.
        grace: seconds beyond it.
    """
    if case.time_limit is None:
        yield
        return
    timer = threading.Timer(case.time_limit + grace, functools.partial(_expire, case, case.time_limit))
    timer.daemon = True
    timer.start()
    if sys.__stderr__ is not None:
        faulthandler.dump_traceback_later(case.time_limit + grace + 3, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()


def _report(value: float) -> None:
    if nni.get_current_parameter() is not None:
        nni.report_intermediate_result(value)


def _finish(metric: float) -> float:
    if nni.get_current_parameter() is not None:
        nni.report_final_result(metric)
    return metric


def judge(case: Case, work: Work) -> float:
    """Return a candidate's metric: from the journal if it is known, else by training; report it to NNI.

    The result is in the journal before NNI hears of it.

    Args:
        case: the candidate and how it is judged.
        work: trains and scores it.

    Returns:
        Accuracy in [0, 1].

    Raises:
        CandidateError: it failed; the journal says why.
    """
    known = case.known()
    if known is not None and known.metric is not None:
        for value in known.result.intermediate:
            _report(value)
        return _finish(known.metric)
    if in_trial() and case.threads is not None:
        torch.set_num_threads(case.threads)
    try:
        with watchdog(case) if in_trial() else contextlib.nullcontext():
            result = work(_report)
    except DdplugError as error:
        result = Result(None, reason(error))
    case.append(result)
    return _finish(metric_of(result, case.sample))


def metric_of(result: Result, sample: Mapping[str, Any]) -> float:
    """Return the metric of a candidate.

    Raises:
        CandidateError: it failed.
    """
    if result.metric is None:
        raise CandidateError(f"candidate {dict(sample)} failed: {result.failure}")
    return result.metric
