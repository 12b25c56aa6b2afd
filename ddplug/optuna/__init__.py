"""Tuning on less data with Optuna: trials are scored on a small set first, and the best of them on all data.

Needs Optuna: ``pip install optuna``. Importing this package alone imports nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.optuna.objective import DistilledObjective as DistilledObjective

_HOMES = {"DistilledObjective": "objective"}

__all__ = ["DistilledObjective"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, framework="Optuna", needs=("optuna",))
