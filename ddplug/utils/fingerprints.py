"""Fingerprints of tensors and of files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ddplug.errors import OptionError
from ddplug.utils.text import os_reason

__all__ = ["file_fingerprint", "fingerprint", "unreadable"]


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the names and numbers of a network: equal networks have equal fingerprints.

    Example:
        >>> fingerprint({"w": torch.zeros(2)})[:8]
        'e5868624'
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        # as bytes, since numpy does not have every type
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_fingerprint(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        OptionError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise unreadable(path, error) from None
    return digest.hexdigest()


def unreadable(path: str | Path, error: OSError) -> OptionError:
    """Return the error to raise where a file cannot be read."""
    return OptionError(f"cannot read {path}: {os_reason(error)}; put the file back or correct the path")
