"""Studies of the real Optuna: promotion, pruning, failures, samplers, threads, processes and storage."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from sklearn.neighbors import KNeighborsClassifier

import ddplug
from ddplug.errors import OptionError
from ddplug.optuna import DistilledObjective
from ddplug.search import Journal, Judge, Protocol
from ddplug.testing import toy_images

ROOT = Path(__file__).parents[2]

# a sampler of many parameters at once, among others, is called experimental
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

TRAIN, REST = toy_images((30, 30)).split(0.4)
MADE = ddplug.distill(TRAIN, "random", images_per_class=4, device="cpu")
PROXY = Judge(MADE, REST, Protocol(steps=6, learning_rate=0.05, schedule="constant", device="cpu"))
FULL = Judge(TRAIN, REST, Protocol(steps=12, learning_rate=0.05, schedule="constant", device="cpu"))


def define(trial: Any) -> Any:
    width = trial.suggest_int("width", 2, 9)
    return f"mlp:width={width}", {"learning_rate": trial.suggest_float("rate", 1e-4, 0.1, log=True)}


def study(sampler: BaseSampler | None = None, pruner: BasePruner | None = None, **options: Any) -> optuna.Study:
    made: optuna.Study = optuna.create_study(
        direction="maximize", sampler=sampler or RandomSampler(seed=0), pruner=pruner or NopPruner(), **options
    )
    return made


def test_without_full_training_the_value_is_the_score_on_the_set() -> None:
    own = study()
    own.optimize(DistilledObjective(define, PROXY), n_trials=3)
    for trial in own.trials:
        candidate = f"mlp:width={trial.params['width']}", {"learning_rate": trial.params["rate"]}
        assert trial.value == trial.user_attrs["proxy"] == PROXY(candidate).metric
        assert trial.user_attrs["bytes"] == MADE.nbytes
        assert trial.user_attrs["proxy_seconds"] > 0


def test_the_best_of_the_set_are_trained_in_full_and_the_others_pruned() -> None:
    own, objective = study(), DistilledObjective(define, PROXY, FULL, promote=0.3)
    own.optimize(objective, n_trials=10)
    scores: list[float] = []
    already = 0
    for n, trial in enumerate(own.trials, start=1):
        proxy = trial.user_attrs["proxy"]
        scores.append(proxy)
        better = sum(score > proxy for score in scores)
        promoted = better == 0 or (better < int(0.3 * n) and already < math.ceil(0.3 * n))
        already += promoted
        assert trial.user_attrs["promoted"] == promoted
        assert trial.state == (TrialState.COMPLETE if promoted else TrialState.PRUNED)
        candidate = f"mlp:width={trial.params['width']}", {"learning_rate": trial.params["rate"]}
        if promoted:
            assert trial.value == trial.user_attrs["full"] == FULL(candidate).metric
        # rungs: the steps on the set, and those on all data counted on from them
        assert trial.intermediate_values[6] == proxy
        assert all((step > 6) <= promoted for step in trial.intermediate_values)
    assert {trial.state for trial in own.trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert [record.metric for record in objective.proxies(own)] == scores
    assert len(objective.promoted(own)) == sum(trial.user_attrs["promoted"] for trial in own.trials)
    assert len(objective.figure(own).axes) == 2
    retrained = objective.retrain(own, top_k=2, chance=3)
    best = sorted(own.trials, key=lambda trial: -trial.user_attrs["proxy"])[:2]
    assert {repr(record.sample) for record in retrained.records} == {repr(trial.params) for trial in best}
    assert len(retrained.chance) == 3


class Hasty(BasePruner):
    """Stops every trial at its first report beyond a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def prune(self, study: optuna.Study, trial: Any) -> bool:
        return trial.last_step is not None and trial.last_step > self.step


@pytest.mark.parametrize(("step", "attributes"), [(0, {"bytes"}), (6, {"bytes", "proxy", "proxy_seconds", "promoted"})])
def test_the_pruner_stops_a_trial_within_training(step: int, attributes: set[str], tmp_path: Path) -> None:
    own = study(pruner=Hasty(step))
    journal = tmp_path / "j.jsonl"
    objective = DistilledObjective(define, replace(PROXY, journal=journal), replace(FULL, journal=journal), promote=1.0)
    own.optimize(objective, n_trials=1)
    (trial,) = own.trials
    assert trial.state == TrialState.PRUNED
    assert set(trial.user_attrs) == attributes
    # half a training is no result
    assert len(Journal(journal).read()) == (step > 0)


def test_a_candidate_that_fails_says_why_and_the_study_goes_on() -> None:
    def broken(trial: Any) -> Any:
        return "mlp:width=4" if trial.suggest_int("n", 0, 9) % 2 else "mlp:width=-1"

    own = study(GridSampler({"n": [0, 1, 2]}))
    own.optimize(DistilledObjective(broken, PROXY), n_trials=3)
    states = {trial.params["n"]: trial.state for trial in own.trials}
    assert states == {0: TrialState.FAIL, 1: TrialState.COMPLETE, 2: TrialState.FAIL}
    assert all("width is -1" in trial.user_attrs["failure"] for trial in own.trials if trial.state == TrialState.FAIL)


