"""Shards of a run, made on machines that know nothing of each other, put together to the set of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ddplug.errors import DataError
from ddplug.synthetic.compat import difference, same_levels
from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["SHARD", "merge"]

SHARD = "shard"
"""Field of a provenance: ``[k, n]``, the k-th of n parts."""

_OWN = (SHARD, "seconds")
"""What differs from shard to shard."""


def merge(shards: Sequence[SyntheticSet] | Mapping[str, SyntheticSet]) -> SyntheticSet:
    """Put the shards of a run together.

    Args:
        shards: all of them, in any order; in a mapping by the names that errors call them.

    Returns:
        The set that one run would have made, its classes in order. Its seconds are those of all shards.

    Raises:
        DataError: one is no shard, is missing or there twice, or they are of different runs.

    Example:
        >>> from ddplug import distill
        >>> from ddplug.testing import toy_images
        >>> parts = [distill(toy_images(), "kmeans", images_per_class=2, shard=(k, 2)) for k in (2, 1)]
        >>> merge(parts).targets
        tensor([0, 0, 1, 1, 2, 2])
    """
    if isinstance(shards, SyntheticSet):
        raise DataError("one set is given, not several; give a list of all shards")
    named = shards if isinstance(shards, Mapping) else {f"set {k}": own for k, own in enumerate(shards, 1)}
    places = {name: _place(name, own) for name, own in named.items()}
    _check_complete(places)
    first, *others = named
    for name in others:
        _check_alike(first, named[first], name, named[name])
    made = [named[name] for name in sorted(named, key=lambda name: places[name][0])]
    number = len(made)
    labels = torch.cat([_classes(own, k, number) for k, own in enumerate(made)])
    order = labels.argsort(stable=True)
    provenance = {key: value for key, value in made[0].provenance.items() if key != SHARD}
    if "seconds" in provenance:
        provenance["seconds"] = sum(own.provenance["seconds"] for own in made)
    inputs = torch.cat([own.inputs for own in made])[order]
    targets = torch.cat([own.targets for own in made])[order]
    return replace(made[0], inputs=inputs, targets=targets, provenance=provenance)


def _place(name: str, own: SyntheticSet) -> tuple[int, int]:
    """Return which shard a set says it is."""
    place = own.provenance.get(SHARD)
    if not isinstance(place, list) or len(place) != 2 or not all(type(number) is int for number in place):
        raise DataError(f"{name} is not a shard; merge files that ddplug distill --shard K/N made")
    if not 1 <= place[0] <= place[1]:
        raise DataError(f"{name} says that it is shard {place[0]}/{place[1]}, which cannot be; make it again")
    return place[0], place[1]


def _check_complete(places: Mapping[str, tuple[int, int]]) -> None:
    if not places:
        raise DataError("there is no shard to merge; give all of them")
    number = next(iter(places.values()))[1]
    by_place: dict[int, str] = {}
    for name, (own, of) in places.items():
        if of != number:
            raise DataError(f"{name} is shard {own}/{of}, but another is one of {number}; merge those of one run")
        if own in by_place:
            raise DataError(f"{by_place[own]} and {name} are both shard {own}/{of}; give each once")
        by_place[own] = name
    missing = [f"{k}/{number}" for k in range(1, number + 1) if k not in by_place]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(f"shard {', '.join(missing[:5])}{more} is not there; make it and give all {number}")


def _check_alike(name: str, one: SyntheticSet, other_name: str, other: SyntheticSet) -> None:
    """Refuse shards that are not of one run."""
    before, after = one.provenance, other.provenance
    changed = [key for key in {**before, **after} if key not in _OWN and before.get(key) != after.get(key)]
    if changed:
        key = changed[0]
        what = f"their {key} is {_brief(before.get(key))} and {_brief(after.get(key))}"
    elif one.recipe != other.recipe or (one.bits, one.half_labels) != (other.bits, other.half_labels):
        what = "they are stored or to be trained on in different ways"
    else:
        what = difference(one, other) or _shapes(one, other)
    if what:
        raise DataError(f"{name} and {other_name} are not of one run: {what}; make them with the same options")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _shapes(one: SyntheticSet, other: SyntheticSet) -> str:
    """Say how tensors of two sets differ that one file cannot hold both of, if they do."""
    if not same_levels(one.levels, other.levels):
        return "their images have other levels"
    if one.inputs.shape[1:] != other.inputs.shape[1:] or one.targets.shape[1:] != other.targets.shape[1:]:
        return "their tensors have other shapes"
    return ""


def _classes(own: SyntheticSet, k: int, number: int) -> torch.Tensor:
    """Return the ``(M,)`` classes that the samples of a shard were made for, which soft labels need not tell."""
    classes = torch.arange(k, own.num_classes, number)
    if own.targets.ndim == 1:
        return own.targets
    each, rest = divmod(len(own), max(1, len(classes)))
    if rest or not each:
        raise DataError(f"shard {k + 1}/{number} has {len(own)} samples for {len(classes)} classes; make it again")
    return classes.repeat_interleave(each)
