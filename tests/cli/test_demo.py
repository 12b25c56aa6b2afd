"""The demo writes everything that it says, repeats itself, and touches no folder that is not its own."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from ddplug.cli.demo import CHAPTERS, Demo, run_demo
from ddplug.cli.demo.continual import continual
from ddplug.cli.demo.stage import Size, Stage
from ddplug.cli.program import main
from ddplug.data import datasets
from ddplug.errors import OptionError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.page import Chapter

SMALL = Size(
    budgets={1: 2, 2: 2},
    network="convnet:width=4,depth=1",
    methods={"dm": {"steps": 3, "pool_size": 2}, "dc": {"steps": 2, "batch_real": 8, "inner_loop": 1}},
    repeats=2,
    whole_steps=5,
    memories=(10, 20),
    epochs=1,
    replayed={"random": {}, "dm": {"steps": 2, "pool_size": 2}},
    candidates=6,
    space={"widths": (4, 8), "depths": (1,), "poolings": ("avg", "max")},
    searched={"dm": {"network": "convnet:width=4,depth=1", "steps": 2, "pool_size": 2}, "random": {}},
    search_epochs=3,
    share=0.3,
)
AVALANCHE = find_spec("avalanche") is not None


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Demo:
    return run_demo(tmp_path_factory.mktemp("demo") / "out", seed=3, size=SMALL, say=said.append)


def test_every_file_is_there_and_nothing_else(made: Demo) -> None:
    names = [f"digits-{method}-{n}" for method in ("dm", "dc") for n in (1, 2)]
    wanted = {f"{name}.{kind}" for name in names for kind in ("safetensors", "png")}
    wanted |= {"accuracy.png", "report.html", "results.json"}
    if AVALANCHE:
        wanted |= {"continual.png", "memory-replay-20.png", "memory-random-20.png", "memory-dm-20.png"}
    wanted |= {"search.png"}
    assert {path.name for path in made.folder.iterdir()} == wanted
    for path in made.folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    for name in names:
        assert SyntheticSet.load(made.folder / f"{name}.safetensors").provenance["seed"] == 3


def test_results_hold_every_set_beside_its_baselines_and_the_bound(made: Demo) -> None:
    values = json.loads((made.folder / "results.json").read_text())
    assert values == json.loads(json.dumps(made.values))
    assert set(CHAPTERS) <= set(values)
    assert (values["finished"], values["seed"]) == (True, 3)
    rows = values["distillation"]["rows"]
    for number in (1, 2):
        own = {row["method"]: row for row in rows if row["budget"] == number and row["method"] != "whole data"}
        assert list(own) == ["dm", "dc", "random", "class-mean", "kmeans"]
        assert {row["nbytes"] for row in own.values()} == {
            SyntheticSet.load(made.folder / f"digits-dm-{number}.safetensors").nbytes
        }
        assert all(row["n"] == 2 and len(row["accuracies"]) == 2 for row in own.values())
    assert [row["steps"] for row in rows if row["method"] == "whole data"] == [5]


def test_report_holds_every_figure_and_picture(made: Demo) -> None:
    page = made.report.read_text()
    cells = [unescape(re.sub("<[^>]*>", "", cell)) for cell in re.findall("<t[dh].*?</t[dh]>", page)]
    assert len(made.summary) == 2 + AVALANCHE
    for row in [row for summary in made.summary for row in summary[1:]]:
        assert any(tuple(cells[n : n + len(row)]) == row for n in range(len(cells)))
    assert page.count("data:image/png;base64,") == 1 + 4 + 2 + 4 * AVALANCHE + 1
    assert page.count("<table>") == 3 + AVALANCHE
    assert not re.search(r'(src|href)="(?!data:|#)', page)


@pytest.mark.skipif(not AVALANCHE, reason="Avalanche is not installed")
def test_continual_learning_compares_memories_of_equal_images(made: Demo) -> None:
    values = made.values["continual"]
    assert values["skipped"] is None
    rows = {(row["strategy"], row["distiller"], row["images"]): row for row in values["rows"]}
    kinds = [("Replay", None), ("DistilledReplay", "random"), ("DistilledReplay", "dm")]
    assert list(rows) == [("Naive", None, 0), *((*kind, images) for images in (10, 20) for kind in kinds)]
    for (strategy, _, images), row in rows.items():
        assert row["nbytes"] == images * 65 + (80 if strategy == "DistilledReplay" else 0)  # 8x8, label; levels
        assert len(row["accuracies"]) == row["n"] == 2
        matrix = np.array(row["matrix"])
        assert matrix.shape == (5, 5)
        assert ((matrix >= 0) & (matrix <= 1)).all()
        # classes that never came are not known: the other experiences are told apart, or the matrix is turned round
        assert matrix[0, 0] > 0.5 > matrix[0, 1:].max()
    # the last row of the matrix is the accuracy, but for uneven numbers of test samples
    for row in rows.values():
        assert np.mean(row["matrix"][-1]) == pytest.approx(row["mean"], abs=0.02)
    assert rows["Naive", None, 0]["mean"] < 0.35 < rows["DistilledReplay", "dm", 20]["mean"]


def test_without_avalanche_continual_learning_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[continual.__module__], "find_spec", lambda name: None)
    data = datasets.load("digits")
    part = continual(Stage(tmp_path, 0, SMALL, pytest.fail, data, data))
    assert part.values == {"skipped": part.note}
    assert part.summary == []
    assert 'pip install "avalanche-lib==0.6.*"' in part.note
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not AVALANCHE, reason="Avalanche is not installed")
def test_continual_learning_leaves_the_global_generators(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = datasets.load("digits")
    size = Size(memories=(10,), epochs=1, repeats=1, replayed={"random": {}})
    before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
    continual(Stage(tmp_path, 0, size, lambda line: None, data, data))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == str(np.random.get_state())
    assert before[2] == random.getstate()
    assert capfd.readouterr() == ("", "")


def test_search_compares_cheap_scores_with_full_training_at_equal_cost(made: Demo) -> None:
    values = made.values["search"]
    assert values["skipped"] is None
    assert {row["name"]: bool(row["cost"]) for row in values["rows"]} == {
        "dm": True,
        "random": True,
        "early stopping": True,
        "parameters": False,
        "synflow": False,
    }
    # never above the cost, and less by an epoch at most
    assert all(0.8 * 0.3 < row["cost"] <= 0.3 for row in values["rows"] if row["cost"])
    assert len(values["samples"]) == len(set(map(str, values["samples"]))) == 6
    for name, scores in values["scores"].items():
        assert len(scores) == 6
        assert name in ("parameters", "synflow") or all(0 <= score <= 1 for score in scores)
    ranks = [row["spearman"][0] for row in values["rows"]]
    assert ranks == sorted(ranks, reverse=True)
    # full training must have taught something, or there is nothing to rank
    assert max(values["scores"]["full"]) > 0.5
    assert min(values["scores"]["full"]) < max(values["scores"]["full"])


def test_the_search_is_silent_and_leaves_test_data_home_and_the_global_generators(tmp_path: Path) -> None:
    code = """
