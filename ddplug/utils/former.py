"""Earlier names of hyper-parameters: scripts and command lines that use them go on working."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ddplug.utils.options import TakesNumbers

__all__ = ["FORMER_SPELLINGS", "TakesFormerSpellings"]

FORMER_SPELLINGS: Mapping[str, Sequence[str]] = {
    "init_from": ("start",),
    "pool_size": ("bank", "pool", "queue"),
    "max_samples_per_class": ("pool",),
    "initialization": ("initialisation",),
}
"""Field -> what it was called before."""


class TakesFormerSpellings(TakesNumbers, ABCMeta):
    """Class of dataclasses whose fields may be given by their earlier names when an object is made."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        for name in known & FORMER_SPELLINGS.keys():
            for former in FORMER_SPELLINGS[name]:
                if former in options and former not in known and name not in options:
                    options[name] = options.pop(former)
        return super().__call__(*args, **options)
