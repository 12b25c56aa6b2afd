"""Optuna's objective: a trial is scored on a small set, and what comes out on top is trained on all data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optuna
from matplotlib.figure import Figure
from optuna.study import Study, StudyDirection
from optuna.trial import BaseTrial, FixedTrial, Trial

from ddplug.errors import OptionError
from ddplug.search.figures import progress
from ddplug.search.journal import Record, key
from ddplug.search.judging import Candidate, Judge
from ddplug.search.protocol import Result
from ddplug.search.retraining import Retrained, retrain
from ddplug.utils.checks import real

__all__ = ["DistilledObjective"]


class DistilledObjective:
    """What ``study.optimize`` calls: suggests a candidate, scores it on a set, and trains it in full if it promises.

    The score on the set is a trial's value where no ``full`` judge is given. With one, a trial is promoted if its score
    on the set is the best so far, or is among the best ``promote`` of them while no more than that share were promoted;
    what is not is pruned, and the value of the others is that of full training. So ``study.best_trial`` has been
    trained in full.

    Interim accuracies are reported to the study with the training steps taken so far, first those on the set and then,
    counted on from these, those on all data: its pruner may stop a trial at any of them. A candidate that fails gives a
    failed trial that says why, and the study goes on.

    Every trial has user attributes, for the dashboard: ``bytes`` of the set, ``proxy`` and ``proxy_seconds``, whether
    it was ``promoted``, ``full`` and ``full_seconds``, and ``failure``. The decision to promote looks at these alone,
    so that several processes may work on one storage. Threads (``n_jobs``) take turns while they train, since torch has
    one random state a process; start processes to train at once.

    Give the judges a journal, and nothing is trained twice, whatever becomes of the study.

    Args:
        define: suggests parameters by its argument, a trial, and returns the candidate that they make: a network's
            name, a function that makes a network, an estimator, or a pair of one of these and fields of the
            :class:`~ddplug.search.Protocol`, ``("mlp", {"learning_rate": 0.1})``.
        proxy: judges on the set.
        full: judges on all data; ``None`` scores on the set alone.
        promote: share of the trials that are to be trained in full, above 0 and at most 1.

    Raises:
        OptionError: the share is out of range, or a judge is none.

    Example:
        >>> from ddplug.search import Judge, Protocol
        >>> from ddplug.testing import toy_images
        >>> train, rest = toy_images((30, 30)).split(0.4)
        >>> judge = Judge(train, rest, Protocol(steps=5, device="cpu"))
        >>> objective = DistilledObjective(lambda trial: f"mlp:width={trial.suggest_int('width', 2, 8)}", judge)
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        >>> study.optimize(objective, n_trials=2)
        >>> [sorted(trial.user_attrs) for trial in study.trials]
        [['bytes', 'proxy', 'proxy_seconds'], ['bytes', 'proxy', 'proxy_seconds']]
    """

    def __init__(
        self,
        define: Callable[[BaseTrial], Candidate],
        proxy: Judge,
        full: Judge | None = None,
        *,
        promote: float = 0.25,
    ) -> None:
        for name, judge in (("proxy", proxy), ("full", full)):
            if not isinstance(judge, Judge) and (judge is not None or name == "proxy"):
                raise OptionError(f"{name} is a {type(judge).__name__}; give a ddplug.search.Judge")
        if not 0 < real("promote", promote) <= 1:
            raise OptionError(f"promote is {promote!r}; it must be a share above 0 and at most 1")
        self.define = define
        self.proxy = proxy
        self.full = full
        self.promote = promote
        self._nbytes = proxy.nbytes

    def __call__(self, trial: Trial | FixedTrial) -> float:
        """Score a trial.

        Args:
            trial: of a study that maximizes, or a ``FixedTrial``, which belongs to none and is trained in full.

        Returns:
            Accuracy in [0, 1]; NaN, which Optuna takes for a failed trial, where the candidate failed.

        Raises:
            optuna.TrialPruned: the pruner stopped it, or it was not promoted.
            OptionError: the study does not maximize one value.
        """
        if not isinstance(trial, FixedTrial) and trial.study.directions != [StudyDirection.MAXIMIZE]:
            raise OptionError(
                "the study does not maximize one value, the accuracy; make it by create_study(direction='maximize')"
            )
        candidate = self.define(trial)
        trial.set_user_attr("bytes", self._nbytes)
        record = self._judge(trial, "proxy", self.proxy, candidate, 0)
        if record.metric is None or self.full is None:
            return _value(record)
        before = self.proxy.steps(candidate)
        trial.report(record.metric, before)
        promoted = self._is_promoted(trial, record.metric)
        trial.set_user_attr("promoted", promoted)
        if not promoted:
            raise optuna.TrialPruned(f"{record.metric:.4f} on the set is not among the best {self.promote:.0%}")
        return _value(self._judge(trial, "full", self.full, candidate, before))

    def _judge(self, trial: Trial | FixedTrial, name: str, judge: Judge, candidate: Candidate, before: int) -> Record:
        """Judge a candidate, tell the pruner about it, and leave what came of it with the trial."""

        def report(value: float, step: int) -> None:
            trial.report(value, before + step)
            if trial.should_prune():
                raise optuna.TrialPruned(f"stopped by the pruner after {before + step} steps")

        record = judge(candidate, trial.params, report)
        if record.metric is None:
            trial.set_user_attr("failure", record.failure)
        else:
            trial.set_user_attr(name, record.metric)
        trial.set_user_attr(f"{name}_seconds", record.result.seconds)
        return record

    def _is_promoted(self, trial: Trial | FixedTrial, value: float) -> bool:
        """Return whether a score is among the best of those that the study has."""
        if isinstance(trial, FixedTrial):
            return True
        others = trial.study.get_trials(deepcopy=False)
        known = [own.user_attrs for own in others if "proxy" in own.user_attrs and own.number != trial.number]
        better = sum(float(own["proxy"]) > value for own in known)
        promoted = sum(bool(own.get("promoted")) for own in known)
        share = self.promote * (len(known) + 1)
        # a good sampler finds better and better ones, which would all be among the best when they come
        return better == 0 or (better < math.floor(share) and promoted < math.ceil(share))

    def proxies(self, study: Study) -> list[Record]:
        """Return what the set said of each trial, in order, failures on it left out."""
        return _records(study, "proxy")

    def promoted(self, study: Study) -> list[Record]:
        """Return what full training said of the trials that were promoted, in order."""
        return _records(study, "full")

    def retrain(self, study: Study, *, top_k: int = 3, chance: int | None = None, seed: int = 0) -> Retrained:
        """Train the trials that the set puts first on all data, and some drawn by chance as a control.

        With a journal, what was promoted is not trained again.

        Args:
            study: that was optimized.
            top_k: how many of the best to train.
            chance: how many to draw by chance; see :func:`ddplug.search.retrain`.
            seed: of the draw.

        Raises:
            OptionError: there is no ``full`` judge, or no trial succeeded.
        """
        full = self.full
        if full is None:
            raise OptionError("there is no judge for full training; give DistilledObjective one as full=...")
        return retrain(
            self.proxies(study),
            lambda sample: full(self.define(FixedTrial(dict(sample))), sample),
            top_k=top_k,
            chance=chance,
            seed=seed,
        )

    def figure(self, study: Study) -> Figure:
        """Draw a study; see :func:`ddplug.search.progress`."""
        title = "" if study.study_name.startswith("no-name") else study.study_name
        return progress(self.proxies(study), self.promoted(study), title=title)


def _records(study: Study, name: str) -> list[Record]:
    """Build records of the user attributes of trials."""
    found: list[Record] = []
    for trial in study.get_trials(deepcopy=False):
        values: dict[str, Any] = trial.user_attrs
        if name in values:
            result = Result(values[name], seconds=values.get(f"{name}_seconds", 0.0))
            found.append(Record(key(trial.params, {}), dict(trial.params), result))
    return found


def _value(record: Record) -> float:
    """Return a trial's value; NaN, by which Optuna marks a trial as failed and goes on, where there is none."""
    return math.nan if record.metric is None else record.metric
