"""``ddplug experts``: train networks on real data and keep how their weights move, for trajectory matching."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddplug.cli.commands import Answer
from ddplug.cli.data import add_data_options, add_run_options, add_shard_option, data_words, load, show_progress, tell
from ddplug.cli.described import TRAINING, options_at
from ddplug.utils.arguments import Parser, add_options, given_fields, number, path
from ddplug.utils.text import command, shown, table

__all__ = ["configure", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the data, the network, how it is trained, and which experts."""
    add_data_options(parser)
    add_run_options(parser)
    parser.add_argument(
        "-o", "--output", type=path, required=True, metavar="DIR", help="folder for the experts, one file each"
    )
    parser.add_argument(
        "--network", default="auto", metavar="NAME", help="architecture (default: auto, for images convnet)"
    )
    parser.add_argument(
        "-n",
        "--number",
        type=number(int, 1),
        default=100,
        metavar="N",
        help="number of experts in total (default: 100)",
    )
    add_shard_option(parser, "train only every N-th expert, starting with the K-th")
    parser.add_argument("--half", action="store_true", help="store two bytes per weight instead of four")
    add_options(parser.add_argument_group("training"), options_at(TRAINING))
    return argv


@contextmanager
def _saying_how_to_go_on(folder: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"the same command keeps the finished experts in {folder} and trains the rest"
        ) from None


def _foretold(part: str, seconds: float) -> None:
    """Say how long it takes, and what would take less."""
    from ddplug.utils.text import roughly

    tell(
        f"experts: all of them take about {roughly(seconds)}; fewer (--number), fewer --epochs or a smaller --network "
        "take less, and other machines can take a --shard"
    )


def run(arguments: argparse.Namespace) -> Answer:
    """Train the experts of a shard that are not there yet."""
    from ddplug.distillers.parts.experts import train_experts
    from ddplug.distillers.parts.training import ExpertTraining
    from ddplug.networks.factory import suited
    from ddplug.utils.forecast import Forecast, forecasting

    began = time.monotonic()
    data = load(arguments, "train")
    network = str(suited(arguments.network, data.shape))
    with _saying_how_to_go_on(arguments.output), forecasting(Forecast(_foretold)):
        paths = train_experts(
            data,
            arguments.output,
            network,
            ExpertTraining(**given_fields(arguments)),
            number=arguments.number,
            seed=arguments.seed,
            shard=arguments.shard,
            half=arguments.half,
            device=arguments.device,
            progress=show_progress(),
        )
    size, seconds = sum(Path(path).stat().st_size for path in paths), time.monotonic() - began
    values = {"folder": arguments.output, "experts": [str(path) for path in paths], "bytes": size, "seconds": seconds}
    more = ["--network", network, "--experts", shown(arguments.output)]
    rows = [
        ("folder", arguments.output),
        ("holds", f"{len(paths)} of {arguments.number} experts of this command, {size} bytes, after {seconds:.1f} s"),
        ("next", f"{command('ddplug', 'distill', 'mtt', *data_words(arguments), *more)} -o FILE"),
    ]
    return Answer(values, table(rows))
