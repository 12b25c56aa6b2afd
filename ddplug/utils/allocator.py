"""Let a process keep the memory that it frees, for what it allocates next.

Training allocates and frees the same megabytes in every step. The C library of most Linux systems (glibc) gives blocks
of that size back to the system at once, which then clears every page of the next ones.
"""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_memory"]

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of the parameters in ``malloc.h``."""

_LARGEST = (1 << 30, 32 << 20)
"""Bytes below which blocks are kept; glibc before 2.35 refuses the first."""

_NEVER = -1
"""As a threshold, the largest number there is."""


def keep_memory() -> bool:
    """Let the process keep the memory that it frees, up to what it once needed, instead of giving it back.

    Changes no number and needs no more memory at the peak. Nothing is done where the C library is not glibc, or where
    the environment has settings of its own for it (``MALLOC_*``, ``GLIBC_TUNABLES``). The command line does this for
    its own process; call it once at the start of a program, of a trial of NNI or of a worker of Optuna.

    Returns:
        Whether it was done.

    Example:
        >>> keep_memory() in (True, False)
        True
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return any(library.mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST) and bool(
        library.mallopt(_TRIM_THRESHOLD, _NEVER)
    )
