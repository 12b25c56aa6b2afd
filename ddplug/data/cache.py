"""Arrays that lie in files and are mapped, not read: memory holds only the pages in use, and the system drops those.

A cache file is the raw samples one after the other, a JSON header with their SHA-256, that of the header (32 bytes) and
the length of the header (eight little-endian bytes). It is written under a temporary name (``*.part``; those that
killed processes left are removed) and renamed. A file that is not what was written is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ddplug.data.preprocess import pieces
from ddplug.errors import DataError
from ddplug.utils.locks import clean, temporary
from ddplug.utils.text import os_reason

__all__ = ["SUBSET_LIMIT", "open_cache", "take", "write_cache"]

SUBSET_LIMIT = 256 << 20
"""A subset of memory-mapped data with more bytes than this is mapped as well; a smaller one is copied into memory."""

_FORMAT = "ddplug-cache/2"
_DTYPES = {"uint8": torch.uint8, "float32": torch.float32}


def _map(path: str | Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Map the head of a file, privately: it is never written to, and it stays mapped when its name goes away."""
    return torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=dtype).view(shape)


@contextlib.contextmanager
def _part_file(folder: str | Path, name: str) -> Iterator[BinaryIO]:
    """Open a temporary file in a folder that is made if need be; it is gone afterwards unless it was renamed."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        clean(folder, f"{name}-", ".part")
        with temporary(Path(folder), f"{name}-", ".part") as path, path.open("wb") as file:
            yield file
    except OSError as error:
        reason = os_reason(error)
        raise DataError(f"cannot write the cache {folder}: {reason}; free space or choose another folder") from None


def take(inputs: Tensor, index: Tensor, folder: str | None) -> Tensor:
    """Copy rows, into memory or, where a folder is given and they are many, into a nameless mapped file there.

    Args:
        inputs: ``(N, *shape)``, as stored.
        index: ``(n,)`` int64 rows.
        folder: where the inputs' own file lies, or ``None`` when they are not mapped.

    Returns:
        ``(n, *shape)`` rows.
    """
    shape = (len(index), *inputs.shape[1:])
    if folder is None or math.prod(shape) * inputs.itemsize <= SUBSET_LIMIT:
        return inputs[index]
    with _part_file(folder, "subset") as file:
        for rows in torch.split(index, len(next(pieces(inputs)))):
            file.write(inputs[rows].numpy().data)
        file.flush()
        return _map(file.name, shape, inputs.dtype)


def write_cache(path: Path, samples: Iterable[Tensor], header: dict[str, Any]) -> None:
    """Write samples to a cache file, one at a time, whole or not at all.

    Args:
        path: the file; its folder is made, and an earlier file of that name is replaced at the end.
        samples: CPU tensors of one shape and data type; an exception from here leaves nothing behind.
        header: JSON-ready values, read after the last sample; ``shape`` and ``dtype`` describe the whole.

    Raises:
        DataError: the folder cannot be written or the disk is full.
    """
    with _part_file(path.parent, path.stem) as file:
        digest = hashlib.sha256()
        for sample in samples:
            digest.update(sample.numpy().data)
            file.write(sample.numpy().data)
        text = json.dumps({"format": _FORMAT, "sha256": digest.hexdigest(), **header}).encode()
        file.write(_ended(text))
        file.flush()
        os.fsync(file.fileno())
        os.replace(file.name, path)


_END = 32 + 8
"""Bytes behind the header: its SHA-256 and its length."""


def _ended(text: bytes) -> bytes:
    """Return a header with what stands behind it."""
    length = len(text).to_bytes(8, "little")
    return text + hashlib.sha256(text + length).digest() + length


def _read_header(path: Path) -> dict[str, Any]:
    """Read what stands behind the samples, and look whether all is as it was written.

    Raises:
        OSError, ValueError, KeyError, TypeError, RecursionError: it is not.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        start = size - _END - int.from_bytes(file.read(8), "little")
        if start < 0:
            raise ValueError("truncated")
        file.seek(start)
        tail = file.read()
        text = tail[:-_END]
        if tail != _ended(text):
            raise ValueError("its header was altered")
        header = json.loads(text)
        shape, targets = header["shape"], header["targets"]
        if not all(type(number) is int and number > 0 for number in shape) or len(targets) != shape[0]:
            raise ValueError("no samples, or other labels")
        if start != math.prod(shape) * _DTYPES[header["dtype"]].itemsize:
            raise ValueError("truncated")
        file.seek(0)
        if _sum(file, start) != header["sha256"]:
            raise ValueError("its samples were altered")
    return dict(header)


def _sum(file: BinaryIO, size: int) -> str:
    """Return the SHA-256 of the next bytes of a file, which are never all in memory."""
    digest = hashlib.sha256()
    while size and (part := file.read(min(size, 1 << 20))):
        digest.update(part)
        size -= len(part)
    return digest.hexdigest()


def open_cache(path: Path, source: str) -> tuple[Tensor, dict[str, Any]] | None:
    """Map a cache file if it is whole and was made from this source.

    Args:
        path: the file.
        source: what :func:`write_cache` was given as ``header["source"]``.

    Returns:
        The ``(N, *shape)`` samples and the header, or ``None`` if they have to be made (again).
    """
    try:
        header = _read_header(path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if header.get("format") != _FORMAT or header.get("source") != source:
        return None
    return _map(path, tuple(header["shape"]), _DTYPES[header["dtype"]]), header
