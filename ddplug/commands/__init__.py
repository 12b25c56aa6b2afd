"""The commands of ``ddplug``, one module each: ``configure(parser, argv)`` and ``run(arguments)``.

A module imports torch inside ``run`` only, so that ``--help`` is instant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["COMMANDS", "Answer", "one_line", "table"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("ddplug.commands.list_", "list the installed methods, networks and data sets"),
    "distill": ("ddplug.commands.distill", "distil a data set and save the synthetic set"),
    "experts": ("ddplug.commands.experts", "train networks on real data, for methods that match their trajectories"),
    "evaluate": ("ddplug.commands.evaluate", "train networks on a set, beside baselines, and test them on real data"),
    "inspect": ("ddplug.commands.inspect_", "show what a file holds and how it was made"),
    "export": ("ddplug.commands.export", "turn a set into pictures, arrays or a data set card"),
    "holdout": ("ddplug.commands.holdout", "save a part of the real data, to judge candidates of a search by"),
    "agreement": ("ddplug.commands.agreement", "tell how far small sets rank architectures as full training does"),
    "doctor": ("ddplug.commands.doctor", "show what is installed, what is known to be broken in it, and what to do"),
    "demo": ("ddplug.commands.demo", "distil, evaluate and plot real digits, end to end, in about a minute"),
}
"""Name of a command -> its module, and what it does."""


@dataclass(frozen=True)
class Answer:
    """What a command prints.

    Attributes:
        values: for ``--json``; JSON-ready, without NaN.
        text: for people.
    """

    values: Mapping[str, Any]
    text: str


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
