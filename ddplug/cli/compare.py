"""``ddplug compare FILE...``: sets beside baselines of the same bytes, as a table, a figure or data."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ddplug.cli.commands import Answer
from ddplug.cli.data import add_data_options, add_run_options
from ddplug.cli.judging import BASELINES, add_judging_options, judging, names_of, real, tested_on
from ddplug.errors import OptionError
from ddplug.utils.arguments import Parser, path

if TYPE_CHECKING:
    from ddplug.evaluation.rows import Comparison

__all__ = ["configure", "run"]


def _figure(found: Comparison, columns: int, kind: str) -> bytes:
    from ddplug.utils.pictures import file_of

    return file_of(found.plot(columns), kind)


_KINDS: Mapping[str, Callable[[Comparison, int], bytes]] = {
    "csv": lambda found, columns: found.to_csv().encode(),
    "tex": lambda found, columns: found.to_latex().encode(),
    "json": lambda found, columns: json.dumps(found.to_json(), indent=1).encode(),
    "md": lambda found, columns: f"{found.table()}\n".encode(),
    **{kind: partial(_figure, kind=kind) for kind in ("png", "pdf", "svg")},
}
"""Ending of a file -> what is written to it."""


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the files, the data, how to train and what to write."""
    parser.add_argument("files", type=path, nargs="+", metavar="FILE", help="sets made from the same data")
    add_data_options(parser)
    add_run_options(parser)
    parser.add_argument(
        "--network", default="auto", metavar="SPEC", help="network to train (default: auto, chosen by the data)"
    )
    add_judging_options(parser)
    parser.add_argument(
        "--to",
        type=path,
        action="append",
        default=[],
        metavar="FILE",
        help=f"write the table or a figure, by the ending: {', '.join(f'.{kind}' for kind in _KINDS)}; may be repeated",
    )
    parser.add_argument(
        "--columns",
        type=int,
        choices=(1, 2),
        default=1,
        help="width of the figure, in columns of a two-column page (default: 1)",
    )
    return argv


def _kind(file: str) -> str:
    return os.path.splitext(file)[1].removeprefix(".").lower()


def _check(arguments: argparse.Namespace) -> None:
    """Refuse outputs that cannot be written before minutes of training."""
    from ddplug.utils.files import check_writable

    for file in arguments.to:
        if _kind(file) not in _KINDS:
            known = ", ".join(f".{kind}" for kind in _KINDS)
            raise OptionError(f"--to is {file}; its ending must be one of {known}")
        check_writable(file)


def run(arguments: argparse.Namespace) -> Answer:
    """Compare, write and print the table."""
    from ddplug.evaluation.comparison import compare
    from ddplug.synthetic.dataset import SyntheticSet
    from ddplug.utils.files import write_file

    _check(arguments)
    sets = {file: SyntheticSet.load(file) for file in arguments.files}
    train, test = real(arguments, sets)
    options = {"network": arguments.network, "whole_steps": arguments.whole_steps, "baselines": BASELINES}
    with judging(arguments, arguments.files[0]) as settings:
        found = compare(names_of(sets), train, test, **options, **settings)
    for file in arguments.to:
        write_file(file, _KINDS[_kind(file)](found, arguments.columns))
    values = {
        "files": list(sets),
        "test": {"name": test.name, "size": len(test), "validation": arguments.validation},
        **found.to_json(),
        "written": arguments.to,
    }
    written = "\n".join(f"wrote {file}" for file in arguments.to)
    text = f"{tested_on(arguments, test)}; {found.text}"
    return Answer(values, f"{text}\n\n{written}" if written else text)
