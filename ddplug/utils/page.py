"""One self-contained HTML page: text, tables, and pictures embedded in it."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from ddplug.utils.text import one_line

__all__ = ["MARK", "Block", "Chapter", "Picture", "Table", "page", "table_html"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #465364; --quiet: #5a6777; --paper: #fff; --line: #dde3ea;
  --mark: #f2f7fc; --code: #f1f4f7; --link: #0b57b0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #c0c9d4; --quiet: #a9b4c2; --paper: #14181f; --line: #38414d; --mark: #1e2b3a;
    --code: #262d37; --link: #8cbcff; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.08rem; margin: 1.8rem 0 .4rem; }
p { max-width: 46rem; margin: .6rem 0; }
a { color: var(--link); }
nav ul { margin: .8rem 0; padding-left: 1.2rem; }
.lead { color: var(--soft); }
.scroll { overflow-x: auto; margin: 1.2rem 0 1.6rem; }
.scroll:focus-visible, a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .93rem; overflow-wrap: normal; }
caption { caption-side: top; text-align: left; font-weight: 600; padding-bottom: .45rem; }
th, td { padding: .38rem .9rem .38rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
td.long, th.long { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
thead th { color: var(--quiet); font-weight: 600; border-bottom-width: 2px; }
tbody th { font-weight: inherit; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.strong th, tr.strong td { font-weight: 600; background: var(--mark); }
.pictures { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; align-items: flex-start; }
figure { margin: .8rem 0; max-width: 100%; }
figure img { display: block; max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: 4px;
  background: #fff; }
figcaption { color: var(--quiet); font-size: .9rem; margin-top: .45rem; }
code { background: var(--code); border-radius: 3px; padding: .08em .35em; font-size: .9em; }
footer { margin-top: 3rem; color: var(--quiet); font-size: .85rem; }
@media (max-width: 40rem) {
  body { padding: 1.5rem 1rem 3rem; }
  th, td { white-space: normal; }
  td.number { white-space: nowrap; }
  td.long, th.long { min-width: 0; }
}
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #333; --quiet: #444; --paper: #fff; --line: #bbb; --mark: #eee;
    --code: #fff; --link: #000; }
  body { max-width: none; padding: 0; font-size: 11px; }
  nav { display: none; }
  h2, h3, caption { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
  th, td { white-space: normal; }
}
"""

MARK = '<meta name="generator" content="ddplug">'
"""Tells a page of ours, which the next one may replace."""

_LONG = 40
"""Characters of a cell from which on it is broken into lines."""

_LISTED = 3
"""Chapters from which on the page begins with a list of them."""


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
        alt: what somebody is told who does not see it, where that is more than the caption.
    """

    png: bytes
    caption: str
    width: int = 480
    alt: str = ""


@dataclass(frozen=True)
class Chapter:
    """A chapter of a report, or a part of one.

    Attributes:
        title: the heading.
        blocks: what follows, in order.
    """

    title: str
    blocks: Sequence[Block] = ()


Block: TypeAlias = "str | Table | tuple[Picture, ...] | Chapter"
"""A paragraph (words between backquotes are set as code), a table, pictures side by side where there is room, or a part
with a heading of its own."""


def _safe(text: object) -> str:
    """Write text of anybody's so that a page shows it as it stands."""
    return escape(one_line(text))


def _text(text: object) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _safe(text))


def _is_number(cell: object) -> bool:
    return bool(re.match(r"[-+]?[\d.,]+", str(cell)))


def table_html(table: Table) -> str:
    """Write a table, which the keyboard can move where it is wider than the page.

    Example:
        >>> "<td>&lt;b&gt;</td>" in table_html(Table("", ("a", "b"), [("1", "<b>")]))
        True
    """
    columns = list(zip(*table.rows, strict=True)) if table.rows else [()] * len(table.head)
    # a dash stands for a number that there is none of
    right = [any(map(_is_number, column)) and all(_is_number(c) or c == "-" for c in column) for column in columns]
    rows = (
        f"<tr{_marked('strong' if n in table.strong else '')}>{_cells(cells, right)}</tr>\n"
        for n, cells in enumerate(table.rows)
    )
    head = "".join(
        f'<th scope="col"{_marked("number" if number else "")}>{_text(cell)}</th>'
        for cell, number in zip(table.head, right, strict=True)
    )
    caption = f"<caption>{_text(table.caption)}</caption>\n" if table.caption else ""
    label = _safe(table.caption or ", ".join(map(str, table.head)))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">\n<table>{caption}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(rows)}</tbody></table></div>"
    )


def _cells(cells: Sequence[object], right: Sequence[bool]) -> str:
    """Write the cells of a row, of which the first says what the row is about."""
    parts = []
    for place, (cell, number) in enumerate(zip(cells, right, strict=True)):
        mark = _marked("number" if number else "long" if len(str(cell)) > _LONG else "")
        parts.append(f"<td{mark}>{_text(cell)}</td>" if place else f'<th scope="row"{mark}>{_text(cell)}</th>')
    return "".join(parts)


def _marked(name: str) -> str:
    return f' class="{name}"' if name else ""


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    alt = _safe(picture.alt or picture.caption)
    image = f'<img src="data:image/png;base64,{data}" width="{picture.width}" alt="{alt}">'
    return f"<figure>{image}<figcaption>{_text(picture.caption)}</figcaption></figure>"


def _block(block: Block, level: int) -> str:
    if isinstance(block, str):
        return f"<p>{_text(block)}</p>"
    if isinstance(block, Table):
        return table_html(block)
    if isinstance(block, Chapter):
        return f"<section>\n<h{level}>{_text(block.title)}</h{level}>\n{_blocks(block, level + 1)}\n</section>"
    return f'<div class="pictures">{"".join(map(_picture, block))}</div>'


def _blocks(chapter: Chapter, level: int) -> str:
    return "\n".join(_block(block, level) for block in chapter.blocks)


def _chapter(number: int, chapter: Chapter) -> str:
    head = f'<section id="part-{number}" aria-labelledby="title-{number}">\n<h2 id="title-{number}">'
    return f"{head}{_text(chapter.title)}</h2>\n{_blocks(chapter, 3)}\n</section>"


def _contents(chapters: Sequence[Chapter]) -> str:
    """List the chapters, where they are many."""
    if len(chapters) < _LISTED:
        return ""
    entries = "".join(
        f'<li><a href="#part-{n}">{_text(chapter.title)}</a></li>\n' for n, chapter in enumerate(chapters)
    )
    return f'<nav aria-label="Contents"><ul>\n{entries}</ul></nav>\n'


def page(title: str, lead: str, chapters: Sequence[Chapter], footer: str = "", status: str = "") -> str:
    """Make a page that needs no other file, no network and no script.

    It is light or dark as its reader wants it, and can be printed.

    Args:
        title: the heading.
        lead: what the page is about.
        chapters: in order.
        footer: versions, for example.
        status: what is not finished yet.

    Returns:
        HTML.

    Example:
        >>> "One</h2>" in page("Report", "", [Chapter("One")])
        True
    """
    body = "\n".join(map(_chapter, range(len(chapters)), chapters))
    unfinished = f'<p role="status"><strong>{_text(status)}</strong></p>\n' if status else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{_safe(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{_text(title)}</h1>\n"
        f'<p class="lead">{_text(lead)}</p>\n{unfinished}</header>\n{_contents(chapters)}<main>\n{body}\n</main>\n'
        f"<footer>{_text(footer)}</footer>\n</body>\n</html>\n"
    )
