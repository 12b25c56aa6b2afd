"""Checks of options."""

from __future__ import annotations

from ddplug.errors import OptionError

__all__ = ["at_least"]


def at_least(options: object, **limits: float) -> None:
    """Refuse hyper-parameters below their limits.

    Args:
        options: the object that has them.
        limits: least value of each.

    Raises:
        OptionError: one is below; the message names it.
    """
    for name, least in limits.items():
        if not getattr(options, name) >= least:
            raise OptionError(f"{name} is {getattr(options, name)}; it must be at least {least}")
