"""How far a proxy's ranking of architectures can be trusted: the same candidates judged cheaply and trained in full.

Everything goes through NNI and into one journal, so that a study can be stopped at any time and goes on where it was.
What is compared costs the same, as :mod:`ddplug.nni.budget` counts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy.base import Strategy
from nni.runtime.log import _handlers

from ddplug.data.anything import Data
from ddplug.errors import DataError, OptionError
from ddplug.evaluation.figures import scatter
from ddplug.evaluation.ranking import agreement, mean_rank
from ddplug.nni.budget import cost, early_stopping, epochs_within
from ddplug.nni.evaluator import ProxyEvaluator
from ddplug.nni.experiment import ProxyExperiment
from ddplug.nni.journal import Journal, Record
from ddplug.nni.running import folder_at
from ddplug.nni.sets import load_set, widened
from ddplug.nni.zero_cost import zero_cost
from ddplug.utils.randomness import seeded

__all__ = ["EARLY", "HEAD", "Listed", "Study", "table"]

EARLY = "early stopping"
"""Name of the proxy that begins full training and stops; see :func:`ddplug.nni.budget.early_stopping`."""

_EVERY = 30.0
"""Seconds between lines of progress."""


@dataclass
class Study:
    """Candidates of a space, judged by several evaluators and trained in full.

    Where a proxy takes several seeds, candidates are ranked by each and their ranks averaged.

    Args:
        space: an NNI model space.
        samples: the candidates, label -> choice each, as :func:`ddplug.nni.spaces.architectures` draws them.
        full: the evaluator whose results count as the truth.
        proxies: name -> evaluator that is to predict them.
        folder: where ``journal.jsonl`` and NNI's own files are kept; made if it is missing.
        zero: names of untrained scores, see :mod:`ddplug.nni.zero_cost`.

    Raises:
        OptionError: there are fewer than 2 candidates, a name is taken, or the folder cannot be written.
    """

    space: Any
    samples: Sequence[Mapping[str, Any]]
    full: ProxyEvaluator
    proxies: Mapping[str, ProxyEvaluator]
    folder: str | Path
    zero: Sequence[str] = ()
    _records: dict[str, list[Record | None]] = field(default_factory=dict, init=False)
    _untrained: dict[str, list[float]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if len(self.samples) < 2:
            raise OptionError(f"a study of {len(self.samples)} candidates ranks nothing; give at least 2")
        taken = {"full", *self.zero} & set(self.proxies)
        if taken:
            raise OptionError(f"a proxy is named {sorted(taken)[0]!r}, which is taken; choose another name")
        self.folder = folder_at(self.folder)

    @classmethod
    def at_one_cost(
        cls,
        space: Any,
        samples: Sequence[Mapping[str, Any]],
        full: ProxyEvaluator,
        sets: Mapping[str, str | Path],
        folder: str | Path,
        *,
        share: float,
        data: Data,
        validation: str | Path,
        zero: Sequence[str] = (),
        **options: Any,
    ) -> Study:
        """Plan a study whose proxies cost the same: trainings on sets, and full training stopped early.

        Args:
            space: see :class:`Study`, as all that are not named here.
            samples: the candidates.
            full: full training.
            sets: name -> file of each set to rank with.
            folder: where everything is kept.
            share: cost of each proxy, as a share of that of full training; see :func:`ddplug.nni.budget.cost`.
            data: what full training is on, for :data:`EARLY`, which trains as it does.
            validation: file of real data that the proxies are judged on; few, so that scoring does not take what
                training may cost.
            zero: names of untrained scores.
            options: of :class:`ddplug.nni.evaluator.ProxyEvaluator` for the trainings on sets, all but the epochs.

        Raises:
            OptionError: see :class:`Study`; or the cost does not allow a single epoch on a set, or an image a class.
        """
        place, budget = folder_at(folder), share * cost(full)
        each, scored = budget / options.get("seeds", 1), len(load_set(validation))
        proxies = {}
        for name, path in sets.items():
            epochs = epochs_within(each, len(load_set(path)), scored)
            proxies[name] = ProxyEvaluator(path, validation, epochs=epochs, **options)
        own = {name: value for name, value in asdict(full.protocol).items() if value is not None and name != "epochs"}
        proxies[EARLY] = early_stopping(data, place, validation, budget, **own)
        return cls(space, samples, full, proxies, place, zero)

    @property
    def evaluators(self) -> dict[str, ProxyEvaluator]:
        """All evaluators, the cheap ones first."""
        return {**self.proxies, "full": self.full}

    def run(self, say: Callable[[str], object] = lambda line: None) -> None:
        """Judge every candidate by every evaluator, except what the journal has already.

        Args:
            say: takes a line of progress before each evaluator, and every half minute.

        Raises:
            OptionError: an evaluator finds that the space does not suit its files.
        """
        for name, evaluator in self.evaluators.items():
            say(f"{name}: judging {len(self.samples)} candidates")
            found = self._found(evaluator)
            missing = [sample for sample, record in zip(self.samples, found, strict=True) if record is None]
            if missing:
                with _quiet():
                    self._experiment(evaluator, missing, partial(_progress, say, name)).run()
                found = self._found(evaluator)
            self._records[name] = found

    def _experiment(
        self,
        evaluator: ProxyEvaluator,
        samples: Sequence[Mapping[str, Any]],
        watched: Callable[[Sequence[Mapping[str, Any]]], Iterator[Mapping[str, Any]]],
    ) -> ProxyExperiment:
        def made(trials: int) -> ProxyExperiment:
            return _Unlisted(self.space, evaluator, Listed(samples, watched), trials=trials, folder=self.folder)

        # the limit counts what the journal knows, which may be other candidates than these
        return made(len(samples) + len(made(len(samples)).results))

    def _found(self, evaluator: ProxyEvaluator) -> list[Record | None]:
        """Look up the candidates' successes, in order."""
        journal = Journal(Path(self.folder) / "journal.jsonl")
        known = {record.key: record for record in journal.results()}
        return [known.get(evaluator.key(self._frozen(evaluator, sample))) for sample in self.samples]

    def _frozen(self, evaluator: ProxyEvaluator, sample: Mapping[str, Any]) -> Any:
        return SimplifiedModelSpace.from_model(self.space, evaluator).freeze(dict(sample))

    def records(self, name: str) -> list[Record | None]:
        """Return what an evaluator found for each candidate, in order; ``None`` where it has no result (yet).

        Args:
            name: of a proxy, or ``"full"``.
        """
        if name not in self._records:
            self._records[name] = self._found(self.evaluators[name])
        return self._records[name]

    def scores(self) -> dict[str, list[float | None]]:
        """Return the score of each candidate by each evaluator, ``"full"`` and the untrained scores included."""
        found: dict[str, list[float | None]] = {
            name: [None if record is None else record.metric for record in self.records(name)]
            for name in self.evaluators
        }
        return found | {name: list(self._zero_cost(name)) for name in self.zero}

    def _zero_cost(self, name: str) -> list[float]:
        """Return an untrained score of each candidate, computed once."""
        if len(self._untrained.get(name, ())) != len(self.samples):
            train, channels = self.full.sets()[0], self.full.protocol.channels
            index = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:64]
            x, y = train[index]
            # built anew, as for training: NNI's own spaces freeze into the weights that the space happens to have
            builds = [self._frozen(self.full, sample).executable_model for sample in self.samples]
            self._untrained[name] = [zero_cost(name, build, widened(x, channels), y) for build in builds]
        return self._untrained[name]

    def judged(self) -> dict[str, list[float]]:
        """Return what :meth:`scores` gives, over the candidates that have every score.

        For proxies of several seeds it is the mean over them of the share of candidates that are worse; see
        :func:`ddplug.evaluation.ranking.mean_rank`.

        Raises:
            DataError: these are fewer than 2.
        """
        scores = self.scores()
        both = [n for n in range(len(self.samples)) if all(own[n] is not None for own in scores.values())]
        if len(both) < 2:
            least = min(scores, key=lambda name: len(scores[name]) - scores[name].count(None))
            raise DataError(
                f"{len(both)} of {len(self.samples)} candidates have every score, and {least!r} has the fewest; "
                "run the study first, or leave out what fails"
            )
        return {name: self._ranked(name, both) or [own[n] or 0.0 for n in both] for name, own in scores.items()}

    def _ranked(self, name: str, both: Sequence[int]) -> list[float] | None:
        """Average the ranks by the seeds of a proxy, where it has several."""
        if name not in self.proxies or self.proxies[name].protocol.seeds == 1:
            return None
        records = self.records(name)
        found = [record.result.accuracies for record in map(records.__getitem__, both) if record is not None]
        return mean_rank(list(zip(*found, strict=True)))

    def rows(self, *, resamples: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
        """Compare every score with full training, over the candidates that all of them judged.

        Args:
            resamples: of the bootstrap.
            seed: of the bootstrap.

        Returns:
            One JSON-ready row for each score, the best Spearman correlation first, with its name, the figures of
            :meth:`ddplug.evaluation.ranking.Agreement.to_json`, ``cost`` as a share of full training, ``seconds`` a
            candidate and the number of ``failed`` candidates.

        Raises:
            DataError: fewer than 2 candidates have every score.
        """
        scores = self.judged()
        truth = scores.pop("full")
        rows = []
        for name, own in scores.items():
            figures = agreement(own, truth, resamples=resamples, rng=seeded(seed))
            rows.append({"name": name, **figures.to_json(), **self._costs(name)})
        return sorted(rows, key=lambda row: -(row["spearman"][0] or 0.0))

    def _costs(self, name: str) -> dict[str, Any]:
        if name not in self.evaluators:
            return {"cost": 0.0, "seconds": 0.0, "failed": 0}
        records = self.records(name)
        done = [record.result.seconds for record in records if record is not None]
        share = cost(self.evaluators[name]) / cost(self.full)
        return {"cost": share, "seconds": sum(done) / max(1, len(done)), "failed": records.count(None)}

    def figure(self, rows: Sequence[Mapping[str, Any]] | None = None) -> Figure:
        """Draw every score over the truth, over the candidates that all of them judged.

        Args:
            rows: of :meth:`rows`, in whose order they are drawn; made if not given.
        """
        rows = self.rows() if rows is None else rows
        scores = self.judged()
        notes = {row["name"]: f"Spearman {_text(row['spearman'][0])}" for row in rows}
        return scatter(scores["full"], {name: scores[name] for name in notes}, notes)


HEAD = ("score", "cost", "Spearman", "95 % interval", "Kendall", "top 5", "regret (points)", "seconds", "failed")
"""Head of :func:`table`."""


def table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the rows of :meth:`Study.rows` as cells, the head first."""
    return [HEAD, *map(_cells, rows)]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    value, low, high = row["spearman"]
    share = row["cost"]
    return (
        row["name"],
        "-" if not share else f"1/{1 / share:.0f}" if share < 1 else f"{share:.1f}",
        _text(value),
        f"{_text(low)} to {_text(high)}",
        _text(row["kendall"][0]),
        _text(row["overlap"].get("5", [None])[0]),
        f"{100 * row['regret'][0]:.2f}",
        f"{row['seconds']:.2f}",
        str(row["failed"]),
    )


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _progress(
    say: Callable[[str], object], name: str, samples: Sequence[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Yield the samples in turn, and now and then say how far it is: each is judged before the next is taken."""
    began = said = time.monotonic()
    for done, sample in enumerate(samples):
        now = time.monotonic()
        if done and now - said > _EVERY:
            said, left = now, (now - began) / done * (len(samples) - done)
            say(f"{name}: {done} of {len(samples)}, about {left / 60:.0f} minutes left")
        yield sample


class _Unlisted(ProxyExperiment):
    """An experiment that stays out of the list that NNI keeps in the home folder: there is nothing to look at there."""

    def _start_without_nni_manager(self) -> None:
        """Do not list it."""

    def _stop_without_nni_manager(self) -> None:
        """Do not change the list."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNI's log lines off the screen, those of failures too: the journal and the log file have them."""
    handler = _handlers.get("_stdout_")
    if handler is None:
        yield
        return
    before = handler.level
    handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        handler.setLevel(before)


class Listed(Strategy):
    """Submit given samples of the space, in order.

    Args:
        samples: label -> choice each, as :func:`ddplug.nni.spaces.architectures` gives them.
        watched: is given the samples and gives them back one by one, as they are submitted.

    Example:
        >>> Listed([{"width": 8}]).extra_repr()
        'samples=1'
    """

    def __init__(
        self,
        samples: Sequence[Mapping[str, Any]],
        watched: Callable[[Sequence[Mapping[str, Any]]], Iterable[Mapping[str, Any]]] = iter,
    ) -> None:
        super().__init__()
        self._watched = watched
        self.samples = [dict(sample) for sample in samples]

    def extra_repr(self) -> str:
        """Return how many there are."""
        return f"samples={len(self.samples)}"

    def _run(self) -> None:
        for sample in self._watched(self.samples):
            if not self.wait_for_resource():
                return
            self.engine.submit_models(self.model_space.freeze(sample))

    def state_dict(self) -> dict[str, Any]:
        """Return the samples."""
        return {"samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the samples back."""
        self.samples = list(state_dict["samples"])
