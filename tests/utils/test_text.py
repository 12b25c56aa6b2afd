"""Text for people: what a file or the system says is shown on one line, and numbers as papers write them."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from ddplug.evaluation.results import Evaluation
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.text import one_line, os_reason


def test_a_long_line_is_cut() -> None:
    assert one_line("a\n b\tc\x00d", most=7) == "a b c?d"
    assert one_line("abcdefgh", most=7) == "abcdefg..."


def test_the_reason_of_the_system_stands_without_number_and_path(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:
        (tmp_path / "none").read_bytes()
    assert os_reason(caught.value) == os.strerror(2)
    assert os_reason(OSError("only 3 bytes were written")) == "only 3 bytes were written"


@pytest.mark.parametrize("accuracies", [(0.5,), (0.25, 0.75), (0.9, 0.92, 0.97)])
def test_an_accuracy_is_written_as_papers_do(accuracies: tuple[float, ...]) -> None:
    mean, std = f"{100 * fmean(accuracies):.1f}", f"{100 * pstdev(accuracies):.1f}"
    expected = mean if len(accuracies) == 1 else f"{mean} ± {std}"
    assert Evaluation(accuracies, "mlp", Recipe(), 1.0).text == expected
