"""``ddplug report FILE... -o PAGE``: a page of sets that needs nothing else, with or without the real data."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ddplug._version import __version__
from ddplug.cli.commands import Answer
from ddplug.cli.data import add_data_options, add_persons_option, add_run_options
from ddplug.cli.judging import BASELINES, add_judging_options, judging, names_of, real, tested_on
from ddplug.errors import OptionError
from ddplug.utils.arguments import Parser, number, path
from ddplug.utils.page import MARK, Chapter, page
from ddplug.utils.streams import complain

if TYPE_CHECKING:
    from ddplug.data.labeled import LabeledData
    from ddplug.evaluation.row import Row
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["configure", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add the files, the data, how to train and the page."""
    parser.add_argument("files", type=path, nargs="+", metavar="FILE", help="sets; with --data, of the same data")
    parser.add_argument("-o", "--output", type=path, required=True, metavar="PAGE", help="the .html file to write")
    add_data_options(parser, required=False)
    add_run_options(parser)
    parser.add_argument(
        "--train",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="with --data, train networks on the sets and on baselines of the same size; with --no-train the page only "
        "shows real images for comparison",
    )
    parser.add_argument(
        "--network",
        action="append",
        metavar="SPEC",
        help="network to train; repeat it to test the sets with other architectures too (default: auto)",
    )
    parser.add_argument(
        "--audit",
        type=number(int, 0),
        metavar="N",
        help="with --data, attack the sets as `ddplug audit --shadows N` does and show what was found; 0 for those "
        "attacks that need no shadow sets",
    )
    add_persons_option(parser, "with --audit, ")
    add_judging_options(parser)
    parser.add_argument(
        "--journal",
        type=path,
        action="append",
        default=[],
        metavar="FILE",
        help="journal of a search whose course to show; may be repeated",
    )
    return argv


def _check(output: str, files: Sequence[str]) -> None:
    """Refuse a place that cannot be written, or holds something that is not a page of ours."""
    from ddplug.utils.files import check_writable

    target = check_writable(output)
    if any(os.path.realpath(file) == str(target) for file in files):
        raise OptionError(f"{output} is one of the sets; choose another path for the page")
    if target.exists():
        with open(target, "rb") as file:
            if MARK.encode() not in file.read(2000):
                raise OptionError(f"{output} exists and is not a page of ddplug; choose another path, or remove it")


class _Page:
    """The page, which is written as far as it is known."""

    def __init__(self, output: str, sheets: Sequence[Chapter], lead: str, searches: Sequence[Chapter] = ()) -> None:
        self._output, self._sheets, self._lead, self._searches = output, list(sheets), lead, searches

    def add(self, n: int, part: Chapter) -> None:
        """Put a part behind what the page tells of a set.

        Args:
            n: place of the set.
            part: with a heading of its own.
        """
        self._sheets[n] = replace(self._sheets[n], blocks=[*self._sheets[n].blocks, part])

    def write(self, chapters: Sequence[Chapter] = (), status: str = "") -> None:
        """Write the page.

        Args:
            chapters: to stand before the sets.
            status: what is not finished.
        """
        from ddplug.utils.files import write_file

        number = len(self._sheets)
        title = "Report on a synthetic set" if number == 1 else f"Report on {number} synthetic sets"
        footer = f"Made by ddplug {__version__}."
        everything = [*chapters, *self._searches, *self._sheets]
        write_file(self._output, page(title, self._lead, everything, footer, status).encode())


def run(arguments: argparse.Namespace) -> Answer:
    """Describe the sets, judge them where there are data, and write the page as it goes."""
    from ddplug.cli.searches import searched
    from ddplug.cli.sheets import sheet
    from ddplug.synthetic.compat import same_space
    from ddplug.synthetic.dataset import SyntheticSet
    from ddplug.synthetic.ready import locate
    from ddplug.utils.devices import pick_device

    _check(arguments.output, arguments.files)
    if arguments.audit is not None and arguments.data is None:
        raise OptionError("--audit compares a set with the data that it was made from; give --data")
    if arguments.persons is not None and arguments.audit is None:
        raise OptionError("--persons says whom --audit is to look for; add --audit 16, or leave it out")
    sets = {file: SyntheticSet.load(file) for file in arguments.files}
    data = None if arguments.data is None else real(arguments, sets)
    cpu = pick_device("cpu")
    sheets = []
    for file, own in sets.items():
        train = None if data is None else same_space(own, data[0], "train", cpu)
        sheets.append(sheet(os.path.basename(file), own, train, arguments.seed, os.path.getsize(locate(file))))
    lead = "Small synthetic training sets: what their files say"
    lead += "." if data is None else f", and the real data {data[0].name}."
    made = _Page(arguments.output, sheets, lead, searched(arguments.journal, sets))
    values: dict[str, Any] = {"files": list(sets), "page": arguments.output, "rows": []}
    if data is not None and arguments.audit is not None:
        values["audits"] = _attacked(arguments, sets, data, made)
    if data is None or not arguments.train:
        made.write()
    else:
        values["rows"] = [row.to_json() for row in _judged(arguments, sets, data, made)]
    return Answer(values, f"wrote {arguments.output}")


def _attacked(
    arguments: argparse.Namespace,
    sets: dict[str, SyntheticSet],
    data: tuple[LabeledData, LabeledData],
    made: _Page,
) -> list[dict[str, Any]]:
    """Attack each set, and put what was found behind it."""
    from ddplug.cli.audited import audited
    from ddplug.privacy.report import audit

    made.write(status="The sets are still being attacked.")
    options: dict[str, Any] = {"shadows": arguments.audit, "seed": arguments.seed, "device": arguments.device}
    found = []
    for n, own in enumerate(sets.values()):
        told = audit(
            own,
            *data,
            network=(arguments.network or ["auto"])[0],
            persons=data[0].persons or None,
            say=lambda text: complain(f"report: {text}"),
            **options,
        )
        made.add(n, audited(told))
        found.append(told.to_json())
    return found


def _judged(
    arguments: argparse.Namespace,
    sets: dict[str, SyntheticSet],
    data: tuple[LabeledData, LabeledData],
    made: _Page,
) -> list[Row]:
    """Train on the sets and the baselines, and write the page after each row."""
    from ddplug.cli.sheets import judged
    from ddplug.evaluation.comparison import compare

    first, *others = arguments.network or ["auto"]
    tested, rows = tested_on(arguments, data[1]), list[Any]()
    running = "Networks are still being trained. If the command was stopped, give it again to resume."

    def write(row: Row) -> None:
        rows.append(row)
        made.write([judged(rows, tested, whole=False)], running)

    made.write(status=running)
    options: dict[str, Any] = {
        "network": first,
        "across": others,
        "whole_steps": arguments.whole_steps,
        "baselines": BASELINES,
    }
    with judging(arguments, arguments.files[0]) as settings:
        found = compare(names_of(sets), data[0], data[1], on_row=write, **options, **settings)
    everything = [*found.rows, *found.across]
    made.write([judged(everything, tested, whole=True)])
    return everything
