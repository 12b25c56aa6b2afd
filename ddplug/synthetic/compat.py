"""Whether sets, or a set and real data, belong to the same space, and which class of the one is which of the other.

Classes are told by their names, where both sides have names: one folder may sort as ``ant, bee`` what another has as
``bee, ant``. Those without names of their own, which are called ``"0"``, ``"1"``, ..., are told by their numbers.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import torch

from ddplug.data.anything import Data, as_labeled
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Preprocess
from ddplug.errors import DataError
from ddplug.synthetic.ranges import other_range
from ddplug.utils.text import known_by

__all__ = [
    "Space",
    "difference",
    "first_difference",
    "named_columns",
    "numbered",
    "places",
    "same_levels",
    "same_preprocess",
    "same_space",
    "source_table",
]


_log = logging.getLogger(__name__)


class Space(Protocol):
    """What a set and real data have in common: the inputs that networks see, and their classes.

    Attributes:
        shape: of one input.
        num_classes: number of classes.
        class_names: one name a class.
        preprocess: the map from pixels to model space.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def preprocess(self) -> Preprocess: ...


def same_space(synthetic: Space, data: Data, what: str, device: torch.device) -> LabeledData:
    """Put real data into the model space of a set, and onto a device if they are in memory.

    Their classes are numbered as those of the set are, by their names.

    Args:
        synthetic: the set.
        data: real data, see :func:`ddplug.data.as_labeled`.
        what: ``"test"`` or ``"train"``, for messages.
        device: to work on; memory-mapped data, which may be larger than it, stay where they are.

    Returns:
        The data with the set's preprocessing and classes.

    Raises:
        DataError: shapes or classes differ, or there are no data.
    """
    data = as_labeled(data, what, what=f"the {what} data")
    shapes = first_difference([_shapes(synthetic, data)])
    who = "the set has", "the data have"
    problem = shapes or _in_classes(synthetic, data, *who) or _in_columns(synthetic, data, *who, ordered=False)
    problem = problem or other_range(getattr(synthetic, "provenance", {}), synthetic.preprocess, data)
    if problem:
        raise DataError(
            f"the set and the {what} data {data.name!r} differ in {problem}; use the data that the set was made from"
        )
    if len(data) == 0:
        raise DataError(f"the {what} data {data.name!r} have 0 samples; give at least one")
    _tell_of_numbers(synthetic.class_names, data.class_names, f"the {what} data {data.name!r}")
    data = data.to(device) if data.scratch is None else data
    found = places(synthetic.class_names, data.class_names)
    if found is not None:
        targets = torch.tensor(found, device=data.targets.device)[data.targets]
        data = replace(data, targets=targets, class_names=synthetic.class_names)
    return data.arranged(named_columns(synthetic), synthetic.preprocess.to(data.device))


def difference(one: Space, other: Space) -> str | None:
    """Return in what two differ that must agree: shape, classes or preprocessing. The order of the classes need not.

    Args:
        one: a set, or real data.
        other: another, on the same device.

    Returns:
        What differs and how, to stand after "they differ in"; ``None`` where nothing does.

    Example:
        >>> from ddplug.testing import toy_images
        >>> difference(toy_images((3, 2)), toy_images((3, 2, 4))), difference(toy_images(), toy_images())
        ("classes: only the second has 'class2'", None)
    """
    return (
        first_difference([_shapes(one, other)])
        or _in_classes(one, other, "the first has", "the second has")
        or _in_columns(one, other, "the first has", "the second has", ordered=True)
        or _in_preprocess(one.preprocess, other.preprocess)
    )


def numbered(class_names: Sequence[str]) -> bool:
    """Tell whether classes have no names but their numbers."""
    return list(class_names) == [str(label) for label in range(len(class_names))]


def places(mine: Sequence[str], theirs: Sequence[str]) -> list[int] | None:
    """Return where each of their classes is among mine; ``None`` where each is in its place or has no name.

    Args:
        mine: names of classes.
        theirs: names of the same classes, perhaps in another order.

    Example:
        >>> places(("ant", "bee", "cat"), ("bee", "cat", "ant")), places(("ant", "bee"), ("0", "1"))
        ([1, 2, 0], None)
    """
    own = {known_by(name): label for label, name in enumerate(mine)}
    found = [own.get(known_by(name), -1) for name in theirs]
    return None if sorted(found) != list(range(len(mine))) or found == sorted(found) else found


