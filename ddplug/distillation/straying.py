"""Images and labels so far from real ones that a method has diverged, though every number is finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData

__all__ = ["Straying"]

_FAR = {"inputs": 30.0, "labels": 1000.0}
"""Root mean square that what a method learns may have: of images in units of the largest real value, and of labels or
their logits. Runs that go well end below 2 and 20."""

_LOOKED_AT = 1024
"""Real samples, evenly spaced, behind the largest real value."""


@dataclass(frozen=True)
class Straying:
    """How far a method's images and labels may go from the data.

    Args:
        data: real data; ``None`` where they may not be looked at, and images are not compared.
    """

    data: LabeledData | None = None

    def found(self, state: Mapping[str, Tensor]) -> str | None:
        """Say what of a method's state is far outside of what real data are like; ``None`` where nothing is."""
        for name, most in _FAR.items():
            size = _size(self.compared(state[name]) if name == "inputs" else state[name]) if name in state else 0.0
            # the data are only looked at where they decide
            if size > most and (name != "inputs" or size > most * self.largest):
                what = "images" if name == "inputs" else "labels"
                return f"the {what} have values of about {size:.2g}, far outside of the data's"
        return None

    def compared(self, inputs: Tensor) -> Tensor:
        """Return inputs where magnitudes can be compared: whitening stretches what data hardly have without a limit."""
        if self.data is None or self.data.preprocess.kind != "zca":
            return inputs
        return self.data.preprocess.inverse(inputs)

    @cached_property
    def largest(self) -> float:
        """The largest real magnitude, at least that of the noise which images may start from."""
        if self.data is None:
            return float("inf")
        some = torch.arange(0, len(self.data), max(1, len(self.data) // _LOOKED_AT))
        return max(1.0, *(float(self.compared(self.data.batch(part)).abs().max()) for part in some.split(64)))


def _size(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())
