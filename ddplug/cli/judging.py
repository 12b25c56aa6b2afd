"""The options of judging sets, shared by the commands that do, and how they go on after a stop."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ddplug.cli.data import add_precision_option, check_held_out, load, show_progress
from ddplug.errors import OptionError
from ddplug.utils.arguments import Parser, known_name, number, path
from ddplug.utils.streams import complain

if TYPE_CHECKING:
    from ddplug.data.labeled import LabeledData
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["BASELINES", "PROTOCOLS", "add_judging_options", "judging", "names_of", "real", "tested_on"]

BASELINES = ("random", "coded real", "class-mean", "kmeans")
"""What the bytes of each set are spent on instead."""

PROTOCOLS = ("set", "paper", "quick")
"""Names of :data:`ddplug.evaluation.protocols.PROTOCOLS`, which would load torch for the help."""


def add_judging_options(parser: Parser, *more: str, note: str = "") -> None:
    """Add how to train and what is kept of it.

    Args:
        parser: of the command.
        more: further protocols.
        note: on them.
    """
    names = [*PROTOCOLS, *more]
    parser.add_argument(
        "--repeats", type=number(int, 1), default=5, metavar="N", help="networks to train on each set (default: 5)"
    )
    parser.add_argument(
        "--protocol",
        type=known_name("protocol", names),
        metavar="{" + ",".join(names) + "}",
        help=f"how to train: by the set's recipe, as in the papers, or quickly{note} (default: set; without a GPU, "
        "quick for sets whose recipe is that of the papers)",
    )
    parser.add_argument(
        "--whole-steps",
        type=number(int, 1),
        default=500,
        metavar="N",
        help="training steps on all real data (default: 500)",
    )
    add_precision_option(parser, "the networks that are trained")
    parser.add_argument(
        "--checkpoint",
        type=path,
        metavar="FILE",
        help="keeps results, so that the same command resumes after a stop; removed when all is done (default: next to "
        "the set)",
    )


@contextmanager
def judging(arguments: argparse.Namespace, file: str) -> Iterator[dict[str, Any]]:
    """Give the options of :func:`ddplug.compare`; where it is stopped, say how to go on.

    Args:
        arguments: of the command.
        file: of the first set.
    """
    checkpoint = arguments.checkpoint or _beside(file)
    try:
        yield {
            "repeats": arguments.repeats,
            "recipe": arguments.protocol,
            "seed": arguments.seed,
            "device": arguments.device,
            "progress": True if show_progress() else complain,
            "checkpoint": checkpoint,
            "precision": arguments.precision,
        }
    except KeyboardInterrupt:
        kept = checkpoint is not None and os.path.exists(checkpoint)
        how = f"resumes from {checkpoint}" if kept else "starts over; no network was finished"
        raise KeyboardInterrupt(f"the same command {how}") from None


def _beside(file: str) -> str | None:
    """Return where to keep what is done beside a set, if anything can be written there."""
    from ddplug.utils.files import check_writable

    beside = f"{file}.evaluation"
    try:
        check_writable(beside)
    except OptionError:
        return None
    return beside


def real(arguments: argparse.Namespace, sets: dict[str, SyntheticSet]) -> tuple[LabeledData, LabeledData]:
    """Load the real data that sets were made from and are tested on.

    Args:
        arguments: of the command.
        sets: file -> set.

    Raises:
        DataError: a set may have seen what is held out.
    """
    train, test = load(arguments, "train"), load(arguments, "test")
    for file, synthetic in sets.items():
        check_held_out(file, synthetic, train, arguments.validation)
    return train, test


def tested_on(arguments: argparse.Namespace, test: LabeledData) -> str:
    """Say what was tested on."""
    part = "held-out training" if arguments.validation is not None else "test"
    return f"{len(test)} {part} samples of {test.name}"


def names_of(sets: dict[str, SyntheticSet]) -> dict[str, SyntheticSet] | list[SyntheticSet]:
    """Name sets by their files where the methods that made them do not tell them apart, or are those of baselines."""
    told = {(str(own.provenance.get("method")), own.nbytes) for own in sets.values()}
    if len(told) == len(sets) and not {method for method, _ in told} & set(BASELINES):
        return list(sets.values())
    short = {os.path.splitext(os.path.basename(file))[0]: own for file, own in sets.items()}
    found = short if len(short) == len(sets) else sets
    return {f"{name} (file)" if name in BASELINES else name: own for name, own in found.items()}
