"""Checksums by which a file tells that it is what was written, whichever bit was changed since.

Two strings among the metadata of a safetensors file: ``payload``, the SHA-256 of all bytes behind the header, and
``sha256``, that of the header with its length in front, in which its own 64 digits are zeros.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import IO

from ddplug.errors import FormatError

__all__ = ["BLANK", "NAMES", "check", "sealed", "sum_of"]

NAMES = frozenset({"payload", "sha256"})
"""What is added to the metadata."""

BLANK = "0" * 64
"""What stands in the place of ``sha256`` while it is computed."""

_PART = 1 << 20


def sum_of(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sealed(head: bytes) -> bytes:
    """Put the checksum of a header in its place; the header has :data:`BLANK` there."""
    before, blank, after = head.rpartition(b'"sha256":"' + BLANK.encode() + b'"')
    return before + blank.replace(BLANK.encode(), sum_of(head).encode()) + after


def check(file: IO[bytes], metadata: Mapping[str, str], *, payload: bool) -> None:
    """Refuse a file that is not what was written.

    Args:
        file: the safetensors file, opened to be read.
        metadata: that it has; those of a file written before there were checksums have none.
        payload: look at the bytes behind the header too.

    Raises:
        FormatError: a checksum is missing or is another.
    """
    if not NAMES & set(metadata):
        return
    if not set(metadata) >= NAMES:
        raise FormatError("it was altered or damaged: it has one of two checksums")
    file.seek(0)
    length = file.read(8)
    head = length + file.read(int.from_bytes(length, "little"))
    stated = metadata["sha256"]
    if not re.fullmatch("[0-9a-f]{64}", stated, re.ASCII) or head.count(stated.encode()) != 1:
        raise FormatError("it was altered or damaged: its checksum is not a valid one")
    if sum_of(head.replace(stated.encode(), BLANK.encode())) != stated:
        raise FormatError("it was altered or damaged: its header has another checksum")
    digest = hashlib.sha256()
    while payload and (part := file.read(_PART)):
        digest.update(part)
    if payload and digest.hexdigest() != metadata["payload"]:
        raise FormatError("it was altered or damaged: its content has another checksum")
