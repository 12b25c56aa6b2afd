"""A study: the same candidates judged cheaply and in full, taken up again from its journal."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

import ddplug
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import DataError, OptionError
from ddplug.search import Candidates, Journal, Judge, Protocol, Study, convnets
from ddplug.search.agreement import EARLY, HEAD, table
from ddplug.search.budget import control_file, data_file, selection_file, steps_within
from ddplug.search.zero_cost import SCORES
from ddplug.synthetic.budget import images_within
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.forecast import Parts
from ddplug.utils.randomness import temporary_seed


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    train, rest = ddplug.load_dataset("digits").split(0.2)
    ddplug.holdout(train.subset(torch.arange(300))).save(folder / "whole.safetensors")
    ddplug.holdout(rest.subset(torch.arange(100))).save(folder / "rest.safetensors")
    ddplug.distill(train, Random(images_per_class=2)).save(folder / "few.safetensors")
    return folder


FULL = Protocol(epochs=4, learning_rate=0.05, batch_size=32, device="cpu")


def drawn(n: int = 6) -> Candidates:
    return convnets((1, 8, 8), 10, n, width=(4, 8), depth=(1, 2))


def study(files: Path, folder: Path, n: int = 6, **options: Any) -> Study:
    pair = files / "whole.safetensors", files / "rest.safetensors"
    proxies = {
        # the truth itself under another key: its ranking is perfect
        "twin": Judge(*pair, replace(FULL, time_limit=1000)),
        "few": Judge(files / "few.safetensors", pair[1], Protocol(epochs=5, device="cpu")),
    }
    return Study(drawn(n), Judge(*pair, FULL), proxies, folder, **options)


def test_a_study_compares_with_the_truth_and_goes_on_where_it_was(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = study(files, tmp_path / "a", zero=("parameters",))
    with pytest.raises(
        DataError, match="0 of 6 candidates have every score, and 'twin' has the fewest; run the study first"
    ):
        whole.rows()
    said: list[str] = []
    monkeypatch.setattr("ddplug.search.agreement.Parts", partial(Parts, clock=float))  # a busy machine takes no time
    whole.run(said.append)
    assert said == [f"{name}: judging 6 candidates" for name in ("twin", "few", "full")]
    rows = {row["name"]: row for row in whole.rows(resamples=20)}
    assert set(rows) == {"twin", "few", "parameters"}
    assert rows["twin"]["spearman"][0] == pytest.approx(1)
    assert rows["twin"]["regret"][0] == 0
    assert (rows["twin"]["cost"], rows["parameters"]["cost"]) == (1, 0)
    assert rows["few"]["cost"] == pytest.approx((3 * 20 * 5 + 100) / (3 * 300 * 4 + 100))
    scores = whole.scores()
    for name in ("few", "parameters"):
        expected = stats.spearmanr(scores[name], scores["full"]).statistic
        assert rows[name]["spearman"][0] == pytest.approx(expected)
        assert rows[name]["regret"][0] >= 0
        assert rows["twin"]["over"][name][0] == pytest.approx(1 - expected)
        assert rows[name]["over"]["twin"][0] == pytest.approx(expected - 1)
    samples, make = whole.candidates.samples, whole.candidates.make
    with temporary_seed(0):
        networks = [make(sample)() for sample in samples]
    assert scores["parameters"] == [sum(p.numel() for p in network.parameters()) for network in networks]
    json.dumps(list(rows.values()), allow_nan=False)
    cells = table(whole.rows(resamples=20))
    assert cells[0] == HEAD
    assert {len(row) for row in cells} == {len(HEAD)}
    titles = [axes.get_title() for axes in whole.figure().axes if axes.get_visible()]
    assert titles[0] == "twin\nSpearman 1.00"
    assert whole.ceiling() is None

    # again: nothing is trained, and one that is longer trains only what is new
    lines = len(Journal(tmp_path / "a" / "journal.jsonl").read())
    assert lines == 18
    again = study(files, tmp_path / "a")
    assert again.records("few") == whole.records("few")
    again.run()
    longer = study(files, tmp_path / "a", 7)
    # one candidate a judge, of which the last costs as much as the first, and the one between a tenth
    monkeypatch.setattr("ddplug.search.agreement.Parts", partial(Parts, clock=count(0, 30).__next__))
    said.clear()
    longer.run(said.append)
    assert said[1].startswith(
        "all this takes about 63 seconds; fewer candidates (--architectures) or less full training"
    )
    assert len(said) == 4
    assert len(Journal(tmp_path / "a" / "journal.jsonl").read()) == lines + 3
    assert longer.scores()["few"][:6] == scores["few"]


def test_candidates_are_ranked_by_each_seed_and_those_of_the_truth_give_a_ceiling(files: Path, tmp_path: Path) -> None:
    twice = study(files, tmp_path)
    few = Judge(files / "few.safetensors", files / "rest.safetensors", Protocol(epochs=5, seeds=2, device="cpu"))
    whole = Judge(files / "whole.safetensors", files / "rest.safetensors", replace(FULL, epochs=1, seeds=2))
    twice = Study(drawn(), whole, {"few": few}, tmp_path)
    twice.run()
    accuracies = {name: [r.result.accuracies for r in twice.records(name) if r] for name in ("few", "full")}
    ranks = np.mean([stats.rankdata(seed) for seed in np.transpose(accuracies["few"])], axis=0)
    truth = twice.scores()["full"]
    (row,) = twice.rows(resamples=20)
    assert row["spearman"][0] == pytest.approx(stats.spearmanr(ranks, truth).statistic)
    # as a share of one full training, whatever the truth took
    assert row["cost"] == pytest.approx(2 * (3 * 20 * 5 + 100) / (3 * 300 + 100))
    between = stats.spearmanr(*np.transpose(accuracies["full"])).statistic
    assert twice.ceiling() == pytest.approx(np.sqrt(2 * between / (1 + between)))


def test_other_candidates_in_the_same_folder_are_judged_too(files: Path, tmp_path: Path) -> None:
    first = study(files, tmp_path)
    first.run()
    other = study(files, tmp_path, 10)
    assert [record is None for record in other.records("few")] == [False] * 6 + [True] * 4


def test_failures_are_named(files: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pair = files / "few.safetensors", files / "rest.safetensors"
    failing = Study(drawn(2), Judge(*pair, Protocol(epochs=2, time_limit=1e-9, device="cpu")), {}, tmp_path)
    failing.run()
    assert capfd.readouterr() == ("", "")
    with pytest.raises(DataError, match=r"0 of 2 .* 'full' has the fewest; one failed with 'time limit of 1e-09 s'"):
        failing.rows()
    assert failing.records("full") == [None, None]


def test_untrained_scores_of_spaces_of_colored_images(files: Path, tmp_path: Path) -> None:
    protocol = Protocol(channels=3, device="cpu")
    full = Judge(files / "whole.safetensors", files / "rest.safetensors", protocol)
    colored = convnets((3, 8, 8), 10, 2, width=(4,), depth=(1,))
    found = [Study(colored, full, {}, tmp_path, zero=tuple(SCORES)).scores() for _ in range(2)]
    assert all(None not in found[0][name] for name in SCORES)
    assert found[0] == found[1]


@pytest.mark.parametrize("seeds", [1, 2])
def test_all_proxies_of_a_study_at_one_cost_take_the_same_steps_of_the_same_recipe(
    files: Path, tmp_path: Path, seeds: int
) -> None:
    pair = files / "whole.safetensors", files / "rest.safetensors"
    full = Judge(*pair, Protocol(epochs=9, learning_rate=0.07, seeds=2, device="cpu"))
    made = SyntheticSet.load(files / "few.safetensors")
    other = replace(made, recipe=Recipe(learning_rate=0.5, augment="flip"))
    proxy = Protocol(batch_size=32, learning_rate=0.03, seeds=seeds, device="cpu")
    sets: dict[str, Any] = {"few": files / "few.safetensors", "other": other}
    own = Study.at_one_cost(
        drawn(3), full, sets, tmp_path, share=0.1, validation=pair[1], protocol=proxy, zero=("synflow",)
    )
    assert list(own.judges) == ["few", "other", EARLY, "full"]
    assert own.zero == ("synflow",)
    # one full training passes 300 images 9 times, 3 times each, and 100 once; the smallest set holds 20
    budget = 0.1 * (3 * 300 * 9 + 100)
    protocols = {name: own.proxies[name].protocol for name in own.proxies}
    recipes = {name: protocols[name].recipe(own.proxies[name].sets()[0].recipe) for name in own.proxies}
    assert len(set(protocols.values())) == len({replace(recipe, epochs=1) for recipe in recipes.values()}) == 1
    assert recipes[EARLY].steps == (budget / seeds - 100) // (3 * 20)
    assert (recipes[EARLY].batch_size, recipes[EARLY].learning_rate) == (20, 0.03)
    assert recipes[EARLY].augment == made.recipe.augment
    assert {judge.cost for judge in own.proxies.values()} == {own.proxies["few"].cost}
    assert budget - seeds * 3 * 20 < own.proxies["few"].cost <= budget
    with pytest.raises(OptionError, match=r"a cost of .* image passes does not allow one step of 20 images, scored on"):
        Study.at_one_cost(drawn(3), full, sets, tmp_path, share=0.001, validation=pair[1], protocol=proxy)


def test_a_control_is_stored_as_its_set_in_no_more_bytes(tmp_path: Path) -> None:
    train = ddplug.load_dataset("digits").split(0.2)[0]
    floats = ddplug.distill(train, Random(images_per_class=2))
    kept = [floats.quantize("float32"), floats.quantize(), floats.quantize(bits=4)]
    paths = [control_file(train, "random", like, tmp_path) for like in kept]
    assert len(set(paths)) == 3
    for like, path in zip(kept, paths, strict=True):
        control = SyntheticSet.load(path)
        each = len(control) // 10
        assert control.nbytes <= like.nbytes
        assert (control.levels is None, control.bits) == (False, 8 if like.levels is None else like.bits)
        assert each == images_within(like.nbytes, train, bits=control.bits)
    stamp = paths[0].stat().st_mtime_ns
    assert control_file(train, "random", kept[0], tmp_path) == paths[0]
    assert paths[0].stat().st_mtime_ns == stamp


def test_files_are_written_once_and_never_over_others(tmp_path: Path) -> None:
    train, rest = ddplug.load_dataset("digits").split(0.2)
    first = selection_file(train, "random", 2, tmp_path)
    stamp = first.stat().st_mtime_ns
    assert selection_file(train, "random", 2, tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    assert selection_file(train, "random", 2, tmp_path, seed=1) != first
    with pytest.raises(OptionError, match=r"random-2-seed-0.safetensors holds another set.*choose another folder"):
        selection_file(rest, "random", 2, tmp_path)
    whole = data_file(train, tmp_path / "whole.safetensors")
    assert len(SyntheticSet.load(data_file(train, whole))) == len(train)
    for data, path in ((rest, whole), (train, first)):
        with pytest.raises(OptionError, match="holds another set"):
            data_file(data, path)


@pytest.mark.parametrize(("budget", "steps"), [(400, 1), (699, 1), (700, 2)])
def test_steps_fill_the_cost_and_never_exceed_it(budget: float, steps: int) -> None:
    assert steps_within(budget, batch_size=100, scored=100) == steps


def test_mistakes_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a cost of 399 image passes does not allow one step of 100 images"):
        steps_within(399, batch_size=100, scored=100)
    with pytest.raises(OptionError, match="a study of 1 candidates ranks nothing"):
        study(files, tmp_path, 1)
    full = study(files, tmp_path).full
    for name in ("full", "synflow"):
        with pytest.raises(OptionError, match=re.escape(f"a proxy is named {name!r}, which is taken")):
            Study(drawn(), full, {name: full}, tmp_path, zero=("synflow",))
    with pytest.raises(OptionError, match="unknown zero-cost score 'nwott'; did you mean 'nwot'"):
        Study(drawn(), full, {"few": full}, tmp_path, zero=("nwott",))
    assert Study(drawn(), full, {}, tmp_path, zero="synflow").zero == ("synflow",)
    with pytest.raises(OptionError, match="a set is named 'early stopping', which is taken"):
        options: dict[str, Any] = {"share": 0.5, "validation": full.validation, "protocol": Protocol(device="cpu")}
        Study.at_one_cost(drawn(), full, {EARLY: full.train}, tmp_path, **options)


def test_untrained_scores_pass_over_what_fails_and_what_is_changed_in_the_protocol(files: Path, tmp_path: Path) -> None:
    def make(sample: Any) -> Any:
        if sample["width"] == 3:
            return partial(int, "no network")
        return f"mlp:width={sample['width']}", {"learning_rate": 0.01}

    full = study(files, tmp_path).full
    drawn: Any = ({"width": n} for n in (2, 3, 4, 8))
    own = Study(Candidates(drawn, make), full, {"few": full}, tmp_path, ("parameters",))
    own.run()
    scores = own.scores()["parameters"]
    assert [score is None for score in scores] == [False, True, False, False]
    (row,) = (row for row in own.rows(resamples=2) if row["name"] == "parameters")
    assert (row["number"], row["failed"]) == (3, 1)
    estimators = Candidates([{"k": 1}, {"k": 2}], lambda sample: KNeighborsClassifier(sample["k"]))
    with pytest.raises(OptionError, match="'parameters' is a score of networks, and a candidate is a KNeighbors"):
        Study(estimators, full, {}, tmp_path, ("parameters",)).scores()
