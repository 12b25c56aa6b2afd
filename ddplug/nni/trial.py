"""A trial of a hyper-parameter experiment of NNI: train a network on a small set, report its validation accuracy.

Run as ``python -m ddplug.nni.trial --train F --validation F``, by ``nnictl``, by ``nni.experiment.Experiment`` or by
hand. Tuned parameters are ``epochs`` or ``steps``, ``learning_rate``, ``batch_size``, ``momentum``, ``weight_decay``
and any option of the network as ``network.NAME``; a tuned parameter has precedence over the option of the same name.

NNI may list a metric with the parameters of another trial. The journal that the trials write is right:
:func:`results` reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nni
from torch import Generator, nn

from ddplug.errors import DdplugError, OptionError, unknown
from ddplug.networks.factory import build, suited
from ddplug.networks.forms import AUTO
from ddplug.nni.judging import case_of, in_trial, judge
from ddplug.search.candidate import Report, train_and_score
from ddplug.search.journal import Journal
from ddplug.search.protocol import CandidateError, Protocol, Result
from ddplug.search.sets import check_pair, load_set
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils import specs
from ddplug.utils.allocator import keep_memory
from ddplug.utils.arguments import Parser, add_fields, given_fields
from ddplug.utils.checks import values_at_least
from ddplug.utils.fingerprints import file_fingerprint
from ddplug.utils.text import one_line

__all__ = ["main", "results"]

_TUNED = ("epochs", "steps", "learning_rate", "batch_size", "momentum", "weight_decay")
_NETWORK = "network."


def results(path: str | Path) -> list[tuple[dict[str, Any], float]]:
    """Read the parameters and the accuracy of every trial from a journal, best first.

    Args:
        path: of the journal; trials that failed are in :meth:`ddplug.search.journal.Journal.failures`.

    Returns:
        Pairs of parameters and accuracy in [0, 1].

    Raises:
        OptionError: the file cannot be read.
        FormatError: it is not a journal.
    """
    pairs = [(dict(record.sample), float(record.metric or 0.0)) for record in Journal(path).results()]
    return sorted(pairs, key=lambda pair: -pair[1])


def _parser() -> Parser:
    parser = Parser(prog="python -m ddplug.nni.trial", description="Train and score a network as a trial of NNI.")
    parser.add_argument("--train", required=True, metavar="FILE", help="set to train on")
    parser.add_argument("--validation", required=True, metavar="FILE", help="real data of `ddplug holdout`")
    parser.add_argument("--network", default=AUTO, metavar="SPEC", help="name:option=value,... (default: auto)")
    parser.add_argument("--journal", metavar="FILE", help="append the result to it, and train nothing that it knows")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch, within an experiment")
    add_fields(parser, Protocol)
    return parser


def _whole(value: Any) -> Any:
    """Turn 32.0 into 32: tuners give whole numbers as floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _network(spec: str, shape: tuple[int, ...], tuned: Mapping[str, Any]) -> str:
    """Put tuned options into a network's specification."""
    name, options = specs.parse("network", str(suited(spec, shape)))
    options |= {key.removeprefix(_NETWORK): _whole(tuned[key]) for key in tuned if key.startswith(_NETWORK)}
    return name + ":" * bool(options) + ",".join(f"{option}={value}" for option, value in options.items())


def _check_names(tuned: Mapping[str, Any]) -> None:
    """Refuse parameters that would be tuned in vain."""
    for name in tuned:
        if name not in _TUNED and not name.startswith(_NETWORK):
            raise unknown("tuned parameter", name, [*_TUNED, "network.width"])


def _mark(path: str) -> str | None:
    """Return a file's fingerprint; what cannot be read is named when the trial reads it."""
    try:
        return file_fingerprint(path)
    except OptionError:
        return None


def _builder(spec: str, train: SyntheticSet) -> Callable[[Generator], nn.Module]:
    return lambda rng: build(spec, train.shape, train.num_classes, rng)


def run(argv: Sequence[str] | None = None, tuned: Mapping[str, Any] | None = None) -> float:
    """Run the trial that a command line describes.

    Args:
        argv: arguments; those of the process if ``None``.
        tuned: parameters; NNI's if ``None``, and none outside an experiment.

    Returns:
        Accuracy in [0, 1].

    Raises:
        CandidateError: the training failed; the journal says why.
        DdplugError: an argument is wrong.
    """
    arguments = _parser().parse_args(argv)
    given = given_fields(arguments)
    limit = Protocol(**given).time_limit
    chosen: dict[str, Any] = dict(nni.get_next_parameter() if tuned is None and in_trial() else tuned or {})
    values_at_least(1, threads=arguments.threads)
    files = {name: _mark(getattr(arguments, name)) for name in ("train", "validation")}
    settings = {**files, "network": arguments.network, "protocol": given}

    def work(report: Report) -> Result:
        _check_names(chosen)
        train, validation = load_set(arguments.train), load_set(arguments.validation)
        check_pair(train, validation)
        protocol = Protocol(**given).changed(**{name: chosen[name] for name in _TUNED if name in chosen})
        make = _builder(_network(arguments.network, train.shape, chosen), train)
        return train_and_score(make, train, validation, protocol, report=report)

    case = case_of(chosen, settings, arguments.journal)
    return judge(case, work, time_limit=limit, threads=arguments.threads)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a trial and say how it went.

    Args:
        argv: arguments; those of the process if ``None``.

    Returns:
        0, or 1 where the training failed, or 2 after a mistake in the arguments.
    """
    try:
        accuracy = run(argv)
    except DdplugError as error:
        sys.stderr.write(f"ddplug: error: {one_line(error)}\n")
        return 1 if isinstance(error, CandidateError) else 2
    sys.stdout.write(f"accuracy {accuracy:.4f}\n")
    return 0


if __name__ == "__main__":
    keep_memory()
    sys.exit(main())
