"""Earlier names of hyper-parameters: scripts and command lines that use them go on working."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

__all__ = ["FORMER_SPELLINGS", "TakesFormerSpellings"]

FORMER_SPELLINGS: Mapping[str, Sequence[str]] = {
    "init_from": ("start",),
    "pool_size": ("bank", "pool", "queue"),
    "max_samples_per_class": ("pool",),
    "initialization": ("initialisation",),
}
"""Field -> what it was called before."""


class TakesFormerSpellings(ABCMeta):
    """Class of dataclasses whose fields may be given by their earlier names when an object is made."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        for name in known & FORMER_SPELLINGS.keys():
            for former in FORMER_SPELLINGS[name]:
                if former in options and former not in known and name not in options:
                    options[name] = options.pop(former)
        return super().__call__(*args, **options)

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's, which ``help`` and the reference would else not see behind the call."""
        own = inspect.signature(cls.__init__)  # type: ignore[misc]
        return own.replace(parameters=list(own.parameters.values())[1:])
