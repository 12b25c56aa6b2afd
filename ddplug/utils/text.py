"""Text for people: one line that is safe to print, aligned tables, Markdown tables."""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections.abc import Sequence
from textwrap import wrap

from ddplug.utils.streams import columns

__all__ = [
    "command",
    "duration",
    "known_by",
    "lasting",
    "markdown",
    "one_line",
    "os_reason",
    "percent",
    "roughly",
    "shown",
    "storable",
    "table",
    "wrapped",
]


def one_line(value: object, *, most: int | None = None) -> str:
    r"""Write a value on one line that a terminal shows as it stands: a file's names may hold control sequences.

    Spaces stay as they are where there is nothing but text on one line: names may have two in a row.

    Args:
        value: an exception, say.
        most: characters after which it is cut off; all of it if not given.

    Example:
        >>> one_line("red: \x1b[31m")
        'red: ?[31m'
    """
    text = str(value)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return text if most is None or len(text) <= most else f"{text[:most]}..."


def lasting(value: object) -> str | None:
    """Return how a value describes itself; ``None`` where that is by an address, which is another in each process.

    Example:
        >>> lasting(range(3)), lasting(object())
        ('range(0, 3)', None)
    """
    text = repr(value)
    return None if " at 0x" in text else text


def os_reason(error: OSError) -> str:
    """Return what the operating system says of a failure, without the number and the path.

    Example:
        >>> os_reason(FileNotFoundError(2, "No such file or directory", "x"))
        'No such file or directory'
    """
    return str(error.strerror or error)


def command(*words: object) -> str:
    r"""Write a command so that it can be pasted into a shell, whatever its words hold.

    Example:
        >>> command("ddplug", "inspect", "my set.safetensors"), command("rm", "-- a\n")
        ("ddplug inspect 'my set.safetensors'", "rm $'-- a\\x0a'")
    """
    return " ".join(map(_quoted, map(str, words)))


def _quoted(word: str) -> str:
    """Quote a word; bytes that are no text, or would break the line, as bash and zsh write them."""
    if word.isprintable():
        return shlex.quote(word)
    plain = {chr(k) for k in range(32, 127)} - set("'\\")
    return "$'" + "".join(chr(b) if chr(b) in plain else f"\\x{b:02x}" for b in os.fsencode(word)) + "'"


def shown(path: object) -> str:
    """Write a path as a word of a command: one that begins with a dash would be taken for an option.

    Example:
        >>> shown("-set"), shown("a/b")
        ('./-set', 'a/b')
    """
    return f"./{path}" if str(path).startswith("-") else str(path)


def storable(name: str) -> str:
    r"""Write a name as Unicode: those of files may be bytes that are no text.

    Example:
        >>> storable("caf\udce9")
        'caf\\udce9'
    """
    return name.encode(errors="backslashreplace").decode()


def known_by(name: str) -> str:
    r"""Return what a name is known by: a file system may write an accent as a letter of its own.

    Example:
        >>> known_by("cafe\u0301") == "caf\u00e9"
        True
    """
    return unicodedata.normalize("NFC", name)


def percent(mean: float, std: float, n: int) -> str:
    """Write an accuracy in percent, and its standard deviation where it is a mean of several.

    Args:
        mean: in [0, 1].
        std: standard deviation, in [0, 1].
        n: number of values it is a mean of.

    Example:
        >>> percent(0.973, 0.0021, 5), percent(0.973, 0, 1)
        ('97.3 ± 0.2', '97.3')
    """
    return f"{100 * mean:.1f}" + (f" ± {100 * std:.1f}" if n > 1 else "")


def duration(seconds: float) -> str:
    """Write seconds: whole ones, and of less than ten two digits.

    Example:
        >>> duration(0.0123), duration(2.34), duration(75.2)
        ('0.012 s', '2.3 s', '75 s')
    """
    return f"{seconds:.2g} s" if seconds < 9.5 else f"{seconds:.0f} s"


def roughly(seconds: float) -> str:
    """Write how long something will take, as it may be said before it is known well.

    Example:
        >>> roughly(7), roughly(75), roughly(600), roughly(9000)
        ('7 seconds', '75 seconds', '10 minutes', '2.5 hours')
    """
    if seconds < 100:
        return f"{max(seconds, 1):.0f} second{'s' if seconds >= 1.5 else ''}"
    return f"{seconds / 60:.0f} minutes" if seconds < 100 * 60 else f"{seconds / 3600:.1f} hours"


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


def wrapped(rows: Sequence[Sequence[object]], width: int = 80) -> str:
    """Align rows of cells in columns, the last of which goes on in the next line where it is too wide.

    A word that is too wide stands as it is: it may be a path or a part of a command.

    Args:
        rows: of as many cells each.
        width: characters of a line where one of the terminal has 80, as many more or less where that has; the last
            column has 20 at least.

    Example:
        >>> print(wrapped([("set", "a handful of quite small words"), ("b", "one")], 25))
        set  a handful of quite
             small words
        b    one
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    left, width = sum(widths) + 2 * len(widths), width + columns() - 80
    lines = []
    for *first, last in cells:
        parts = wrap(last, max(width - left, 20), break_long_words=False, break_on_hyphens=False) or [""]
        head = "  ".join([*map(str.ljust, first, widths), ""])
        lines += [f"{head}{parts[0]}".rstrip(), *(" " * left + part for part in parts[1:])]
    return "\n".join(lines)


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
