"""NNI's architecture search, made trustworthy: right pairs, nothing lost, taken up again from a folder."""

from __future__ import annotations

import copy
import logging
import math
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nni.nas.execution.event import ModelEventType
from nni.nas.experiment import NasExperiment
from nni.nas.experiment.config import SequentialEngineConfig, TrainingServiceEngineConfig
from nni.nas.space import ModelStatus, SimplifiedModelSpace
from nni.nas.strategy.base import Strategy
from nni.runtime.log import _handlers

from ddplug.errors import DdplugError, OptionError, unknown
from ddplug.nni.engine import Budget, ProxyEngine, SequentialEngine
from ddplug.nni.postmortem import last_words, manager_words
from ddplug.nni.running import (
    SlowStartError,
    configured,
    end_children,
    free_port,
    patient,
    run_workers,
    terminable,
    warm_workers,
)
from ddplug.nni.samples import plain
from ddplug.nni.warm import WarmEngine
from ddplug.search.journal import Journal, Record, key
from ddplug.search.protocol import Result
from ddplug.search.retraining import Retrained, retrain
from ddplug.search.sets import folder_at
from ddplug.utils.packages import check_filelock
from ddplug.utils.randomness import temporary_seed

__all__ = ["ProxyExperiment"]

_logger = logging.getLogger(__name__)

_STARTS = 5
"""Attempts to start the manager on a free port, which another program may take meanwhile."""


