"""NNI's engine over warm processes of ours: candidates at once, without NNI's manager, and a metric is its candidate's.

A candidate goes to an idle process and its metrics come back from there, so that nothing can be mixed up. The processes
import torch and NNI once, where NNI's training service starts one for each candidate.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import nni
from nni.nas.execution.event import FinalMetricEvent, IntermediateMetricEvent, TrainingEndEvent
from nni.nas.execution.sequential import SequentialExecutionEngine, SequentialTrialCommandChannel
from nni.nas.space import ModelStatus
from nni.runtime.trial_command_channel import set_default_trial_command_channel

from ddplug.nni.engine import Budget, KnownFirst, Recall
from ddplug.search.protocol import reason
from ddplug.search.workers import Workers
from ddplug.utils.processes import Hear, LostError

__all__ = ["WarmEngine"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sent:
    """A candidate on its way to a process, as NNI writes it for a trial."""

    model: str

    def load(self) -> None:
        """Leave the sets to the evaluator, which loads them once a process."""

    def __call__(self, tell: Hear) -> tuple[list[Any], Any]:
        """Execute it, and return its metrics: the interim ones and the final one."""
        model: Any = nni.load(self.model)
        # what NNI's sequential engine does, whose channel tells the engine; nobody listens to this one
        engine = SequentialExecutionEngine()
        set_default_trial_command_channel(SequentialTrialCommandChannel(engine, model))
        nni.get_next_parameter()
        model.execute()
        return list(model.metrics.intermediates), model.metrics.final


class WarmEngine(KnownFirst):
    """Engine that trains candidates in warm processes, as many at once as there are.

    A candidate whose process dies gets one more, and has failed if that dies too.

    Args:
        workers: the processes, which are the engine's own.
        recall: gives the record of a candidate that has been trained before.
        budget: of candidates.
        spoke: tells whether a candidate's own process wrote down what became of it.
    """

    def __init__(self, workers: Workers, *, recall: Recall, budget: Budget, spoke: Callable[[Any], bool]) -> None:
        super().__init__()
        self.recall, self.budget, self._spoke = recall, budget, spoke
        self.reasons: dict[int, str] = {}
        self._workers = workers
        self._threads = ThreadPoolExecutor(workers.number)
        self._models: list[Any] = []
        self._running = 0
        self._changed = threading.Condition(threading.RLock())
        """Held while anybody is told something: the strategy hears of candidates from several threads."""
        self._closing = False

    def submit_models(self, *models: Any) -> None:
        for model in models:
            with self._changed:
                self._models.append(model)
                if self._known(model):
                    continue
                model.status = ModelStatus.Training
                self._running += 1
            self._threads.submit(self._run, model)

    def _run(self, model: Any) -> None:
        """Train a candidate, and tell everybody what came of it."""
        try:
            status = self._tell(model, self._trained(model))
        except LostError as lost:
            status = self._failed(model, str(lost))
        except Exception as error:
            status = self._failed(model, reason(error))
        with self._changed:
            try:
                if self._closing and status == ModelStatus.Failed:
                    model.status = ModelStatus.Interrupted  # it was not its own fault
                else:
                    self.dispatch_model_event(TrainingEndEvent(model, status))
            except Exception:
                _logger.exception("The end of a candidate could not be reported.")
                model.status = status
            finally:
                self._running -= 1
                self._changed.notify_all()

    def _trained(self, model: Any) -> tuple[Collection[Any], Any]:
        """Have a process train a candidate, and return its metrics."""

        def written(pid: int) -> tuple[Collection[Any], Any] | None:
            if not self._spoke(model):
                return None
            record = self.recall(model)
            return ((), None) if record is None else (record.result.intermediate, record.metric)

        limit = getattr(getattr(model.evaluator, "protocol", None), "time_limit", None)
        found: tuple[Collection[Any], Any] = self._workers.run(_Sent(nni.dump(model)), limit=limit, written=written)
        return found

    def _tell(self, model: Any, metrics: tuple[Collection[Any], Any]) -> ModelStatus:
        interim, final = metrics
        with self._changed:
            for value in interim:
                self.dispatch_model_event(IntermediateMetricEvent(model, value))
            if final is None:
                return self._failed(model, "it reported no final metric")
            self.dispatch_model_event(FinalMetricEvent(model, final))
        return ModelStatus.Trained

    def _failed(self, model: Any, words: str) -> ModelStatus:
        if not self._closing:  # what is ended with the search has not failed
            _logger.error("A candidate failed: %s", words)
        self.reasons[id(model)] = words
        return ModelStatus.Failed

    def idle_worker_available(self) -> bool:
        """Wait until a process is idle: a strategy would look again after a second."""
        with self._changed:
            self._changed.wait_for(lambda: self._running < self._workers.number)
        return True

    def budget_available(self) -> bool:
        return self.budget.left

    def wait_models(self, *models: Any) -> None:
        """Wait until the given candidates, or all, have ended."""
        wanted = models or tuple(self._models)
        with self._changed:
            self._changed.wait_for(lambda: all(model.status.completed() for model in wanted))

    def list_models(self, status: ModelStatus | None = None) -> Iterable[Any]:
        """Return the submitted candidates, of one status or all."""
        return [model for model in self._models if status is None or model.status == status]

    def shutdown(self) -> None:
        """End the processes; candidates in progress are taken up again by the next search."""
        self._closing = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._workers.close()
        self._threads.shutdown()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: the journal is what is taken up again."""
