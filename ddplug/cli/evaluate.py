"""``ddplug evaluate FILE``: train networks on a set and on baselines, and test them on real data."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ddplug.cli.commands import Answer
from ddplug.cli.data import add_data_options, add_run_options, check_held_out, load, show_progress
from ddplug.utils.arguments import Parser, known_name, number, path
from ddplug.utils.text import table

if TYPE_CHECKING:
    from ddplug.data.labeled import LabeledData
    from ddplug.evaluation.comparison import Row
    from ddplug.evaluation.results import Evaluation
    from ddplug.synthetic.dataset import SyntheticSet
    from ddplug.synthetic.recipe import Recipe

__all__ = ["configure", "run"]


def _paper(recipe: Recipe) -> Recipe:
    return type(recipe).paper(recipe.augment)


def _quick(recipe: Recipe) -> Recipe:
    return type(recipe).quick(recipe.augment)


_PROTOCOLS: Mapping[str, Callable[[Recipe], Recipe]] = {"set": lambda recipe: recipe, "paper": _paper, "quick": _quick}
"""Name of a protocol -> how to train, given the recipe that the set brings."""

LEARNED = "learned"
"""Beside them: by the very steps and rates that ``dd`` and ``soft-label-dd`` learn with a set."""


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the file, the data and what to do."""
    parser.add_argument("file", type=path, metavar="FILE", help="a set made by `ddplug distill`")
    add_data_options(parser)
    add_run_options(parser)
    parser.add_argument(
        "--network",
        action="append",
        metavar="SPEC",
        help="network to train, e.g. convnet:width=32,depth=2; again for a table over networks (default: convnet)",
    )
    parser.add_argument(
        "--repeats", type=number(int, 1), default=5, metavar="N", help="networks to train on each set (default: 5)"
    )
    parser.add_argument(
        "--protocol",
        type=known_name("protocol", [*_PROTOCOLS, LEARNED]),
        default="set",
        metavar="{" + ",".join([*_PROTOCOLS, LEARNED]) + "}",
        help="how to train: as the set says, as published, quickly, or, without baselines, by the steps and rates that "
        "dd and soft-label-dd learn (default: set)",
    )
    parser.add_argument(
        "--baselines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also train on random, class-mean and k-means sets of the same bytes, and on all real data",
    )
    parser.add_argument(
        "--whole-steps",
        type=number(int, 1),
        default=500,
        metavar="N",
        help="steps of training on all real data (default: 500)",
    )
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Evaluate on real test data, or on the held-out part of the training data."""
    from ddplug.evaluation.comparison import compare
    from ddplug.evaluation.results import cross_architecture
    from ddplug.synthetic.dataset import SyntheticSet

    synthetic = SyntheticSet.load(arguments.file)
    train, test = load(arguments, "train"), load(arguments, "test")
    check_held_out(arguments.file, synthetic, train, arguments.validation)
    if arguments.protocol == LEARNED:
        return _learned(arguments, synthetic, test)
    networks = arguments.network or ["convnet"]
    settings: dict[str, Any] = {
        "repeats": arguments.repeats,
        "recipe": _PROTOCOLS[arguments.protocol](synthetic.recipe),
        "seed": arguments.seed,
        "device": arguments.device,
        "progress": show_progress(),
    }
    # the first network is the one that the baselines are trained with too
    alone = networks[1:] if arguments.baselines else networks
    rows: tuple[Row, ...] = ()
    if arguments.baselines:
        _check_networks(synthetic, networks)
        rows = compare(synthetic, train, test, network=networks[0], whole_steps=arguments.whole_steps, **settings).rows
    found = [row.evaluation for row in rows[:1]] + cross_architecture(synthetic, test, alone, **settings)
    return _answer(arguments, synthetic, test, rows, found)


def _learned(arguments: argparse.Namespace, synthetic: SyntheticSet, test: LabeledData) -> Answer:
    """Train as the set was learned to be trained on, with its own network or others."""
    from ddplug.evaluation.learned import evaluate_as_learned

    settings: dict[str, Any] = {"repeats": arguments.repeats, "seed": arguments.seed, "device": arguments.device}
    networks: list[str | None] = arguments.network or [None]
    found = [evaluate_as_learned(synthetic, test, network=network, **settings) for network in networks]
    return _answer(arguments, synthetic, test, (), found)


def _check_networks(synthetic: SyntheticSet, networks: list[str]) -> None:
    """Refuse a network that does not suit the data before minutes of training of another."""
    import torch

    from ddplug.networks.factory import build

    for network in networks:
        build(network, synthetic.shape, synthetic.num_classes, torch.Generator().manual_seed(0))


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
    return f"\nheld by {synthetic.stored.codec}{nearness}; baselines by the same"


def _answer(
    arguments: argparse.Namespace,
    synthetic: SyntheticSet,
    test: LabeledData,
    rows: Sequence[Row],
    found: Sequence[Evaluation],
) -> Answer:
    from ddplug.synthetic.statement import privacy_statement

    values = {
        "file": arguments.file,
        "nbytes": synthetic.nbytes,
        "bits_per_class": synthetic.bits_per_class,
        "codec": synthetic.stored.codec if synthetic.stored is not None else None,
        "psnr": synthetic.provenance.get("psnr"),
        "privacy": privacy_statement(synthetic.provenance),
        "test": {"name": test.name, "size": len(test), "validation": arguments.validation},
        "protocol": arguments.protocol,
        "rows": [row.to_json() for row in rows],
        "networks": [evaluation.to_json() for evaluation in found],
    }
    part = "held-out training" if arguments.validation is not None else "test"
    parts = [f"{arguments.file} on {len(test)} {part} samples of {test.name}{_held(synthetic)}{_promised(synthetic)}"]
    if rows:
        from ddplug.evaluation.comparison import HEAD

        parts.append(f"trained: {found[0].network}\n{table([HEAD, *(row.cells() for row in rows)])}")
    if len(found) > len(rows[:1]):
        accuracies = [(evaluation.network, evaluation.text, evaluation.n) for evaluation in found]
        parts.append(table([("network", "accuracy (%)", "networks"), *accuracies]))
    return Answer(values, "\n\n".join(parts))
