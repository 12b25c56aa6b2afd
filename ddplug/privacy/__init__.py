"""Measure what a set gives away of the data that it was made from; for a proof see :mod:`ddplug.distillers.dp_dm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.privacy.attacks import Membership as Membership
    from ddplug.privacy.intervals import clopper_pearson as clopper_pearson
    from ddplug.privacy.intervals import epsilon_of_guesses as epsilon_of_guesses
    from ddplug.privacy.neighbors import Nearest as Nearest
    from ddplug.privacy.pictures import roc as roc
    from ddplug.privacy.report import Audit as Audit
    from ddplug.privacy.report import audit as audit

_HOMES = {
    "Audit": "report",
    "Membership": "attacks",
    "Nearest": "neighbors",
    "audit": "report",
    "clopper_pearson": "intervals",
    "epsilon_of_guesses": "intervals",
    "roc": "pictures",
}

__all__ = [
    "Audit",
    "Membership",
    "Nearest",
    "audit",
    "clopper_pearson",
    "epsilon_of_guesses",
    "roc",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
