"""``ddplug agreement``: how far a small set ranks architectures as training on all data would."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddplug.cli.commands import Answer
from ddplug.cli.data import add_data_options, add_run_options, check_held_out, load, require_validation
from ddplug.errors import OptionError
from ddplug.utils.arguments import Parser, number
from ddplug.utils.arguments import path as as_path
from ddplug.utils.streams import complain
from ddplug.utils.text import table

if TYPE_CHECKING:
    from ddplug.data.labeled import LabeledData
    from ddplug.search.agreement import Study
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["configure", "run"]

_ZERO = ("parameters", "flops", "gradient-norm", "synflow", "nwot")
_CONTROLS = ("random", "kmeans")
_JUDGING = 1000
"""Most images of the validation part that a proxy is judged on; full training is judged on all of them."""
_CHOICES = {"widths": int, "depths": int, "norms": str, "activations": str, "poolings": str}
"""Option, in the plural of what a sample calls it -> type of a choice."""


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the data, the sets, the space, and how candidates are trained."""
    add_data_options(parser)
    add_run_options(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_named,
        metavar="NAME=FILE",
        help="a set to rank with, made with the same --validation; may be repeated",
    )
    parser.add_argument(
        "--folder",
        type=as_path,
        required=True,
        metavar="DIR",
        help="folder for results; with the same folder the command resumes",
    )
    parser.add_argument(
        "-n",
        "--architectures",
        type=number(int, 2),
        default=40,
        metavar="N",
        help="architectures to train (default: 40)",
    )
    group = parser.add_argument_group("space (the published one by default)")
    for name, kind in _CHOICES.items():
        group.add_argument(f"--{name}", type=_listed(kind), metavar="A,B,...", help=f"{name} to choose from")
    group = parser.add_argument_group("full training")
    group.add_argument("--epochs", type=number(int, 1), default=10, metavar="N", help="(default: 10)")
    group.add_argument("--learning-rate", type=number(float, 0), default=0.02, metavar="RATE", help="(default: 0.02)")
    group.add_argument("--batch-size", type=number(int, 1), default=64, metavar="N", help="(default: 64)")
    group.add_argument(
        "--full-seeds",
        type=number(int, 1, 1000),
        default=2,
        metavar="N",
        help="trainings of each architecture; with two or more you learn how well anything could rank (default: 2)",
    )
    group = parser.add_argument_group("proxies (the defaults rank well, see the documentation)")
    group.add_argument(
        "--share",
        type=number(float, 0, 1),
        default=0.02,
        metavar="FRACTION",
        help="cost of each proxy, as a share of one full training (default: 0.02)",
    )
    group.add_argument(
        "--seeds",
        type=number(int, 1, 1000),
        default=2,
        metavar="N",
        help="trainings per proxy; they share its cost, and their rankings are averaged (default: 2)",
    )
    group.add_argument(
        "--proxy-learning-rate",
        type=number(float, 0),
        default=0.05,
        metavar="RATE",
        help="learning rate of all proxies (default: 0.05)",
    )
    group.add_argument(
        "--proxy-batch-size",
        type=number(int, 1),
        default=100,
        metavar="N",
        help="batch size of all proxies (default: 100)",
    )
    return argv


def _named(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"is {text!r}; give a name and a file, as dm=dm.safetensors")
    return name, as_path(path)


def _listed(kind: type) -> Callable[[str], list[Any]]:
    def convert(text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"is {text!r}; give whole numbers and commas, as 4,8,16") from None

    return convert


