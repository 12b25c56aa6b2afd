"""Judge candidates by what they learn from a small set, in any loop: nothing here knows a search framework."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from ddplug.data.anything import Data
from ddplug.errors import DataError, DdplugError, OptionError
from ddplug.evaluation.train import steps_of
from ddplug.networks.factory import build, name_of
from ddplug.search.candidate import Report, images_of, train_and_score
from ddplug.search.journal import Journal, Record, key
from ddplug.search.protocol import CandidateError, Protocol, Result, reason
from ddplug.search.sets import check_pair, load_set
from ddplug.search.tables import fit_and_score, is_estimator, is_told, parameters
from ddplug.search.workers import Workers
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.held_out import holdout
from ddplug.synthetic.ready import ready
from ddplug.utils.devices import pick_device
from ddplug.utils.files import check_writable
from ddplug.utils.fingerprints import file_fingerprint, fingerprint
from ddplug.utils.processes import LostError

__all__ = ["Candidate", "Case", "Judge", "Source", "Work", "judge", "mark_of", "metric_of", "parted"]

Candidate: TypeAlias = Any
"""A network's name with options, a function that makes one (see :func:`ddplug.networks.build`), or an estimator.

Or a pair of one of these and the fields of :class:`~ddplug.search.Protocol` that it is trained by.
"""

Source: TypeAlias = SyntheticSet | Data
"""A set, real data (see :func:`ddplug.data.as_labeled`), or the path of a file that holds either as a set.

