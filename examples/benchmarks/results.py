"""What the benchmarks share: which rows, into which folder, what is there already, and on what it was measured."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["OUT", "add_row_options", "chosen", "machine", "read", "say_what_is_there", "source", "versions", "write"]

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


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


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
