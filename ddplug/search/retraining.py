"""Train what a search chose in full, and say what that gained over choosing by chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import torch

from ddplug.errors import OptionError
from ddplug.search.courses import courses, name_of_sample
from ddplug.search.journal import Journal, Record
from ddplug.search.protocol import CandidateError
from ddplug.utils.checks import values_at_least, whole
from ddplug.utils.randomness import seeded

__all__ = ["Retrained", "expected_best", "retrain"]


def expected_best(values: Sequence[float], k: int) -> float:
    """Return the best of ``k`` drawn from some values without repetition, on average.

    Args:
        values: all that there is to draw from.
        k: how many are drawn, from 1 to their number.

    Example:
        Of three, two are drawn: in two of three pairs the best is among them.

        >>> expected_best([0.0, 3.0, 6.0], 2)
        5.0
    """
    ordered = sorted(values)
    return sum(value * comb(n, k - 1) for n, value in enumerate(ordered)) / comb(len(ordered), k)


@dataclass(frozen=True)
class Retrained:
    """What full training made of the candidates that a search put first.

    Attributes:
        records: of full training, best first; those that failed last.
        chance: of full training of candidates drawn by chance, in the order of the draw.
        top: how many of the first were trained.
    """

    records: tuple[Record, ...]
    chance: tuple[Record, ...]
    top: int

    @property
    def best(self) -> Record:
        """The winner: the best by full training.

        Raises:
            CandidateError: all failed.
        """
        first = self.records[0]
        if first.metric is None:
            raise CandidateError(f"all of the {self.top} best candidates failed in full training: {first.failure}")
        return first

    @property
    def by_chance(self) -> float | None:
        """Accuracy that the best of as many candidates has which are chosen by chance, on average.

        ``None`` where fewer were trained by chance than were chosen.
        """
        values = [record.metric for record in self.chance if record.metric is not None]
        return expected_best(values, self.top) if len(values) >= self.top else None

    @property
    def gain(self) -> float | None:
        """Accuracy of the winner less what choosing by chance gives; ``None`` where that is not known."""
        chance = self.by_chance
        return None if chance is None else float(self.best.metric or 0.0) - chance

    @property
    def text(self) -> str:
        """The result in a sentence."""
        best, one = self.best, self.top == 1
        chosen = "the chosen one" if one else f"the best of the {self.top} chosen"
        won = f"{chosen} has {best.metric:.2%} in full training: {dict(best.sample)}"
        if self.gain is None:
            return won
        values = [record.metric for record in self.chance if record.metric is not None]
        drawn = "one" if one else f"the best of {self.top}"
        return (
            f"{won}; {drawn} chosen by chance has {self.by_chance:.2%} on average over {len(values)} trained "
            f"({min(values):.2%} to {max(values):.2%}): a gain of {100 * self.gain:+.2f} points"
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "best": self.best.to_json(),
            "records": [record.to_json() for record in self.records],
            "chance": [record.to_json() for record in self.chance],
            "by_chance": self.by_chance,
            "gain": self.gain,
        }


def retrain(
    records: Journal | Iterable[Record],
    full: Callable[[Mapping[str, Any]], Record],
    *,
    top_k: int = 3,
    chance: int | None = None,
    seed: int = 0,
) -> Retrained:
    """Train the best candidates of a search in full, and as a control some that are drawn by chance from all of it.

    The accuracy that a search reports for its winner is too good by chance, being the best of many; this one is not, as
    far as ``top_k`` is small. Give ``full`` a journal, and what was trained before is not trained again.

    Args:
        records: what the search found, or its journal. Where they tell of full training too, as those of a journal that
            it shares, only what was found cheaply counts.
        full: judges a sample by full training: ``lambda sample: judge(make(sample), sample)``.
        top_k: how many of the best to train, at least 1.
        chance: how many to draw by chance from all; twice ``top_k`` if not given, 0 for none. Those that are among the
            best too are trained once.
        seed: of the draw.

    Returns:
        Both, and what was gained.

    Raises:
        OptionError: there is no success among the records, they tell of several searches, a number is out of range, or
            ``full`` gives something else than a record.

    Example:
        >>> from ddplug.search.protocol import Result
        >>> found = [Record(str(n), {"n": n}, Result(n / 10)) for n in range(5)]
        >>> truth = retrain(found, lambda sample: Record("", sample, Result(sample["n"] / 5)), top_k=1, chance=5)
        >>> truth.best.sample, round(truth.gain, 2)
        ({'n': 4}, 0.4)
    """
    records = list(records.results() if isinstance(records, Journal) else records)
    done = _of_one_search([record for record in records if record.metric is not None])
    if not done:
        raise OptionError(f"{len(records)} records hold no success to train in full; search first")
    top_k = whole("top_k", top_k)
    values_at_least(1, top_k=top_k)
    ordered = sorted(done, key=lambda record: -(record.metric or 0.0))[:top_k]
    number = 2 * len(ordered) if chance is None else whole("chance", chance)
    values_at_least(0, chance=number)
    order = torch.randperm(len(done), generator=seeded(seed))[:number].tolist()
    drawn = [done[n] for n in order]
    wanted = {record.key: record.sample for record in (*ordered, *drawn)}
    trained = {key: _record(full(sample)) for key, sample in wanted.items()}
    best = sorted((trained[record.key] for record in ordered), key=lambda record: -_value(record))
    return Retrained(tuple(best), tuple(trained[record.key] for record in drawn), len(ordered))


def _of_one_search(done: Sequence[Record]) -> list[Record]:
    """Return the last success of every key, without full training of candidates that were judged cheaply too."""
    own = list({record.key: record for record in done}.values())
    if len({name_of_sample(record.sample) for record in own}) == len(own):
        return own
    found = courses(own)
    if len(found) > 1:
        raise OptionError(
            f"the records tell of {len(found)} searches, by their sets and steps, and judge some candidates in each; "
            "choose one of ddplug.search.courses.courses(records), and give its proxies"
        )
    return list(found[0].proxies)


def _record(made: Any) -> Record:
    if not isinstance(made, Record):
        raise OptionError(f"full gives a {type(made).__name__}; let it return the record of a ddplug.search.Judge")
    return made


def _value(record: Record) -> float:
    """Return a metric to sort by; failures come last."""
    return -math.inf if record.metric is None else record.metric
