"""Rows of a comparison as CSV, LaTeX, HTML and data frames, and in a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from ddplug.errors import OptionError
from ddplug.evaluation.row import Row
from ddplug.utils.files import write_file
from ddplug.utils.text import one_line

__all__ = ["csv_text", "dataframe", "escaped", "latex", "record", "short", "written"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}
"""What LaTeX takes for something else -> how to write it."""


def record(row: Row) -> dict[str, Any]:
    """Return a row as values by the names of their columns."""
    return {
        "training data": row.method,
        "kind": row.kind,
        "bytes": row.nbytes,
        "budget": row.budget,
        "images per class": row.images_per_class,
        "bits per class": row.bits_per_class,
        "accuracy": row.mean,
        "deviation": row.std,
        "networks": row.n,
        "network": row.evaluation.network,
        "protocol": row.evaluation.protocol,
        "precision": row.evaluation.precision,
        "steps": row.steps,
        "fits": row.fits,
    }


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Write records as comma-separated values; nothing that a spreadsheet would compute.

    Example:
        >>> print(csv_text([{"set": "=1+1", "bytes": 65, "steps": None}]), end="")
        set,bytes,steps
        '=1+1,65,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(records[0])
    writer.writerows([_harmless(value) for value in own.values()] for own in records)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """Write names, which may come from a stranger's file, so that a spreadsheet takes them for text."""
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def dataframe(records: Sequence[Mapping[str, Any]]) -> Any:
    """Make a data frame of records.

    Raises:
        OptionError: pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ImportError:
        raise OptionError("a data frame needs pandas; run pip install pandas, or use to_csv or to_json") from None
    return pandas.DataFrame(records)


def latex(rows: Sequence[Row], about: str, caption: str = "", label: str = "") -> str:
    """Write rows as a table for booktabs, with a rule between numbers of bytes and a comment on how they came about."""
    parts = [list(own) for _, own in groupby(rows, key=lambda row: row.budget)]
    body = "\n\\midrule\n".join("\n".join(map(_latex_row, own)) for own in parts)
    head = r"Training data & Images/class & Bytes & Bits/class & Accuracy (\%) \\"
    lines = [r"\begin{tabular}{lrrrr}", r"\toprule", head, r"\midrule", body, r"\bottomrule", r"\end{tabular}"]
    if caption or label:
        named = [f"\\caption{{{caption}}}"] * bool(caption) + [f"\\label{{{label}}}"] * bool(label)
        lines = [r"\begin{table}", r"\centering", *named, *lines, r"\end{table}"]
    return "\n".join([f"% ddplug: {one_line(about)}; needs \\usepackage{{booktabs}}", *lines]) + "\n"


def _latex_row(row: Row) -> str:
    spread = f" \\pm {100 * row.std:.1f}" if row.n > 1 else ""
    cells = [
        escaped(row.name),
        f"{row.images_per_class:.4g}",
        _grouped(row.nbytes),
        _grouped(round(row.bits_per_class)),
        f"${100 * row.mean:.1f}{spread}$",
    ]
    return " & ".join(cells) + r" \\"


def _grouped(number: int) -> str:
    """Write a number with thin spaces, as LaTeX leaves them: a comma in math would be a list's."""
    return f"{number:,}".replace(",", r"\,")


def escaped(text: str) -> str:
    r"""Write text so that LaTeX shows it.

    Example:
        >>> print(escaped("50 % of a_b"))
        50 \% of a\_b
    """
    return "".join(_LATEX.get(c, c) for c in one_line(text))


def short(rows: Sequence[Row], network: str, protocol: str) -> str:
    """Write rows in a line, the first few of them."""
    most = 4
    shown = "; ".join(f"{_plain(row.name)} {row.evaluation.text} %" for row in rows[:most])
    more = f"; {len(rows) - most} more" if len(rows) > most else ""
    return f"Comparison({shown}{more}; {network}, {protocol})"


def _plain(text: str) -> str:
    return one_line(text, most=40)


def written(text: str, path: str | Path | None) -> str:
    """Give a text back, and write it to a file if there is one."""
    if path is not None:
        write_file(path, text.encode())
    return text
