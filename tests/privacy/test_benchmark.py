"""The audit of many methods: its rows, and its picture."""

from __future__ import annotations

import numpy as np
import pytest

import ddplug
from ddplug import registry
from examples.benchmarks.privacy_audit import ROWS, Row, measure, measure_trained, picture


def test_a_row_says_what_was_measured() -> None:
    train, test = (ddplug.load_dataset("digits", split=split).split(0.2)[1] for split in ("train", "test"))
    row = measure(Row("random", {"images_per_class": 1}), train, test, 4, 8, "convnet:width=4,depth=1")
    assert (row["images"], row["bytes"]) == (10, 10 * 64 + 10 + 8)
    assert row["near training images, of all"] == "10 of 10"
    assert row["AUC"] > 0.5 and row["stated epsilon"] is None
    assert row["found at 0.1 % false alarms (%)"] is None  # there are too few others to count
    trained = measure_trained(train, test, 4, "convnet:width=4,depth=1")
    assert trained.keys() == row.keys()
    assert (trained["images"], trained["bytes"]) == (0, 4 * (9 * 4 + 3 * 4 + 10 * (4 * 6 * 6 + 1)))
    assert trained["accuracy (%)"] > row["accuracy (%)"]


def test_every_row_can_be_made() -> None:
    for row in ROWS.values():
        registry.resolve("distiller", row.method)(**row.options)
    assert [row.options["epsilon"] for name, row in ROWS.items() if name.startswith("dp-dm")] == [1.0, 10.0]


@pytest.mark.parametrize("dark", [False, True])
def test_the_picture_has_each_row_that_was_counted(dark: bool) -> None:
    rows = [
        {"set": name, "accuracy (%)": accuracy, "found at 0.1 % false alarms (%)": share, "stated epsilon": epsilon}
        for name, accuracy, share, epsilon in (("a", 50.0, 2.0, None), ("b", 40.0, 0.0, 1.0), ("c", 9.0, None, None))
    ]
    axes = picture(rows, dark).axes[0]
    assert [np.concatenate(line.get_data()).tolist() for line in axes.get_lines()[:2]] == [
        [2.0, 50.0],
        [0.01, 40.0],  # what is not found at all stands at the edge
    ]
    assert {text.get_text() for text in axes.texts} == {"a", "b", "guessing"}
