"""Distilled replay memories for Avalanche: a storage policy, a plugin and two strategies.

Needs the extra ``avalanche``: ``pip install "ddplug[avalanche]"``. Importing this package alone imports nothing of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddplug.errors import MissingExtraError

if TYPE_CHECKING:
    from ddplug.avalanche.buffer import DistilledBuffer as DistilledBuffer
    from ddplug.avalanche.checkpoints import checkpoint_cure as checkpoint_cure
    from ddplug.avalanche.metrics import distillation_metrics as distillation_metrics
    from ddplug.avalanche.plugin import DistilledReplayPlugin as DistilledReplayPlugin
    from ddplug.avalanche.strategy import DistilledGDumb as DistilledGDumb
    from ddplug.avalanche.strategy import DistilledReplay as DistilledReplay

_HOMES = {
    "DistilledBuffer": "buffer",
    "DistilledGDumb": "strategy",
    "DistilledReplay": "strategy",
    "DistilledReplayPlugin": "plugin",
    "checkpoint_cure": "checkpoints",
    "distillation_metrics": "metrics",
}

__all__ = [
    "DistilledBuffer",
    "DistilledGDumb",
    "DistilledReplay",
    "DistilledReplayPlugin",
    "checkpoint_cure",
    "distillation_metrics",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "avalanche":
            raise
        raise MissingExtraError(
            f'{__name__}.{name} needs Avalanche, which is not installed; run pip install "ddplug[avalanche]"'
        ) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
