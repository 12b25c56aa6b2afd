"""What speed is measured against does the same work: plain steps give the library's images."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ddplug.registry import resolve
from ddplug.testing import toy_images
from examples.benchmarks import speed, speed_accuracy
from examples.benchmarks.published import STEPS

SMALL = {"network": "convnet:width=4"}


def small(name: str) -> speed.Row:
    row = speed.ROWS[name]
    options = {**row.options, **SMALL}
    if "batch_real" in options:
        options["batch_real"] = 3
    if "inner_loop" in options:
        options["inner_loop"] = 2
    return replace(row, options=options, classes=3, side=12)


@pytest.mark.parametrize("name", ["dm-1", "dm-10", "dc-1", "dc-10", "dsa-1", "mtt-1", "mtt-10"])
def test_both_sides_come_to_the_same_images(name: str) -> None:
    ours, theirs, begun = speed.sides(small(name))
    first, second = ours(), theirs()
    # of the step: a pixel moves by 65 where trajectories are matched, and by 0.02 where gradients are
    assert float((first - second).norm()) <= 1e-5 * float((second - begun["inputs"]).norm())


def test_a_plain_step_trains_the_network_too() -> None:
    row = small("dc-10")
    ours, theirs, _ = speed.sides(replace(row, options={**row.options, "outer_loop": 2}))
    torch.testing.assert_close(ours(), theirs(), rtol=1e-4, atol=1e-5)
    assert {row.method for row in speed.ROWS.values()} == {*STEPS}


def test_rows_take_the_place_of_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "ROWS", {name: small(name) for name in ("dm-1", "idc-10")})
    monkeypatch.setattr(speed, "convolution_peak", lambda: 1e9)
    out = tmp_path / "speed.json"
    for names in (["idc-10"], ["dm-1"], ["dm-1"]):
        chosen = [text for name in names for text in ("--row", name)]
        monkeypatch.setattr(sys, "argv", ["speed.py", *chosen, "--pairs", "1", "--out", str(out)])
        threads = torch.get_num_threads()
        speed.main()
        torch.set_num_threads(threads)
    rows = json.loads(out.read_text())["rows"]
    assert [row["row"] for row in rows] == ["dm-1", "idc-10"]
    assert rows[0]["same images"] == "yes" and rows[0]["memory (MB)"] > 0


@pytest.mark.parametrize("name", ["dm-10", "dc-1"])
def test_the_published_side_goes_on_as_the_library_does(name: str) -> None:
    row, data = speed_accuracy.ROWS[name], toy_images(size=12)
    published = {**row.published, "batch_real": 3}
    loops = {"outer_loop": 1} if row.method == "dc" else {}
    method = resolve("distiller", row.method)(images_per_class=2, network="convnet:width=4", **published, **loops)
    found = []
    for side in (speed_accuracy.plain_step, speed_accuracy.library_step):
        rng = torch.Generator().manual_seed(0)
        state, step = method.init(data, rng), side(method, data, rng)
        for _ in range(3):
            state = step(state)
        found.append(state["inputs"])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_side_is_judged_at_the_start_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed_accuracy, "NETWORK", "convnet:width=4,depth=1")
    row = speed_accuracy.Row("dc", 2, "real", {"inner_loop": 1, "batch_real": 2}, 0.0, plain=False)
    monkeypatch.setattr(speed_accuracy, "ROWS", {"dc-small": row})
    data = toy_images(size=12)
    found = speed_accuracy.measure("dc-small", data, data, 0.01)
    assert found["published, best (%)"] >= found["start (%)"] > 0
    assert (found["library there (CPU s)"] is None) == (found["library, best (%)"] < found["target (%)"])


def points(*course: tuple[float, float], spread: float = 0.0) -> list[speed_accuracy.Point]:
    """Two networks that differ by twice the spread at each of some seconds."""
    return [
        speed_accuracy.Point(seconds, (accuracy - spread, accuracy + spread), n)
        for n, (seconds, accuracy) in enumerate(course)
    ]


SLOW = (0.0, 70.0), (10.0, 80.0), (20.0, 84.6), (40.0, 85.4), (60.0, 84.9)
FAST = (2.0, 70.0), (4.0, 84.7), (6.0, 84.9), (60.0, 85.1)


def test_without_spread_the_target_is_the_best_of_the_published_side() -> None:
    better = points(*FAST[:3], (20.0, 85.4))
    found = speed_accuracy.compared(points(*SLOW), better)
    assert (found["margin"], found["target (%)"]) == (0, 85.4)
    assert (found["published there (CPU s)"], found["library there (CPU s)"], found["times less"]) == (40, 20, 2)
    never = speed_accuracy.compared(points(*SLOW), points(*FAST))
    assert (never["library there (CPU s)"], never["library's steps"], never["times less"]) == (None, None, None)


def test_both_sides_are_timed_at_the_target_less_the_luck_of_a_judgment() -> None:
    # two networks apart by 0.8: a variance of 0.32, a standard error of 0.4
    found = speed_accuracy.compared(points(*SLOW, spread=0.4), points(*FAST, spread=0.4))
    assert (found["margin"], found["target (%)"]) == (0.8, 84.6)
    assert (found["published there (CPU s)"], found["its steps"]) == (20, 2)
    assert (found["library there (CPU s)"], found["library's steps"], found["times less"]) == (4, 1, 5)
    # the spread of all judgments counts, of either side
    half = speed_accuracy.compared(points(*SLOW), points(*SLOW, spread=0.4))
    assert half["margin"] == pytest.approx(0.8 / 2**0.5, abs=0.005)


@pytest.mark.parametrize("spread", [0.0, 0.3, 2.0])
def test_a_course_is_as_fast_as_itself(spread: float) -> None:
    for course in (SLOW, FAST):
        found = speed_accuracy.compared(points(*course, spread=spread), points(*course, spread=spread))
        assert found["times less"] == 1


def test_a_start_that_is_as_good_is_no_ratio() -> None:
    found = speed_accuracy.compared(points((0.0, 85.0), (10.0, 85.1), spread=0.4), points(*SLOW, spread=0.4))
    assert (found["published there (CPU s)"], found["its steps"], found["times less"]) == (0, 0, None)


def test_both_sides_are_looked_at_after_the_same_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: clock[0])

    def step(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        clock[0] += 0.125
        return state

    looks = [
        [point.seconds for point in speed_accuracy.course({}, step, lambda state: (0.0, 0.0), before, 6.0)]
        for before in (0.0, 2.0)
    ]
    assert looks == [[0, 1, 1.5, 2.25, 3.375, 5.125, 6], [2, 2.25, 3.375, 5.125, 6]]
