"""One row of a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ddplug.evaluation.results import Evaluation

__all__ = ["HEAD", "Row", "protocols"]

HEAD = ("training data", "images per class", "bytes", "bits per class", "accuracy (%)", "networks")
"""Head of a table of rows."""


@dataclass(frozen=True)
class Row:
    """One way to come by training data.

    Attributes:
        method: name; ``"whole data"`` for all the real data.
        images_per_class: samples kept of each class; a mean where classes differ.
        nbytes: what they take.
        evaluation: accuracies of the networks trained on them.
        fits: whether they take no more than the set does.
        steps: SGD steps, where they are bounded instead of following the recipe.
        bits_per_class: what the samples of a class take, in bits.
        kind: ``"set"``, ``"baseline"`` or ``"whole data"``.
        budget: bytes of the set that it stands beside, or of itself; ``None`` for the whole data.
    """

    method: str
    images_per_class: float
    nbytes: int
    evaluation: Evaluation
    fits: bool = True
    steps: int | None = None
    bits_per_class: float = 0.0
    budget: int | None = None
    kind: str = "set"

    @property
    def mean(self) -> float:
        """Mean accuracy, in [0, 1]."""
        return self.evaluation.mean

    @property
    def std(self) -> float:
        """Standard deviation of the accuracy over the networks."""
        return self.evaluation.std

    @property
    def n(self) -> int:
        """Number of networks."""
        return self.evaluation.n

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            **self.evaluation.to_json(),
            "method": self.method,
            "images_per_class": self.images_per_class,
            "nbytes": self.nbytes,
            "bits_per_class": self.bits_per_class,
            "fits": self.fits,
            "steps": self.steps,
            "budget": self.budget,
            "kind": self.kind,
        }

    @property
    def name(self) -> str:
        """The method, and the steps where they are bounded."""
        return self.method if self.steps is None else f"{self.method}, {self.steps} steps"

    def cells(self) -> list[str]:
        """Return the cells of the row in a table."""
        # that all the data take more goes without saying
        note = "" if self.fits or self.steps is not None else " (more than the set)"
        return [
            self.name,
            f"{self.images_per_class:.4g}",
            f"{self.nbytes:,}{note}",
            f"{self.bits_per_class:,.0f}",
            self.evaluation.text,
            str(self.n),
        ]


def protocols(rows: Iterable[Row]) -> str:
    """Return how networks were trained on sets and baselines: each way once."""
    return "; ".join(dict.fromkeys(row.evaluation.how for row in rows if row.kind != "whole data"))