A text is such a path, or the name of a set that comes with the package; name a data set as ``load_dataset("digits")``.
"""

Work: TypeAlias = Callable[[Report], Result]
"""Trains and scores, and reports interim accuracies to the function that it is given."""


def _ignore(accuracy: float, step: int) -> None:
    """Do nothing about an interim accuracy."""


@dataclass(frozen=True)
class Case:
    """What is to be judged, and where that is written down.

    Attributes:
        sample: the candidate, JSON-ready.
        settings: everything else that the metric depends on, JSON-ready.
        journal: path of the journal; ``None`` keeps none.
        trial: name of the trial of a search framework.
        parameter: its number of the parameters.
    """

    sample: Mapping[str, Any]
    settings: Mapping[str, Any]
    journal: str | Path | None = None
    trial: str | None = None
    parameter: int | None = None

    @property
    def key(self) -> str:
        """What the journal calls it."""
        return key(self.sample, self.settings)

    def record(self, result: Result) -> Record:
        """Write up a result."""
        return Record(self.key, self.sample, result, self.settings, self.trial, self.parameter)

    def append(self, result: Result) -> Record:
        """Write up a result, and into the journal if there is one."""
        record = self.record(result)
        if self.journal is not None:
            Journal(self.journal).append(record)
        return record

    def lines(self) -> list[Record]:
        """Return everything that the journal has of it, oldest first."""
        return [] if self.journal is None else Journal(self.journal).of(self.key)

    def known(self) -> Record | None:
        """Return the success that the journal has already."""
        return None if self.journal is None else Journal(self.journal).find(self.key)

    def settle(self, work: Work, report: Report = _ignore) -> Record:
        """Return what the journal knows, else train and write down what came of it.

        Args:
            work: trains and scores.
            report: is told interim accuracies, those of a known result too. What it raises goes through, and then
                nothing is written down.
        """
        known = self.known()
        if known is not None:
            # records of earlier versions do not say when they were taken
            steps = known.result.at or range(1, len(known.result.intermediate) + 1)
            for value, step in zip(known.result.intermediate, steps, strict=True):
                report(value, step)
            return known
        try:
            result = work(report)
        except DdplugError as error:
            result = Result(None, reason(error))
        return self.append(result)


def metric_of(record: Record) -> float:
    """Return the metric of a candidate.

    Raises:
        CandidateError: it failed.
    """
    if record.metric is None:
        name = f"candidate {dict(record.sample)}" if record.sample else "the candidate"
        raise CandidateError(f"{name} failed: {record.failure}")
    return record.metric


@dataclass(frozen=True)
class _Held:
    """One of the two sets of a judge: a file, which is loaded when it is needed, or a set in memory."""

    source: str | SyntheticSet
    mark: str

    @classmethod
    def of(cls, source: Any) -> _Held:
        """Take hold of what a user gives."""
        if isinstance(source, _Held):
            return source
        if isinstance(source, (str, os.PathLike)):
            known = ready(source)
            path = os.path.abspath(source if known is None else known.path)
            return cls(path, file_fingerprint(path))
        made = source if isinstance(source, SyntheticSet) else holdout(source)
        about = [made.class_names, made.num_classes, made.recipe.to_json()]
        whole = made.enlarged()
        tensors = fingerprint({"inputs": whole.inputs, "targets": whole.targets})
        return cls(made, hashlib.sha256(json.dumps([tensors, about]).encode()).hexdigest())

    def load(self) -> SyntheticSet:
        """Return the set; a file that was altered since is refused."""
        return self.source if isinstance(self.source, SyntheticSet) else load_set(self.source, self.mark)

    def __str__(self) -> str:
        return self.source if isinstance(self.source, str) else repr(self.source)


def mark_of(source: Source) -> str:
    """Return what a journal calls a set: the fingerprint of a file, or of the contents of what is in memory."""
    return _Held.of(source).mark


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges candidates by one protocol: what they learn from a set, scored on real data kept apart.

    A candidate is a network's name with options, a function that makes a network, or an estimator with ``fit`` and
    ``score``. The same class is the truth that a search wants: give all data as ``train``.

    With a journal every outcome is a line in it, under a key of the sample, the protocol, the contents of both sets and
    ``about``. A candidate that succeeded under the same key is not trained again; one that failed is. Processes may
    share a journal on a local disk. Candidates of one process take turns, also where threads ask.

    Args:
        train: what candidates are trained on: a file of a set, a set, or real data.
        validation: real data in the same model space, kept apart from what the set was made of; never the test data.
        protocol: how, and how often.
        journal: file that results are appended to; ``None`` keeps none.
        about: what else tells these candidates from others in the journal, JSON-ready: a name of the space, say.
        workers: processes that candidates are trained in; ``None`` trains in this one.

    Raises:
        OptionError: a file cannot be read or written, or the protocol does not suit the set or the machine.
        FormatError: a file holds no set.
        DataError: train and validation do not fit together, or are one and the same.

    Example:
        >>> from ddplug.distillation.loop import distill
        >>> from ddplug.testing import toy_images
        >>> train, rest = toy_images((30, 30)).split(0.4)
        >>> cheap = Judge(distill(train, "random", device="cpu"), rest, Protocol(steps=20, device="cpu"))
        >>> [cheap(f"mlp:width={width}").metric for width in (8, 16)]
        [1.0, 1.0]
    """

    train: Source
    validation: Source
    protocol: Protocol = field(default_factory=Protocol)
    journal: str | Path | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    workers: Workers | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.protocol, Protocol):
            raise OptionError(f"protocol is {self.protocol!r}; give one, as ddplug.search.Protocol(steps=100)")
        if self.workers is not None and not callable(getattr(self.workers, "run", None)):
            raise OptionError(f"workers is {self.workers!r}; give some, as ddplug.search.Workers(2)")
        for name in ("train", "validation"):
            object.__setattr__(self, name, _Held.of(getattr(self, name)))
        if self.journal is not None:
            check_writable(self.journal)
        taken = {"train", "validation", "candidate", *Protocol(steps=1).settings()} & set(self.about)
        if taken:
            raise OptionError(
                f"about names {sorted(taken)[0]!r}, which the journal has by itself; choose another name, as 'space'"
            )
        if self._marks["train"] == self._marks["validation"]:
            raise DataError(
                f"train and validation are one and the same, {self.train}; cut off data, see ddplug.holdout"
            )
        train, validation = self.sets()
        check_pair(train, validation)
        self.protocol.recipe(train.recipe).check(train.shape)
        pick_device(self.protocol.device)

    def sets(self) -> tuple[SyntheticSet, SyntheticSet]:
        """Return both sets; those of files are loaded once a process.

        Raises:
            OptionError: a file cannot be read.
            DataError: a file was altered since this judge was made.
        """
        train, validation = _Held.of(self.train), _Held.of(self.validation)
        return train.load(), validation.load()

    @property
    def _marks(self) -> dict[str, str]:
        """Fingerprints of both sets."""
        return {name: _Held.of(getattr(self, name)).mark for name in ("train", "validation")}

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the sample that a metric depends on, JSON-ready."""
        return {**self.protocol.settings(), **self._marks, **self.about}

    @property
    def cost(self) -> float:
        """What judging one network costs, in forward passes of one image.

        It is ``3 x images trained on + images scored`` for each seed, because a training step is a forward pass and a
        backward pass of about twice the cost.
        """
        train, validation = self.sets()
        images = images_of(self.protocol.recipe(train.recipe), len(train))
        return float(self.protocol.seeds * (3 * images + len(validation)))

    def steps(self, candidate: Candidate = None) -> int:
        """Return the training steps that a candidate takes over all seeds; an estimator takes one a seed.

        Args:
            candidate: see :meth:`__call__`; one that changes nothing in the protocol if not given.
        """
        bare, changes = parted(candidate)
        protocol, train = self.protocol.changed(**changes), self.sets()[0]
        each = 1 if is_estimator(bare) else steps_of(protocol.recipe(train.recipe), len(train))
        return protocol.seeds * each

    @property
    def nbytes(self) -> int:
        """What the set that candidates are trained on takes."""
        return self.sets()[0].nbytes

    def case(self, candidate: Candidate, sample: Mapping[str, Any] | None = None) -> Case:
        """Return the case of a candidate, under whose key the journal has it.

        Args:
            candidate: see :meth:`__call__`, as all else.
            sample: what tells it from others.
        """
        bare, changes = parted(candidate)
        settings, named = self._changed(changes).settings, _named(bare)
        told = is_told(bare) if is_estimator(bare) else bool(named)
        if self.journal is not None and not told and not sample:
            raise OptionError(
                f"candidate {name_of(bare)} has no sample, and a journal could not tell it from others; "
                "give sample={...}, the choices that it is made of"
            )
        if sample is not None:
            # what a candidate says of itself is in its key, whatever the sample leaves out
            return Case(dict(sample), {**settings, **({"candidate": named} if named else {})}, self.journal)
        return Case({**(named or {"network": name_of(bare)}), **changes}, settings, self.journal)

    def find(self, candidate: Candidate, sample: Mapping[str, Any] | None = None) -> Record | None:
        """Return the success that the journal has of a candidate, or ``None``."""
        return self.case(candidate, sample).known()

    def __call__(
        self, candidate: Candidate, sample: Mapping[str, Any] | None = None, report: Report = _ignore
    ) -> Record:
        """Judge a candidate.

        Args:
            candidate: what is trained; functions are called once a seed. A pair of a candidate and fields of the
                protocol, ``("mlp", {"learning_rate": 0.1})``, is trained by these.
            sample: what tells it from all others under these settings, JSON-ready: the choices it is made of. A name
                or an estimator needs none; a function does where there is a journal.
            report: is told interim accuracies, and the steps taken before each. What it raises goes through.

        Returns:
            What became of it. A candidate that fails is a result too: ``record.metric`` is then ``None``, and
            ``record.failure`` says why.

        Raises:
            OptionError: what does not tell itself from others, as a function, came without a sample where there is a
                journal; the sample is not JSON-ready, a field of the protocol is unknown or out of range, or a
                candidate cannot be sent to a worker.
        """
        bare, changes = parted(candidate)
        own, case = self._changed(changes), self.case(candidate, sample)
        if self.workers is None or case.known() is not None:
            return case.settle(lambda report: own._work(bare, report), report)
        task = _Sent(replace(self, workers=None), candidate, sample)
        return _settled_by(self.workers, task, case, own.protocol.time_limit, report)

    def _changed(self, changes: Mapping[str, Any]) -> Judge:
        """Return a judge with another protocol."""
        return replace(self, protocol=self.protocol.changed(**changes)) if changes else self

    def _work(self, candidate: Candidate, report: Report) -> Result:
        train, validation = self.sets()
        if is_estimator(candidate):
            return fit_and_score(candidate, train, validation, self.protocol)

        def make(rng: torch.Generator) -> nn.Module:
            return build(candidate, train.shape, train.num_classes, rng)

        return train_and_score(make, train, validation, self.protocol, report=report)


@dataclass(frozen=True)
class _Sent:
    """A candidate on its way to a worker, which writes down what comes of it."""

    judge: Judge
    candidate: Candidate
    sample: Mapping[str, Any] | None

    def load(self) -> None:
        self.judge.sets()

    def __call__(self, report: Report) -> Record:
        return self.judge(self.candidate, self.sample, report)


def _settled_by(workers: Workers, task: _Sent, case: Case, limit: float | None, report: Report) -> Record:
    """Have a worker judge a candidate, and write down what comes of it where the worker cannot."""
    before, began = len(case.lines()), time.perf_counter()

    def written(pid: int) -> Record | None:
        return next((record for record in case.lines()[before:] if record.pid == pid), None)

    try:
        record: Record = workers.run(task, limit=limit, report=report, written=written)
        return record
    except LostError as lost:
        return case.append(Result(None, str(lost), seconds=time.perf_counter() - began))


def _named(candidate: Candidate) -> dict[str, Any]:
    """Tell a candidate from others by itself; nothing where it is a function."""
    if is_estimator(candidate):
        return parameters(candidate)
    return {"network": candidate} if isinstance(candidate, str) else {}


def parted(candidate: Candidate) -> tuple[Candidate, Mapping[str, Any]]:
    """Part a candidate from what it changes in the protocol.

    Raises:
        OptionError: it is a tuple, and no pair of both.
    """
    if not isinstance(candidate, tuple):
        return candidate, {}
    if len(candidate) != 2 or not isinstance(candidate[1], Mapping):
        raise OptionError(
            f'a candidate is a tuple of {len(candidate)}; give a pair, (network, {{"learning_rate": 0.1}})'
        )
    return candidate


def judge(
    candidate: Candidate,
    protocol: Protocol,
    *,
    train: Source,
    validation: Source,
    journal: str | Path | None = None,
    sample: Mapping[str, Any] | None = None,
) -> Record:
    """Judge one candidate; for several, keep a :class:`Judge`, which reads the files once.

    Args:
        candidate: see :class:`Judge`, as all but ``sample``.
        protocol: how.
        train: what it is trained on.
        validation: what it is scored on.
        journal: file that the result is appended to.
        sample: what tells it from others; see :meth:`Judge.__call__`.

    Returns:
        What became of it.

    Example:
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> from ddplug.testing import toy_images
        >>> train, rest = toy_images((30, 30)).split(0.4)
        >>> judge(DecisionTreeClassifier(max_depth=2), Protocol(), train=train, validation=rest).failure is None
        True
    """
    return Judge(train, validation, protocol, journal)(candidate, sample)