def run(arguments: argparse.Namespace) -> Answer:
    """Judge every architecture by every set and in full, and compare."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command resumes from {arguments.folder}") from None


def _run(arguments: argparse.Namespace) -> Answer:
    from ddplug.search.agreement import table as cells
    from ddplug.utils.files import write_file
    from ddplug.utils.pictures import file_of

    require_validation(arguments)
    train, rest = load(arguments, "train"), load(arguments, "test")
    study = _study(arguments, train, rest)
    study.run(say=complain)
    rows, scores, ceiling = study.rows(seed=arguments.seed), study.scores(), study.ceiling()
    folder, samples = Path(study.folder), [dict(sample) for sample in study.candidates.samples]
    values = {"folder": str(folder), "architectures": len(samples), "share": arguments.share, "ceiling": ceiling}
    values["rows"] = rows
    full = {**values, "samples": samples, "scores": scores}
    write_file(folder / "agreement.json", json.dumps(full, indent=1).encode())
    write_file(folder / "agreement.png", file_of(study.figure(rows)))
    where = f"Everything is in {folder / 'agreement.json'}, a scatter plot in {folder / 'agreement.png'}"
    return Answer(values, f"{table(cells(rows))}\n\n{_bound(ceiling)}{where}")


def _bound(ceiling: float | None) -> str:
    """Say how well anything could rank by so noisy a truth."""
    if ceiling is None:
        return ""
    return f"Full training differs by its seeds: a perfect score would have a Spearman correlation of {ceiling:.2f}.\n"


def _study(arguments: argparse.Namespace, train: LabeledData, rest: LabeledData) -> Study:
    """Write the files that are missing, and plan who is judged by what, all at one cost."""
    from ddplug.search.agreement import EARLY, Study
    from ddplug.search.budget import data_file
    from ddplug.search.candidates import convnets
    from ddplug.search.judging import Judge
    from ddplug.search.protocol import Protocol
    from ddplug.search.sets import folder_at
    from ddplug.synthetic.dataset import SyntheticSet

    given = {name: SyntheticSet.load(path) for name, path in arguments.set}
    for name, path in arguments.set:
        check_held_out(path, given[name], train, arguments.validation)
    names = [name for name, _ in arguments.set] + [*_CONTROLS, EARLY]
    if len(set(names)) < len(names):
        raise OptionError(f"two scores have one name among {', '.join(names)}; choose other names in --set")
    choices = {name[:-1]: getattr(arguments, name) for name in _CHOICES if getattr(arguments, name)}
    drawn = convnets(train.shape, train.num_classes, arguments.architectures, arguments.seed, **choices)
    folder, parts = folder_at(arguments.folder), {"whole": train, "validation": rest}
    # scoring is not to eat the cost that a proxy may have
    parts["judging"] = rest.split(_JUDGING / len(rest))[1] if len(rest) > _JUDGING else rest
    files = {name: data_file(data, folder / f"{name}.safetensors") for name, data in parts.items()}
    common: dict[str, Any] = {"seed": arguments.seed, "device": arguments.device, "augment": ""}
    whole = Protocol(
        epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        batch_size=arguments.batch_size,
        seeds=arguments.full_seeds,
        **common,
    )
    small = Protocol(
        learning_rate=arguments.proxy_learning_rate,
        batch_size=arguments.proxy_batch_size,
        seeds=arguments.seeds,
        # a rate that falls leaves little of so short a training
        schedule="constant",
        **common,
    )
    full = Judge(files["whole"], files["validation"], whole)
    sets = {name: Path(path) for name, path in arguments.set} | _controls(arguments, train, given, folder)
    judged: dict[str, Any] = {"share": arguments.share, "validation": files["judging"], "zero": _ZERO}
    return Study.at_one_cost(drawn, full, sets, folder, protocol=small, **judged)


def _controls(
    arguments: argparse.Namespace, train: LabeledData, given: dict[str, SyntheticSet], folder: Path
) -> dict[str, Path]:
    """Make real samples in the bytes and the storage of the largest set, 10 a class without one."""
    from ddplug.search.budget import control_file, selection_file

    if not given:
        return {name: selection_file(train, name, 10, folder, arguments.seed) for name in _CONTROLS}
    largest = max(given.values(), key=lambda made: made.nbytes)
    return {name: control_file(train, name, largest, folder, arguments.seed) for name in _CONTROLS}
