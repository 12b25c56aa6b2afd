"""What attacks found stands on the page of a set, and in a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ddplug
from ddplug.cli.program import main
from ddplug.privacy.attacks import Membership
from ddplug.privacy.pictures import roc

SMALL = "--network convnet:width=4,depth=1 --no-train"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    ddplug.distill("digits", "random", images_per_class=1, device="cpu").save("set")
    return tmp_path / "page.html"


def test_the_page_tells_what_was_tried_and_found(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"report set --data digits --audit 4 {SMALL} -o page.html".split()) == 0
    written = page.read_text()
    assert "What attacks found</h3>" in written
    assert "10 samples near training samples in pixels" in written
    assert "only a proof excludes them" in written
    assert "confidence, online" in written and "still being attacked" not in written
    # the set, real images beside it, the pairs and the curves
    assert written.count("data:image/png") == 4
    assert "4 shadow sets of halves of the data will take about" in capsys.readouterr().err


def test_an_audit_needs_data_and_a_number_that_does(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "set", "--audit", "0", "-o", "page.html"]) == 2
    assert "give --data" in capsys.readouterr().err
    assert main(f"report set --data digits --audit 3 {SMALL} -o page.html".split()) == 2
    assert "an even number of at least 4" in capsys.readouterr().err


def test_curves_have_the_points_that_can_be_shown() -> None:
    curve = ((0.01, 0.0), (0.1, 0.3), (1.0, 1.0))
    one = Membership("this set", "nearness", "offline", 0.6, (0.5, 0.7), {}, 100, 100, curve)
    axes = roc([one]).axes[0]
    drawn, guessing = axes.get_lines()
    assert np.stack(drawn.get_data()).T.tolist() == [[0.1, 0.3], [1.0, 1.0]]
    assert drawn.get_label() == "this set by nearness, offline"
    assert np.array_equal(*guessing.get_data())
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
