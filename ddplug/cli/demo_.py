"""``ddplug demo``: everything, end to end, on data that ships with it."""

from __future__ import annotations

import argparse
import os

from ddplug.cli.commands import Answer
from ddplug.utils.arguments import SEED_LIMIT, Parser, number, path
from ddplug.utils.streams import complain
from ddplug.utils.text import table

__all__ = ["configure", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the folder and the seed."""
    parser.add_argument(
        "-o",
        "--output",
        type=path,
        default="ddplug-demo",
        metavar="DIR",
        help="folder to write to, new or from an earlier demo (default: ./ddplug-demo)",
    )
    parser.add_argument(
        "--seed",
        type=number(int, 0, SEED_LIMIT),
        default=0,
        metavar="N",
        help="seed for everything random (default: 0)",
    )
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Run the demo and summarize it."""
    from ddplug.cli.demo import REPORT, run_demo

    try:
        made = run_demo(arguments.output, seed=arguments.seed, say=complain)
    except KeyboardInterrupt:
        page = os.path.join(arguments.output, REPORT)
        raise KeyboardInterrupt(f"what there is so far is in {page}" if os.path.exists(page) else "") from None
    values = {"folder": str(made.folder), "report": str(made.report), **made.values}
    where = f"Everything is in {made.folder}; open {made.report}"
    return Answer(values, "\n\n".join([*map(table, made.summary), *made.notes, where]))
