"""What a command does where ``torchrun`` has started it several times."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from ddplug.utils.streams import complain
from ddplug.utils.teams import launched, together

__all__ = ["SPLIT", "sharing"]

SPLIT = ("compare", "distill", "evaluate", "experts")
"""Commands that processes work on together."""


@contextmanager
def sharing(command: str, arguments: argparse.Namespace) -> Iterator[bool]:
    """Let the processes work together on a command, or leave it to the first.

    Args:
        command: its name.
        arguments: of it.

    Yields:
        Whether this process has anything to do.
    """
    own, why = launched(), _whole(command, arguments)
    if own.size == 1:
        yield True
    elif why is None:
        with together():
            yield True
    else:
        if own.leads:
            complain(f"ddplug: {why} is not split: process 0 of {own.size} does all of it")
        yield own.leads


def _whole(command: str, arguments: argparse.Namespace) -> str | None:
    """Return the name of what one process does, unless it can be split."""
    if command not in SPLIT:
        return command
    if command != "distill":
        return None
    whole = arguments.method is None or getattr(arguments.method, "private", False)
    return f"{command} {arguments.name}" if whole else None
