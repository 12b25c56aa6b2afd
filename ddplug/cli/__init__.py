"""The ``ddplug`` command: one module a command, and what they share."""

from __future__ import annotations

from ddplug.cli.program import main

__all__ = ["main"]
