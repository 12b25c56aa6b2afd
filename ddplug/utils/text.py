"""Text for people: one line that is safe to print, aligned tables, Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown", "one_line", "table"]


def one_line(value: object) -> str:
    r"""Write a value on one line that a terminal shows as it stands: a file's names may hold control sequences.

    Example:
        >>> one_line("red: \x1b[31m")
        'red: ?[31m'
    """
    return "".join(c if c.isprintable() else "?" for c in " ".join(str(value).split()))


def table(rows: Sequence[Sequence[object]]) -> str:
    """Align rows of cells in columns, the first row being the head.

    Example:
        >>> print(table([("set", "accuracy"), ("random", 0.5)]))
        set     accuracy
        random  0.5
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table.

    Example:
        >>> print(markdown(["a", "b"], [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
