"""A comparison as CSV, LaTeX, HTML, a data frame and a figure; several sets beside what their bytes could hold."""

from __future__ import annotations

import csv
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ddplug.distillation.loop import distill
from ddplug.distillers.selection.kmeans import KMeans
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import OptionError
from ddplug.evaluation.comparison import compare
from ddplug.evaluation.rows import Comparison
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images, toy_table

TRAIN = toy_images((30, 30, 30))
OPTIONS: dict[str, Any] = {
    "network": "mlp:width=4",
    "recipe": Recipe(epochs=2, batch_size=8),
    "repeats": 2,
    "whole_steps": 2,
    "device": "cpu",
}
HOSTILE = '=cmd|"<b>&_$%'


def made(number: int, name: str = "") -> Any:
    found = distill(TRAIN, Random(images_per_class=number), device="cpu").quantize()
    return replace(found, provenance={**found.provenance, "method": name}) if name else found


@pytest.fixture(scope="module")
def several() -> Comparison:
    sets = [made(4), made(2), distill(TRAIN, KMeans(images_per_class=2), device="cpu").quantize(), made(2)]
    return compare(sets, TRAIN, TRAIN, baselines=["random"], across=["mlp:width=3"], **OPTIONS)


@pytest.fixture(scope="module")
def hostile() -> Comparison:
    return compare(made(2, HOSTILE), TRAIN, TRAIN, baselines=["random", "kmeans"], **OPTIONS)


def test_several_sets_share_the_baselines_of_their_bytes(several: Comparison) -> None:
    small, large = made(2).nbytes, made(4).nbytes
    assert [(row.method, row.nbytes, row.kind) for row in several.rows] == [
        ("random", small, "set"),
        ("kmeans", small, "set"),
        ("random (2)", small, "set"),
        ("random", small, "baseline"),
        ("random", large, "set"),
        ("random", large, "baseline"),
        ("whole data", len(TRAIN) * 65, "whole data"),
    ]
    assert [row.budget for row in several.rows] == [small] * 4 + [large] * 2 + [None]
    again = {(row.evaluation.network, row.kind) for row in several.across}
    assert (again, len(several.across)) == ({("mlp:width=3", "set")}, 4)


def test_the_text_has_every_cell_in_a_column_of_its_own(several: Comparison) -> None:
    about, rows, across = several.text.split("\n\n")
    assert about == "trained: mlp:width=4, own (2 epochs)"
    lines = rows.splitlines()[1:]
    assert [re.split(" {2,}", line) for line in lines] == [row.cells() for row in several.rows]
    places = {line.index(row.evaluation.text) for line, row in zip(lines, several.rows, strict=True)}
    assert len(places) == 1
    others = [re.split(" {2,}", line) for line in across.splitlines()[1:]]
    assert [line[:2] for line in others] == [[row.method, "mlp:width=3"] for row in several.across]


def test_a_set_has_the_row_that_it_has_alone(several: Comparison) -> None:
    alone = compare(made(4), TRAIN, TRAIN, baselines=["random"], **OPTIONS)
    both = zip(alone.rows, several.rows[-3:], strict=True)
    assert all(one.evaluation.accuracies == other.evaluation.accuracies for one, other in both)


def test_sets_by_names_and_none_at_all() -> None:
    found = compare({"mine": made(2)}, TRAIN, TRAIN, baselines=[], whole=False, **OPTIONS)
    assert [row.method for row in found.rows] == ["mine"]
    with pytest.raises(OptionError, match="there is no set to compare; give at least one"):
        compare([], TRAIN, TRAIN, **OPTIONS)


def test_coded_real_images_fill_the_bytes() -> None:
    found = compare(made(2), TRAIN, TRAIN, baselines=["coded real"], whole=False, **OPTIONS).rows
    assert found[1].method == "coded real"
    assert found[1].images_per_class > 2 and found[1].nbytes <= found[0].nbytes
    table = toy_table((30, 30))
    rows = distill(table, Random(images_per_class=3), device="cpu").quantize()
    assert compare(rows, table, table, baselines=["coded real"], whole=False, **OPTIONS).rows[1].fits


