"""One small hierarchy of errors; every message names the value, the limit and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

__all__ = [
    "CheckpointError",
    "DataError",
    "DdplugError",
    "DivergedError",
    "FormatError",
    "MissingExtraError",
    "OptionError",
    "ProcessError",
    "unknown",
]


class DdplugError(Exception):
    """Base of every error that a user can cause and correct: one clear line, and exit status 2 of the command line."""


class OptionError(DdplugError, ValueError):
    """An unknown name or an option value outside its range."""


class DataError(DdplugError, ValueError):
    """Real data that cannot be used as they are: empty, one class, unreadable, NaN, wrong labels."""


class FormatError(DdplugError, ValueError):
    """A file that is not a ddplug file, or is truncated, altered, or newer than this version reads."""


class CheckpointError(DdplugError, ValueError):
    """A checkpoint that belongs to another configuration or data set."""


class DivergedError(DdplugError, ArithmeticError):
    """The optimization produced NaN or infinity."""


class MissingExtraError(DdplugError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class ProcessError(DdplugError, RuntimeError):
    """Of several processes that work together another has ended, so that no result can come of it."""


_MOST = 40
"""Known names that are listed beside the nearest one."""

_SHORT: Mapping[str, str] = {
    "bs": "batch_size",
    "ipc": "images_per_class",
    "lr": "learning_rate",
    "spc": "images_per_class",
    "wd": "weight_decay",
}
"""What papers write -> the name that is meant, though it is not spelled alike."""


def unknown(kind: str, name: object, known: Iterable[str]) -> OptionError:
    """Build the error for a name that is not known, with the nearest known names.

    Args:
        kind: what the name should have been, e.g. ``"distiller"``.
        name: the name given; whatever it is.
        known: every name that would have been accepted.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> print(unknown("distiller", "dmm", ["dc", "dm", "dsa"]))
        unknown distiller 'dmm'; did you mean 'dm'? Known: dc, dm, dsa
    """
    known = sorted(known)
    given = str(name).casefold()
    meant = _SHORT.get(given.strip("-").replace("-", "_"), "")
    near = [word for word in known if meant and word.strip("-").replace("-", "_") == meant]
    near = near or difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    if near and len(known) > _MOST:
        return OptionError(f"unknown {kind} {name!r}{hint}")
    return OptionError(f"unknown {kind} {name!r}{hint} Known: {', '.join(known) or 'none'}")
