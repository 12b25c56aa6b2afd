"""The options that name real data, and the loading of them, shared by the commands."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ddplug.errors import DataError, OptionError
from ddplug.utils.arguments import SEED_LIMIT, Parser, number, path
from ddplug.utils.streams import complain, is_terminal
from ddplug.utils.teams import in_turn
from ddplug.utils.text import shown

if TYPE_CHECKING:
    from ddplug.data.labeled import LabeledData
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = [
    "add_data_options",
    "add_persons_option",
    "add_precision_option",
    "add_run_options",
    "add_shard_option",
    "check_held_out",
    "data_words",
    "load",
    "load_whole",
    "require_validation",
    "show_progress",
    "tell",
]


def add_data_options(parser: Parser, taken: Iterable[str] = (), *, required: bool = True) -> None:
    """Add the options that say which real data.

    Args:
        parser: what to add them to.
        taken: options that a method has, whose short forms are left to it.
        required: whether ``--data`` has to be given.
    """
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data",
        required=required,
        metavar="NAME",
        help="a data set (see `ddplug list`), a folder of images, imagefolder:DIR, or a file: csv:FILE, parquet:FILE, "
        "npz:FILE; also images:DIR with --label-file, and hf:NAME",
    )
    group.add_argument("--data-root", type=path, metavar="DIR", help="folder of downloaded data sets")
    group.add_argument("--download", action="store_true", help="download the data set if it is not in --data-root")
    group.add_argument(
        "--size", type=_size, metavar="N|HxW", help="resize the pictures to N x N, or to height H and width W"
    )
    group.add_argument("--target", metavar="COLUMN", help="the column of a table that holds the labels")
    group.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="COLUMN",
        help="a column of a table to leave out; may be repeated",
    )
    group.add_argument(
        *("--label-file", *{"--labels"}.difference(taken)),
        dest="labels",
        type=path,
        metavar="FILE",
        help="CSV file with the name and class of each picture in images:DIR",
    )
    group.add_argument(
        "--cache",
        type=path,
        metavar="DIR",
        help="decode the images once into files in DIR, for data larger than memory",
    )
    group.add_argument(
        "--preprocess",
        choices=("identity",),
        help="leave the inputs as they are, instead of standardizing them",
    )
    group.add_argument(
        "--validation",
        type=number(float, 0, 1),
        metavar="FRACTION",
        help="hold out this share of the training data: it is not distilled, and replaces the test data",
    )


def add_persons_option(parser: argparse._ActionsContainer, more: str = "") -> None:
    """Add whose each record is.

    Args:
        parser: of the command, or a group of it.
        more: to say of it first.
    """
    parser.add_argument(
        "--persons",
        metavar="COLUMN|FILE",
        help=f"{more}guess from shadow sets which persons are in the data, too: a column of the table or of "
        "--label-file, not learned from, that says whose each record is; or a text file with a name a line, in the "
        "order of the records; for folders of images, a CSV file of file names and persons",
    )


def add_run_options(parser: Parser) -> None:
    """Add the seed and the device."""
    parser.add_argument(
        "--seed",
        type=number(int, 0, SEED_LIMIT),
        default=0,
        metavar="N",
        help="seed for everything random (default: 0)",
    )
    parser.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps (default: auto)"
    )


def add_precision_option(parser: argparse._ActionsContainer, what: str) -> None:
    """Add the precision that networks compute in.

    Args:
        parser: of the command, or a group of it.
        what: networks.
    """
    parser.add_argument(
        "--precision",
        # ddplug.networks.precision.PRECISIONS, which would load torch for the help
        choices=("float32", "bfloat16", "auto"),
        default="float32",
        help=f"of {what}; bfloat16 is faster on GPUs and some CPUs, slower on others; auto tries both for a "
        "moment (default: float32)",
    )


def add_shard_option(parser: argparse._ActionsContainer, what: str) -> None:
    """Add the part of the work that is to be done.

    Args:
        parser: of the command, or a group of it.
        what: the option does.
    """
    parser.add_argument("--shard", type=_shard, default=(1, 1), metavar="K/N", help=what)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"is {text!r}; give two whole numbers, as 3/8")
    return int(found[1]), int(found[2])


def _size(text: str) -> tuple[int, int]:
    """Read ``32`` or ``32x48``."""
    height, _, width = text.partition("x")
    convert = number(int, 1)
    return convert(height), convert(width or height)


def show_progress() -> bool:
    """Return whether somebody is looking at standard error."""
    return is_terminal(sys.stderr)


def tell(line: str) -> None:
    """Write a line about what is being done to standard error, above a progress bar if there is one."""
    if show_progress():
        from ddplug.utils.progress import above

        above(line)
    else:
        complain(line)


def data_words(arguments: argparse.Namespace) -> list[str]:
    """Return the options that name the same data in another command, whatever is not as it is by default."""
    words = ["--data", arguments.data]
    if arguments.data_root is not None:
        words += ["--data-root", arguments.data_root]
    if arguments.size is not None:
        words += ["--size", "x".join(map(str, arguments.size))]
    words += [] if arguments.target is None else ["--target", arguments.target]
    words += [word for column in arguments.ignore for word in ("--ignore", column)]
    words += [] if arguments.labels is None else ["--label-file", shown(arguments.labels)]
    if arguments.cache is not None:
        words += ["--cache", arguments.cache]
    if arguments.preprocess is not None:
        words += ["--preprocess", arguments.preprocess]
    if arguments.validation is not None:
        words += ["--validation", str(arguments.validation)]
    return words


def load(arguments: argparse.Namespace, split: str) -> LabeledData:
    """Load the ``"train"`` or ``"test"`` part that a command asked for.

    With ``--validation`` these are the two parts of the training data, the same ones for every command and seed.

    Raises:
        OptionError: the name or an option is not usable.
        DataError: the data are not.
    """
    if arguments.validation is None:
        return load_whole(arguments, split)
    return load_whole(arguments, "train").split(arguments.validation)[0 if split == "train" else 1]


def load_whole(arguments: argparse.Namespace, split: str) -> LabeledData:
    """Load the ``"train"`` or ``"test"`` data that a command names, of which nothing is held out.

    Raises:
        OptionError: the name or an option is not usable.
        DataError: the data are not.
    """
    from ddplug.data import datasets
    from ddplug.data.preprocess import Identity

    read = partial(
        datasets.load,
        arguments.data,
        root=arguments.data_root,
        split=split,
        download=arguments.download,
        size=arguments.size,
        target=arguments.target,
        ignore=arguments.ignore,
        labels=arguments.labels,
        persons=getattr(arguments, "persons", None),
        cache=arguments.cache,
        progress=show_progress(),
    )
    data = in_turn(read)  # what one process fetches and decodes the others find
    return data if arguments.preprocess is None else replace(data, preprocess=Identity())


def check_held_out(file: str, synthetic: SyntheticSet, train: LabeledData, fraction: float | None) -> None:
    """Refuse to judge by a validation part what was made from it.

    Args:
        file: of the set.
        synthetic: the set.
        train: what is left of the training data.
        fraction: that is held out; ``None`` for none, which lets everything pass.

    Raises:
        DataError: the set was made from other data.
    """
    from ddplug.synthetic.statement import privacy_statement
    from ddplug.utils.notes import note

    if fraction is None:
        return
    if privacy_statement(synthetic.provenance):
        note(f"{file} does not tell what it was made from, as it is private: take care that it was with --validation")
    elif synthetic.data_fingerprint != train.fingerprint:
        raise DataError(
            f"{file} was not made with --validation {fraction} of these data, so it may have seen what is held out; "
            "distill it with the same option, or evaluate it without"
        )


def require_validation(arguments: argparse.Namespace) -> None:
    """Refuse to go on without a part that is held out.

    Raises:
        OptionError: ``--validation`` is not given, or 0.
    """
    if not arguments.validation:
        raise OptionError("how much to hold out is not given; add --validation 0.1, here and to `ddplug distill`")
