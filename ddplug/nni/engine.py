"""NNI's two engines; the training service's with every metric and ending given to the candidate it belongs to.

The stock engine of NNI 3.0 takes a trial to have received the parameters that were queued for it. The training service
hands them out in the order in which trials ask, so that metrics end up with other candidates as soon as one trial
overtakes another or dies before it asks. Here a trial is known by the number of the parameters that it *received*: its
process says it first of all (:mod:`ddplug.nni.worker`), and every metric says it again.

It overrides private names of NNI 3.0, which is the last release.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from threading import Lock
from typing import Any

from nni.nas.execution.engine import ExecutionEngine
from nni.nas.execution.event import FinalMetricEvent, TrainingEndEvent
from nni.nas.execution.sequential import SequentialExecutionEngine
from nni.nas.execution.training_service import TrainingServiceExecutionEngine
from nni.nas.space import ModelStatus
from nni.utils import MetricType

from ddplug.search.journal import Record
from ddplug.search.protocol import reason

__all__ = ["Budget", "KnownFirst", "ProxyEngine", "Recall", "SequentialEngine"]

_logger = logging.getLogger(__name__)

Recall = Callable[[Any], Record | None]
"""Looks up what is known of a candidate."""

_PATIENCE = 7
"""Seconds without a trial in sight after which candidates on their way are given up; a new one shows within 5."""
_GRACE = 3
"""Seconds that the last messages of an experiment that has ended may take."""


class Budget:
    """How many candidates a search may still ask for.

    Args:
        limit: candidates in all.
        known: keys of those that earlier searches finished; each counts once, and being asked for it is free.

    Example:
        >>> budget = Budget(2, {"a"})
        >>> budget.take("a"), budget.left, budget.take("b"), budget.left
        (None, True, None, False)
    """

    def __init__(self, limit: float, known: Collection[str] = ()) -> None:
        self._limit = limit
        self._free = set(known)
        self._taken = len(self._free)

    @property
    def left(self) -> bool:
        """Whether there may be another."""
        return self._taken < self._limit

    def take(self, key: str | None) -> None:
        """Count a candidate; asking twice for a known one is not free, or a strategy that repeats itself never ends."""
        if key in self._free:
            self._free.discard(key)
        else:
            self._taken += 1


class KnownFirst(ExecutionEngine):
    """What all engines do with a candidate before it is trained: answer it if it is known, and count it.

    Args:
        recall: gives the record of a candidate that has been trained before.
        budget: of candidates.
    """

    recall: Recall
    budget: Budget

    def _known(self, model: Any) -> bool:
        """Count a candidate; tell everybody its metric, as if it had just been trained, if that is known."""
        record = self.recall(model)
        self.budget.take(record.key if record is not None else None)
        if record is None:
            return False
        model.status = ModelStatus.Training
        self.dispatch_model_event(FinalMetricEvent(model, record.metric))
        self.dispatch_model_event(TrainingEndEvent(model, ModelStatus.Trained))
        return True


class SequentialEngine(KnownFirst, SequentialExecutionEngine):
    """Sequential engine that trains no candidate twice, and goes on after one that fails.

    Args:
        recall: gives the record of a candidate that has been trained before.
        budget: of candidates.
        max_duration: seconds of training after which no candidate is started.
    """

    def __init__(self, *, recall: Recall, budget: Budget, max_duration: float | None = None) -> None:
        super().__init__(max_duration=max_duration, continue_on_failure=True)
        self.recall = recall
        self.budget = budget
        self.reasons: dict[int, str] = {}

    def submit_models(self, *models: Any) -> None:
        for model in models:
            if self._known(model):
                self._history.append(model)
            else:
                super().submit_models(model)

    def _run_single_model(self, model: Any) -> None:
        execute = model.execute

        def heard() -> Any:
            try:
                return execute()
            except Exception as error:
                # the base class logs it and forgets it
                self.reasons[id(model)] = reason(error)
                raise

        model.execute = heard
        try:
            super()._run_single_model(model)
        finally:
            del model.execute

    def budget_available(self) -> bool:
        return self.budget.left and bool(super().budget_available())


class ProxyEngine(KnownFirst, TrainingServiceExecutionEngine):
    """Training-service engine that cannot mix candidates up, forgets none and trains none twice.

    Args:
        nodejs_binding: the experiment.
        recall: gives the record of a candidate that has been trained before.
        budget: of candidates.
        spoke: tells whether a candidate's own process wrote down what became of it.

    It needs trials that run :mod:`ddplug.nni.worker`: one that ends and never said which candidate it received is taken
    to have died before it asked, and that candidate goes to another trial. A candidate whose trial died without a word
    (killed, say, or out of memory), or that none took, gets one more trial, and has failed if that dies too.
    """

    def __init__(self, nodejs_binding: Any, *, recall: Recall, budget: Budget, spoke: Callable[[Any], bool]) -> None:
        # the listening thread starts in the base class
        self.recall = recall
        self.budget = budget
        self.spoke = spoke
        self.closing = False
        self.submitted: list[Any] = []
        self.endings: dict[int, tuple[str, str]] = {}
        self.unheard: list[tuple[str, str]] = []
        self._received: dict[str, int] = {}
        self._second: set[int] = set()
        self._made_up = 0
        self._sending = Lock()
        super().__init__(nodejs_binding)

    def ending(self, model: Any) -> tuple[str, str] | None:
        """Return the name of the trial that a candidate ended in, and its last status; ``None`` if it had no trial."""
        return self.endings.get(id(model))

    def submit_models(self, *models: Any) -> None:
        self._check_running()
        for model in models:
            # the base class keeps weak references only, and a strategy may drop its own
            self.submitted.append(model)
            if not self._known(model):
                self._send(model)

    def _send(self, model: Any) -> None:
        # the search sends candidates, and the thread that hears of the end of trials sends some again
        with self._sending:
            super().submit_models(model)

    def _again(self, model: Any) -> bool:
        """Return a candidate another trial; tell whether it may have one."""
        if self.closing or id(model) in self._second:
            return False
        self._second.add(id(model))
        self._send(model)
        return True

    def _make_up(self, left: list[Any]) -> bool:
        """Start a trial for each that died before it took a candidate, where candidates are left; tell if there is one.

        Trials take what waits longest, whatever they were started for.
        """
        owed = min(len(self.unheard), len(self.submitted)) - self._made_up
        for model in left[: max(0, owed)]:
            self._made_up += 1
            self._send(model)
        return owed > 0 and bool(left)

    def budget_available(self) -> bool:
        # the manager counts trials, and candidates that were known have none
        return self.budget.left and bool(super().budget_available())

    def list_models(self, status: ModelStatus | None = None) -> Iterable[Any]:
        """Return the submitted candidates, of one status or all, also after the end of the experiment."""
        return [model for model in self.submitted if status is None or model.status == status]

    def _report_metric_data_callback(self, command: Any) -> None:
        self._received[command.trial_job_id] = command.parameter_id
        if command.type != MetricType.REQUEST_PARAMETER:
            super()._report_metric_data_callback(command)

    def _trial_end_callback(self, command: Any) -> None:
        number = self._received.pop(command.trial_job_id, None)
        if number is None:
            _logger.warning("Trial %s ended (%s) before it took a candidate.", command.trial_job_id, command.event)
            self.unheard.append((command.trial_job_id, command.event))
            return
        model = self._find_reference_model(number)
        if model is None:
            return
        self.endings[id(model)] = command.trial_job_id, command.event
        lost = model.metric is None and not self.spoke(model)
        if lost and self._again(model):
            _logger.warning("Trial %s died without a message; its candidate is tried once more.", command.trial_job_id)
        else:
            self._end(model)

    def _end(self, model: Any) -> None:
        """End a candidate: trained if it has a metric, wherever that came from."""
        record = None if model.metric is not None else self.recall(model)
        if record is not None:
            # the manager drops what arrives after a process has ended
            self.dispatch_model_event(FinalMetricEvent(model, record.metric))
        status = ModelStatus.Failed if model.metric is None else ModelStatus.Trained
        self.dispatch_model_event(TrainingEndEvent(model, status))

    def _trials_in_sight(self) -> bool:
        counts = self.nodejs_binding.get_job_statistics()
        return any(self._interpret_trial_job_status(c["trialJobStatus"]) == ModelStatus.Training for c in counts)

    def wait_models(self, *models: Any) -> None:
        """Wait until the given candidates, or all, have ended; those that no trial will ever take have failed."""
        self._check_running()
        wanted = models or tuple(self.submitted)
        quiet = 0
        while quiet < _PATIENCE and _open(wanted):
            ended = self.nodejs_binding.get_status() in ("DONE", "STOPPED", "ERROR")
            quiet = max(quiet + 1, _PATIENCE - _GRACE) if ended else 0 if self._trials_in_sight() else quiet + 1
            time.sleep(1)
            if quiet >= _PATIENCE and self._make_up(_open(wanted)):
                quiet = 0
        for model in _open(wanted):
            self._end(model)


def _open(models: Iterable[Any]) -> list[Any]:
    return [model for model in models if not model.status.completed()]
