"""Turn the results in docs/benchmarks/*.json into the Markdown tables of the documentation.

Each file is one benchmark, written by a script beside this one: ``title``, ``claim`` (what was to be shown), ``rows``
(flat objects with the same keys, in the order of the columns), ``how`` (the command), ``machine``, ``versions``
(package to version) and ``seconds``.

    python examples/benchmarks/tables.py docs/benchmarks
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["markdown", "page", "section"]


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Render rows that share their keys as a Markdown table.

    Raises:
        ValueError: there is no row, or a row has other keys than the first.

    Example:
        >>> print(markdown([{"method": "dm", "accuracy": 0.5}]))
        | method | accuracy |
        | --- | --- |
        | dm | 0.5 |
    """
    if not rows:
        raise ValueError("a benchmark has no rows")
    columns = list(rows[0])
    for row in rows:
        if list(row) != columns:
            raise ValueError(f"a row has the keys {list(row)}, the first has {columns}")
    lines = [columns, ["---"] * len(columns), *([_cell(row[name]) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def section(result: Mapping[str, Any]) -> str:
    """Render one benchmark: title, claim, table, and how the figures were obtained."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n\n".join(
        [
            f"## {result['title']}",
            result["claim"],
            markdown(result["rows"]),
            f"Obtained with `{result['how']}` on {result['machine']} in {result['seconds']:.0f} s; {versions}.",
        ]
    )


def page(folder: Path) -> str:
    """Render every benchmark of a folder, in the order of the file names; a missing one is simply not listed.

    Campaigns (``campaign-*.json``) have no rows; the page on reliability tells of them.
    """
    paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("campaign-"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return "\n\n".join(map(section, results)) + "\n" if results else "No result has been committed yet.\n"


if __name__ == "__main__":
    print(page(Path(sys.argv[1])))
