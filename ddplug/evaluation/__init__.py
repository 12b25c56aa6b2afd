"""Judge synthetic sets: train fresh networks on them, test on real data, compare with baselines of the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.evaluation.comparison import compare as compare
    from ddplug.evaluation.learned import evaluate_as_learned as evaluate_as_learned
    from ddplug.evaluation.learned import train_as_learned as train_as_learned
    from ddplug.evaluation.results import Evaluation as Evaluation
    from ddplug.evaluation.results import accuracy as accuracy
    from ddplug.evaluation.results import cross_architecture as cross_architecture
    from ddplug.evaluation.results import evaluate as evaluate
    from ddplug.evaluation.row import Row as Row
    from ddplug.evaluation.rows import Comparison as Comparison
    from ddplug.evaluation.train import train_on as train_on

_HOMES = {
    "Comparison": "rows",
    "Evaluation": "results",
    "Row": "row",
    "accuracy": "results",
    "compare": "comparison",
    "cross_architecture": "results",
    "evaluate": "results",
    "evaluate_as_learned": "learned",
    "train_as_learned": "learned",
    "train_on": "train",
}

__all__ = [
    "Comparison",
    "Evaluation",
    "Row",
    "accuracy",
    "compare",
    "cross_architecture",
    "evaluate",
    "evaluate_as_learned",
    "train_as_learned",
    "train_on",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
