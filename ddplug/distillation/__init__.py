"""The loop: seed, steps, progress, checkpoint, exact resume, for every method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.distillation.callbacks import Callback as Callback
    from ddplug.distillation.callbacks import CsvLog as CsvLog
    from ddplug.distillation.callbacks import Forecast as Forecast
    from ddplug.distillation.callbacks import ProgressBar as ProgressBar
    from ddplug.distillation.callbacks import TensorBoardLog as TensorBoardLog
    from ddplug.distillation.config import config_of as config_of
    from ddplug.distillation.loop import distill as distill
    from ddplug.distillation.memory import Sizes as Sizes
    from ddplug.distillation.protocol import Distiller as Distiller
    from ddplug.distillation.protocol import Metrics as Metrics
    from ddplug.distillation.protocol import State as State

_HOMES = {
    "Callback": "callbacks",
    "CsvLog": "callbacks",
    "Distiller": "protocol",
    "Forecast": "callbacks",
    "Metrics": "protocol",
    "ProgressBar": "callbacks",
    "Sizes": "memory",
    "State": "protocol",
    "TensorBoardLog": "callbacks",
    "config_of": "config",
    "distill": "loop",
}

__all__ = [
    "Callback",
    "CsvLog",
    "Distiller",
    "Forecast",
    "Metrics",
    "ProgressBar",
    "Sizes",
    "State",
    "TensorBoardLog",
    "config_of",
    "distill",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
