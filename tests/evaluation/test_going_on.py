"""Judging says how long it takes, keeps what is done, and goes on from there with the same numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ddplug.distillation.loop import distill
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import OptionError
from ddplug.evaluation.comparison import compare
from ddplug.evaluation.finished import Finished
from ddplug.evaluation.pace import Load, Pace
from ddplug.evaluation.protocols import named, settled
from ddplug.evaluation.results import cross_architecture, evaluate
from ddplug.evaluation.train import train_each, train_on
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images

SHORT = Recipe(epochs=3, learning_rate=0.05, batch_size=4)
TRAIN = toy_images((9, 9))
MADE = distill(TRAIN, Random(images_per_class=2), device="cpu").quantize()
BATCHED = "convnet:width=2,depth=1,norm=batch"
"""Its networks are trained one after the other."""


def spied(monkeypatch: pytest.MonkeyPatch, stop: int = 10**9) -> list[tuple[int, ...]]:
    """Note which networks each row has already; the row of a number is stopped after its first networks."""
    seen: list[tuple[int, ...]] = []

    def spy(data: Sequence[Any], *rest: Any, ready: Any, **options: Any) -> list[nn.Module]:
        seen.append(options["done"])

        def stopping(modules: Any) -> None:
            ready(modules)
            if len(seen) > stop:
                raise KeyboardInterrupt

        return train_each(data, *rest, ready=stopping, **options)

    monkeypatch.setattr("ddplug.evaluation.results.train_each", spy)
    return seen


@pytest.mark.parametrize(("network", "stop", "kept"), [(BATCHED, 0, 1), (BATCHED, 2, 7), ("mlp:width=4", 1, 6)])
def test_a_stopped_comparison_goes_on_to_the_same_numbers(
    network: str, stop: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"network": network, "recipe": SHORT, "repeats": 3, "whole_steps": 3, "device": "cpu"}
    plain = compare(MADE, TRAIN, TRAIN, **options)
    file = tmp_path / "rows"
    with monkeypatch.context() as stopped:
        spied(stopped, stop)
        with pytest.raises(KeyboardInterrupt):
            compare(MADE, TRAIN, TRAIN, checkpoint=file, **options)
    assert sum(map(len, json.loads(file.read_text())["rows"].values())) == kept
    seen = spied(monkeypatch)
    again = compare(MADE, TRAIN, TRAIN, checkpoint=file, **options)
    assert sum(map(len, seen)) == kept
    assert [row.evaluation.accuracies for row in again.rows] == [row.evaluation.accuracies for row in plain.rows]
    assert not file.exists()


def test_nothing_is_taken_from_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever differs, the set by one number included, is trained anew; and what is kept stays for its own run."""
    file = tmp_path / "rows"
    options: dict[str, Any] = {"network": BATCHED, "recipe": SHORT, "repeats": 3, "device": "cpu", "checkpoint": file}
    with monkeypatch.context() as stopped:
        spied(stopped, 0)
        with pytest.raises(KeyboardInterrupt):
            evaluate(MADE, TRAIN, **options)
    seen = spied(monkeypatch)
    moved = MADE.inputs.clone()
    moved[0, 0, 0, 0] += 1e-3
    others: list[tuple[SyntheticSet, Any, dict[str, Any]]] = [
        (replace(MADE, inputs=moved, levels=None), TRAIN, {}),
        (replace(MADE, targets=MADE.targets.flip(0)), TRAIN, {}),
        (MADE, toy_images((9, 8)), {}),
        (MADE, TRAIN, {"recipe": replace(SHORT, epochs=4)}),
        (MADE, TRAIN, {"network": "convnet:width=3,depth=1,norm=batch"}),
        (MADE, TRAIN, {"seed": 1}),
        (MADE, TRAIN, {"repeats": 4}),
        (MADE, TRAIN, {"network": lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 2))}),
    ]
    for made, test, more in others:
        evaluate(made, test, **{**options, **more})
    assert seen == [()] * len(others)
    evaluate(MADE, TRAIN, **options)
    assert seen[-1] == (0,)
    assert not file.exists()


