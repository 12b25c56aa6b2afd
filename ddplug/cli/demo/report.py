"""One self-contained HTML page: text, tables, and pictures embedded in it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Block", "Chapter", "Picture", "Table", "page"]

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 60rem; color: #1c2430; background: #fff;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid #dde3ea; }
p { max-width: 46rem; margin: .6rem 0; }
.lead { color: #465364; }
.scroll { overflow-x: auto; margin: 1.2rem 0 1.6rem; }
table { border-collapse: collapse; font-size: .93rem; min-width: 28rem; }
caption { caption-side: top; text-align: left; font-weight: 600; padding-bottom: .45rem; }
th, td { padding: .38rem .9rem .38rem 0; text-align: left; border-bottom: 1px solid #e6ebf0; white-space: nowrap; }
th { color: #5a6777; font-weight: 600; border-bottom: 2px solid #cfd7e0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.strong td { font-weight: 600; background: #f2f7fc; }
.pictures { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; align-items: flex-start; }
figure { margin: .8rem 0; max-width: 100%; }
figure img { display: block; max-width: 100%; height: auto; border: 1px solid #e6ebf0; border-radius: 4px; }
figcaption { color: #5a6777; font-size: .9rem; margin-top: .45rem; }
code { background: #f1f4f7; border-radius: 3px; padding: .08em .35em; font-size: .9em; }
footer { margin-top: 3rem; color: #7a8695; font-size: .85rem; }
"""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        caption: what it shows.
        head: names of the columns.
        rows: cells, as many in each row as in the head; a column of numbers is set to the right.
        strong: indices of the rows to bring out.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Picture:
    """A picture of a report.

    Attributes:
        png: the bytes of a PNG file.
        caption: what it shows.
        width: to show it at, in CSS pixels.
    """

    png: bytes
    caption: str
    width: int = 480


Block = str | Table | tuple[Picture, ...]
"""A paragraph (words between backquotes are set as code), a table, or pictures side by side where there is room."""


@dataclass(frozen=True)
class Chapter:
    """A chapter of a report.

    Attributes:
        title: the heading.
        blocks: what follows, in order.
    """

    title: str
    blocks: Sequence[Block] = ()


def _text(text: object) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(str(text)))


def _is_number(cell: object) -> bool:
    return bool(re.match(r"[-+]?[\d.,]+", str(cell)))


def _table(table: Table) -> str:
    columns = list(zip(*table.rows, strict=True)) if table.rows else [()] * len(table.head)
    # a dash stands for a number that there is none of
    right = [any(map(_is_number, column)) and all(_is_number(c) or c == "-" for c in column) for column in columns]

    def row(cells: Iterable[object], tag: str) -> str:
        marks = (' class="number"' if number else "" for number in right)
        return "".join(f"<{tag}{mark}>{_text(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True))

    marks = [' class="strong"' if n in table.strong else "" for n in range(len(table.rows))]
    body = "".join(f"<tr{mark}>{row(cells, 'td')}</tr>\n" for mark, cells in zip(marks, table.rows, strict=True))
    head = f"<caption>{_text(table.caption)}</caption>\n<thead><tr>{row(table.head, 'th')}</tr></thead>"
    return f'<div class="scroll"><table>{head}\n<tbody>\n{body}</tbody></table></div>'


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    caption = _text(picture.caption)
    image = f'<img src="data:image/png;base64,{data}" width="{picture.width}" alt="{escape(picture.caption)}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{_text(block)}</p>"
    return _table(block) if isinstance(block, Table) else f'<div class="pictures">{"".join(map(_picture, block))}</div>'


def _chapter(chapter: Chapter) -> str:
    return "\n".join([f"<h2>{_text(chapter.title)}</h2>", *map(_block, chapter.blocks)])


def page(title: str, lead: str, chapters: Sequence[Chapter], footer: str = "") -> str:
    """Make a page that needs no other file and no network.

    Args:
        title: the heading.
        lead: what the page is about.
        chapters: in order.
        footer: versions, for example.

    Returns:
        HTML.

    Example:
        >>> "<h2>One</h2>" in page("Report", "", [Chapter("One")])
        True
    """
    body = "\n".join(map(_chapter, chapters))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{_text(title)}</h1>\n"
        f'<p class="lead">{_text(lead)}</p>\n{body}\n'
        f"<footer>{_text(footer)}</footer>\n</body>\n</html>\n"
    )
