"""How many groups a stream will bring, and how many images each of them may have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from avalanche.benchmarks.scenarios import OnlineCLExperience
from avalanche.benchmarks.scenarios.generic_scenario import SequenceCLStream

from ddplug.avalanche.groups import GroupKey
from ddplug.avalanche.options import MemoryOptions
from ddplug.avalanche.schema import Pair, Rows, known_pairs
from ddplug.errors import OptionError

__all__ = ["Plan", "images_in", "is_online", "limit_of", "shares"]

_UNITS = {"": 1, "B": 1, "kB": 1000, "MB": 1000**2, "KiB": 1024, "MiB": 1024**2, "images": 1}

_LIMIT = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)")


def is_online(exp: Any) -> bool:
    """Tell whether an experience is a piece of a larger one, as ``split_online_stream`` makes them."""
    return isinstance(exp, OnlineCLExperience)


def _whole(exp: Any) -> Any:
    """Return the experience with all that is known of it; for a piece, the one that it was cut from."""
    if not hasattr(exp, "logging"):
        return exp
    return getattr(exp.logging(), "origin_experience", None) or exp.logging()


def _experience_number(exp: Any) -> int | None:
    """Return the position of an experience in its stream; pieces of one experience share it."""
    number = getattr(_whole(exp), "_current_experience", None)
    return None if number is None else int(number)


def _stream_pairs(exp: Any) -> list[set[Pair]] | None:
    """Return the (task, class) pairs of each experience of the stream that one comes from, from its labels alone.

    Returns:
        ``None`` where they cannot be known without loading data: no stream, a lazy one, or one without labels.
    """
    stream = getattr(_whole(exp), "_origin_stream", None)
    if not isinstance(stream, SequenceCLStream):
        return None
    # a slice, by which many scripts resume, is not all that comes
    stream = getattr(stream.benchmark, f"{stream.name}_stream", stream)
    definition = getattr(stream.benchmark, "stream_definitions", {}).get(stream.name)
    if definition is not None and definition.is_lazy:
        return None
    pairs = [known_pairs(each.dataset) for each in stream]
    return None if None in pairs else [each for each in pairs if each is not None]


def _count_groups(pairs: Iterable[set[Pair]], groupby: str) -> list[int]:
    """Count the groups that a stream will have brought after each experience.

    Args:
        pairs: the (task, class) pairs of each experience.
        groupby: ``"class"``, ``"experience"``, or ``"auto"``: an experience without any new pair is a domain of its
            own.

    Example:
        >>> stream = [{(0, 0), (0, 1)}, {(0, 0), (0, 1)}, {(0, 1), (0, 2)}]
        >>> [_count_groups(stream, by) for by in ("class", "experience", "auto")]
        [[2, 2, 3], [2, 4, 6], [2, 4, 5]]
    """
    seen: set[Pair] = set()
    counts = [0]
    for new in pairs:
        own = groupby == "experience" or (groupby == "auto" and new <= seen)
        counts.append(counts[-1] + (len(new) if own else len(new - seen)))
        seen |= new
    return counts[1:]


class Plan:
    """How many groups a stream will bring, and which of its experiences are domains of their own.

    Attributes:
        groups: that there will be; ``None`` where that is not known, or is not to be.
    """

    def __init__(self, options: MemoryOptions) -> None:
        self.groups = options.total_num_groups
        self.steps: list[int] = []
        """Groups that there will be after each experience, if that is known from the stream's labels."""
        self._groupby = options.groupby
        self._given = options.adaptive_size or self.groups is not None
        self._looked = False
        self._domains: dict[int, int | None] = {}

    def domain(self, exp: Any, rows: Rows, known: Iterable[GroupKey], call: int) -> int | None:
        """Return the domain that the groups of an experience belong to; ``None`` where domains are not told apart.

        Args:
            exp: the experience; the first one is asked for the groups of its stream.
            rows: its samples.
            known: the groups in the memory.
            call: number of the experience, should it not know that itself.
        """
        if not self._looked:
            self._looked = True
            pairs = _stream_pairs(exp)
            by = "class" if self._groupby == "auto" and is_online(exp) else self._groupby
            self.steps = [] if pairs is None else _count_groups(pairs, by)
            if not self._given:
                self.groups = self.steps[-1] if self.steps else None
        number = _experience_number(exp)
        number = call if number is None else number
        if self._groupby != "auto":
            return number if self._groupby == "experience" else None
        if number not in self._domains:
            seen = {(group.task, group.label) for group in known}
            nothing_new = set(zip(rows.t.tolist(), rows.y.tolist(), strict=True)) <= seen
            self._domains[number] = number if nothing_new and not is_online(exp) else None
        return self._domains[number]


def shares(size: int, groups: int) -> list[int]:
    """Divide images over groups; the first groups get the remainder.

    Example:
        >>> shares(8, 3)
        [3, 3, 2]
    """
    return [size // groups + (position < size % groups) for position in range(groups)]


def limit_of(limit: int | str) -> tuple[int, str]:
    """Read a limit such as ``8000``, ``"8kB"`` or ``"10 images"``; return its number and unit, ``"B"`` or ``"images"``.

    Raises:
        OptionError: it is no such limit, or less than one.

    Example:
        >>> limit_of("8kB"), limit_of("10 images"), limit_of(300)
        ((8000, 'B'), (10, 'images'), (300, 'B'))
    """
    found = _LIMIT.fullmatch(str(limit).strip())
    number, unit = found.groups() if found else ("0", "")
    value = round(float(number) * _UNITS.get(unit, 0))
    if value < 1:
        raise OptionError(f"max_bytes is {limit!r}; give a whole number of at least 1, or a size such as '8kB'")
    return value, "images" if unit == "images" else "B"


def images_in(max_bytes: int, groups: int, image: int, levels: int) -> int:
    """Return how many images fit.

    Args:
        max_bytes: for all groups.
        groups: number of groups.
        image: bytes of an image with its label.
        levels: bytes that each group with images takes on top.

    Raises:
        OptionError: not one does.

    Example:
        >>> images_in(100, 4, 10, 5), images_in(100, 20, 10, 5)
        (8, 6)
    """
    number = max((max_bytes - groups * levels) // image, min(groups, max_bytes // (image + levels)))
    if number < 1:
        needed = image + levels
        raise OptionError(f"max_bytes is {max_bytes}, but one image takes {needed} bytes; give at least that many")
    return number