@pytest.mark.parametrize(
    "content",
    [
        "mine",
        "[]",
        '{"format": "other", "rows": {}}',
        '{"format": "ddplug-evaluation/1", "rows": {"a": [[0, 2.0, 1]]}}',
        '{"format": "ddplug-evaluation/1", "rows": {"a": [[0, NaN, 1]]}}',
        '{"format": "ddplug-evaluation/1", "rows": {"a": [[true, 0.5, 1]]}}',
        '{"format": "ddplug-evaluation/1", "rows": {"a": 3}}',
        "[" * 100_000,
    ],
)
def test_files_of_others_are_refused_and_stay(content: str, tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_text(content)
    with pytest.raises(OptionError, match="exists and does not hold evaluations by ddplug; choose another path"):
        evaluate(MADE, TRAIN, network="mlp:width=4", recipe=SHORT, device="cpu", checkpoint=file)
    assert file.read_text() == content


def test_what_is_kept_can_be_asked_for_and_dropped(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    one, two = Finished(file), Finished(file)
    one.find("a")
    one.put("a", {0: (0.5, 1.0)})
    two.put("b", {1: (0.25, 2.0)})
    assert Finished(file).find("a") == {0: (0.5, 1.0)}
    one.forget()
    assert (Finished(file).find("a"), Finished(file).find("b")) == ({}, {1: (0.25, 2.0)})
    two.find("b")
    two.forget()
    assert not file.exists()


# -- how long --


def paced(seconds: float, loads: Sequence[Load], *, quick: bool = False) -> list[str]:
    """Take all steps of some rows, each in as many seconds."""
    now, lines = [0.0], list[str]()
    pace = Pace(loads, lines.append, "training", quick=quick, clock=lambda: now[0])
    for load in loads:
        pace.begin()
        for _ in range(load.steps):
            now[0] += seconds * load.step / loads[0].step
            pace.tick(load.networks)
        pace.end("50.0 %")
    return lines


def test_the_whole_duration_comes_first_then_each_row_and_what_is_left() -> None:
    loads = [Load("dm", 1, 100, 10, 0), Load("random", 1, 100, 10, 0), Load("whole", 1, 400, 10, 0)]
    assert paced(0.5, loads) == [
        "training takes about 5 minutes in all; fewer repeats (--repeats), recipe='quick' (--protocol quick) or a "
        "smaller network (--network) take less",
        "1 of 3: dm: 50.0 % (about 4 minutes left)",
        "2 of 3: random: 50.0 % (about 3 minutes left)",
        "3 of 3: whole: 50.0 %",
    ]
    assert paced(0.5, [Load("dm", 1, 100, 10, 0), Load("random", 1, 100, 28, 0)])[0].startswith(
        "training takes about 2 minutes in all; fewer "
    )
    assert paced(0.1, loads)[0] == "training takes about 60 seconds in all"
    assert "quick" not in paced(0.5, loads, quick=True)[0]


def test_of_what_is_short_nothing_is_said() -> None:
    assert paced(0.02, [Load("dm", 2, 100, 10, 0)]) == []


def test_rows_that_are_done_count_for_nothing() -> None:
    now, lines = [0.0], list[str]()
    pace = Pace([Load("dm", 2, 50, 1, 0), Load("random", 2, 50, 1, 0)], lines.append, "training", clock=lambda: now[0])
    pace.begin()
    pace.skip(2)
    pace.end("50.0 %")
    pace.begin()
    for _ in range(50):
        now[0] += 1.0
        pace.tick(2)
    pace.end("60.0 %")
    assert lines == ["training takes about 50 seconds in all; 2 networks were done before", "2 of 2: random: 60.0 %"]


def test_lines_go_to_whoever_asks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("ddplug.evaluation.pace.LONG", 0.0)
    monkeypatch.setattr("ddplug.evaluation.pace._PROBE", 0.0)
    options: dict[str, Any] = {"repeats": 1, "recipe": SHORT, "device": "cpu"}
    lines: list[str] = []
    evaluate(MADE, TRAIN, network="mlp:width=4", progress=lines.append, **options)
    assert lines[0].startswith("training 1 networks, own (3 epochs), takes about ")
    assert lines[1].startswith("mlp:width=4: ")
    assert capsys.readouterr() == ("", "")
    cross_architecture(MADE, TRAIN, ["mlp:width=4", BATCHED], progress=True, **options)
    err = capsys.readouterr().err
    assert "training 2 networks" in err and "1 of 2: mlp:width=4: " in err and f"2 of 2: {BATCHED}: " in err
    rows: list[str] = []
    lines.clear()
    compare(
        MADE, TRAIN, TRAIN, network="mlp:width=4", baselines=[], whole=False, across=[BATCHED],
        progress=lines.append, **options,
    )  # fmt: skip
    assert lines[1].startswith("1 of 2: random: ") and lines[2].startswith(f"2 of 2: random with {BATCHED}: ")
    compare(
        MADE, TRAIN, TRAIN, network="mlp:width=4", whole_steps=2, on_row=lambda row: rows.append(row.kind), **options
    )
    assert rows == ["set", *["baseline"] * 3, "whole data"]


# -- by which protocol --


def test_on_a_cpu_the_published_protocol_becomes_the_quick_one_unless_it_is_asked_for() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    own = Recipe.paper("crop")
    assert settled(None, own, cpu) == settled("quick", own, gpu) == settled(Recipe.quick(), own, gpu)
    assert settled(None, own, cpu) == Recipe.quick("crop") != Recipe.quick("")
    assert (
        settled(None, own, gpu) == settled("set", own, cpu) == settled("paper", Recipe.by_steps(9, "crop"), cpu) == own
    )
    for kept in (Recipe.by_steps(9, "crop"), SHORT, replace(own, epochs=7)):
        assert settled(None, kept, cpu) == kept
    with pytest.raises(OptionError, match="unknown protocol 'quik'; did you mean 'quick'"):
        settled("quik", own, cpu)


def test_quick_is_one_protocol_everywhere() -> None:
    made = replace(MADE, recipe=Recipe.paper("flip"))
    found = [
        evaluate(made, TRAIN, network="mlp:width=2", repeats=1, recipe=recipe, device="cpu")
        for recipe in (None, "quick", Recipe.quick(), Recipe.quick("flip"))
    ]
    assert {one.accuracies for one in found} == {found[0].accuracies}
    assert {one.recipe for one in found} == {Recipe.quick("flip")}
    assert (found[0].protocol, found[0].to_json()["protocol"]) == ("quick", "quick")
    assert "quick (200 epochs with flip)" in repr(found[0])
    # a shortened one takes the operations of the set too, and one that names some keeps them
    assert replace(Recipe.quick(), epochs=3).on("flip") == replace(Recipe.quick("flip"), epochs=3)
    assert replace(Recipe.quick(), augment="crop").on("flip").augment == "crop"
    assert Recipe(epochs=3).on("flip").augment == ""
    assert (named(Recipe.paper("crop")), named(SHORT)) == ("paper", "own")
    weights = []
    for recipe in (replace(Recipe.quick(), epochs=2), replace(Recipe.quick("flip"), epochs=2)):
        (module,) = train_on(made, "mlp:width=2", recipe=recipe, rng=torch.Generator().manual_seed(0), device="cpu")
        weights.append(next(module.parameters()))
    assert torch.equal(weights[0], weights[1])
