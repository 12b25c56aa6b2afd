"""``ddplug agreement``: how far a small set ranks architectures as training on all data would."""

from __future__ import annotations

import argparse
import io
import json
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
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
    from ddplug.nni.agreement import Study
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["configure", "run"]

_ZERO = ("parameters", "gradient-norm", "synflow", "nwot")
_CONTROLS = ("random", "kmeans")
_JUDGING = 1000
"""Most images of the validation part that a proxy is judged on; full training is judged on all of them."""
_CHOICES = {"widths": int, "depths": int, "norms": str, "activations": str, "poolings": str}


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
        help="a set to rank with, made with the same --validation; again for several",
    )
    parser.add_argument(
        "--folder", type=as_path, required=True, metavar="DIR", help="for results; the same one goes on where it was"
    )
    parser.add_argument(
        "-n", "--architectures", type=number(int, 2), default=40, metavar="N", help="to sample (default: 40)"
    )
    group = parser.add_argument_group("space (the published one by default)")
    for name, kind in _CHOICES.items():
        group.add_argument(f"--{name}", type=_listed(kind), metavar="A,B,...", help=f"{name} to choose from")
    group = parser.add_argument_group("full training")
    group.add_argument("--epochs", type=number(int, 1), default=10, metavar="N", help="(default: 10)")
    group.add_argument("--learning-rate", type=number(float, 0), default=0.02, metavar="RATE", help="(default: 0.02)")
    group.add_argument("--batch-size", type=number(int, 1), default=64, metavar="N", help="(default: 64)")
    group = parser.add_argument_group("proxies (the defaults rank well, see the documentation)")
    group.add_argument(
        "--share",
        type=number(float, 0, 1),
        default=0.02,
        metavar="FRACTION",
        help="cost of every proxy as a share of full training (default: 0.02)",
    )
    group.add_argument(
        "--seeds",
        type=number(int, 1, 1000),
        default=2,
        metavar="N",
        help="trainings on a set, whose rankings are averaged and which share the cost (default: 2)",
    )
    group.add_argument(
        "--proxy-learning-rate", type=number(float, 0), default=0.05, metavar="RATE", help="on a set (default: 0.05)"
    )
    group.add_argument(
        "--proxy-batch-size", type=number(int, 1), default=100, metavar="N", help="on a set (default: 100)"
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
        # NNI prints, and standard output is for the answer alone
        with redirect_stdout(sys.stderr):
            return _run(arguments)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"the same command goes on from {arguments.folder}") from None


def _run(arguments: argparse.Namespace) -> Answer:
    from ddplug.utils.files import write_file
    from ddplug.utils.randomness import temporary_seed

    require_validation(arguments)
    # importing NNI draws from the global generators, and warns
    with temporary_seed(0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ddplug.nni import ProxyEvaluator  # noqa: F401, names the extra where it is missing
        from ddplug.nni.agreement import table as cells

    train, rest = load(arguments, "train"), load(arguments, "test")
    study = _study(arguments, train, rest)
    study.run(say=complain)
    rows, scores = study.rows(seed=arguments.seed), study.scores()
    folder = Path(study.folder)
    values = {"folder": str(folder), "architectures": len(study.samples), "share": arguments.share, "rows": rows}
    full = {**values, "samples": [dict(sample) for sample in study.samples], "scores": scores}
    write_file(folder / "agreement.json", json.dumps(full, indent=1).encode())
    picture = io.BytesIO()
    study.figure(rows).savefig(picture, format="png")
    write_file(folder / "agreement.png", picture.getvalue())
    where = f"Everything is in {folder / 'agreement.json'}, a scatter plot in {folder / 'agreement.png'}"
    return Answer(values, f"{table(cells(rows))}\n\n{where}")


def _study(arguments: argparse.Namespace, train: LabeledData, rest: LabeledData) -> Study:
    """Write the files that are missing, and plan who is judged by what, all at one cost."""
    from ddplug.nni import ConvNetSpace, ProxyEvaluator, architectures
    from ddplug.nni.agreement import EARLY, Study
    from ddplug.nni.budget import data_file
    from ddplug.nni.running import folder_at
    from ddplug.synthetic.dataset import SyntheticSet

    given = {name: SyntheticSet.load(path) for name, path in arguments.set}
    for name, path in arguments.set:
        check_held_out(path, given[name], train, arguments.validation)
    names = [name for name, _ in arguments.set] + [*_CONTROLS, EARLY]
    if len(set(names)) < len(names):
        raise OptionError(f"two scores have one name among {', '.join(names)}; choose other names in --set")
    choices = {name: getattr(arguments, name) for name in _CHOICES if getattr(arguments, name)}
    space = ConvNetSpace(train.shape, train.num_classes, **choices)
    folder, parts = folder_at(arguments.folder), {"whole": train, "validation": rest}
    # scoring is not to eat the cost that a proxy may have
    parts["judging"] = rest.split(_JUDGING / len(rest))[1] if len(rest) > _JUDGING else rest
    files = {name: data_file(data, folder / f"{name}.safetensors") for name, data in parts.items()}
    common = {"seed": arguments.seed, "device": arguments.device, "augment": ""}
    whole = {"learning_rate": arguments.learning_rate, "batch_size": arguments.batch_size, **common}
    small: dict[str, Any] = {
        "learning_rate": arguments.proxy_learning_rate,
        "batch_size": arguments.proxy_batch_size,
        "seeds": arguments.seeds,
        # a rate that falls leaves little of so short a training
        "schedule": "constant",
        **common,
    }
    full = ProxyEvaluator(files["whole"], files["validation"], epochs=arguments.epochs, **whole)
    samples = architectures(space, arguments.architectures, arguments.seed)
    sets = {name: Path(path) for name, path in arguments.set} | _controls(arguments, train, given, folder)
    judged: dict[str, Any] = {"share": arguments.share, "data": train, "validation": files["judging"], "zero": _ZERO}
    return Study.at_one_cost(space, samples, full, sets, folder, **judged, **small)


def _controls(
    arguments: argparse.Namespace, train: LabeledData, given: dict[str, SyntheticSet], folder: Path
) -> dict[str, Path]:
    """Make real samples of as many bytes as the largest set has, 10 a class without one."""
    from ddplug.nni.budget import selection_file
    from ddplug.synthetic.budget import images_within

    each = max((max(1, images_within(made.nbytes, train)) for made in given.values()), default=10)
    return {name: selection_file(train, name, each, folder, arguments.seed) for name in _CONTROLS}