def test_random_images_are_one_row_where_the_set_is_coded_as_the_data_suit() -> None:
    coded = distill(TRAIN, Random(images_per_class=2), codec="auto", device="cpu")
    baselines = ["random", "coded real"]
    found = compare(coded, TRAIN, TRAIN, baselines=baselines, whole=False, **OPTIONS).rows
    assert [row.method for row in found] == ["random", "random"]
    other = distill(TRAIN, Random(images_per_class=2), codec="pixels:bits=8", device="cpu")
    found = compare(other, TRAIN, TRAIN, baselines=baselines, whole=False, **OPTIONS).rows
    assert [row.method for row in found] == ["random", "random", "coded real"]


def test_csv_holds_every_row_and_nothing_to_compute(several: Comparison, hostile: Comparison, tmp_path: Path) -> None:
    text = several.to_csv(tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 7 + 4
    for row, own in zip(rows, [*several.rows, *several.across], strict=True):
        assert (row["training data"], int(row["bytes"]), float(row["accuracy"])) == (own.method, own.nbytes, own.mean)
        assert (row["protocol"], row["network"]) == ("own", own.evaluation.network)
        assert row["steps"] == ("" if own.steps is None else str(own.steps))
    assert next(csv.DictReader(io.StringIO(hostile.to_csv())))["training data"] == f"'{HOSTILE}"


def test_latex_is_booktabs_and_escaped(several: Comparison, hostile: Comparison, tmp_path: Path) -> None:
    lines = several.to_latex(tmp_path / "a.tex").splitlines()
    assert (tmp_path / "a.tex").read_text().splitlines() == lines
    assert lines[0] == r"% ddplug: mlp:width=4, own (2 epochs); needs \usepackage{booktabs}"
    rules = [line for line in lines if line.endswith("rule")]
    assert rules == [r"\toprule", *[r"\midrule"] * 3, r"\bottomrule"]
    first = several.rows[0]
    accuracy = rf"${100 * first.mean:.1f} \pm {100 * first.std:.1f}$"
    assert rf"random & 2 & 398 & 1\,061 & {accuracy} \\" in lines
    assert all(line.count("&") == 4 for line in lines if line.endswith(r"\\"))
    assert r"=cmd\textbar{}" + '"' + r"\textless{}b\textgreater{}\&\_\$\% & 2" in hostile.to_latex()
    whole = several.to_latex(caption="All of it", label="tab:all").splitlines()
    assert whole[1:5] == [r"\begin{table}", r"\centering", r"\caption{All of it}", r"\label{tab:all}"]
    assert whole[-1] == r"\end{table}"


def test_html_is_escaped_and_repr_is_a_line(hostile: Comparison) -> None:
    tags: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            tags.append(tag)

    Reader().feed(hostile._repr_html_())
    assert tags.count("tr") == 1 + 4 and "b" not in tags
    assert hostile.rows[0].evaluation.text in repr(hostile)
    assert "own (2 epochs)" in repr(hostile) and "\n" not in repr(hostile) and len(repr(hostile)) < 250


def test_data_frames_need_pandas(several: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pandas", None)
        with pytest.raises(OptionError, match="a data frame needs pandas; run pip install pandas"):
            several.to_dataframe()
    pytest.importorskip("pandas")
    frame = several.to_dataframe()
    assert list(frame["bytes"]) == [row.nbytes for row in (*several.rows, *several.across)]


@pytest.mark.parametrize(("columns", "inches"), [(1, 3.4), (2, 7.0)])
def test_figures_fill_one_or_two_columns(
    columns: int, inches: float, several: Comparison, hostile: Comparison, tmp_path: Path
) -> None:
    over, below = several.plot(columns), hostile.plot(columns)
    for figure in (over, below):
        assert figure.get_size_inches()[0] == pytest.approx(inches)
        figure.savefig(tmp_path / "a.svg")  # the whole name is drawn, and no formula made of it
    assert over.axes[0].get_xscale() == "log"
    line: Any = next(one for one in over.axes[0].containers if one.get_label() == "random")
    own = [row for row in several.rows if row.method == "random"]
    assert sorted(line.lines[0].get_ydata()) == pytest.approx(sorted(100 * row.mean for row in own))
    assert len(below.axes[0].containers) == 3
    with pytest.raises(OptionError, match="columns is 3; it must be 1 or 2"):
        several.plot(3)
