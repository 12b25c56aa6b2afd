"""Distillers, networks and data sets by name: ours and third parties' by entry point, anybody's by :func:`register`.

A package that is installed while the process runs is seen: :func:`names` reads the entry points anew, and so does
:func:`resolve` for a name that it does not know.
"""

from __future__ import annotations

import os
import sys
from functools import cache, lru_cache
from importlib import invalidate_caches
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from ddplug.errors import MissingExtraError, OptionError, unknown

__all__ = ["GROUPS", "home", "names", "register", "resolve"]

GROUPS = {
    "distiller": "ddplug.distillers",
    "network": "ddplug.networks",
    "dataset": "ddplug.datasets",
    "codec": "ddplug.codecs",
}
"""Kind of plug-in -> entry-point group that a package declares it in."""


_REGISTERED: dict[str, dict[str, Any]] = {kind: {} for kind in GROUPS}
"""Kind of plug-in -> name -> what :func:`register` was given."""


def register(kind: str, name: str, plugin: Any) -> None:
    """Give a plug-in a name for the life of this process, for notebooks and scripts; packages use an entry point.

    A class or function may be registered again under its name after it was edited.

    Args:
        kind: ``"distiller"``, ``"network"`` or ``"dataset"``.
        name: that :func:`resolve` and the command line's functions will find it under.
        plugin: a distiller class, a network factory or a data set loader.

    Raises:
        OptionError: there is no such kind, or the name is taken by something else.

    Example:
        >>> register("distiller", "mine", Mine)  # doctest: +SKIP
    """
    if kind not in GROUPS:
        raise unknown("kind of plug-in", kind, GROUPS)
    other = _refreshed(kind).get(name)
    if other is not None:
        raise OptionError(f"the {kind} {name!r} is taken by {other.value}; choose another name")
    known = _REGISTERED[kind].setdefault(name, plugin)
    if _home(known) != _home(plugin):
        raise OptionError(f"the {kind} {name!r} is taken by {_home(known)}; choose another name")
    _REGISTERED[kind][name] = plugin


def _home(plugin: Any) -> str:
    """Say where a plug-in was defined; the same for one that is defined again, as a cell of a notebook does."""
    return f"{getattr(plugin, '__module__', '')}:{getattr(plugin, '__qualname__', repr(plugin))}"


@lru_cache(maxsize=1)
def _declared(folders: tuple[tuple[str, int], ...]) -> Any:
    """Read the entry points of all packages, which takes a file a package, once for all kinds.

    Args:
        folders: where packages are installed, and when each last changed; see :func:`_folders`.
    """
    return entry_points()


def _folders() -> tuple[tuple[str, int], ...]:
    return tuple((path, os.stat(path).st_mtime_ns) for path in sys.path if os.path.exists(path))


@cache
def _points(kind: str) -> dict[str, EntryPoint]:
    # ours come last and so win: no other package takes over a name that results are published under
    points = _declared(_folders()).select(group=GROUPS[kind])
    return {point.name: point for point in sorted(points, key=lambda point: point.value.startswith("ddplug."))}


def _refreshed(kind: str) -> dict[str, EntryPoint]:
    invalidate_caches()
    _points.cache_clear()
    return _points(kind)


def names(kind: str) -> list[str]:
    """List the plug-ins of a kind, installed and registered.

    Args:
        kind: ``"distiller"``, ``"network"``, ``"dataset"`` or ``"codec"``.

    Returns:
        Sorted names.

    Example:
        >>> "dm" in names("distiller")
        True
    """
    return sorted({*_refreshed(kind), *_REGISTERED[kind]})


def home(kind: str, name: str) -> str | None:
    """Return where the plug-in of a name is defined, without loading it.

    Args:
        kind: ``"distiller"``, ``"network"``, ``"dataset"`` or ``"codec"``.
        name: any.

    Returns:
        ``"module:name"`` as its entry point says; ``None`` where no package declares it, or :func:`register` gave it.

    Example:
        >>> home("distiller", "dm")
        'ddplug.distillers.dm:DM'
    """
    declared = None if name in _REGISTERED[kind] else _points(kind).get(name)
    return None if declared is None else declared.value


def resolve(kind: str, name: str) -> Any:
    """Load the plug-in that a name stands for.

    Args:
        kind: ``"distiller"``, ``"network"``, ``"dataset"`` or ``"codec"``.
        name: a name from :func:`names`.

    Returns:
        What was registered, or the object the entry point names (a distiller class, a network factory, a data set
        loader).

    Raises:
        OptionError: the name is not known, or the plug-in is broken.
        MissingExtraError: the plug-in's own imports fail.
    """
    if name in _REGISTERED[kind]:
        return _REGISTERED[kind][name]
    points = _points(kind) if name in _points(kind) else _refreshed(kind)
    if name not in points:
        raise unknown(kind, name, [*points, *_REGISTERED[kind]])
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
