"""``ddplug audit FILE``: measure what a set gives away of the data that it was made from."""

from __future__ import annotations

import argparse

from ddplug.cli.commands import Answer
from ddplug.cli.data import add_data_options, add_persons_option, add_run_options, check_held_out, load
from ddplug.utils.arguments import Parser, number, path
from ddplug.utils.streams import complain

__all__ = ["configure", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the file, the data and what to do."""
    parser.add_argument("file", type=path, metavar="FILE", help="a set made by `ddplug distill`")
    add_data_options(parser)
    add_run_options(parser)
    parser.add_argument(
        "--shadows",
        type=number(int, 0),
        default=16,
        metavar="N",
        help="sets to make from random halves of the data, to guess membership with; each takes as long as the set "
        "itself; 0 skips these attacks (default: 16)",
    )
    parser.add_argument(
        "--canaries",
        type=number(int, 0),
        default=0,
        metavar="N",
        help="mislabeled and shuffled records to hide in the data of shadow sets and then look for; the more, the "
        "larger a bound on epsilon can be (default: 0)",
    )
    add_persons_option(parser)
    parser.add_argument(
        "--network",
        default="auto",
        metavar="SPEC",
        help="network for training and for features (default: auto, for images convnet:width=32)",
    )
    parser.add_argument(
        "--no-beside",
        dest="beside",
        action="store_false",
        help="leave out what the same attacks find in random samples of as many bytes, and in a network trained on the "
        "data, which is shown beside what they find in the set",
    )
    parser.add_argument(
        "--picture",
        type=path,
        metavar="FILE",
        help="write a PNG of the stored images nearest to training images, each followed by that training image; it "
        "shows real images",
    )
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Audit beside the test data, or the held-out part of the training data."""
    from ddplug.privacy.report import audit
    from ddplug.synthetic.dataset import SyntheticSet
    from ddplug.utils.files import check_writable

    if arguments.picture is not None:
        check_writable(arguments.picture)
    synthetic = SyntheticSet.load(arguments.file)
    train, test = load(arguments, "train"), load(arguments, "test")
    check_held_out(arguments.file, synthetic, train, arguments.validation)
    found = audit(
        synthetic,
        train,
        test,
        shadows=arguments.shadows,
        canaries=arguments.canaries,
        persons=train.persons or None,
        network=arguments.network,
        beside=arguments.beside,
        seed=arguments.seed,
        device=arguments.device,
        say=lambda text: complain(f"audit: {text}"),
    )
    text = found.text
    if arguments.picture is not None:
        from ddplug.synthetic.export import to_png

        to_png(found.pairs, arguments.picture, per_row=len(found.pairs))
        text += f"\nwrote {arguments.picture}"
    return Answer({"file": arguments.file, **found.to_json()}, text)
