"""``ddplug doctor``: what is installed, what is known to be broken in it, and what to do."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ddplug.commands import Answer, table
from ddplug.commands.options import Parser

__all__ = ["configure", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add no option."""
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Look, and give a row for everything that was looked at."""
    from ddplug.doctor import examine

    rows = examine()
    text = table([("what", "status", "found", "what to do"), *((r.name, r.status, r.found, r.advice) for r in rows)])
    return Answer({"checks": [asdict(row) for row in rows]}, text)
