"""How a search went, read from its journal: which candidates were judged cheaply, and which in full too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddplug.search.journal import Record, key

__all__ = ["Course", "courses", "name_of_sample"]

_SPACE = ("space", "network")
"""Settings that say what candidates are candidates of."""

_WAY = ("train", "validation", "steps", "epochs", "seeds")
"""Settings that say how they were judged, where they are not searched."""

_DEARER = 2.0
"""How many times more images full training passes than judging on a set, at least."""


@dataclass(frozen=True)
class Course:
    """What one way of judging found, in order, and what full training said of the same candidates.

    Attributes:
        proxies: of every candidate, failures included.
        full: of those that were promoted; none where nothing was trained in full.
    """

    proxies: tuple[Record, ...]
    full: tuple[Record, ...] = ()

    @property
    def train(self) -> str:
        """Fingerprint of the set that candidates were judged on, ``""`` where nobody wrote it down."""
        return str(_settings(self.proxies[0]).get("train", ""))

    @property
    def best(self) -> list[tuple[Record, Record | None]]:
        """Candidates that succeeded, best first, each with what full training said of it."""
        found = {name_of_sample(record.sample): record for record in self.full if record.metric is not None}
        done = sorted((own for own in self.proxies if own.metric is not None), key=lambda own: -(own.metric or 0.0))
        return [(record, found.get(name_of_sample(record.sample))) for record in done]


def name_of_sample(sample: Mapping[str, Any]) -> str:
    """Tell samples apart, whatever the order of their choices, and whether they were in a journal meanwhile."""
    return key({str(label): value for label, value in sample.items()}, {})


def _settings(record: Record) -> dict[str, Any]:
    """Return what a record was judged by; trials of NNI's hyper-parameter experiments keep the protocol by itself."""
    own = dict(record.settings)
    protocol = own.get("protocol")
    return {**own, **protocol} if isinstance(protocol, dict) else own


def _by(records: Sequence[Record], names: Sequence[str]) -> list[list[Record]]:
    """Group records by settings that are not searched."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        own = _settings(record)
        name = json.dumps([own.get(name) for name in names if name not in record.sample])
        groups.setdefault(name, []).append(record)
    return list(groups.values())


def _images(records: Sequence[Record]) -> float:
    """Return how many images a candidate was trained on, on average."""
    done = [record.result.images for record in records if record.metric is not None]
    return sum(done) / max(1, len(done))


def courses(records: Sequence[Record]) -> list[Course]:
    """Part the records of a journal by how candidates were judged.

    The dearest way counts as full training of what was judged otherwise, where it is at least twice as dear and saw no
    candidate that nobody else did. Every other way is a course of its own.

    Args:
        records: as :meth:`ddplug.search.Journal.read` gives them.

    Returns:
        The courses, in the order in which they began; none if there are no records.

    Example:
        >>> from ddplug.search.protocol import Result
        >>> cheap = [Record(f"a{n}", {"n": n}, Result(n / 9, images=10), {"steps": 1}) for n in range(5)]
        >>> dear = [Record("b4", {"n": 4}, Result(0.9, images=90), {"steps": 9})]
        >>> [(len(course.proxies), len(course.full)) for course in courses(cheap + dear)]
        [(5, 1)]
    """
    return [course for own in _by(records, _SPACE) for course in _courses(_by(own, _WAY))]


def _courses(ways: list[list[Record]]) -> list[Course]:
    """Find full training among the ways in which the candidates of one space were judged."""
    full = max(ways, key=_images)
    cheaper = [own for own in ways if own is not full]
    seen = {name_of_sample(record.sample) for own in cheaper for record in own}
    above = all(_images(full) >= _DEARER * _images(own) for own in cheaper)
    if not cheaper or not above or not {name_of_sample(record.sample) for record in full} <= seen:
        return [Course(tuple(own)) for own in ways]
    return [Course(tuple(own), tuple(full)) for own in cheaper]
