"""Figures of the benchmarks of the adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from examples.benchmarks.figures import PUBLISHED, draw, matrices, over_bytes, over_memory, ranking


def result() -> dict[str, Any]:
    """Two strategies with two memories, a bound, and the runs behind them."""

    def row(strategy: str, images: int | None, accuracy: float) -> dict[str, Any]:
        nbytes = images and images * 785
        return {
            "strategy": strategy,
            "images": images,
            "bytes": nbytes,
            "epochs": 1,
            "accuracy (%)": accuracy,
            "deviation": 0.5,
        }

    runs = {}
    for strategy, options in (("Replay", {}), ("DistilledReplay", {"distiller": "dm", "factor": 2})):
        entry = {"strategy": strategy, "memory": 10, "epochs": 1, "options": options}
        runs[json.dumps(entry)] = {"0": {"matrix": [[100, 0], [40, 90]]}, "1": {"matrix": [[98, 0], [50, 94]]}}
    rows = [row("Naive", None, 20), row("Replay", 10, 38), row("Replay", 100, 78), row("DistilledReplay, dm", 10, 90)]
    return {"rows": rows, "runs": runs}


def test_accuracy_is_drawn_over_images_and_bytes() -> None:
    figure = over_memory(result())
    for axes, places in zip(figure.axes, ([10, 100], [7850, 78500]), strict=True):
        lines = {line.get_label(): line for line in axes.containers}
        assert set(lines) == {"Replay", "DistilledReplay, dm"}
        assert lines["Replay"][0].get_xdata().tolist() == places
        assert lines["Replay"][0].get_ydata().tolist() == [38, 78]


def test_matrices_hold_means_over_seeds() -> None:
    figure = matrices(result())
    assert [axes.get_title() for axes in figure.axes] == [
        "Replay, 10 images\n",
        "DistilledReplay, 10 images\ndm, 4 to an image",
    ]
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    assert shown.tolist() == [[99, 0], [45, 92]]


def test_accuracy_is_drawn_over_bytes_beside_what_is_published() -> None:
    rows = [
        {"stored": "random", "network": "mlp", "bytes": nbytes, "accuracy (%)": accuracy, "deviation": None}
        for nbytes, accuracy in ((9000, 60.0), (900, 50.0), (900, 48.0))  # two codecs in the same bytes
    ]
    whole = {"stored": "whole data", "network": "mlp", "bytes": 10**8, "accuracy (%)": 80.0, "deviation": None}
    figure = over_bytes([{"title": "CIFAR-10 in 9 kB", "rows": [*rows, whole]}])
    axes = dict(zip(PUBLISHED, figure.axes, strict=True))
    (line,) = axes["CIFAR-10"].containers
    assert (line[0].get_xdata().tolist(), line[0].get_ydata().tolist()) == ([900, 9000], [50, 60])
    assert [line.get_ydata() for line in axes["CIFAR-10"].lines if line.get_label() == "all the data"] == [[80, 80]]
    assert axes["CIFAR-10"].get_xlim()[1] < 10**8
    assert not axes["MNIST"].containers
    assert [np.asarray(line.get_ydata()).tolist() for line in axes["MNIST"].lines] == [[95.8, 97.6]]


RANKING = {
    "rows": [{"proxy": "early", "Spearman": 0.5}, {"proxy": "parameters", "Spearman": -1.0}],
    "judged": {"full": [0.7, 0.9, 0.8], "early": [0.2, 0.3, 0.6], "parameters": [9.0, 1.0, 2.0]},
}


def test_each_proxy_is_drawn_over_the_truth() -> None:
    panels = ranking(RANKING).axes[:2]
    assert [axes.get_title() for axes in panels] == ["early\nSpearman 0.50", "parameters\nSpearman -1.00"]
    points = panels[0].collections[0].get_offsets()
    assert np.asarray(points).tolist() == [[0.2, 70.0], [0.3, 90.0], [0.6, 80.0]]


@pytest.mark.filterwarnings("error")
def test_pictures_are_written_for_each_result(tmp_path: Path) -> None:
    (tmp_path / "avalanche-toy.json").write_text(json.dumps(result()))
    (tmp_path / "nni-ranking-toy.json").write_text(json.dumps(RANKING))
    (tmp_path / "other.json").write_text("{}")
    draw(tmp_path, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["avalanche-toy-matrix.png", "avalanche-toy-memory.png", "nni-ranking-toy.png"]
    assert all(matplotlib.image.imread(tmp_path / "out" / name).std() > 0 for name in names)
