"""Judge synthetic sets: train fresh networks on them, test on real data, beside baselines of the same bytes."""

from __future__ import annotations

from ddplug.evaluation.comparison import Comparison, Row, compare
from ddplug.evaluation.results import Evaluation, accuracy, cross_architecture, evaluate
from ddplug.evaluation.train import train_on

__all__ = [
    "Comparison",
    "Evaluation",
    "Row",
    "accuracy",
    "compare",
    "cross_architecture",
    "evaluate",
    "train_on",
]
