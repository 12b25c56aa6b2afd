"""Files that are written whole or not at all, and the tensors-with-a-header file that sets and checkpoints share.

Such a file is safetensors, never pickle; its metadata hold three strings: ``format`` (``ddplug/1``, or ``ddplug/2``
where a tensor is float16), ``kind`` (``synthetic-set``, ``checkpoint`` or ``expert``) and ``header``, a JSON object
without NaN or repeated keys.
"""

from __future__ import annotations

import json
import math
import os
import re
import reprlib
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from ddplug.errors import FormatError, OptionError
from ddplug.utils import digests
from ddplug.utils.locks import temporary
from ddplug.utils.notes import note
from ddplug.utils.paths import check_regular, local, unfit_for_windows
from ddplug.utils.teams import team
from ddplug.utils.text import one_line, os_reason

__all__ = ["check_header", "check_space", "check_writable", "is_checked", "read_tensors", "write_file", "write_tensors"]

_VERSION = 5
"""The newest that is read. Files without anything new are written as version 1, which older readers take."""
_MAX_HEADER = 8 << 20
"""Bytes of the safetensors header, ours included: enough for 20,000 class names, and little to parse."""
_MAX_DEPTH = 64
_BLANK_PAYLOAD = f'"payload":"{digests.BLANK}"'.encode()
_SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))
_DTYPES = (torch.float16, torch.float32, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool)
_FOREIGN: Mapping[bytes, str] = {
    b"version https://git-lfs": "it is a pointer of Git LFS to the file; run git lfs pull",
    b"<!doctype html": "it is a web page; download the file itself",
    b"<html": "it is a web page; download the file itself",
    b"\x1f\x8b": "it is compressed by gzip; unpack it",
    b"pk\x03\x04": "it is a zip archive, as torch.save and np.savez write them; give a file that ddplug wrote",
}
"""First bytes of what files are instead, after downloads that went wrong, in small letters -> what to do."""
_STORED = {"F32": 1, "F64": 1, "I64": 1, "I32": 1, "U8": 1, "BOOL": 1, "F16": 2}
"""Type -> the first version of the format that has it."""


