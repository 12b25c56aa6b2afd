"""Data in float64 and generators that agree, for comparing a method with its slow, obvious form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor

from ddplug.labelled import LabelledData
from ddplug.testing import toy_images


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def twin(rng: torch.Generator) -> torch.Generator:
    """A second generator that will draw the same."""
    other = torch.Generator()
    other.set_state(rng.get_state())
    return other


class Exact(LabelledData):
    """Data whose batches are float64, so that ours and the slow form differ by rounding alone."""

    def batch(self, index: Tensor) -> Tensor:
        return super().batch(index).double()


def exact_images(counts: Sequence[int] = (9, 12)) -> LabelledData:
    data = toy_images(tuple(counts))
    return Exact(**{f.name: getattr(data, f.name) for f in fields(data) if f.init})