import random, sys
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from ddplug.cli.program import main
from ddplug.data import datasets
from ddplug.cli.demo.stage import Size, Stage
from ddplug.cli.demo.search import search

size = Size(candidates=2, space={"widths": (4,), "depths": (1,), "poolings": ("max",)}, search_epochs=2, share=0.5,
            searched={"random": {}})
data = datasets.load("digits")
before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
part = search(Stage(Path(sys.argv[1]), 0, size, lambda line: print("said", line), data, None))
assert part.values["skipped"] is None
assert torch.equal(before[0], torch.get_rng_state())
assert before[1:] == (str(np.random.get_state()), random.getstate())
"""
    out, home = tmp_path / "out", tmp_path / "home"
    out.mkdir()
    home.mkdir()
    known = {"HOME": str(home), "NNI_CONFIG_DIR": str(home / "nni"), "MPLCONFIGDIR": str(tmp_path / "mpl")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)],
        env={**os.environ, **known},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("said architecture search: ") for line in lines)
    assert [path.name for path in out.iterdir()] == ["search.png"]
    assert [path.name for path in home.rglob("*") if "experiment" in path.name] == []


def test_progress_is_said(made: Demo, said: list[str]) -> None:
    assert [line for line in said if line.startswith("distilling")] == [
        f"distilling digits-{method}-{number}" for number in (1, 2) for method in ("dm", "dc")
    ]


def test_same_seed_gives_the_same_figures_and_an_earlier_demo_is_replaced(made: Demo, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"format": "ddplug-demo/1", "finished": false}')
    (tmp_path / "notes.txt").write_text("mine")
    again = run_demo(tmp_path, seed=3, size=SMALL)
    figures = [
        [
            row["accuracies"]
            for chapter in CHAPTERS
            for row in demo.values[chapter].get("rows", ())
            if "accuracies" in row
        ]
        + [demo.values["search"].get("scores")]
        for demo in (made, again)
    ]
    assert figures[0] == figures[1]
    assert torch.equal(*(SyntheticSet.load(demo.folder / "digits-dc-2.safetensors").inputs for demo in (made, again)))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_number_of_threads_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chapter(stage: object) -> None:
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr("ddplug.cli.demo.CHAPTERS", {"broken": chapter})
    try:
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path / "out", size=SMALL)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["finished"] is False
    assert "The demo is not finished" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize("content", ["mine", '{"format": "other"}', '["ddplug-demo/1"]'])
def test_foreign_folders_are_refused_and_stay_as_they_are(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(OptionError, match=re.escape(f"{tmp_path} is not empty and not of an earlier demo")):
        run_demo(tmp_path, size=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert (tmp_path / "results.json").read_text() == content


def test_folders_that_cannot_be_made_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for path, reason in ((tmp_path / "file", "File exists"), (tmp_path / "none" / "out", "No such file")):
        with pytest.raises(OptionError, match=f"{re.escape(str(path))}: {reason}"):
            run_demo(path, size=SMALL)


def test_a_stopped_demo_says_where_its_page_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(stage: Stage) -> None:
        stage.show(Chapter("Half of it", ["so far"]))
        raise KeyboardInterrupt

    monkeypatch.setattr("ddplug.cli.demo.CHAPTERS", {"stopped": stopped})
    assert main(["demo", "-o", str(tmp_path / "out")]) == 130
    page = tmp_path / "out" / "report.html"
    assert f"interrupted; what there is so far is in {page}" in capsys.readouterr().err
    assert "Half of it" in page.read_text() and "The demo is not finished" in page.read_text()
