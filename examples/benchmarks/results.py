"""What the benchmarks share: which rows, into which folder, what is there already, and on what it was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

__all__ = [
    "OUT",
    "ResultFile",
    "add_row_options",
    "add_set_options",
    "chosen",
    "each_in_its_process",
    "in_order_of",
    "judged",
    "machine",
    "peak_memory",
    "read",
    "say_what_is_there",
    "source",
    "time_and_memory",
    "versions",
    "write",
]

OUT = Path("ddplug-benchmarks")
"""Folder to write to: not that of the documentation, whose rows are all there already."""

T = TypeVar("T")


def add_row_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every benchmark: some rows alone, and where the file goes."""
    parser.add_argument("--row", action="append", metavar="NAME", help="measure the rows of this name only; repeat")
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="folder of the result; rows that it has are kept (default: %(default)s; published: docs/benchmarks)",
    )


def _folder(path: str) -> Path:
    """Make a folder, before hours are spent on what it is to hold."""
    from ddplug.errors import OptionError
    from ddplug.search.sets import folder_at

    try:
        return folder_at(path)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_set_options(parser: argparse.ArgumentParser, benchmarks: Collection[str]) -> None:
    """Add the options of a benchmark that makes sets of some data and trains networks on them, and those of all."""
    parser.add_argument("benchmark", choices=benchmarks)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root")
    parser.add_argument("--cache", help="folder for decoded images")
    parser.add_argument(
        "--network", default="convnet:width=32", help="that is trained on the sets (default: %(default)s)"
    )
    parser.add_argument("--precision", default="float32", help="in which networks are trained (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="sets and networks of each row (default: %(default)s)")
    parser.add_argument("--sets", type=_folder, help="folder to keep the sets in, for another network; made if need be")
    add_row_options(parser)


def judged(pairs: Sequence[tuple[Any, Any]], test: Any, network: str, precision: str) -> dict[str, Any]:
    """Train a network on each of some data by the recipe beside it, and test it; return what a row says of that."""
    from ddplug.evaluation.results import judge
    from ddplug.utils.devices import pick_device

    accuracies = []
    size, first = len(pairs[0][0]), pairs[0][1]
    how: dict[str, Any] = {"device": pick_device(), "precision": precision}
    for seed, (data, recipe) in enumerate(pairs):  # sets of other sizes cannot be trained on together
        accuracies.append(100 * judge([data], test, network, recipe, **how, seed=seed).mean)
    return {
        "network": network,
        "steps": first.steps or first.epochs * -(-size // first.batch_size),
        "accuracy (%)": round(statistics.fmean(accuracies), 2),
        "deviation": round(statistics.stdev(accuracies), 2) if len(accuracies) > 1 else None,
        "sets": len(pairs),
        "precision": precision,
    }


def chosen(rows: Iterable[T], names: Sequence[str] | None, name_of: Callable[[T], str]) -> list[T]:
    """Return the rows of some names, or all; stop at a name that no row has.

    Args:
        rows: of the benchmark.
        names: wanted, what ``name_of`` gives or its beginning up to a comma or colon; ``None`` for all.
        name_of: gives the name of a row.

    Raises:
        SystemExit: no row has the name.
    """
    rows = list(rows)

    def called(row: T) -> set[str]:
        name = name_of(row)
        return {name, name.partition(",")[0], name.partition(":")[0]}

    for name in names or ():
        if not any(name in called(row) for row in rows):
            known = ", ".join(dict.fromkeys(map(name_of, rows)))
            raise SystemExit(f"--row is {name}; it must be one of {known}")
    return [row for row in rows if not names or called(row) & set(names)]


def read(path: Path, empty: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result that a file has, or an empty one."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else dict(empty)
    return found


def say_what_is_there(wanted: Collection[Any], missing: Collection[Any], path: Path) -> None:
    """Say before the work what will be measured, and that nothing is where every row is there."""
    if missing:
        print(f"to be measured: {len(missing)} of {len(wanted)}; written to {path}", file=sys.stderr)
        return
    said = "all rows are" if len(wanted) > 1 else "the row is"
    print(f"{said} there already: {path}; give another --out to measure again", file=sys.stderr)


class ResultFile:
    """The file that a benchmark writes: the rows that it has, and each new one as soon as it is measured.

    Args:
        path: the file.
        key: names of what tells a row from the others.
        clock: gives the seconds that a benchmark takes, which are added to those of before.
    """

    def __init__(self, path: Path, *key: str, clock: Callable[[], float] = time.monotonic) -> None:
        before = read(path, {"rows": [], "seconds": 0.0})
        self.path = path
        self.rows: list[dict[str, Any]] = before["rows"]
        self._key = key
        self._clock = clock
        self._began = clock() - before["seconds"]

    def missing(self, wanted: Sequence[T], key_of: Callable[[T], tuple[Any, ...]]) -> list[T]:
        """Return the rows that are to be measured, and say how many there are.

        Args:
            wanted: rows.
            key_of: gives the values of the key of each.
        """
        there = {tuple(row[name] for name in self._key) for row in self.rows}
        missing = [row for row in wanted if key_of(row) not in there]
        say_what_is_there(wanted, missing, self.path)
        return missing

    def add(
        self,
        row: dict[str, Any],
        order: Callable[[Mapping[str, Any]], Any],
        *,
        title: str,
        claim: str,
        how: str,
        machine: str,
        **more: Any,
    ) -> None:
        """Add a row, write the file, and show the row.

        Args:
            row: that was measured.
            order: what rows are sorted by.
            title: of the table.
            claim: what was to be shown.
            how: the command.
            machine: that it was measured on.
            more: what else the file says.
        """
        self.rows = sorted([*self.rows, row], key=order)
        result = {
            "title": title,
            "claim": claim,
            **more,
            "rows": self.rows,
            "how": how,
            "machine": machine,
            "versions": versions(),
            "seconds": round(self._clock() - self._began, 1),
        }
        write(self.path, result)
        print(self.path.stem, row, file=sys.stderr, flush=True)


def in_order_of(names: Iterable[Any], *key: str) -> Callable[[Mapping[str, Any]], int]:
    """Return what sorts rows as their names are listed; others come last.

    Args:
        names: of the rows; tuples where the key has several parts.
        key: names of what tells a row from the others.
    """
    places = {name if len(key) > 1 else (name,): place for place, name in enumerate(names)}
    return lambda row: places.get(tuple(row[name] for name in key), len(places))


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def each_in_its_process(
    measure: Callable[..., dict[str, Any]], jobs: Sequence[tuple[Any, ...]], arguments: Any, processes: int
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Measure each job in a fresh process, some at once; yield each with what was found, as it ends.

    A request to stop ends these processes too.

    Args:
        measure: what to call with the parts of a job and the arguments; of a module, since processes import it.
        jobs: parts of each.
        arguments: of the command line.
        processes: at once.
    """
    from ddplug.utils.signals import stoppable

    if not jobs:
        return
    with stoppable(), get_context("spawn").Pool(min(processes, len(jobs)), maxtasksperchild=1) as pool:
        calls = [(measure, place, (*job, arguments)) for place, job in enumerate(jobs)]
        for place, found in pool.imap_unordered(_numbered, calls):
            yield jobs[place], found


def _numbered(call: tuple[Callable[..., dict[str, Any]], int, tuple[Any, ...]]) -> tuple[int, dict[str, Any]]:
    measure, place, given = call
    return place, measure(*given)


def peak_memory() -> float:
    """Return the most MiB that this process has had in memory so far."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def time_and_memory(runs: Iterable[Mapping[str, Any]]) -> dict[str, int | None]:
    """Return what a row says of its runs' time and memory; ``None`` for memory that older runs do not tell."""
    runs = list(runs)
    peaks = [run["peak"] for run in runs if "peak" in run]
    return {
        "time, longest (s)": round(max(run["seconds"] for run in runs)),
        "peak memory (MiB)": round(max(peaks)) if peaks else None,
    }


def source(data: str) -> str:
    """Name the data without this machine's folders."""
    return "imagefolder:DIR" if data.startswith("imagefolder:") else f"{data} --data-root DIR"


def machine(threads: str = "") -> str:
    """Say what it was measured on."""
    return f"{os.cpu_count()} CPU cores{threads}"


def versions(**more: str) -> dict[str, str]:
    """Return the versions that figures depend on."""
    import torch

    import ddplug

    return {
        "ddplug": ddplug.__version__,
        **more,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
