"""Sets as tables, read back by what reads CSV and Parquet."""

from __future__ import annotations

import csv
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddplug.data.datasets import load
from ddplug.distillation import distill
from ddplug.errors import DataError, MissingExtraError
from ddplug.evaluation import evaluate
from ddplug.synthetic.compat import difference, same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.tables import columns_of, to_csv, to_parquet
from ddplug.testing import toy_images, toy_series, toy_table


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def named(folder: Path) -> SyntheticSet:
    lines = [f"{k / 3},{'a,b' if k % 2 else 'c'},{1e6 * k}" for k in range(10)]
    text = "\n".join(['width,"the kind",height', *lines]).replace("a,b", '"a,b"')
    (folder / "own.csv").write_text(text, encoding="utf-8")
    return distill(load(folder / "own.csv", target="the kind"), "random", images_per_class=3, device="cpu")


def test_a_table_comes_out_with_the_names_that_it_came_in_with(tmp_path: Path) -> None:
    made = named(tmp_path)
    made.save(tmp_path / "set.safetensors")
    to_csv(SyntheticSet.load(tmp_path / "set.safetensors"), tmp_path / "rows.csv")
    head, *body = rows(tmp_path / "rows.csv")
    assert head == ["width", "height", "the kind"]
    assert [row[2] for row in body] == ["a,b"] * 3 + ["c"] * 3
    assert np.array_equal(np.array([row[:2] for row in body], np.float32), made.pixels().numpy())  # to the last bit
    again = load(tmp_path / "rows.csv", target="the kind")
    assert (again.columns, again.class_names) == (("width", "height"), ("a,b", "c"))


def test_data_are_judged_by_the_names_of_their_columns(tmp_path: Path) -> None:
    made = named(tmp_path)
    lines = [f"{1e6 * k},{k / 3},{'it' if k % 2 else 'c'}" for k in range(10)]
    (tmp_path / "turned.csv").write_text("\n".join(["height,width,the kind", *lines]).replace("it", '"a,b"'))
    turned = load(tmp_path / "turned.csv", target="the kind")
    own = same_space(made, turned, "test", torch.device("cpu"))
    assert own.inputs.tolist() == turned.inputs[:, [1, 0]].tolist()
    assert difference(made, turned) == "columns: 'width', 'height', and 'height', 'width'"
    renamed = replace(turned, columns=("height", "breadth"))
    with pytest.raises(DataError, match="columns: only the set has 'width'; only the data have 'breadth'"):
        evaluate(made, renamed, repeats=1)


def test_numbers_without_names_are_called_by_their_place() -> None:
    made = [distill(data, "random", images_per_class=1, device="cpu") for data in (toy_table(), toy_series())]
    assert columns_of(made[0]) == (tuple(f"x{k}" for k in range(6)), "label")
    assert columns_of(made[1])[0][:2] + columns_of(made[1])[0][-1:] == ("c0_t0", "c0_t1", "c1_t15")
    picture = distill(toy_images(channels=3), "random", images_per_class=1, device="cpu")
    assert columns_of(picture)[0][9] == "c0_y1_x1"


def test_soft_labels_are_columns_before_the_likeliest(tmp_path: Path) -> None:
    made = distill(toy_table(), "random", images_per_class=1, device="cpu")
    shares = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [0.25, 0.75, 0.0]])
    to_csv(replace(made, targets=shares), tmp_path / "rows.csv")
    head, *body = rows(tmp_path / "rows.csv")
    assert head[6:] == [*(f"probability of class{k}" for k in range(3)), "label"]
    assert body[0][6:] == ["0.5", "0.25", "0.25", "class0"]
    assert [row[-1] for row in body] == ["class0", "class2", "class1"]


@pytest.mark.parametrize(
    "data", [{"columns": ["a"]}, {"columns": ["a"] * 6}, {"columns": 7}, [], {"columns": list("abcdef"), "target": "a"}]
)
def test_names_that_do_not_fit_are_not_taken(data: Any) -> None:
    made = distill(toy_table(), "random", images_per_class=1, device="cpu")
    assert columns_of(replace(made, provenance={"data": data}))[0][0] == "x0"


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="run pip install pyarrow, or export to csv"):
        to_parquet(named(tmp_path), tmp_path / "rows.parquet")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_holds_the_same_table(tmp_path: Path) -> None:
    from pyarrow import parquet

    made = named(tmp_path)
    to_parquet(made, tmp_path / "rows.parquet")
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert table.column_names == ["width", "height", "the kind"]
    assert table.column("width").to_pylist() == made.pixels()[:, 0].tolist()
    assert table.column("the kind").to_pylist() == ["a,b"] * 3 + ["c"] * 3
