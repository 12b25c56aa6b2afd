"""``ddplug evaluate FILE``: train networks on a set and on baselines, and test them on real data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ddplug.cli.commands import Answer
from ddplug.cli.data import add_data_options, add_run_options
from ddplug.cli.judging import add_judging_options, judging, names_of, real, tested_on
from ddplug.errors import OptionError
from ddplug.utils.arguments import Parser, path
from ddplug.utils.text import table

if TYPE_CHECKING:
    from ddplug.data.labeled import LabeledData
    from ddplug.evaluation.results import Evaluation
    from ddplug.evaluation.row import Row
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["configure", "run"]

LEARNED = "learned"
"""A protocol of this command alone: by the steps and rates that ``dd`` and ``soft-label-dd`` learn with a set."""


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the file, the data and what to do."""
    parser.add_argument("file", type=path, metavar="FILE", help="a set made by `ddplug distill`")
    add_data_options(parser)
    add_run_options(parser)
    parser.add_argument(
        "--network",
        action="append",
        metavar="SPEC",
        help="network to train, e.g. convnet:width=32,depth=2; repeat it for a table across networks "
        "(default: auto, what suits the data)",
    )
    add_judging_options(
        parser,
        LEARNED,
        note="; learned, only with --no-baselines, uses the steps and rates in sets of dd and soft-label-dd",
    )
    parser.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also train on random, class-mean and k-means sets of the same size, and on all real data",
    )
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Evaluate on real test data, or on the held-out part of the training data."""
    from ddplug.evaluation.comparison import compare
    from ddplug.evaluation.results import cross_architecture
    from ddplug.synthetic.dataset import SyntheticSet

    synthetic = SyntheticSet.load(arguments.file)
    train, test = real(arguments, {arguments.file: synthetic})
    if arguments.protocol == LEARNED:
        return _learned(arguments, synthetic, test)
    first, *others = arguments.network or ["auto"]
    with judging(arguments, arguments.file) as settings:
        if not arguments.baselines:
            found = cross_architecture(synthetic, test, [first, *others], **settings)
            return _answer(arguments, synthetic, test, (), found)
        options: dict[str, Any] = {"network": first, "across": others, "whole_steps": arguments.whole_steps}
        made = compare(names_of({arguments.file: synthetic}), train, test, **options, **settings)
    found = [row.evaluation for row in (made.rows[0], *made.across)]
    return _answer(arguments, synthetic, test, made.rows, found)


def _learned(arguments: argparse.Namespace, synthetic: SyntheticSet, test: LabeledData) -> Answer:
    """Train as the set was learned to be trained on, with its own network or others."""
    from ddplug.evaluation.learned import evaluate_as_learned

    if arguments.precision == "bfloat16":
        raise OptionError(
            "--precision is bfloat16; with --protocol learned networks compute in float32 only; leave --precision out"
        )
    settings: dict[str, Any] = {"repeats": arguments.repeats, "seed": arguments.seed, "device": arguments.device}
    networks: list[str | None] = arguments.network or [None]
    found = [evaluate_as_learned(synthetic, test, network=network, **settings) for network in networks]
    return _answer(arguments, synthetic, test, (), found)


def _promised(synthetic: SyntheticSet) -> str:
    """Say what the set promises of single records, if anything: what is measured on real data is not covered."""
    from ddplug.synthetic.statement import in_words, privacy_statement

    promised = privacy_statement(synthetic.provenance)
    return f"\nthe set: {in_words(promised)}; baselines and accuracies: none" if promised else ""


def _held(synthetic: SyntheticSet) -> str:
    """Say which codec holds the set, if any does."""
    if synthetic.stored is None:
        return ""
    psnr = synthetic.provenance.get("psnr")
    nearness = f", {psnr:.1f} dB" if isinstance(psnr, int | float) else ""
    return f"\nstored by {synthetic.stored.codec}{nearness}, as the baselines are"


def _named(evaluation: Evaluation, first: Evaluation) -> str:
    """Name a network, and its precision where that is another than the first one's, which is said above."""
    same = evaluation.precision == first.precision
    return evaluation.network if same else f"{evaluation.network} in {evaluation.precision}"


def _answer(
    arguments: argparse.Namespace,
    synthetic: SyntheticSet,
    test: LabeledData,
    rows: Sequence[Row],
    found: Sequence[Evaluation],
) -> Answer:
    from ddplug.evaluation.row import HEAD
    from ddplug.synthetic.statement import privacy_statement

    values = {
        "file": arguments.file,
        "nbytes": synthetic.nbytes,
        "bits_per_class": synthetic.bits_per_class,
        "codec": synthetic.stored.codec if synthetic.stored is not None else None,
        "psnr": synthetic.provenance.get("psnr"),
        "privacy": privacy_statement(synthetic.provenance),
        "test": {"name": test.name, "size": len(test), "validation": arguments.validation},
        "protocol": arguments.protocol or found[0].protocol,
        "rows": [row.to_json() for row in rows],
        "networks": [evaluation.to_json() for evaluation in found],
    }
    how = "as learned" if arguments.protocol == LEARNED else found[0].how
    about = f"{arguments.file} on {tested_on(arguments, test)}{_held(synthetic)}{_promised(synthetic)}"
    parts = [f"{about}\ntrained: {found[0].network}, {how}"]
    if rows:
        parts.append(table([HEAD, *(row.cells() for row in rows)]))
    if len(found) > len(rows[:1]):
        accuracies = [(_named(evaluation, found[0]), evaluation.text, evaluation.n) for evaluation in found]
        parts.append(table([("network", "accuracy (%)", "networks"), *accuracies]))
    return Answer(values, "\n\n".join(parts))
