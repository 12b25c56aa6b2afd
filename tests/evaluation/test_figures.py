"""A panel a score, the choice of each ringed, and what does not fit together refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ddplug.errors import DataError
from ddplug.evaluation.figures import scatter


def test_panels_hold_every_candidate_and_ring_the_choice(tmp_path: Path) -> None:
    truth = [0.5, 0.9, 0.7]
    scores = {f"score {n}": [n, 2.0 - n, 0.5] for n in range(5)}
    figure = scatter(truth, scores, {"score 0": "Spearman 1.00"})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["score 0\nSpearman 1.00", *list(scores)[1:]]
    for axes, own in zip(shown, scores.values(), strict=True):
        dots, ring = axes.collections
        assert np.allclose(dots.get_offsets(), list(zip(own, [50, 90, 70], strict=True)))
        best = [n for n, value in enumerate(own) if value == max(own)]
        assert np.allclose(ring.get_offsets(), [(own[n], 100 * truth[n]) for n in best])
    ties = scatter(truth, {"ties": [1.0, 2.0, 2.0]}).axes[0].collections[1]
    assert np.allclose(ties.get_offsets(), [(2, 90), (2, 70)])
    figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("scores", "message"),
    [({}, "there are no scores to draw"), ({"short": [1.0]}, "score 'short' has 1 values for 2 candidates")],
)
def test_mistakes_are_refused(scores: dict[str, list[float]], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        scatter([0.1, 0.2], scores)