def check_writable(path: str | Path) -> Path:
    """Check that a file can be written at a path, so that a long run does not fail at its end.

    Args:
        path: the file to be written; links are followed.

    Returns:
        The resolved path.

    Raises:
        OptionError: the folder is missing or not writable, or the path is something other than a regular file.
    """
    target = Path(os.path.realpath(local(path)))
    try:
        regular = stat.S_ISREG(os.stat(target).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        regular = not os.fsdecode(path).endswith(_SEPARATORS)
    except OSError as error:
        raise OptionError(f"cannot write {path}: {os_reason(error)}; choose another path") from None
    if not os.path.isdir(target.parent):
        raise OptionError(f"cannot write {path}: the folder {target.parent} does not exist; create it first")
    if not regular:
        raise OptionError(f"cannot write {path}: it is not a regular file; choose another path")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OptionError(f"cannot write {path}: the folder {target.parent} is not writable; choose another path")
    if unfit_for_windows(target.name):
        kept = target.name if target.name.endswith((".", " ")) else target.name.partition(".")[0]
        note(f"Windows has no file that is called {kept!r}; choose another name to use it there")
    return target


def write_file(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary name next to it, flushed to the disk, then renamed.

    Of processes that work together only the first writes.

    Args:
        path: the file; an existing one is replaced, and stays as it was if anything fails.
        content: all of it.

    Raises:
        OptionError: the path cannot be written or the disk is full.
    """
    target = check_writable(path)
    if not team().leads:
        return
    try:
        with temporary(target.parent) as made:
            with made.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, target)
    except OSError as error:
        raise OptionError(
            f"cannot write {path}: {os_reason(error)}; nothing was changed: free space or choose another path"
        ) from None


def write_tensors(
    path: str | Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any], version: int = 1
) -> None:
    """Write tensors and a JSON header to one safetensors file, atomically.

    Args:
        path: the file.
        kind: what it holds, e.g. ``"checkpoint"``; :func:`read_tensors` asks for the same.
        tensors: float16, float32, float64, int64, int32, uint8 or bool, any shape, any device.
        header: JSON-ready values, no NaN, at most 64 levels deep.
        version: the first version of the format whose readers know what the header says.

    Raises:
        OptionError: the path cannot be written, or the header or a tensor cannot be stored.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise OptionError(f"cannot store {name!r}: {tensor.dtype} is none of {', '.join(map(str, _DTYPES))}")
    text = check_header(header, path)
    # clones: safetensors refuses tensors that share memory, which states may well do
    own = {k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()}
    version = max(version, 2 if any(tensor.dtype == torch.float16 for tensor in own.values()) else 1)
    sums = dict.fromkeys(digests.NAMES, digests.BLANK)
    content = _ordered(to_bytes(own, {"format": f"ddplug/{version}", "kind": kind, "header": text, **sums}))
    if int.from_bytes(content[:8], "little") > _MAX_HEADER:
        raise OptionError(f"cannot store {path}: its header is longer than {_MAX_HEADER} bytes; shorten the provenance")
    write_file(path, content)


def check_header(header: Mapping[str, Any], path: str | Path) -> str:
    """Write a header as JSON, or say what in it cannot be stored.

    Args:
        header: what is to be stored with tensors.
        path: where, for the message.

    Raises:
        OptionError: a value is not JSON-ready, NaN, not Unicode or nested too deep.
    """
    try:
        text = json.dumps(header, ensure_ascii=False, allow_nan=False)
        _parse(text)
    except UnicodeEncodeError as error:
        found = ascii(error.object[max(0, error.start - 30) : error.end])
        raise OptionError(f"cannot store {path}: a name in it is not Unicode ({found}); rename it") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"cannot store the header of {path}: {error}") from None
    return text


def check_space(path: str | Path, nbytes: int) -> None:
    """Check that the disk has room for a file, before work that would be lost without it.

    Args:
        path: the file to be written; its folder exists.
        nbytes: that it takes, at the least.

    Raises:
        OptionError: there is less room.
    """
    free = shutil.disk_usage(Path(os.path.realpath(path)).parent).free
    if free < nbytes:
        raise OptionError(
            f"cannot write {path}: it takes {nbytes / 1e6:,.1f} MB and the disk has {free / 1e6:,.1f} MB left; free "
            "some space or choose another path"
        )


def is_checked(path: str | Path) -> bool:
    """Return whether a file of :func:`write_tensors` has checksums; those written before there were any load unchecked.

    Args:
        path: a file that :func:`read_tensors` takes.
    """
    with safe_open(str(local(path)), framework="pt") as file:
        return set(file.metadata() or {}) >= digests.NAMES


def _ordered(content: bytes) -> bytes:
    """Order the metadata, which safetensors draws anew each time: equal content is equal files. Add the checksums."""
    end = 8 + int.from_bytes(content[:8], "little")
    head = json.loads(content[8:end])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    size = -(-len(text) // 8) * 8  # the tensors stay aligned
    payload = memoryview(content)[end:]
    text = text.replace(_BLANK_PAYLOAD, f'"payload":"{digests.sum_of(payload)}"'.encode())
    return b"".join([digests.sealed(size.to_bytes(8, "little") + text.ljust(size)), payload])


def read_tensors(
    path: str | Path, kind: str, *, mapped: bool = False, whole: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_tensors` wrote; the content is not trusted.

    Args:
        path: the file.
        kind: what it must hold.
        mapped: leave the tensors in the file, mapped into memory; for files that are replaced, never changed.
        whole: look at every byte, as the checksum of the tensors asks for; without, at the header alone.

    Returns:
        Tensors on the CPU, and the header.

    Raises:
        OptionError: the file does not exist or cannot be read.
        FormatError: it is not a ddplug file, of another kind, truncated, altered or from a newer version.
    """
    path = local(path)
    try:
        _check_file(path)
        with safe_open(path, framework="pt") as file, open(path, "rb") as plain:
            metadata = file.metadata() or {}
            version = _version(metadata)
            header = _header(metadata, kind)
            digests.check(plain, metadata, payload=whole)
            # the parser lets the last of repeated names win, and knows types that ours does not store
            _unique(path)
            for name in file.keys():  # noqa: SIM118  not a mapping
                _check_layout(name, file.get_slice(name).get_dtype(), file.get_slice(name).get_shape(), version)
            tensors = {name: _sound(name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            # clones: nothing stays mapped to a file that may be replaced or unmounted
            tensors = tensors if mapped else {name: tensor.clone() for name, tensor in tensors.items()}
    except (SafetensorError, FormatError) as error:
        raise FormatError(f"{path} is not a ddplug file that can be read: {one_line(error, most=300)}") from None
    except OSError as error:
        raise OptionError(f"cannot read {path}: {os_reason(error)}") from None
    return tensors, header


def _check_file(path: str | Path) -> None:
    """Refuse what cannot be mapped into memory, and headers that would take long to parse."""
    check_regular(path)
    with open(path, "rb") as file:
        start = file.read(40)
    foreign = next((said for mark, said in _FOREIGN.items() if start.lstrip().lower().startswith(mark)), None)
    if foreign is not None or not start:
        raise FormatError(foreign or "it is empty; copy or download it again")
    length = int.from_bytes(start[:8], "little")
    if length > _MAX_HEADER:
        raise FormatError(f"its header is {length} bytes long, the limit is {_MAX_HEADER}")


def _check_layout(name: str, dtype: str, shape: list[int], version: int) -> None:
    """Refuse types that are not stored, and shapes that torch cannot hold though they have no element."""
    if _STORED.get(dtype, _VERSION + 1) > version:
        raise FormatError(
            f"tensor {reprlib.repr(name)} is of the type {dtype}, which is not one of ours in ddplug/{version}"
        )
    if len(shape) > 16 or math.prod(max(size, 1) for size in shape) >= 2**48:
        raise FormatError(f"tensor {reprlib.repr(name)} has the shape {reprlib.repr(shape)}")


def _sound(name: str, tensor: Tensor) -> Tensor:
    """Refuse booleans that are neither 0 nor 1, on which operations disagree."""
    if tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
        raise FormatError(f"tensor {reprlib.repr(name)} holds bytes that are neither true nor false")
    return tensor


def _unique(path: str | Path) -> None:
    """Refuse repeated names in the safetensors header itself."""
    with open(path, "rb") as file:
        _load_json(file.read(int.from_bytes(file.read(8), "little")).decode())


def _version(metadata: Mapping[str, str]) -> int:
    """Check format and version, and give the version."""
    version = re.fullmatch(r"ddplug/([1-9][0-9]{0,8})", metadata.get("format", ""), re.ASCII)
    if version is None:
        raise FormatError("it has no ddplug header")
    if int(version[1]) > _VERSION:
        raise FormatError(
            f"it has the format {version[0]}, written by a newer version, and this one reads ddplug/{_VERSION}: "
            "update ddplug"
        )
    return int(version[1])


def _header(metadata: Mapping[str, str], kind: str) -> dict[str, Any]:
    """Check the kind and give the JSON header."""
    if metadata.get("kind") != kind:
        raise FormatError(f"it holds a {reprlib.repr(metadata.get('kind'))}, not a {kind!r}")
    return _load_json(metadata.get("header", ""))


def _load_json(text: str) -> dict[str, Any]:
    """Parse JSON that may be hostile.

    Raises:
        FormatError: it is not an object, or not plain JSON.
    """
    try:
        return _parse(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its header is not valid JSON: {error}") from None


def _parse(text: str) -> dict[str, Any]:
    """Parse a JSON object without repeated keys, NaN, infinity, lone surrogates or deep nesting."""
    value = json.loads(text, object_pairs_hook=_pairs)
    # writing it again finds NaN, numbers that overflowed to infinity, and text that is not Unicode
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    if _depth(value) > _MAX_DEPTH:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, refusing repeated keys."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is repeated")
    return result


def _depth(value: Any) -> int:
    """Count the levels of nesting."""
    level, depth = [value], 0
    while level:
        depth += 1
        below = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for items in below for item in items]
    return depth
