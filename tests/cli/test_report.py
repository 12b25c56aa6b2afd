"""The report is one well-formed page that needs nothing else."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib.image
import numpy as np
import pytest

from ddplug.cli.sheets import sheet
from ddplug.distillation.loop import distill
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images
from ddplug.utils.page import Chapter, Picture, Table, page

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Checks that tags nest, and collects cells and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def png() -> bytes:
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, np.zeros((2, 3)), format="png")
    return buffer.getvalue()


def read(*chapters: Chapter) -> Reader:
    reader = Reader()
    reader.feed(page("A <title>", "lead & more", chapters, footer="ddplug 0"))
    reader.close()
    assert reader.open == []
    return reader


def test_tables_hold_every_cell_escaped_and_numbers_are_set_right() -> None:
    table = Table(
        "Caption", ("set", "accuracy", "bytes"), [("<dm>", "0.9 ± 0.1", 10), ("a & b", "-", 1200)], frozenset({1})
    )
    reader = read(Chapter("One", ["uses `code`", table]))
    assert reader.cells == ["set", "accuracy", "bytes", "<dm>", "0.9 ± 0.1", "10", "a & b", "-", "1200"]
    assert [a for a in reader.attributes if a[:2] == ("td", "class")] == [("td", "class", "number")] * 4
    assert [a for a in reader.attributes if a[0] == "tr"] == [("tr", "class", "strong")]


def test_pictures_are_embedded_whole_and_nothing_is_fetched() -> None:
    reader = read(Chapter("One", [(Picture(png(), 'a "quoted" caption', 120),)]))
    links = [value for _, name, value in reader.attributes if name in ("src", "href")]
    (source,) = links
    head, _, data = source.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == png()
    assert ("img", "alt", 'a "quoted" caption') in reader.attributes


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        page("", "", [Chapter("One", [Table("", ("a", "b"), [("1",)])])])


def test_a_set_that_is_trained_on_by_steps_is_not_said_to_take_epochs() -> None:
    made = replace(distill(toy_images((3, 3)), "random", images_per_class=2, device="cpu"), provenance={})
    recipes = (Recipe.by_steps(70), "steps", "70", "epochs"), (Recipe(7), "epochs", "7", "steps")
    for recipe, name, value, other in recipes:
        cells = read(sheet("a", replace(made, recipe=recipe), None, 0, 0)).cells
        assert cells[cells.index(name) + 1] == value
        assert other not in cells
