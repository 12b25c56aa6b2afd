"""Distilled replay memories for Avalanche: a storage policy, a plugin and two strategies.

Needs the extra ``avalanche``: ``pip install -e '.[avalanche]'`` in a clone. Importing this package alone imports
nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.avalanche.buffer import DistilledBuffer as DistilledBuffer
    from ddplug.avalanche.checkpoints import checkpoint_cure as checkpoint_cure
    from ddplug.avalanche.handover import hand_over as hand_over
    from ddplug.avalanche.metrics import distillation_metrics as distillation_metrics
    from ddplug.avalanche.options import MemoryOptions as MemoryOptions
    from ddplug.avalanche.plugin import DistilledReplayPlugin as DistilledReplayPlugin
    from ddplug.avalanche.strategy import DistilledGDumb as DistilledGDumb
    from ddplug.avalanche.strategy import DistilledReplay as DistilledReplay

_HOMES = {
    "DistilledBuffer": "buffer",
    "DistilledGDumb": "strategy",
    "DistilledReplay": "strategy",
    "DistilledReplayPlugin": "plugin",
    "MemoryOptions": "options",
    "checkpoint_cure": "checkpoints",
    "distillation_metrics": "metrics",
    "hand_over": "handover",
}

__all__ = [
    "DistilledBuffer",
    "DistilledGDumb",
    "DistilledReplay",
    "DistilledReplayPlugin",
    "MemoryOptions",
    "checkpoint_cure",
    "distillation_metrics",
    "hand_over",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, framework="Avalanche", needs=("avalanche",))
