"""Searches in this process: nothing lost, nothing trained twice, and results that can be had at any time."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from ddplug.errors import OptionError
from ddplug.utils import packages
from ddplug.utils.randomness import temporary_seed
from tests.nni.toy_search import ForeignEvaluator, ToyEvaluator, executed, toy_space, true_metric
from tests.nni.toy_space import WidthSpace, files

with temporary_seed(0):
    import nni.nas.strategy as strategies
    from nni.nas.experiment.config import NasExperimentConfig

    from ddplug.nni import ProxyEvaluator, ProxyExperiment
    from ddplug.nni.engine import Budget


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    return tmp_path / "trail"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "search"


def search(trail: Path, folder: Path, strategy: Any = None, trials: int = 6, **settings: Any) -> ProxyExperiment:
    evaluator = ToyEvaluator(str(trail), **settings)
    strategy = strategies.Random(seed=0) if strategy is None else strategy
    return ProxyExperiment(toy_space(), evaluator, strategy, trials=trials, folder=folder)


def pairs(experiment: ProxyExperiment) -> dict[int, float | None]:
    return {record.sample["width"]: record.metric for record in experiment.results}


@pytest.mark.parametrize(
    "strategy",
    [
        lambda: strategies.Random(seed=1),
        lambda: strategies.GridSearch(seed=1),
        lambda: strategies.RegularizedEvolution(population_size=3, sample_size=2, mutation_prob=1.0, seed=1),
        strategies.TPE,
    ],
    ids=["random", "grid", "evolution", "tpe"],
)
def test_every_strategy_ends_with_true_pairs(trail: Path, folder: Path, strategy: Any) -> None:
    experiment = search(trail, folder, strategy(), trials=6)
    assert experiment.run() is True
    found = pairs(experiment)
    assert found == {width: true_metric(width) for width in executed(trail)}
    best = max(found, key=true_metric)
    assert experiment.export_top_models(1, formatter="dict") == [{"width": best}]
    model, *rest = experiment.export_top_models(100)
    assert (model.sample, model.metric, len(rest)) == ({"width": best}, true_metric(best), len(found) - 1)
    (network,) = experiment.export_top_models(1, formatter="instance")
    assert network.body[0].out_features == best


def test_a_failing_candidate_is_named_and_the_search_goes_on(trail: Path, folder: Path) -> None:
    fates = {"2": "raise", "5": "complain", "9": "raise"}
    experiment = search(trail, folder, strategies.GridSearch(seed=0), trials=12, fates=fates)
    assert experiment.run() is True
    assert sorted(executed(trail)) == list(range(1, 13))
    assert pairs(experiment) == {width: true_metric(width) for width in range(1, 13) if str(width) not in fates}
    reasons = {record.sample["width"]: record.failure for record in experiment.failures}
    assert reasons[2] == reasons[9] == "RuntimeError: bad luck"
    assert reasons[5] == "RuntimeError: bad luck that nobody wrote down"
    assert len(reasons) == 3


def test_candidates_at_once_have_true_pairs_whatever_becomes_of_their_processes(trail: Path, folder: Path) -> None:
    fates = {"2": "raise", "5": "complain", "7": "die once"}
    evaluator = ToyEvaluator(str(trail), fates)
    experiment = ProxyExperiment(
        toy_space(8), evaluator, strategies.GridSearch(seed=0), trials=8, concurrency=2, folder=folder
    )
    assert experiment.run() is True
    assert sorted(executed(trail)) == [1, 2, 3, 4, 5, 6, 7, 7, 8]
    expected = {width: true_metric(width) for width in (1, 3, 4, 6, 7, 8)}
    assert pairs(experiment) == expected
    for model in experiment._engine.list_models():
        width = model.sample["width"]
        assert model.metric == expected.get(width)
        assert model.metrics.intermediates == ([true_metric(width) / 2] if width in expected else [])
        assert model.status.value == ("trained" if width in expected else "failed")
    assert os.getpid() not in {record.pid for record in experiment.journal.results()}
    reasons = {record.sample["width"]: record.failure for record in experiment.failures}
    assert reasons == {2: "RuntimeError: bad luck", 5: "RuntimeError: bad luck that nobody wrote down"}


def test_the_winner_is_trained_in_full_and_compared_with_chance(tmp_path: Path, home: Path) -> None:
    pair = files(tmp_path)
    with temporary_seed(0):
        space = WidthSpace((2, 4, 8, 16))
    cheap = ProxyEvaluator(*pair, steps=2, device="cpu")
    experiment = ProxyExperiment(space, cheap, strategies.GridSearch(), trials=4, folder=tmp_path / "search")
    experiment.run()
    full = ProxyEvaluator(*pair, steps=30, device="cpu")
    found = experiment.retrain(full, top_k=2, chance=4)
    best = {record.sample["width"] for record in sorted(experiment.results, key=lambda r: -(r.metric or 0))[:2]}
    assert {record.sample["width"] for record in found.records} == best
    assert {record.sample["width"] for record in found.chance} == {2, 4, 8, 16}
    assert all(record.settings["steps"] == 30 for record in found.chance)
    lines = len(experiment.journal.read())
    assert lines == 8
    assert experiment.retrain(full, top_k=1, chance=0).best in found.records
    assert len(experiment.journal.read()) == lines  # known
    # there is nothing to look at in a list of NNI's
    assert not (home / "nni-experiments" / ".experiment").exists()


def test_a_search_without_results_says_so(trail: Path, folder: Path) -> None:
    experiment = search(trail, folder, trials=2, fates={str(width): "raise" for width in range(1, 13)})
    assert experiment.run() is False
    assert len(experiment.failures) == 2
    assert experiment.export_top_models(3) == []


@pytest.mark.parametrize("seed", [0, 7], ids=["the same seed", "another seed"])
def test_a_second_search_goes_on_where_the_first_stopped(trail: Path, folder: Path, seed: int) -> None:
    search(trail, folder, trials=5).run()
    first = executed(trail)
    assert len(first) == 5
    second = search(trail, folder, strategies.Random(seed=seed), trials=8)
    assert set(pairs(second)) == set(first)
    second.run()
    assert len(executed(trail)) == len(set(executed(trail))) == 8
    assert pairs(second) == {width: true_metric(width) for width in executed(trail)}
    third = search(trail, folder, trials=8)
    assert third.run() is True
    assert len(executed(trail)) == 8
    assert third.export_top_models(8, formatter="dict") == second.export_top_models(8, formatter="dict")


def test_the_strategy_is_told_what_the_journal_knows(trail: Path, folder: Path) -> None:
    search(trail, folder, strategies.GridSearch(seed=0), trials=12).run()
    evolution = strategies.RegularizedEvolution(population_size=4, sample_size=2, mutation_prob=1.0, seed=3)
    search(trail, folder, evolution, trials=12).run()
    assert len(executed(trail)) == 12
    again = strategies.RegularizedEvolution(population_size=4, sample_size=2, mutation_prob=1.0, seed=3)
    # all are known and count, so that there is one more to take
    search(trail, folder, again, trials=13).run()
    assert len(executed(trail)) == 12
    assert [one.y for one in again._population] == [true_metric(one.x["width"]) for one in again._population]
    assert len(again._population) == 4


def test_failures_are_tried_again(trail: Path, folder: Path) -> None:
    search(trail, folder, strategies.GridSearch(seed=0), trials=12, fates={"3": "raise"}).run()
    again = search(trail, folder, strategies.GridSearch(seed=0), trials=12)
    assert [record.sample["width"] for record in again.failures] == [3]
    again.run()
    assert executed(trail)[12:] == [3]
    assert again.failures == []
    assert pairs(again)[3] == true_metric(3)


def test_a_strategy_that_repeats_itself_ends(trail: Path, folder: Path) -> None:
    search(trail, folder, strategies.Random(dedup=False, seed=0), trials=40).run()
    assert len(executed(trail)) == len(set(executed(trail))) <= 12


def test_other_settings_share_a_folder_and_nothing_else(trail: Path, folder: Path) -> None:
    one = search(trail, folder, trials=3)
    one.run()
    other = search(trail, folder, strategies.Random(seed=5), trials=3, setting=2)
    assert other.results == []
    assert other.run() is True
    assert len(executed(trail)) == 6
    assert len(one.results) == len(other.results) == 3
    assert not {record.key for record in one.results} & {record.key for record in other.results}


def test_an_evaluator_without_a_journal_has_results_of_this_run(trail: Path, folder: Path) -> None:
    def run() -> ProxyExperiment:
        evaluator = ForeignEvaluator(str(trail), {"4": "complain"})
        made = ProxyExperiment(toy_space(), evaluator, strategies.GridSearch(), trials=12, folder=folder)
        assert made.run() is True
        return made

    first, second = run(), run()
    assert len(executed(trail)) == 24
    for experiment in (first, second):
        assert pairs(experiment) == {width: true_metric(width) for width in range(1, 13) if width != 4}
        assert [record.sample for record in experiment.failures] == [{"width": 4}]
    assert not {record.key for record in first.results} & {record.key for record in second.results}


def test_without_a_folder_the_journal_is_among_the_files_of_nni(trail: Path, home: Path) -> None:
    experiment = ProxyExperiment(toy_space(), ToyEvaluator(str(trail)), strategies.Random(), trials=2)
    experiment.run()
    assert experiment.journal.path == home / "nni-experiments" / experiment.id / "journal.jsonl"
    assert len(experiment.results) == 2


def test_the_evaluators_own_journal_is_kept(trail: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    evaluator = ToyEvaluator(str(trail), journal=str(own))
    experiment = ProxyExperiment(toy_space(), evaluator, strategies.Random(), trials=2)
    experiment.run()
    assert experiment.evaluator is evaluator
    assert experiment.journal.path == own
    with pytest.raises(OptionError, match=r"own\.jsonl, the folder .*; give one of them"):
        ProxyExperiment(toy_space(), evaluator, strategies.Random(), folder=tmp_path / "other")


def test_a_configuration_is_copied_and_kept(trail: Path, folder: Path, tmp_path: Path) -> None:
    config = NasExperimentConfig("sequential", "simplified")
    config.max_trial_number = 4
    config.experiment_working_directory = str(tmp_path / "mine")
    before = config.json()
    evaluator = ToyEvaluator(str(trail), {"8": "raise", "9": "raise"})
    experiment = ProxyExperiment(toy_space(), evaluator, strategies.Random(seed=0), config, folder=folder)
    experiment.run()
    assert len(executed(trail)) == 4
    assert config.json() == before
    assert (tmp_path / "mine" / experiment.id / "log" / "experiment.log").exists()
    assert (folder / "journal.jsonl").exists()


def test_stopping_twice_and_before_the_start_does_no_harm(trail: Path, folder: Path) -> None:
    experiment = search(trail, folder, trials=2)
    experiment.run()
    experiment.stop()
    assert len(experiment.results) == 2
    unstarted = search(trail, folder, trials=3)
    unstarted.stop()
    assert unstarted.run() is True
    assert len(executed(trail)) == 3


def test_an_error_of_the_strategy_is_raised_and_results_stay(trail: Path, folder: Path) -> None:
    class Broken(strategies.Random):
        def wait_for_resource(self) -> bool:
            if len(executed(trail)) == 3:
                raise ZeroDivisionError("the strategy is broken")
            return True

    experiment = search(trail, folder, Broken(seed=0))
    with pytest.raises(ZeroDivisionError, match="the strategy is broken"):
        experiment.run()
    assert len(experiment.results) == 3


def test_a_check_of_the_evaluator_comes_before_the_search(trail: Path, folder: Path) -> None:
    class Checking(ToyEvaluator):
        def check(self, space: Any) -> None:
            raise OptionError(f"{type(space).__name__} does not suit the files")

    experiment = search(trail, folder)
    experiment.evaluator = Checking(str(trail))
    with pytest.raises(OptionError, match="ToySpace does not suit the files"):
        experiment.run()
    assert executed(trail) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "trials is 0; it must be a whole number of at least 1"),
        ({"concurrency": 0}, "concurrency is 0;"),
        ({"trials": 2.5}, r"trials is 2\.5;"),
    ],
)
def test_numbers_out_of_range_are_refused(trail: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ProxyExperiment(toy_space(), ToyEvaluator(str(trail)), strategies.Random(), **settings)


@pytest.mark.parametrize("strategy", ["random", strategies.Random, None])
def test_a_strategy_is_an_object_of_nni(trail: Path, folder: Path, strategy: Any) -> None:
    with pytest.raises(OptionError, match=r"strategy is .*; give an object such as nni\.nas\.strategy\.Random\(\)"):
        ProxyExperiment(toy_space(), ToyEvaluator(str(trail)), strategy, folder=folder)
    assert not folder.exists()


def test_a_file_is_no_folder(trail: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OptionError, match=r"cannot make the folder .*taken"):
        search(trail, tmp_path / "taken")


def test_what_cannot_work_is_refused(trail: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = search(trail, folder)
    with pytest.raises(OptionError, match="unknown formatter 'dikt'; did you mean 'dict'"):
        experiment.export_top_models(1, formatter="dikt")
    with pytest.raises(OptionError, match="with the same folder"):
        experiment.resume()
    monkeypatch.setattr(packages, "version_of", lambda name: "3.13.1")
    with pytest.raises(OptionError, match=r"filelock 3\.13\.1 makes NNI hang"):
        experiment.run()
    assert executed(trail) == []


def test_a_budget_gives_each_known_candidate_once() -> None:
    budget = Budget(4, {"a", "b"})
    budget.take("a")
    budget.take(None)
    assert budget.left
    # asked for twice: counts, though nothing is trained
    budget.take("a")
    assert not budget.left
    assert Budget(math.inf, {"a"}).left