def named_columns(space: Space) -> tuple[str, ...]:
    """Return the names of the numbers of a row, where the data came as a table with a head; ``()`` otherwise.

    Args:
        space: real data; or a set, and what a file says of its columns is taken only if it fits.
    """
    own = getattr(space, "columns", None)
    names = source_table(space).get("columns") if own is None else list(own)
    found = tuple(known_by(str(name)) for name in names) if isinstance(names, list) else ()
    return found if len(space.shape) == 1 and len(set(found)) == space.shape[0] == len(found) else ()


def source_table(space: Space) -> Mapping[str, Any]:
    """Return what a set says of the data that it was made from, or of those of the first that it was merged from."""
    part: Any = getattr(space, "provenance", {})
    merged = part.get("merged")
    part = merged[0] if isinstance(merged, list) and merged and isinstance(merged[0], Mapping) else part
    data = part.get("data")
    return data if isinstance(data, Mapping) else {}


def _in_columns(one: Space, other: Space, mine: str, theirs: str, *, ordered: bool) -> str | None:
    """Return in what the columns of two tables differ; their order may be one that is going to be changed."""
    names, others = named_columns(one), named_columns(other)
    if not names or not others or names == others:
        return None
    alone = _alone(names, others, mine, theirs)
    if alone or ordered:
        return f"columns: {alone or f'{_listed(names)}, and {_listed(others)}'}"
    return None


def same_preprocess(one: Preprocess, other: Preprocess) -> bool:
    """Return whether two preprocessings are the same map, number by number."""
    return _in_preprocess(one, other) is None


def first_difference(parts: Iterable[tuple[str, object, object]]) -> str | None:
    """Return the first of several parts in which two things differ.

    Args:
        parts: name of each part, and what it is in the one and in the other.

    Example:
        >>> first_difference([("shape", (1, 8, 8), (1, 8, 8)), ("bits", 8, 4)])
        'bits: 8 and 4'
    """
    return next((f"{name}: {mine} and {theirs}" for name, mine, theirs in parts if mine != theirs), None)


def _shapes(one: Space, other: Space) -> tuple[str, Any, Any]:
    return "shape", one.shape, other.shape


def _in_classes(one: Space, other: Space, mine: str, theirs: str) -> str | None:
    """Return in what the classes of two differ, whatever their order."""
    names, others = ([known_by(name) for name in space.class_names] for space in (one, other))
    if names == others or _told_by_numbers(names, others):
        return first_difference([("number of classes", one.num_classes, other.num_classes)])
    if sorted(names) == sorted(set(others)) and len(names) == len(others):
        return None
    return f"classes: {_alone(names, others, mine, theirs) or f'{_listed(names)}, and {_listed(others)}'}"


def _alone(names: Sequence[str], others: Sequence[str], mine: str, theirs: str) -> str:
    """Say which names only one of two has; nothing where there are none."""
    alone = (mine, [name for name in names if name not in others]), (theirs, [n for n in others if n not in names])
    return "; ".join(f"only {who} {_listed(own)}" for who, own in alone if own)


def same_levels(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Return whether two sets are stored on the same levels, or both without."""
    return one is other if one is None or other is None else torch.equal(one, other)


def _told_by_numbers(names: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether one of two has no names but 0, 1, ...; and the other, if it has numbers too, no other ones."""
    if not numbered(names) and not numbered(others):
        return False
    theirs = others if numbered(names) else names
    return len(names) != len(others) or not all(map(str.isdecimal, theirs)) or set(names) == set(others)


def _tell_of_numbers(names: Sequence[str], others: Sequence[str], who: str) -> None:
    """Tell where the classes of data are taken in the order of the set's, since they have no names."""
    if numbered(others) and not numbered(names):
        pairs = ", ".join(f"{other} is {one}" for one, other in islice(zip(names, others, strict=True), 3))
        more = ", ..." if len(names) > 3 else ""
        _log.warning(
            "%s have no names of classes, so they are taken in the order of the set's (%s%s); if theirs is another "
            "one, give them class_names",
            who,
            pairs,
            more,
        )


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(reprlib.repr, names[:most])) + more


def _in_preprocess(one: Preprocess, other: Preprocess) -> str | None:
    """Return in what two preprocessings differ."""
    if one.kind != other.kind:
        return f"preprocessing: {one.shown} and {other.shown}"
    theirs = other.tensors()
    differing = [name for name, tensor in one.tensors().items() if not torch.equal(tensor, theirs[name])]
    return f"the {differing[0]} of their preprocessing" if differing else None
