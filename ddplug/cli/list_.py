"""``ddplug list``: methods, networks, data sets and codecs, ours and others', and sets that come along."""

from __future__ import annotations

import argparse
from textwrap import indent
from typing import Any

from ddplug import registry
from ddplug.cli import described
from ddplug.cli.commands import Answer
from ddplug.errors import DdplugError
from ddplug.utils.arguments import Parser
from ddplug.utils.text import wrapped

__all__ = ["configure", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add no option."""
    return argv


def _describe(kind: str, name: str) -> dict[str, Any]:
    """Return the first line of a plug-in's documentation, or why it cannot be used."""
    try:
        return {"name": name, "about": described.about(kind, name), "error": None}
    except DdplugError as error:
        return {"name": name, "about": None, "error": str(error)}


def _sets() -> list[dict[str, Any]]:
    """Return the sets that come with the package."""
    from ddplug.synthetic.ready import READY, SOURCES

    about = {
        name: f"a file of {each.path.stat().st_size:,} bytes, {SOURCES[each.source].license}"
        for name, each in READY.items()
    }
    return [{"name": name, "about": text, "error": None} for name, text in about.items()]


def run(arguments: argparse.Namespace) -> Answer:
    """List every installed plug-in; one that cannot be imported is listed with the reason."""
    values = {f"{kind}s": [_describe(kind, name) for name in registry.names(kind)] for kind in registry.GROUPS}
    values["sets"] = _sets()
    values["sources"] = [{"name": name, "about": about, "error": None} for name, about in described.sources().items()]
    titles = {
        "distillers": "Methods",
        "networks": "Networks",
        "datasets": "Data sets",
        "sources": "Your own data",
        "codecs": "Codecs",
        "sets": "Included sets (use ddplug.load(NAME), or the name instead of a file)",
    }
    parts = []
    for kind, entries in values.items():
        rows = [(e["name"], e["about"] if e["error"] is None else f"UNUSABLE: {e['error']}") for e in entries]
        parts.append(f"{titles[kind]}\n{indent(wrapped(rows, 78), '  ')}" if rows else titles[kind])
    return Answer(values, "\n\n".join(parts))
