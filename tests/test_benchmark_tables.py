"""The tables of the documentation say what the committed results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.benchmarks.tables import markdown, page

RESULT = {
    "title": "Speed",
    "claim": "It is fast.",
    "rows": [{"what": "a | b", "seconds": 0.123456, "sets": 3}, {"what": "c", "seconds": None, "sets": 4}],
    "how": "python speed.py",
    "machine": "two cores",
    "versions": {"torch": "2.4", "ddplug": "0.1"},
    "seconds": 61.7,
}


def test_page_shows_every_result_in_the_order_of_the_files(tmp_path: Path) -> None:
    for name, title in (("b", "Second"), ("a", "First")):
        (tmp_path / f"{name}.json").write_text(json.dumps({**RESULT, "title": title}), encoding="utf-8")
    text = page(tmp_path)
    assert text.index("## First") < text.index("## Second")
    assert "| what | seconds | sets |\n| --- | --- | --- |\n| a \\| b | 0.1235 | 3 |\n| c |  | 4 |\n" in text
    assert "Obtained with `python speed.py` on two cores in 62 s; torch 2.4, ddplug 0.1." in text


def test_no_result_is_said_plainly(tmp_path: Path) -> None:
    assert page(tmp_path / "missing") == "No result has been committed yet.\n"


def test_rows_with_other_keys_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\['b'\].*\['a'\]"):
        markdown([{"a": 1}, {"b": 1}])
