"""Distillers, networks and data sets are found by entry point, ours and third parties' alike."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ddplug.errors import MissingExtraError, OptionError, unknown

__all__ = ["GROUPS", "names", "resolve"]

GROUPS = {
    "distiller": "ddplug.distillers",
    "network": "ddplug.networks",
    "dataset": "ddplug.datasets",
    "codec": "ddplug.codecs",
}
"""Kind of plug-in -> entry-point group that a package declares it in."""


@cache
def _points(kind: str) -> dict[str, EntryPoint]:
    # ours come last and so win: no other package takes over a name that results are published under
    points = sorted(entry_points(group=GROUPS[kind]), key=lambda point: point.value.startswith("ddplug."))
    return {point.name: point for point in points}


def names(kind: str) -> list[str]:
    """List the installed plug-ins of a kind.

    Args:
        kind: ``"distiller"``, ``"network"``, ``"dataset"`` or ``"codec"``.

    Returns:
        Sorted names.

    Example:
        >>> "dm" in names("distiller")
        True
    """
    return sorted(_points(kind))


def resolve(kind: str, name: str) -> Any:
    """Load the plug-in that a name stands for.

    Args:
        kind: ``"distiller"``, ``"network"``, ``"dataset"`` or ``"codec"``.
        name: a name from :func:`names`.

    Returns:
        The object the entry point names (a distiller class, a network factory, a data set loader).

    Raises:
        OptionError: the name is not known, or the plug-in is broken.
        MissingExtraError: the plug-in's own imports fail.
    """
    points = _points(kind)
    if name not in points:
        raise unknown(kind, name, points)
    what = f"{kind} {name!r} ({points[name].value})"
    try:
        return points[name].load()
    except ImportError as error:
        raise MissingExtraError(f"{what} cannot be imported: {error}; install what it needs") from error
    except Exception as error:
        # a third party's module may raise anything
        raise OptionError(
            f"{what} is broken: {type(error).__name__}: {error}; update or uninstall the package that declares it"
        ) from error
