"""What a page shows of a search: its course, and the candidates that came out first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ddplug.errors import OptionError
from ddplug.search.courses import Course, courses
from ddplug.search.figures import progress
from ddplug.search.journal import Journal
from ddplug.search.judging import mark_of
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.page import Block, Chapter, Picture, Table
from ddplug.utils.pictures import file_of
from ddplug.utils.text import one_line, roughly

__all__ = ["searched"]

_BEST = 5
"""Candidates that are named."""

_CHARACTERS = 200
"""Of a sample, which may be anybody's."""

_WIDTH = 680
"""CSS pixels of the picture; half where nothing was trained in full."""


def searched(paths: Sequence[str], sets: Mapping[str, SyntheticSet]) -> list[Chapter]:
    """Write a chapter about every search in some journals.

    Args:
        paths: of the journals.
        sets: path -> set, the sets of the page, by which searches are named that were judged on one of them.

    Raises:
        OptionError: a journal is missing, cannot be read or holds nothing.
        FormatError: a file is no journal.
    """
    names = {mark: os.path.basename(path) for path, own in sets.items() for mark in (mark_of(path), mark_of(own))}
    return [_chapter(course, names) for path in paths for course in _courses(path)]


def _courses(path: str) -> list[Course]:
    """Read a journal."""
    found = courses(Journal(path).read())
    if not found:
        there = "holds no results" if os.path.exists(path) else "does not exist"
        raise OptionError(f"the journal {path} {there}; give the file that a search wrote")
    return found


def _chapter(course: Course, names: Mapping[str, str]) -> Chapter:
    best, where = course.best, names.get(course.train)
    title = f"A search on {where}" if where else "A search on a set that is not on this page"
    number, seconds = len(course.proxies), sum(record.result.seconds for record in course.proxies)
    promoted = sum(full is not None for _, full in best)
    words = (
        f"{number} candidates were trained on the set for {roughly(seconds)} in all; {number - len(best)} failed, "
        f"and {promoted} were trained in full too. Scores of the best are too good by chance, those of full training "
        "less so."
    )
    if not best:
        return Chapter(title, [words, f"The last failure: {one_line(course.proxies[-1].failure, most=_CHARACTERS)}"])
    rows = [
        (
            one_line(", ".join(f"{name}={_short(value)}" for name, value in own.sample.items()), most=_CHARACTERS),
            f"{100 * (own.metric or 0.0):.2f} %",
            "-" if full is None else f"{100 * (full.metric or 0.0):.2f} %",
        )
        for own, full in best[:_BEST]
    ]
    table = Table("The best on the set", ("candidate", "on the set", "in full"), rows)
    caption = "The best so far over the seconds that were spent" + ", and scores on the set against full ones" * (
        promoted > 0
    )
    picture = Picture(file_of(progress(course.proxies, course.full)), caption, _WIDTH if promoted else _WIDTH // 2)
    blocks: list[Block] = [words, (picture,), table]
    return Chapter(title, blocks)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)
