"""``ddplug holdout``: save the validation part of a data set, to judge candidates of a search by."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ddplug.cli.commands import Answer
from ddplug.cli.data import add_data_options, load_whole, require_validation
from ddplug.errors import FormatError, OptionError
from ddplug.utils.arguments import Parser
from ddplug.utils.text import table

__all__ = ["configure", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the data and the file."""
    add_data_options(parser)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Save what ``ddplug distill`` with the same ``--validation`` leaves out."""
    from ddplug.synthetic.dataset import SyntheticSet
    from ddplug.synthetic.held_out import holdout
    from ddplug.utils.files import check_writable

    require_validation(arguments)
    path = check_writable(arguments.output)
    if os.path.exists(path):
        try:
            SyntheticSet.load(path)
        except FormatError:
            raise OptionError(f"{path} exists and is not a set of ddplug; choose another path, or remove it") from None
    whole = load_whole(arguments, "train")
    made = holdout(whole.split(arguments.validation)[1], cut_from=whole)
    made.save(path)
    size = Path(path).stat().st_size
    values = {"file": arguments.output, "samples": len(made), "classes": made.num_classes, "file_bytes": size}
    rows = [
        ("saved", arguments.output),
        ("holds", f"{len(made)} real samples of {made.num_classes} classes in {size} bytes"),
        ("next", f"ddplug distill dm --data {arguments.data} --validation {arguments.validation} -o FILE"),
    ]
    return Answer(values, table(rows))