@pytest.mark.parametrize("make", [RandomSampler, TPESampler], ids=["random", "tpe"])
def test_a_study_can_be_repeated(make: Callable[..., BaseSampler]) -> None:
    found = []
    for _ in range(2):
        own = study(make(seed=3))
        own.optimize(DistilledObjective(define, PROXY, FULL), n_trials=4)
        found.append([(trial.params, trial.value, trial.state) for trial in own.trials])
    assert found[0] == found[1]


def test_threads_score_as_one_alone() -> None:
    own = study(GridSampler({"width": [2, 5, 9], "rate": [0.001, 0.05]}))
    own.optimize(DistilledObjective(define, PROXY), n_trials=6, n_jobs=2)
    assert len(own.trials) == 6
    for trial in own.trials:
        candidate = f"mlp:width={trial.params['width']}", {"learning_rate": trial.params["rate"]}
        assert trial.value == PROXY(candidate).metric


SCRIPT = """
import sys
import optuna
from tests.optuna import test_objective as here

optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(
    study_name="shared", storage=sys.argv[1], sampler=optuna.samplers.RandomSampler(seed=int(sys.argv[2]))
)
study.optimize(here.DistilledObjective(here.define, here.PROXY, here.FULL), n_trials=2)
"""


def test_processes_share_a_study_on_disk_and_it_goes_on(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    own = study(study_name="shared", storage=storage)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", SCRIPT, storage, "1"], cwd=tmp_path, env=environment) as other:
        while other.poll() is None and len(own.trials) < 8:
            own.optimize(DistilledObjective(define, PROXY, FULL), n_trials=1)
        assert other.wait(timeout=600) == 0
    assert [trial.number for trial in own.trials] == list(range(len(own.trials)))
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in own.trials)
    again = study(RandomSampler(seed=5), study_name="shared", storage=storage, load_if_exists=True)
    again.optimize(DistilledObjective(define, PROXY, FULL), n_trials=1)
    assert len(again.trials) == len(own.trials)
    # the decision to promote looked at all of them
    assert "promoted" in again.trials[-1].user_attrs


def test_a_study_made_anew_is_answered_from_the_journal(tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    judges = replace(PROXY, journal=journal), replace(FULL, journal=journal)
    values = []
    for _ in range(2):
        own = study(RandomSampler(seed=1))
        own.optimize(DistilledObjective(define, *judges), n_trials=3)
        values.append([(trial.value, trial.intermediate_values) for trial in own.trials])
        lines = len(Journal(journal).read())
        assert lines == 3 + sum(trial.user_attrs["promoted"] for trial in own.trials)
    assert values[0] == values[1]


def test_estimators_are_tuned_too() -> None:
    own = study()
    neighbors: Callable[[Any], Any] = lambda trial: KNeighborsClassifier(trial.suggest_int("k", 1, 5))  # noqa: E731
    own.optimize(DistilledObjective(neighbors, PROXY, FULL), n_trials=3)
    assert own.best_value == FULL(KNeighborsClassifier(own.best_params["k"])).metric


def test_mistakes_are_one_line() -> None:
    wrong: Any = (["minimize"], ["maximize", "maximize"])
    for directions in wrong:
        own = optuna.create_study(directions=directions)
        with pytest.raises(OptionError, match="create_study\\(direction='maximize'\\)"):
            own.optimize(DistilledObjective(define, PROXY), n_trials=1)
    for promote in (0, 1.5):
        with pytest.raises(OptionError, match=f"promote is {promote}"):
            DistilledObjective(define, PROXY, FULL, promote=promote)
    for judges in (("mnist", None), (PROXY, "mnist")):
        with pytest.raises(OptionError, match=r"is a str; give a ddplug\.search\.Judge"):
            DistilledObjective(define, *judges)
    with pytest.raises(OptionError, match="promote is 'all'; it must be a number"):
        DistilledObjective(define, PROXY, FULL, promote="all")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="give DistilledObjective one as full"):
        DistilledObjective(define, PROXY).retrain(study())


def test_a_trial_without_a_study_is_trained_in_full() -> None:
    value = DistilledObjective(define, PROXY, FULL)(optuna.trial.FixedTrial({"width": 4, "rate": 0.01}))
    assert value == FULL(("mlp:width=4", {"learning_rate": 0.01})).metric


def test_functions_that_no_parameter_tells_apart_do_not_share_a_line_of_the_journal(tmp_path: Path) -> None:
    own = study()
    blind = DistilledObjective(lambda trial: lambda: None, replace(PROXY, journal=tmp_path / "journal"))
    with pytest.raises(OptionError, match="has no sample, and a journal could not tell it from others"):
        own.optimize(blind, n_trials=1)
