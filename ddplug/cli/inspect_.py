"""``ddplug inspect``: what a file holds and how it was made."""

from __future__ import annotations

import argparse
import os
import re
from typing import Any

from ddplug.cli.commands import Answer
from ddplug.utils.arguments import Parser
from ddplug.utils.arguments import path as as_path
from ddplug.utils.text import wrapped

__all__ = ["configure", "run"]

_UNCHECKED = "no: unchecked, since it was written before files had checksums; load and save it to add them"


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the file."""
    parser.add_argument(
        "file", type=as_path, metavar="FILE", help="a set made by `ddplug distill`, or the name of an included one"
    )
    return argv


def _line(value: Any) -> str:
    """Write a value of the summary on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={_line(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_line, value))
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return f"{value[:12]}..."  # a digest; --json gives all of it
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    from ddplug.synthetic.statement import in_words

    rows = []
    for key, value in values.items():
        if value is None:
            continue
        if key == "provenance":
            rows += [(f"made: {name}", _line(item)) for name, item in value.items()]
        elif key == "privacy":
            rows.append((key, in_words(value)))
        elif key == "checked":
            rows.append((key, "yes: every byte is as it was written" if value else _UNCHECKED))
        elif key == "samples_per_class" and len(set(value)) == 1:
            rows.append((key.replace("_", " "), str(value[0])))
        else:
            rows.append((key.replace("_", " "), _line(value)))
    return rows


def run(arguments: argparse.Namespace) -> Answer:
    """Read a set and describe it."""
    from ddplug.synthetic.export import inspect
    from ddplug.synthetic.ready import locate
    from ddplug.utils.files import is_checked

    about, path = inspect(arguments.file), locate(arguments.file)
    values = {
        "file": arguments.file,
        **about,
        "file_bytes": os.path.getsize(path),
        "checked": is_checked(path),
    }
    return Answer(values, wrapped(_rows(values)))
