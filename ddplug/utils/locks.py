"""Files that belong to one process at a time, and what killed processes left behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from ddplug.errors import OptionError
from ddplug.utils.teams import team
from ddplug.utils.text import one_line, os_reason

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["clean", "locked", "temporary"]


_TRIES = 20
"""Times that a file is made again which others remove before it is locked; some file systems never agree."""

_PAUSE = 0.01
"""Seconds until the next try; whoever only looks whether a lock is stale, to remove it, holds it for less."""


def hold(file: IO[Any]) -> bool | None:
    """Lock an open file until it is closed, by which the system unlocks it however the process ends.

    Returns:
        Whether it is ours now; ``None`` where the system or the file's disk has no locks.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def clean(folder: str | Path, start: str = ".ddplug-", *ends: str) -> None:
    """Remove the temporary files in a folder that no process holds: their processes were killed.

    Args:
        folder: to look in.
        start: of their names.
        ends: of their names; those of :func:`ddplug.utils.files.write_file` and of locks if not given.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(start) and entry.name.endswith(ends or (".tmp", ".lock")):
                with contextlib.suppress(OSError):
                    _remove_stale(entry)


def _remove_stale(entry: os.DirEntry[str]) -> None:
    if not entry.is_file(follow_symlinks=False):
        return
    with open(entry.path, "rb") as file:
        if hold(file):
            os.unlink(entry.path)


@contextlib.contextmanager
def temporary(folder: Path, start: str = ".ddplug-", end: str = ".tmp") -> Iterator[Path]:
    """Make an empty file that :func:`clean` leaves alone; it is gone after the block unless it was renamed.

    Args:
        folder: for the file.
        start: of its name.
        end: of its name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, temporary(Path(folder)) as path:
        ...     path.stat().st_size
        0
    """
    path = folder / f"{start}{secrets.token_hex(8)}{end}"
    guard: IO[bytes] | Literal[False] | None = False
    for _ in range(_TRIES):  # it may be cleaned away before it can be locked
        guard = _guarded(path)
        if guard is not False:
            break
        time.sleep(_PAUSE)
    try:
        yield path
    finally:
        # after a rename there is nothing left to remove; a failing disk must not hide the first error
        with contextlib.suppress(OSError):
            path.unlink()
        if guard:
            guard.close()


def _guarded(path: Path) -> IO[bytes] | Literal[False] | None:
    """Make a file and lock it; ``None`` where there are no locks, ``False`` where it is gone again."""
    path.touch(exist_ok=True)
    if fcntl is None:  # and open files cannot be renamed
        return None
    guard = open(path, "rb")  # noqa: SIM115  held open by the caller
    with contextlib.suppress(FileNotFoundError):
        if hold(guard) is not False and os.path.samestat(os.fstat(guard.fileno()), os.stat(path)):
            return guard
    guard.close()
    return False


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep other processes from writing a file while a block works towards it.

    A small hidden file beside it is locked, and removed afterwards; what killed processes left there is removed too.

    Args:
        path: the file; its folder must exist.

    Raises:
        OptionError: another process, or another such block, is at it; or nothing can be written there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(folder + "/a"), locked(folder + "/b"):
        ...     with locked(folder + "/a"):  # doctest: +ELLIPSIS
        ...         pass
        Traceback (most recent call last):
        ...
        ddplug.errors.OptionError: another run (process ...) is writing ...
    """
    if not team().leads:  # the first of the processes that work together writes, and holds it
        yield
        return
    target = Path(os.path.realpath(path))
    name = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    try:
        file = _acquired(target.with_name(f".ddplug-{name}.lock"), path)
    except OSError as error:
        raise OptionError(f"cannot write {path}: {os_reason(error)}; choose another path") from None
    clean(target.parent)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(file.name)
        file.close()


def _acquired(lock: Path, path: str | Path) -> IO[str]:
    """Open and lock a lock's file; one that was removed meanwhile is made again."""
    for left in reversed(range(_TRIES)):
        file = open(lock, "a+", encoding="utf-8")  # noqa: SIM115  held open by the caller
        try:
            if hold(file) is False:
                if left:
                    file.close()
                    time.sleep(_PAUSE)
                    continue
                file.seek(0)
                owner = one_line(file.read(200)) or "of another process"
                raise OptionError(
                    f"another run ({owner}) is writing {path}; wait until it ends, or choose another path"
                )
            if not left or os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}")
                file.flush()
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()
    raise OSError(None, "another process keeps removing its lock")
