"""The files that ``ddplug distill`` writes: what may be overwritten, and what is kept where a run does not end well."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ddplug.errors import CheckpointError, FormatError, OptionError, ProcessError
from ddplug.utils.signals import saving
from ddplug.utils.text import os_reason

if TYPE_CHECKING:
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["check_outputs", "save", "saying_how_to_go_on"]


def _fault(kind: str, path: str) -> str | None:
    """Say why a file is none of ours, if so: writing over one of ours loses nothing of somebody else's."""
    from ddplug.utils.files import read_tensors

    if kind == "log":
        with open(path, "rb") as file:
            return None if file.read(12) in (b"step,seconds", b"") else "it does not begin with step,seconds"
    try:
        read_tensors(path, kind)
    except FormatError as error:
        return str(error).removeprefix(f"{path} is not a ddplug file that can be read: ")
    return None


def _probe(path: str, folder: Path) -> None:
    """Make and remove a file in a folder: permissions alone do not tell of every place that takes no files."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OptionError(f"cannot write {path}: {os_reason(error)}; choose another path") from None


def check_outputs(arguments: argparse.Namespace, checkpoint: str) -> None:
    """Refuse what cannot be written, or is not ours to overwrite, before any work is done.

    Args:
        arguments: with ``output``, ``csv`` and ``tensorboard``.
        checkpoint: file of the run.

    Raises:
        OptionError: a file cannot be written, two are one, or one is somebody else's.
    """
    from ddplug.utils.files import check_writable

    kinds = {"synthetic-set": arguments.output, "checkpoint": checkpoint, "log": arguments.csv}
    wanted = {kind: path for kind, path in kinds.items() if path is not None}
    if len(set(map(os.path.realpath, wanted.values()))) < len(wanted):
        raise OptionError(f"the output, checkpoint and CSV files must differ: {', '.join(wanted.values())}")
    for kind, path in wanted.items():
        _probe(path, check_writable(path).parent)
        fault = _fault(kind, path) if os.path.exists(path) else None
        if fault is not None:
            raise OptionError(
                f"{path} exists and is not a {kind} of ddplug ({fault}); choose another path, or remove it"
            )
    folder = arguments.tensorboard
    if folder is not None and os.path.exists(folder) and not os.path.isdir(folder):
        raise OptionError(f"cannot write {folder}: it is not a folder; choose another path")


@contextmanager
def saying_how_to_go_on(checkpoint: str) -> Iterator[None]:
    """Say of a run that ends early how to go on.

    Args:
        checkpoint: file of the run.
    """
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{error} (--checkpoint FILE, or --no-resume)") from None
    except ProcessError as error:
        raise ProcessError(f"{error}; {_continues(checkpoint)}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_continues(checkpoint)) from None


def _continues(checkpoint: str) -> str:
    """Say what the same command will do."""
    kept = os.path.exists(checkpoint)
    return f"the same command {f'resumes from {checkpoint}' if kept else 'starts over; nothing was done yet'}"


def save(synthetic: SyntheticSet, output: str, checkpoint: str) -> None:
    """Write the set; where that fails, say that the work is not lost.

    Args:
        synthetic: the set.
        output: file for it.
        checkpoint: file of the run.

    Raises:
        OptionError: it cannot be written.
    """
    try:
        with saving():
            synthetic.save(output)
    except OptionError as error:
        kept = f"; the work is kept in {checkpoint}, and the same command resumes from there"
        raise OptionError(f"{error}{kept if os.path.exists(checkpoint) else ''}") from None
