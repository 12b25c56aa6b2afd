"""``ddplug inspect``: what a file holds and how it was made."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ddplug.cli.commands import Answer
from ddplug.utils.arguments import Parser, path
from ddplug.utils.text import table

__all__ = ["configure", "run"]

_UNCHECKED = "no: unchecked, since it was written before files had checksums; load and save it to add them"


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the file."""
    parser.add_argument("file", type=path, metavar="FILE", help="a set made by `ddplug distill`")
    return argv


def _line(value: Any) -> str:
    """Write a value of the summary on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={_line(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(_line, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
    from ddplug.utils.files import is_checked

    about = inspect(arguments.file)
    values = {
        "file": arguments.file,
        **about,
        "file_bytes": os.path.getsize(arguments.file),
        "checked": is_checked(arguments.file),
    }
    return Answer(values, table(_rows(values)))
