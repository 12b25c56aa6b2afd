"""How far a proxy's ranking of candidates can be trusted: the same ones judged cheaply and trained in full.

Everything goes into one journal, so that a study can be stopped at any time and goes on where it was. What is compared
is trained by one protocol, for as many steps, and costs the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ddplug.errors import DataError, OptionError
from ddplug.evaluation.figures import scatter
from ddplug.evaluation.ranking import agreement, ceiling, difference, mean_rank
from ddplug.networks.factory import build
from ddplug.search.budget import steps_within
from ddplug.search.candidates import Candidates
from ddplug.search.journal import Journal, Record
from ddplug.search.judging import Candidate, Judge, Source, parted
from ddplug.search.protocol import Protocol
from ddplug.search.sets import folder_at, widened
from ddplug.search.tables import is_estimator
from ddplug.search.zero_cost import SCORES, zero_cost
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.checks import one_of
from ddplug.utils.forecast import Parts
from ddplug.utils.randomness import seeded
from ddplug.utils.text import roughly

__all__ = ["EARLY", "HEAD", "Study", "table"]

EARLY = "early stopping"
"""Name of the proxy that begins training on all data and stops."""

_ALIKE = ("learning_rate", "momentum", "weight_decay", "schedule", "augment")
"""Fields of a recipe that all proxies of one cost share, apart from steps and batches."""

_EVERY = 30.0
"""Seconds between lines of progress."""

_PROBE = 10.0
"""Seconds of judging that an estimate is made from: candidates differ in what they cost."""


@dataclass
class Study:
    """Candidates, judged by several proxies and trained in full.

    Where a proxy or full training takes several seeds, proxies are ranked by each and their ranks averaged, and the
    seeds of full training say how good a score could be at all.

    Args:
        candidates: what is ranked.
        full: the judge whose results count as the truth.
        proxies: name -> judge that is to predict them. Their journals are that of the study, as that of ``full``.
        folder: where ``journal.jsonl`` is kept; made if it is missing.
        zero: names of untrained scores, see :mod:`ddplug.search.zero_cost`.

    Raises:
        OptionError: there are fewer than 2 candidates, a name is taken or that of no untrained score, or the folder
            cannot be written.

    Example:
        >>> import tempfile
        >>> from ddplug.search.candidates import convnets
        >>> from ddplug.testing import toy_images
        >>> train, rest = toy_images((30, 30)).split(0.4)
        >>> drawn = convnets(train.shape, 2, 3, width=(4, 8), depth=(1,), norm=("none",))
        >>> full = Judge(train, rest, Protocol(epochs=3, device="cpu"))
        >>> early = Judge(train, rest, Protocol(steps=1, device="cpu"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     study = Study(drawn, full, {"early": early}, folder)
        ...     study.run()
        ...     [row["name"] for row in study.rows(resamples=10)]
        ['early']
    """

    candidates: Candidates
    full: Judge
    proxies: Mapping[str, Judge]
    folder: str | Path
    zero: Sequence[str] = ()
    _records: dict[str, list[Record | None]] = field(default_factory=dict, init=False)
    _untrained: dict[str, list[float | None]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if len(self.candidates.samples) < 2:
            number = len(self.candidates.samples)
            raise OptionError(f"a study of {number} candidates ranks nothing; give at least 2")
        self.zero = (self.zero,) if isinstance(self.zero, str) else tuple(self.zero)
        for name in self.zero:
            one_of("zero-cost score", name, SCORES)
        taken = {"full", *self.zero} & set(self.proxies)
        if taken:
            raise OptionError(f"a proxy is named {sorted(taken)[0]!r}, which is taken; choose another name")
        self.folder = folder_at(self.folder)
        self.full = self._own(self.full)
        self.proxies = {name: self._own(judge) for name, judge in self.proxies.items()}

    def _own(self, judge: Judge) -> Judge:
        """Return a judge that writes into the journal of the study."""
        return replace(judge, journal=self._journal, about={**self.candidates.about, **judge.about})

    @property
    def _journal(self) -> Path:
        return Path(self.folder) / "journal.jsonl"

    @classmethod
    def at_one_cost(
        cls,
        candidates: Candidates,
        full: Judge,
        sets: Mapping[str, Source],
        folder: str | Path,
        *,
        share: float,
        validation: Source,
        protocol: Protocol,
        zero: Sequence[str] = (),
    ) -> Study:
        """Plan a study whose proxies cost the same: trainings on sets, and the beginning of training on all data.

        All take as many steps of as many images, by one recipe: that of the first set, as the protocol changes it. The
        batch is as large as the smallest set where that has fewer images.

        Args:
            candidates: see :class:`Study`, as all that are not named here.
            full: full training.
            sets: name -> each set to rank with.
            folder: where the journal is kept.
            share: cost of each proxy, as a share of that of one full training; see :attr:`ddplug.search.Judge.cost`.
            validation: real data that the proxies are judged on; few, so that scoring does not take what training may
                cost.
            protocol: of every proxy, all but its steps.
            zero: names of untrained scores.

        Raises:
            OptionError: see :class:`Study`; or the cost does not allow a single step.
        """
        if EARLY in sets:
            raise OptionError(f"a set is named {EARLY!r}, which is taken; choose another name")
        common = replace(protocol, epochs=None, steps=1)
        proxies = {name: Judge(made, validation, common) for name, made in sets.items()}
        proxies[EARLY] = replace(full, validation=validation, protocol=common)
        train, scored = zip(*(judge.sets() for judge in proxies.values()), strict=True)
        recipe = common.recipe(train[0].recipe)
        batch = min(recipe.batch_size, *map(len, train))
        steps = steps_within(share * _once(full) / common.seeds, batch, len(scored[0]))
        # what the sets' own recipes say would be another footing for each
        alike = {name: getattr(recipe, name) for name in _ALIKE} | {"steps": steps, "batch_size": batch}
        own = {name: replace(judge, protocol=replace(common, **alike)) for name, judge in proxies.items()}
        return cls(candidates, full, own, folder, zero)

    @property
    def judges(self) -> dict[str, Judge]:
        """All judges, the cheap ones first."""
        return {**self.proxies, "full": self.full}

    def run(self, say: Callable[[str], object] = lambda line: None) -> None:
        """Judge every candidate by every judge, except what the journal has already.

        Args:
            say: takes a line of progress before each judge, and every half minute; and how long all takes, after the
                first seconds, if it is long.
        """
        samples, make = self.candidates.samples, self.candidates.make
        costs = {name: judge.cost for name, judge in self.judges.items()}
        work = sum(costs[name] * self._found(judge).count(None) for name, judge in self.judges.items())
        parts = Parts(work, partial(_foretold, say), probe=_PROBE)
        for name, judge in self.judges.items():
            say(f"{name}: judging {len(samples)} candidates")
            found = self._found(judge)
            missing = [sample for sample, record in zip(samples, found, strict=True) if record is None]
            for sample in _watched(missing, partial(_progress, say, name)):
                judge(make(sample), sample)
                parts.done(costs[name])
            self._records[name] = self._found(judge) if missing else found

    def _found(self, judge: Judge) -> list[Record | None]:
        """Look up the candidates' successes, in order."""
        known = {record.key: record for record in Journal(self._journal).results()}
        make = self.candidates.make
        return [known.get(judge.case(make(sample), sample).key) for sample in self.candidates.samples]

    def records(self, name: str) -> list[Record | None]:
        """Return what a judge found for each candidate, in order; ``None`` where it has no result (yet).

        Args:
            name: of a proxy, or ``"full"``.
        """
        if name not in self._records:
            self._records[name] = self._found(self.judges[name])
        return self._records[name]

    def scores(self) -> dict[str, list[float | None]]:
        """Return the score of each candidate by each judge, ``"full"`` and the untrained scores included."""
        found: dict[str, list[float | None]] = {
            name: [None if record is None else record.metric for record in self.records(name)] for name in self.judges
        }
        return found | {name: list(self._zero_cost(name)) for name in self.zero}

    def _zero_cost(self, name: str) -> list[float | None]:
        """Return an untrained score of each candidate, computed once; ``None`` where it cannot be."""
        samples, make = self.candidates.samples, self.candidates.make
        if len(self._untrained.get(name, ())) != len(samples):
            train = self.full.sets()[0]
            index = torch.randperm(len(train), generator=seeded(0))[:64]
            x, y = train[index]
            x = widened(x, self.full.protocol.channels)
            self._untrained[name] = [_untrained(name, make(sample), x, y, train) for sample in samples]
        return self._untrained[name]

    def _both(self) -> list[int]:
        """Return the numbers of the candidates that have every score."""
        scores = self.scores()
        both = [n for n in range(len(self.candidates.samples)) if all(own[n] is not None for own in scores.values())]
        if len(both) < 2:
            least = min(scores, key=lambda name: len(scores[name]) - scores[name].count(None))
            failed = next(iter(Journal(self._journal).failures()), None)
            why = "run the study first" if failed is None else f"one failed with {failed.failure!r}"
            raise DataError(
                f"{len(both)} of {len(self.candidates.samples)} candidates have every score, and {least!r} has the "
                f"fewest; {why}, or leave out what fails"
            )
        return both

    def judged(self) -> dict[str, list[float]]:
        """Return what :meth:`scores` gives, over the candidates that have every score.

        For proxies of several seeds it is the mean over them of the share of candidates that are worse; see
        :func:`ddplug.evaluation.ranking.mean_rank`.

        Raises:
            DataError: these are fewer than 2.
        """
        both = self._both()
        return {name: self._ranked(name, both) or [own[n] or 0.0 for n in both] for name, own in self.scores().items()}

    def _seeds(self, name: str, both: Sequence[int]) -> list[tuple[float, ...]]:
        """Return the accuracies of candidates by each seed of a judge."""
        records = self.records(name)
        found = [record.result.accuracies for record in map(records.__getitem__, both) if record is not None]
        return list(zip(*found, strict=True))

    def _ranked(self, name: str, both: Sequence[int]) -> list[float] | None:
        """Average the ranks by the seeds of a proxy, where it has several."""
        if name not in self.proxies or self.proxies[name].protocol.seeds == 1:
            return None
        return mean_rank(self._seeds(name, both))

    def ceiling(self) -> float | None:
        """Return the Spearman correlation that a perfect proxy would have with so noisy a truth, on average.

        ``None`` where full training has one seed, which cannot tell; see :func:`ddplug.evaluation.ranking.ceiling`.

        Raises:
            DataError: fewer than 2 candidates have every score.
        """
        return ceiling(self._seeds("full", self._both()))

    def rows(self, *, resamples: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
        """Compare every score with full training, over the candidates that all of them judged.

        Args:
            resamples: of the bootstrap.
            seed: of the bootstrap.

        Returns:
            One JSON-ready row for each score, the best Spearman correlation first, with its name, the figures of
            :meth:`ddplug.evaluation.ranking.Agreement.to_json`, ``cost`` as a share of one full training, ``seconds`` a
            candidate, the number of ``failed`` candidates, and ``over``: name of every other score -> by how much this
            one's Spearman correlation exceeds it, see :func:`ddplug.evaluation.ranking.difference`.

        Raises:
            DataError: fewer than 2 candidates have every score.
        """
        scores = self.judged()
        truth = scores.pop("full")
        rows = []
        for name, own in scores.items():
            figures = agreement(own, truth, resamples=resamples, rng=seeded(seed))
            over = {
                other: difference(own, theirs, truth, resamples=resamples, rng=seeded(seed)).to_json()
                for other, theirs in scores.items()
                if other != name
            }
            rows.append({"name": name, **figures.to_json(), **self._costs(name), "over": over})
        return sorted(rows, key=lambda row: -(row["spearman"][0] or 0.0))

    def _costs(self, name: str) -> dict[str, Any]:
        if name not in self.judges:
            return {"cost": 0.0, "seconds": 0.0, "failed": self._zero_cost(name).count(None)}
        records = self.records(name)
        done = [record.result.seconds for record in records if record is not None]
        share = self.judges[name].cost / _once(self.full)
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


def _untrained(name: str, candidate: Candidate, x: Tensor, y: Tensor, train: SyntheticSet) -> float | None:
    """Return an untrained score of a candidate; ``None`` where it fails, as training it does, or has none."""
    network = parted(candidate)[0]
    if is_estimator(network):
        raise OptionError(
            f"{name!r} is a score of networks, and a candidate is a {type(network).__name__}; leave it out"
        )
    try:
        score = zero_cost(name, partial(build, network, train.shape, train.num_classes, seeded(0)), x, y)
    except Exception:  # a user's network may raise anything
        return None
    return score if math.isfinite(score) else None


HEAD = (
    "score",
    "cost",
    "Spearman",
    "95 % interval",
    "over early stopping",
    "Kendall",
    "top 5",
    "regret (points)",
    "seconds",
    "failed",
)
"""Head of :func:`table`."""


def table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the rows of :meth:`Study.rows` as cells, the head first."""
    return [HEAD, *map(_cells, rows)]


def _once(full: Judge) -> float:
    """Return what one full training costs; several seeds say how sure the truth is, and a user would have one."""
    return full.cost / full.protocol.seeds


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    value, low, high = row["spearman"]
    share = row["cost"]
    return (
        row["name"],
        "-" if not share else f"1/{1 / share:.0f}" if share < 1 else f"{share:.1f}",
        _text(value),
        f"{_text(low)} to {_text(high)}",
        _over(row["over"].get(EARLY)),
        _text(row["kendall"][0]),
        _text(row["overlap"].get("5", [None])[0]),
        f"{100 * row['regret'][0]:.2f}",
        f"{row['seconds']:.2f}",
        str(row["failed"]),
    )


def _over(estimate: Sequence[float | None] | None) -> str:
    """Write a difference and its interval."""
    if estimate is None or None in estimate:
        return "-"
    value, low, high = (f"{number:+.2f}" for number in estimate)
    return f"{value} ({low} to {high})"


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _foretold(say: Callable[[str], object], seconds: float) -> None:
    say(
        f"all this takes about {roughly(seconds)}; fewer candidates (--architectures) or less full training (--epochs, "
        "--full-seeds) take less"
    )


def _progress(say: Callable[[str], object], name: str, done: int, number: int, seconds: float) -> None:
    left = seconds / done * (number - done)
    say(f"{name}: {done} of {number}, about {roughly(left)} left")


def _watched(
    samples: Sequence[Mapping[str, Any]], tell: Callable[[int, int, float], object]
) -> Iterator[Mapping[str, Any]]:
    """Yield the samples in turn, and now and then tell how far it is: each is judged before the next is taken."""
    began = said = time.monotonic()
    for done, sample in enumerate(samples):
        now = time.monotonic()
        if done and now - said > _EVERY:
            said = now
            tell(done, len(samples), now - began)
        yield sample
