"""``ddplug export FILE --to KIND OUT``: pictures, arrays, a table or a data set card."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ddplug.cli.commands import Answer
from ddplug.errors import OptionError
from ddplug.utils.arguments import Parser, known_name, path

if TYPE_CHECKING:
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["KINDS", "configure", "run"]


def _png(synthetic: SyntheticSet, arguments: argparse.Namespace) -> None:
    from ddplug.synthetic.export import to_png

    to_png(synthetic, arguments.out)


def _image_folder(synthetic: SyntheticSet, arguments: argparse.Namespace) -> None:
    from ddplug.synthetic.export import to_image_folder

    to_image_folder(synthetic, arguments.out)


def _npz(synthetic: SyntheticSet, arguments: argparse.Namespace) -> None:
    from ddplug.synthetic.export import to_npz

    to_npz(synthetic, arguments.out)


def _card(synthetic: SyntheticSet, arguments: argparse.Namespace) -> None:
    from ddplug.synthetic.card import card
    from ddplug.utils.files import write_file

    write_file(arguments.out, card(synthetic, arguments.file).encode())


def _csv(synthetic: SyntheticSet, arguments: argparse.Namespace) -> None:
    from ddplug.synthetic.tables import to_csv

    to_csv(synthetic, arguments.out)


def _parquet(synthetic: SyntheticSet, arguments: argparse.Namespace) -> None:
    from ddplug.synthetic.tables import to_parquet

    to_parquet(synthetic, arguments.out)


KINDS: Mapping[str, Callable[[SyntheticSet, argparse.Namespace], None]] = {
    "png": _png,
    "imagefolder": _image_folder,
    "npz": _npz,
    "csv": _csv,
    "parquet": _parquet,
    "card": _card,
}
"""What a set can be turned into -> how."""


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the file, the kind and the place."""
    parser.add_argument(
        "file", type=path, metavar="FILE", help="a set made by `ddplug distill`, or the name of an included one"
    )
    parser.add_argument(
        "--to",
        required=True,
        type=known_name("kind of export", list(KINDS)),
        metavar="{" + ",".join(KINDS) + "}",
        help="png: a grid of the images; imagefolder: one picture per image; npz: arrays; csv, parquet: a table; card: "
        "Markdown",
    )
    parser.add_argument("out", type=path, metavar="OUT", help="the file to write; for imagefolder, the new folder")
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Read the set and write it in the other form."""
    from ddplug.synthetic.dataset import SyntheticSet

    if os.path.realpath(arguments.out) == os.path.realpath(arguments.file):
        raise OptionError(f"{arguments.out} is the set itself; choose another path to export to")
    KINDS[arguments.to](SyntheticSet.load(arguments.file), arguments)
    values = {"file": arguments.file, "to": arguments.to, "out": arguments.out}
    return Answer(values, f"wrote {arguments.out}")