class ProxyExperiment(NasExperiment):
    """Multi-trial architecture search whose results are those of the candidates they are listed under.

    It is a ``NasExperiment`` with these differences. Metrics are matched with candidates by what each trial received.
    A candidate that fails is recorded with its reason, and the search goes on. Every outcome is appended to a journal
    at once; candidates with a success in the journal are answered from it, so that a second experiment on the same
    folder goes on where the first stopped, however that ended. :meth:`run` stops the experiment at its end, and results
    can be exported afterwards.

    Args:
        model_space: an NNI model space, its choices labeled.
        evaluator: a :class:`ddplug.nni.evaluator.ProxyEvaluator`, or any other, whose results then count for this run
            only.
        strategy: a multi-trial strategy; with a seed of its own, a search that is taken up again asks for the same
            candidates first.
        config: NNI's configuration, copied and used as it is but for the class of the engine; ``trials`` and
            ``concurrency`` are then its own. ``None``: in this process if ``concurrency`` is 1, else in processes of
            ours that stay warm; neither has a manager of NNI's. With NNI's training service every candidate costs some
            seconds for its process.
        trials: candidates in all, those that the journal knows included.
        concurrency: candidates trained at once.
        folder: where the journal (``journal.jsonl``) and NNI's files are kept; made if it is missing. ``None``: the
            journal that the evaluator has, or one among NNI's files of this experiment.

    Raises:
        OptionError: the strategy is none of NNI's, a number is out of range, the folder cannot be written, or the
            evaluator has another journal.
    """

    def __init__(
        self,
        model_space: Any,
        evaluator: Any,
        strategy: Any,
        config: Any = None,
        *,
        trials: int = 20,
        concurrency: int = 1,
        folder: str | Path | None = None,
    ) -> None:
        if not isinstance(strategy, Strategy):
            raise OptionError(f"strategy is {strategy!r}; give an object such as nni.nas.strategy.Random()")
        place = None if folder is None else folder_at(folder)
        own = copy.deepcopy(config) if config is not None else configured(trials, concurrency, place)
        self.evaluator: Any
        super().__init__(model_space, evaluator, strategy, own)
        run_workers(self.config, evaluator)
        self._concurrency = concurrency if config is None else 1
        self._limit = self.config.max_trial_number
        if self._limit is not None:
            # of the manager, which counts trials: a candidate may take two
            self.config.max_trial_number = 2 * self._limit
        self.journal = self._journal(place)
        self._space: Any = None
        self._before: Counter[str] = Counter()
        self._started = False

    def _journal(self, place: Path | None) -> Journal:
        """Open the journal, and give it to the evaluator if that keeps one."""
        mine = None if place is None else place / "journal.jsonl"
        theirs = getattr(self.evaluator, "journal", None)
        if theirs is not None and mine is not None and Path(theirs).absolute() != mine:
            raise OptionError(f"the evaluator has the journal {theirs}, the folder {mine}; give one of them")
        if theirs is not None:
            return Journal(theirs)
        if mine is None:
            mine = folder_at(self._home) / "journal.jsonl"
        if hasattr(self.evaluator, "journal"):
            traced = self.evaluator.trace_copy()
            traced.trace_kwargs["journal"] = str(mine)
            self.evaluator = traced.get()
        return Journal(mine)

    @property
    def _home(self) -> Path:
        """The folder of NNI's own files of this experiment."""
        return Path(self.config.canonical_copy().experiment_working_directory, self.id)

    def _key(self, model: Any) -> str:
        """Name a candidate as its evaluator does; others' candidates are known within this experiment only."""
        named = getattr(model.evaluator, "key", None)
        return str(named(model)) if named is not None else key(plain(model.sample), {"experiment": self.id})

    def _recall(self, model: Any) -> Record | None:
        return self.journal.find(self._key(model))

    def _pairs(self, records: list[Record]) -> list[tuple[Record, Any]]:
        """Return the records that are of this space and evaluator, each with its candidate."""
        if self._space is None:
            self._space = self.executable_model_factory(self.config.canonical_copy().model_format)
        # a choice that is no JSON comes back as another value, so that the candidates of this process come first
        models = {} if self._engine is None else {self._key(model): model for model in self._engine.list_models()}
        for record in records:
            if record.key not in models:
                try:
                    model = self._space.freeze(dict(record.sample))
                    models[self._key(model)] = model
                except Exception:  # a sample of another space fails in as many ways as there are spaces
                    continue
        return [(record, models[record.key]) for record in records if record.key in models]

    @property
    def results(self) -> list[Record]:
        """Every success in the journal of this space and evaluator, of earlier runs too; the pairs are true."""
        return [record for record, _ in self._pairs(self.journal.results())]

    @property
    def failures(self) -> list[Record]:
        """Candidates of this space and evaluator that failed and never succeeded, with the reason."""
        return [record for record, _ in self._pairs(self.journal.failures())]

    def execution_engine_factory(self, config: Any) -> Any:
        """Make the engine; NNI calls this when a search starts."""
        limit = math.inf if self._limit is None else self._limit
        budget = Budget(limit, {record.key for record in self.results})
        self._before = Counter(record.key for record in self.journal.read())
        engine: Any
        if isinstance(config, TrainingServiceEngineConfig):
            engine = ProxyEngine(self, recall=self._recall, budget=budget, spoke=self._spoke)
        elif self._concurrency > 1:
            workers = warm_workers(self._concurrency, self.config, self.evaluator)
            engine = WarmEngine(workers, recall=self._recall, budget=budget, spoke=self._spoke)
        elif isinstance(config, SequentialEngineConfig):
            engine = SequentialEngine(recall=self._recall, budget=budget, max_duration=config.max_duration)
        else:
            raise OptionError(f"execution engine {config.name!r} is not supported; use 'ts' or 'sequential'")
        engine.register_model_event_callback(ModelEventType.TrainingEnd, self._record)
        return engine

    def _spoke(self, model: Any) -> bool:
        """Return whether the process of a candidate wrote down what became of it, in this run or, if well, before."""
        found = self.journal.of(self._key(model))
        return len(found) > self._before[self._key(model)] or any(record.failure is None for record in found)

    def _record(self, event: Any) -> None:
        """Write down what became of a candidate, unless its own process did."""
        model = event.model
        try:
            if not self._spoke(model):
                self.journal.append(self._outcome(self._key(model), model))
        except DdplugError:
            # this may run in the thread that listens to the manager, which must live
            _logger.exception("A result could not be written to the journal.")

    def _outcome(self, name: str, model: Any) -> Record:
        """Write up a candidate whose own process did not."""
        if model.metric is not None and math.isfinite(model.metric):
            return Record(name, plain(model.sample), Result(float(model.metric)))
        words = last_words(self._engine, model, self._home) if model.metric is None else f"its metric is {model.metric}"
        return Record(name, plain(model.sample), Result(None, words))

    def run(self, port: int | None = None, wait_completion: bool = True, debug: bool = False) -> bool:
        """Search, and stop the experiment, whatever happens.

        Args:
            port: of NNI's manager, which listens on every interface without a password; a free one if ``None``.
            wait_completion: has no effect, as in NNI: a search always waits for its end.
            debug: log more.

        Returns:
            Whether there is any result.

        Raises:
            OptionError: the port is in use, or the evaluator finds that the space does not suit its files.
            DdplugError: the manager does not start, or is lost.
            SystemExit: the process was asked to terminate (SIGTERM).
        """
        check_filelock()
        if hasattr(self.evaluator, "check"):
            self.evaluator.check(self.model_space)
        # the connection to the manager draws from Python's global generator
        state = random.getstate()
        with terminable():
            try:
                self.start(port, debug)
                self._wait_completion()
            except OSError as error:
                if not self._nni_manager_required():
                    raise
                words = f"{error}{manager_words(self._home)}"
                raise DdplugError(f"lost NNI's manager: {words}; what is done is in {self.journal.path}") from error
            finally:
                self.stop()
                random.setstate(state)
        failures, results = self.failures, self.results
        if failures:
            _logger.warning(
                "%d candidates failed, %d did not; the last failure: %s",
                len(failures),
                len(results),
                failures[-1].failure,
            )
        return bool(results)

    def resume(self, *args: Any, **kwargs: Any) -> bool:
        """Refuse: what NNI 3.0 saves cannot be taken up again; the journal can.

        Raises:
            OptionError: always.
        """
        raise OptionError("resume() does not work in NNI 3.0; make a ProxyExperiment with the same folder and run it")

    def _start_nni_manager(self, port: int | None, *args: Any, **kwargs: Any) -> None:
        """Start the manager on the port, or try some free ones."""
        for attempt in range(1, _STARTS + 1):
            try:
                with patient(self.id):
                    super()._start_nni_manager(port or free_port(), *args, **kwargs)
                return
            except (OSError, RuntimeError) as error:
                if "not idle" in str(error) and port is not None:
                    raise OptionError(f"port {port} is in use; leave it out to have a free one chosen") from None
                if attempt == _STARTS or isinstance(error, SlowStartError):
                    words = manager_words(self._home)
                    raise DdplugError(f"NNI's manager did not start: {error}{words}; see {self._home}") from error

    def _start_without_nni_manager(self) -> None:
        """Keep a search in this process out of NNI's list of experiments: there is nothing to look at there."""

    def _stop_without_nni_manager(self) -> None:
        """Leave the list alone."""

    def _stop_logging(self) -> None:
        # NNI forgets to close the file
        handler = _handlers.get(self.id)
        super()._stop_logging()
        if handler is not None:
            handler.close()

    def start(self, port: int | None = None, *args: Any, **kwargs: Any) -> None:
        """Do what :meth:`run` does, but leave stopping to the caller."""
        self._started = True
        super().start(port, *args, **kwargs)

    def stop(self) -> None:
        """Stop the experiment and its manager; results can still be exported. A second call does nothing."""
        if not self._started:
            return
        self._started = False
        if isinstance(self._engine, ProxyEngine):
            # the trials that are ended now have not died
            self._engine.closing = True
        try:
            super().stop()
        finally:
            end_children(self.id)

    def export_top_models(self, top_k: int = 1, *, formatter: str | None = None, **kwargs: Any) -> list[Any]:
        """Return the best candidates of the journal of this space and evaluator, at any time.

        Args:
            top_k: how many at most.
            formatter: ``None`` for NNI's executable models, ``"dict"`` for samples, ``"instance"`` for networks, whose
                weights are those of a fixed seed.
            kwargs: none; NNI's own takes more.

        Returns:
            Best first.

        Raises:
            OptionError: the formatter is not known.
        """
        if formatter not in _FORMATTERS:
            raise unknown("formatter", str(formatter), [name for name in _FORMATTERS if name])
        pairs = sorted(self._pairs(self.journal.results()), key=lambda pair: pair[0].metric or 0.0, reverse=True)
        for record, model in pairs:
            model.metrics.final = record.metric
            model.status = ModelStatus.Trained
        with temporary_seed(0):
            return [_FORMATTERS[formatter](model) for _, model in pairs[:top_k]]

    def retrain(self, full: Any, *, top_k: int = 3, chance: int | None = None, seed: int = 0) -> Retrained:
        """Train the best candidates in full, and some drawn by chance as a control.

        Args:
            full: a :class:`ddplug.nni.ProxyEvaluator` whose ``train`` is all data. Where it keeps no journal of its
                own, results go into that of this experiment, and what it has is not trained again.
            top_k: how many of the best to train.
            chance: how many to draw by chance; see :func:`ddplug.search.retrain`.
            seed: of the draw.

        Returns:
            What became of both, and what the search gained over choosing by chance.

        Raises:
            OptionError: the search has no success yet.
        """
        if full.journal is None:
            traced = full.trace_copy()
            traced.trace_kwargs["journal"] = str(self.journal.path)
            full = traced.get()
        pairs = self._pairs(self.journal.results())
        # a choice that is no JSON is one thing in the journal and another in the space
        samples = {repr(record.sample): dict(model.sample) for record, model in pairs}
        space = SimplifiedModelSpace.from_model(self.model_space, full)

        def judge(sample: Mapping[str, Any]) -> Record:
            model = space.freeze(samples[repr(sample)])
            found: Record = model.evaluator.settle(model)
            return found

        return retrain([record for record, _ in pairs], judge, top_k=top_k, chance=chance, seed=seed)


_FORMATTERS: dict[str | None, Any] = {
    None: lambda model: model,
    "dict": lambda model: model.sample,
    "instance": lambda model: model.executable_model(),
}
