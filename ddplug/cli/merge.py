"""``ddplug merge FILE...``: put the shards of a run together."""

from __future__ import annotations

import argparse

from ddplug.cli.commands import Answer
from ddplug.utils.arguments import Parser, path
from ddplug.utils.text import command, shown, table

__all__ = ["configure", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the files."""
    parser.add_argument(
        "files", type=path, nargs="+", metavar="FILE", help="all the shards that `ddplug distill --shard` made"
    )
    parser.add_argument(
        "-o", "--output", type=path, required=True, metavar="FILE", help="the .safetensors file to write"
    )
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Merge and save."""
    from ddplug.synthetic.dataset import SyntheticSet
    from ddplug.synthetic.export import inspect
    from ddplug.synthetic.merging import merge
    from ddplug.utils.files import check_writable

    check_writable(arguments.output)
    merged = merge({file: SyntheticSet.load(file) for file in arguments.files})
    merged.save(arguments.output)
    values = {"file": arguments.output, "shards": arguments.files, **inspect(merged)}
    rows = [
        ("saved", arguments.output),
        ("holds", f"{len(merged)} samples of {merged.num_classes} classes in {merged.nbytes} bytes"),
        ("next", command("ddplug", "inspect", shown(arguments.output))),
    ]
    return Answer(values, table(rows))
