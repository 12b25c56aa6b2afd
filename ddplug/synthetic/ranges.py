"""What black and white are in the pixels of a set: 0 and 1 of images that were bytes, and anything in others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Preprocess

__all__ = ["Images", "in_units", "other_range", "range_of", "ranges"]

_KEY = "data_range"

_WIDEST = 0.5
"""Largest standard deviation that values in 0..1 can have."""

_NAMES = {"0..1": (0, 1), "-1..1": (-1, 1), "0..255": (0, 255)}
_NORMALIZED = "those of a normalization"


class Images(Protocol):
    """What is asked of a set of images."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def preprocess(self) -> Preprocess: ...

    @property
    def provenance(self) -> Mapping[str, Any]: ...

    def pixels(self) -> Tensor: ...


def ranges(data: LabeledData) -> dict[str, Any]:
    """Return what the provenance of a set says of the values of the images that it was made from."""
    found = data.value_range
    return {} if found is None else {_KEY: list(found)}


def range_of(synthetic: Images) -> Tensor:
    """Find what black and white are in each channel of the images of a set.

    Args:
        synthetic: a set of images.

    Returns:
        ``(2, C)`` pixel values, on the CPU: those of the real data, where the provenance says them; 0 and 1, unless
        the preprocessing was fitted on other values; otherwise the least and the largest of the set itself.
    """
    channels, said = synthetic.shape[0], _said(synthetic.provenance)
    if said and _is_range(said[0], channels) and all(each == said[0] for each in said):
        return torch.tensor(said[0], dtype=torch.float32)
    if _unit(synthetic.preprocess) and not any(said):
        return torch.tensor([[0.0], [1.0]]).repeat(1, channels)
    low, high = synthetic.pixels().cpu().transpose(0, 1).flatten(1).aminmax(dim=1)
    return torch.stack([low, torch.where(high > low, high, low + 1)])


def _said(provenance: Mapping[str, Any]) -> list[Any]:
    """Return the range that each part of a set says, or ``None`` where it does not."""
    parts = provenance.get("merged", [provenance])
    return [part.get(_KEY) if isinstance(part, Mapping) else None for part in parts] if isinstance(parts, list) else []


def other_range(provenance: Mapping[str, Any], preprocess: Preprocess, data: LabeledData) -> str | None:
    """Tell where real images have another range of values than those that a set was made from.

    Args:
        provenance: of the set.
        preprocess: of the set.
        data: real data.

    Returns:
        Both, to stand after "differ in"; ``None`` where they may be of one range: two normalizations are not compared.
    """
    if len(data.shape) != 3:
        return None
    channels, said, theirs = data.shape[0], _said(provenance), data.value_range
    other = _called(None if theirs is None else list(theirs), channels)
    if any(said):
        mine = _called(said[0], channels)
        sure = other in _NAMES if mine in _NAMES else data.inputs.dtype == torch.uint8
    else:  # of bytes, or from before the range was noted
        mine, sure = "0..1", _unit(preprocess)
    return f"the range of their values: {mine} and {other}" if mine != other and sure else None


def _called(said: Any, channels: int) -> str:
    """Return the name of a range; ``None`` stands for what bytes become."""
    if said is None:
        return "0..1"
    if not _is_range(said, channels):
        return _NORMALIZED
    low, high = said
    fitting = [name for name, (black, white) in _NAMES.items() if set(low) == {black} and set(high) == {white}]
    return fitting[0] if fitting else _NORMALIZED


def _is_range(said: Any, channels: int) -> bool:
    """Tell whether a file, which is not trusted, says a range."""
    if not (isinstance(said, list) and len(said) == 2 and all(isinstance(end, list) for end in said)):
        return False
    numbers = [value for end in said for value in end]
    if not all(type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e30 for value in numbers):
        return False
    low, high = said
    return len(low) == len(high) == channels and all(a < b for a, b in zip(low, high, strict=True))


def _unit(preprocess: Preprocess) -> bool:
    """Tell whether a preprocessing can be that of values in 0..1."""
    fields = preprocess.tensors()
    mean, std = (fields.get(name, torch.full((1,), 0.5)) for name in ("mean", "std"))
    # a channel of one value has the deviation 1
    possible = (std <= _WIDEST + 1e-4) | (std == 1)
    return bool((mean >= 0).all() and (mean <= 1).all() and possible.all())


def in_units(synthetic: Images) -> Tensor:
    """Return the ``(M, C, H, W)`` pixels of a set on the CPU, on the scale where black is 0 and white 1."""
    black, white = (end.view(1, -1, 1, 1) for end in range_of(synthetic))
    units: Tensor = (synthetic.pixels().cpu() - black) / (white - black)
    return units
