"""NNI's evaluator that trains a candidate on a small set and scores it on real validation data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nni.common.serializer import SerializableObject
from nni.mutable import Mutable
from nni.nas.evaluator import FrozenEvaluator, MutableEvaluator
from nni.nas.space import BaseModelSpace, ExecutableModelSpace, SimplifiedModelSpace
from torch import nn

from ddplug.errors import DataError, OptionError
from ddplug.evaluation.train import fit
from ddplug.nni.judging import case_of, judge, warn_of_stock_engine
from ddplug.nni.paths import normal_path
from ddplug.nni.samples import describe_space, plain
from ddplug.search.candidate import Report, fitted, train_and_score
from ddplug.search.journal import Record, key
from ddplug.search.judging import Case, Work
from ddplug.search.protocol import Protocol, Result, reason
from ddplug.search.sets import check_pair, load_set
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.checks import one_of
from ddplug.utils.devices import pick_device
from ddplug.utils.files import check_writable
from ddplug.utils.fingerprints import file_fingerprint
from ddplug.utils.randomness import temporary_seed

__all__ = ["ProxyEvaluator"]

_DEFAULTS = asdict(Protocol())
_TRIES = 5
"""Samples of a space that are tried before it is refused; some spaces hold a few networks that cannot be built."""


class ProxyEvaluator(MutableEvaluator):
    """Judges a candidate of a model space by its accuracy after training on a small set.

    It works with every engine, strategy and training service of NNI. Data travel as paths, with the fingerprints of the
    files: a trial whose file is missing or altered fails and says so. Every field of
    :class:`ddplug.search.protocol.Protocol` is an argument and may be a choice
    (``learning_rate=nni.choice("rate", [0.01, 0.1])``).

    Each candidate is written to the journal before NNI hears of it, failures with their reason; a candidate that is in
    the journal under equal settings and files is not trained again. A subclass with arguments of its own is to be
    decorated with ``nni.trace``.

    Args:
        train: file of the set to train on; see :mod:`ddplug.synthetic.file_format`.
        validation: file of real validation data in the same model space, as ``ddplug holdout`` writes it; never the
            test set.
        journal: file that all results are appended to; ``None`` keeps none.
        threads: of torch, in trial processes only; as many as the cores divided by the trials at once is best.
        fingerprints: of both files. Taken here if ``None``, and then everything is checked here; given, they are
            checked when a candidate is judged. NNI passes them on to trials.
        protocol: fields of :class:`ddplug.search.Protocol`, ``steps=300`` say; each a value or a choice. A time limit
            is kept in a trial process even against a forward pass that never ends.

    Raises:
        OptionError: there is no such field, a value is out of range, a path holds what NNI cannot transport, or a file
            cannot be read.
        FormatError: a file holds no valid set.
        DataError: the two files do not fit together, or the validation data are not real.
    """

    # The interface of `nni.trace`, as NNI's own FunctionalEvaluator has it: the decorator would keep relative paths.
    _traced: ClassVar[bool] = True

    def __init__(
        self,
        train: str | Path,
        validation: str | Path,
        *,
        journal: str | Path | None = None,
        threads: int | None = None,
        fingerprints: Sequence[str] | None = None,
        **protocol: Any,
    ) -> None:
        for name in protocol:
            one_of("field of the protocol", name, _DEFAULTS)
        self.train = normal_path(train, "train")
        self.validation = normal_path(validation, "validation")
        self.journal = None if journal is None else normal_path(journal, "journal")
        self.threads = threads
        self._protocol = {**_DEFAULTS, **protocol}
        if fingerprints is None:
            self.fingerprints = [file_fingerprint(self.train), file_fingerprint(self.validation)]
            self._check_all()
        else:
            self.fingerprints = list(fingerprints)

    def _check_all(self) -> None:
        """Refuse what cannot work, before any search begins."""
        if self.threads is not None and not 1 <= self.threads <= 4096:
            raise OptionError(f"threads is {self.threads!r}; it must be between 1 and 4096")
        if self.journal is not None:
            check_writable(self.journal)
        train, validation = self.sets()
        if self.fingerprints[0] == self.fingerprints[1]:
            raise DataError(f"{self.train} and {self.validation} are one file; cut off data with `ddplug holdout`")
        check_pair(train, validation)
        # what is still to be chosen is checked when it is
        recipe = self._settled().recipe(train.recipe)
        recipe.check(train.shape)

    @property
    def trace_symbol(self) -> type:
        """The class, for NNI's serializer."""
        return type(self)

    @property
    def trace_args(self) -> list[Any]:
        """Nothing: every argument is passed by keyword."""
        return []

    @property
    def trace_kwargs(self) -> dict[str, Any]:
        """The arguments, paths absolute and fingerprints taken."""
        own = {name: getattr(self, name) for name in ("train", "validation", "journal", "threads", "fingerprints")}
        return {**own, **self._protocol}

    def trace_copy(self) -> Any:
        """Return the class and the arguments without an instance."""
        return SerializableObject(self.trace_symbol, [], self.trace_kwargs)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.trace_kwargs.items() if value is not None)

    def freeze(self, sample: Any) -> Any:
        """Return the evaluator with its choices made.

        Args:
            sample: label -> choice.
        """
        # the shell that NNI gives would bypass _execute, and with it the seed and the journal
        frozen = super().freeze(sample)
        return frozen.get() if isinstance(frozen, FrozenEvaluator) else frozen

    @property
    def protocol(self) -> Protocol:
        """What is done to a candidate.

        Raises:
            OptionError: something is still to be chosen, or out of range.
        """
        self._refuse_mutable()
        return Protocol(**self._protocol)

    def _settled(self) -> Protocol:
        """Return the protocol with its default where a choice is still to be made."""
        return Protocol(**{name: value for name, value in self._protocol.items() if not isinstance(value, Mutable)})

    def _refuse_mutable(self) -> None:
        if self.is_mutable():
            names = [name for name, value in self.trace_kwargs.items() if isinstance(value, Mutable)]
            raise OptionError(f"{', '.join(names)} of the evaluator is not chosen yet; freeze the model space first")

    def sets(self) -> tuple[SyntheticSet, SyntheticSet]:
        """Load both sets, once a process.

        Raises:
            OptionError: a file cannot be read.
            DataError: a file was altered since this evaluator was made.
        """
        return load_set(self.train, self.fingerprints[0]), load_set(self.validation, self.fingerprints[1])

    def settings(self, model: Any) -> dict[str, Any]:
        """Return everything but the sample that a candidate's metric depends on, JSON-ready.

        Args:
            model: a frozen :class:`nni.nas.space.ExecutableModelSpace`.

        Raises:
            OptionError: something of the evaluator is still to be chosen.
        """
        self._refuse_mutable()
        files = dict(zip(("train", "validation"), self.fingerprints, strict=True))
        # journals of earlier versions know no steps
        given = {name: value for name, value in self._protocol.items() if name != "steps" or value is not None}
        return {**plain(given), **files, "space": describe_space(model)}

    def key(self, model: Any) -> str:
        """Name a frozen model as the journal does; see :func:`ddplug.search.journal.key`."""
        return key(plain(model.sample), self.settings(model))

    def _case(self, model: Any) -> tuple[Case, Work]:
        def work(report: Report) -> Result:
            return self._work(lambda rng: model.executable_model(), report)

        return case_of(plain(model.sample), self.settings(model), self.journal), work

    def _execute(self, model: Any) -> float:
        warn_of_stock_engine()
        case, work = self._case(model)
        return judge(case, work, time_limit=self._protocol["time_limit"], threads=self.threads)

    def settle(self, model: Any) -> Record:
        """Judge a frozen model outside any experiment; what is known is not trained again.

        Args:
            model: a frozen :class:`nni.nas.space.ExecutableModelSpace`.

        Returns:
            What became of it; a failure is a result too.

        Raises:
            OptionError: something of the evaluator is still to be chosen.
        """
        case, work = self._case(model)
        return case.settle(work)

    def _work(self, build: Callable[[torch.Generator], Any], report: Report) -> Result:
        return train_and_score(build, *self.sets(), self.protocol, report=report)

    def evaluate(self, model: nn.Module) -> float:
        """Judge a network as it is: copies of it are trained, one a seed, from the weights that it has.

        Nothing is journalled, because the weights are not this evaluator's. Within an experiment, or under
        ``mock_runtime``, interim and final accuracies are reported.

        Args:
            model: a network; it is left alone.

        Returns:
            Accuracy in [0, 1].

        Raises:
            CandidateError: it failed.
            OptionError: something of the evaluator is still to be chosen.
        """
        self._refuse_mutable()
        # time limit and threads are those of the process that calls
        case = case_of({"model": type(model).__name__}, {})
        return judge(case, lambda report: self._work(lambda rng: copy.deepcopy(model), report))

    def check(self, model_space: Any) -> None:
        """Refuse a space whose networks do not take the set's inputs, or give another number of outputs.

        Random samples are built and take one step, at most five; one that works is enough.

        Args:
            model_space: a model space of NNI.

        Raises:
            OptionError: none of them works; the message says why.
        """
        if not isinstance(model_space, BaseModelSpace):
            raise OptionError(f"the model space is a {type(model_space).__name__}; give one of nni.nas.nn.pytorch")
        ready = isinstance(model_space, ExecutableModelSpace)
        space = model_space if ready else SimplifiedModelSpace.from_model(model_space)
        train = self.sets()[0]
        problems: list[Exception] = []
        for seed in range(_TRIES):
            try:
                return self._try(space, train, seed)
            except Exception as error:
                problems.append(error)
        why = reason(problems[0])
        grey = train.shape[0] == 1 and self._protocol["channels"] is None and "3 channels" in why
        hint = "; for a space of colored images set channels=3" if grey else ""
        raise OptionError(f"no network of the space can be trained on {self.train}: {why}{hint}")

    def _try(self, space: Any, train: SyntheticSet, seed: int) -> None:
        """Build a random sample and take a step with it."""
        protocol = self._settled()
        device = pick_device(protocol.device)
        with temporary_seed(seed, device):
            model = space.random(random_state=np.random.RandomState(seed))
            moved = train.to(device)
            module = fitted(model.executable_model(), moved, protocol.channels, device)
            rng = torch.Generator().manual_seed(seed)
            fit([module], [moved], protocol.recipe(train.recipe), [rng], steps=1)
