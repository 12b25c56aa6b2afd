"""Judging in any loop: names, functions and estimators; nothing trained twice, and no candidate taken for another."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import ddplug
import ddplug.search
from ddplug.errors import DataError, OptionError
from ddplug.networks.factory import build
from ddplug.search import Candidates, Journal, Judge, Protocol, Record, Result, convnets, judge, retrain
from ddplug.search.candidate import train_and_score
from ddplug.search.figures import progress
from ddplug.search.retraining import expected_best
from ddplug.testing import toy_images

TRAIN, REST = toy_images((40, 38, 36)).split(0.4)
MADE = ddplug.distill(TRAIN, "random", images_per_class=8, device="cpu")
QUICK = Protocol(steps=4, batch_size=12, learning_rate=0.05, device="cpu")


def test_it_is_what_training_on_both_sets_gives() -> None:
    held = ddplug.holdout(REST)
    found = Judge(MADE, REST, QUICK)("mlp:width=8")

    def make(rng: torch.Generator) -> nn.Module:
        return build("mlp:width=8", MADE.shape, 3, rng)

    expected = train_and_score(make, MADE, held, QUICK)
    assert replace(found.result, seconds=0) == replace(expected, seconds=0)
    assert found.sample == {"network": "mlp:width=8"}
    assert found.settings["steps"] == 4


def test_files_sets_and_data_are_judged_alike(tmp_path: Path) -> None:
    MADE.save(tmp_path / "made")
    ddplug.holdout(REST).save(tmp_path / "rest")
    scores = [
        judge("mlp", QUICK, train=train, validation=rest).metric
        for train, rest in ((MADE, REST), (tmp_path / "made", str(tmp_path / "rest")))
    ]
    assert scores[0] == scores[1]


def test_a_function_makes_what_its_name_makes() -> None:
    own = Judge(MADE, REST, QUICK)

    def function(shape: tuple[int, ...], classes: int) -> nn.Module:
        return build("mlp:width=8", shape, classes, torch.Generator())  # which seeds itself; the weights differ

    assert own(function).failure is None
    assert own(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3))).metric is not None
    wrong = own(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)))
    assert wrong.metric is None
    assert "(1, 4); it must give (1, 3)" in str(wrong.failure)
    assert "did you mean 'mlp'" in str(own("mlpp").failure)


def test_an_estimator_is_fitted_to_the_set_and_scored_on_real_data() -> None:
    tree = DecisionTreeClassifier(max_depth=3)
    record = Judge(MADE, REST, replace(QUICK, seeds=2, seed=5))(tree)
    x, y = MADE.inputs.flatten(1).numpy(), MADE.targets.numpy()
    test = ddplug.holdout(REST).inputs.flatten(1).numpy()
    expected = [
        float(
            (
                DecisionTreeClassifier(max_depth=3, random_state=seed).fit(x, y).predict(test) == REST.targets.numpy()
            ).mean()
        )
        for seed in (5, 6)
    ]
    assert record.result.accuracies == pytest.approx(expected)
    assert (record.sample["estimator"], record.sample["max_depth"]) == ("DecisionTreeClassifier", 3)
    assert not hasattr(tree, "tree_")  # the user's own is left alone
    broken = Judge(MADE, REST)(KNeighborsClassifier(10_000))
    assert "n_neighbors" in str(broken.failure)


def test_a_pipeline_is_told_by_its_steps_which_get_the_seed() -> None:
    class Seeded(DecisionTreeClassifier):
        def score(self, x: Any, y: Any, sample_weight: Any = None) -> float:
            return float(self.random_state)

    # an imputer's missing value is NaN, which JSON has not
    pipeline, own = make_pipeline(SimpleImputer(), Seeded()), Judge(MADE, REST, Protocol(seeds=2, seed=5))
    record = own(pipeline)
    assert record.result.accuracies == (5.0, 6.0)
    assert [step["estimator"] for _, step in record.sample["steps"]] == ["SimpleImputer", "Seeded"]
    assert own(make_pipeline(SimpleImputer(), Seeded(max_depth=2))).key != record.key
    assert pipeline[-1].random_state is None  # the user's own is left alone


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_an_estimator_without_a_finite_score_has_failed_and_the_search_goes_on(score: float, tmp_path: Path) -> None:
    class Scored(DecisionTreeClassifier):
        def score(self, x: Any, y: Any, sample_weight: Any = None) -> float:
            return score

    own = Judge(MADE, REST, QUICK, journal=tmp_path / "journal.jsonl")
    record = own(Scored())
    assert (record.metric, record.failure) == (None, f"diverged: its score is {score}")
    assert [line.failure for line in Journal(tmp_path / "journal.jsonl").failures()] == [record.failure]


def test_what_is_known_is_not_trained_again_and_interim_scores_are_told_again(tmp_path: Path) -> None:
    own = Judge(MADE, REST, replace(QUICK, steps=40), journal=tmp_path / "j.jsonl")
    told: list[list[tuple[float, int]]] = [[], []]
    first, second = (own("mlp", report=lambda *pair, to=to: to.append(pair)) for to in told)
    assert first == second == own.find("mlp")
    assert told[0] == told[1] != []
    assert len(Journal(tmp_path / "j.jsonl").read()) == 1
    assert own.find("mlp:width=9") is None


def test_keys_tell_apart_whatever_changes_a_score(tmp_path: Path) -> None:
    base = Judge(MADE, REST, QUICK, journal=tmp_path / "j.jsonl")
    other = replace(MADE, targets=(MADE.targets + 1) % 3)
    cases = [
        base.case("mlp"),
        base.case("lenet"),
        base.case(("mlp", {"learning_rate": 0.1})),
        base.case("mlp", {"a": 1}),
        # a sample that does not say all is no danger where the candidate says it
        base.case("lenet", {"a": 1}),
        base.case(("mlp", {"learning_rate": 0.1}), {"a": 1}),
        base.case(KNeighborsClassifier(3), {"a": 1}),
        base.case(KNeighborsClassifier(4), {"a": 1}),
        replace(base, protocol=replace(QUICK, seeds=2)).case("mlp"),
        replace(base, about={"space": 2}).case("mlp"),
        Judge(other, REST, QUICK).case("mlp"),
        Judge(TRAIN, REST, QUICK).case("mlp"),
    ]
    assert len({case.key for case in cases}) == len(cases)
    assert Judge(MADE, REST, QUICK).case("mlp").key == base.case("mlp").key


def test_a_function_needs_a_sample_where_there_is_a_journal(tmp_path: Path) -> None:
    own = Judge(MADE, REST, QUICK, journal=tmp_path / "j.jsonl")
    with pytest.raises(OptionError, match=r"has no sample, .*; give sample=\{"):
        own(lambda: nn.Linear(1, 1))
    record = own(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), {"layers": 1})
    assert own.find(lambda: None, {"layers": 1}) == record


def test_steps_of_a_candidate_take_the_place_of_epochs() -> None:
    own = Judge(MADE, REST, Protocol(epochs=30, device="cpu"))
    assert own(("mlp", {"steps": 2})).result.images == 2 * len(MADE)
    assert own.steps(("mlp", {"steps": 2, "seeds": 3})) == 6
    assert own.steps(KNeighborsClassifier()) == 1


def test_cost_counts_what_was_trained_and_scored() -> None:
    own = Judge(MADE, REST, replace(QUICK, seeds=2))
    assert own.cost == 2 * (3 * own("mlp").result.images / 2 + len(REST))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": REST}, DataError, "one and the same"),
        ({"train": toy_images((9, 9), channels=3)}, DataError, "shape"),
        ({"train": "nowhere.safetensors"}, OptionError, "cannot read .*nowhere"),
        ({"protocol": replace(QUICK, augment="wrap")}, OptionError, "wrap"),
        ({"journal": "/nowhere/at/all.jsonl"}, OptionError, "nowhere"),
        ({"protocol": {"steps": 2}}, OptionError, r"give one, as ddplug\.search\.Protocol\(steps=100\)"),
    ],
)
def test_what_cannot_work_is_refused_at_once(changes: Mapping[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        Judge(**{"train": MADE, "validation": REST, "protocol": QUICK, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (("mlp", {"learning_rat": 0.1}), "did you mean 'learning_rate'"),
        (("mlp", 0.1), "give a pair"),
        (("mlp", {"steps": 0}), "steps is 0"),
    ],
)
def test_a_wrong_change_of_the_protocol_is_refused(candidate: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Judge(MADE, REST, QUICK)(candidate)


def test_a_file_that_changes_is_a_failure(tmp_path: Path) -> None:
    MADE.save(tmp_path / "made")
    own = Judge(tmp_path / "made", REST, QUICK)
    replace(MADE, targets=MADE.targets.flip(0)).save(tmp_path / "made")
    assert "was altered" in str(own("mlp").failure)


def test_no_framework_of_search_is_needed() -> None:
    for path in Path(ddplug.search.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {"nni", "optuna", "pytorch_lightning"}, path


def test_convnets_are_drawn_without_repetition_from_what_suits() -> None:
    whole = convnets((1, 8, 8), 3, 24, width=(4, 8), depth=(1, 2), norm=("none", "batch"), activation=("relu",))
    assert len({repr(sample) for sample in whole.samples}) == 24
    assert (
        convnets((1, 8, 8), 3, 5, width=(4, 8), depth=(1, 2), norm=("none", "batch"), activation=("relu",)).samples
        == (whole.samples[:5])
    )
    made = whole.make({"width": 8, "depth": 2, "norm": "batch", "activation": "relu", "pooling": "max"})
    with torch.random.fork_rng():
        assert made()(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    wrong: list[tuple[dict[str, Any], str]] = [({"widht": (4,)}, "'widht'"), ({"depth": (4,)}, "does not suit 8x8")]
    for options, message in wrong:
        with pytest.raises(OptionError, match=message):
            convnets((1, 8, 8), 3, 1, **options)


def record(n: int, metric: float | None, seconds: float = 1.0) -> Record:
    return Record(str(n), {"n": n}, Result(metric, None if metric is not None else "out of luck", seconds=seconds))


def test_the_best_by_chance_is_that_of_every_draw() -> None:
    values = [0.5, 0.1, 0.9, 0.4, 0.4]
    for k in range(1, 6):
        draws = list(torch.combinations(torch.tensor(values, dtype=torch.float64), k).max(1).values)
        assert expected_best(values, k) == pytest.approx(float(sum(draws)) / len(draws))


def test_winners_are_trained_in_full_once_and_compared_with_chance() -> None:
    trained: list[int] = []

    def full(sample: Mapping[str, Any]) -> Record:
        trained.append(sample["n"])
        return record(sample["n"], None if sample["n"] == 8 else (10 - sample["n"]) / 10)

    found = retrain([record(n, n / 10) for n in range(10)] + [record(10, None)], full, top_k=3, chance=10)
    assert sorted(trained) == list(range(10))
    # 9, 8 and 7 were chosen; 8 failed in full, and 7 is the best
    assert [own.sample["n"] for own in found.records] == [7, 9, 8]
    assert found.best.metric == pytest.approx(0.3)
    others = [(10 - n) / 10 for n in range(10) if n != 8]
    assert found.by_chance == pytest.approx(expected_best(others, 3))
    assert found.gain == pytest.approx(0.3 - expected_best(others, 3))
    assert f"a gain of {100 * (found.gain or 0):+.2f} points" in found.text
    alone = retrain([record(1, 0.5)] * 3, full, chance=0)  # a search may come to one candidate again
    assert (alone.gain, alone.top) == (None, 1)
    assert "chance" not in alone.text
    with pytest.raises(OptionError, match="1 records hold no success"):
        retrain([record(1, None)], full)


def test_a_journal_that_full_training_shares_is_searched_again_alike(tmp_path: Path) -> None:
    own = Journal(tmp_path / "journal")
    settings: Mapping[str, Any] = {"train": "small", "steps": 2}
    for n in range(6):
        own.append(Record(f"cheap {n}", {"n": n}, Result(n / 10, images=10), settings))

    def full(sample: Mapping[str, Any]) -> Record:
        result = Result(0.9 - sample["n"] / 10, images=400)
        made = Record(f"full {sample['n']}", sample, result, {"train": "whole", "steps": 80})
        own.append(made)
        return made

    first, again = (retrain(own, full, top_k=2, chance=2) for _ in range(2))
    assert (
        [record.sample for record in again.records]
        == [record.sample for record in first.records]
        == [{"n": 4}, {"n": 5}]
    )
    assert again.chance == first.chance
    other = [
        Record(f"other {n}", {"n": n}, Result(n / 10, images=20), {"train": "other", "steps": 4}) for n in range(6)
    ]
    with pytest.raises(OptionError, match="the records tell of 2 searches, by their sets and steps"):
        retrain([*own.results(), *other], full)


def test_scores_may_be_negative_and_come_from_anywhere() -> None:
    def full(sample: Mapping[str, Any]) -> Record:
        return record(sample["n"], None if sample["n"] == 2 else -sample["n"] - 2.0)

    found = retrain((record(n, -n - 1.0) for n in range(4)), full, top_k=4, chance=0)
    assert [own.sample["n"] for own in found.records] == [0, 1, 3, 2]
    with pytest.raises(OptionError, match="full gives a float; let it return the record of a"):
        retrain([record(1, 0.5)], lambda sample: 0.5)  # type: ignore[arg-type,return-value]


def test_the_picture_shows_what_was_promoted() -> None:
    found = [record(n, value, 2.0) for n, value in enumerate((0.2, None, 0.1, 0.6))]
    figure = progress(found, [record(3, 0.9, 60.0)])
    left, right = figure.axes
    line: Any = left.lines[0]
    assert list(line.get_xdata()) == [2, 6, 8]  # the one that failed took its time too
    assert list(line.get_ydata()) == pytest.approx([20, 20, 60])
    points: Any = right.collections[0].get_offsets()
    assert points.tolist() == [pytest.approx([60, 90])]
    assert len(progress(found).axes) == 1
    with pytest.raises(DataError, match="none of 1 candidates succeeded"):
        progress([record(0, None)])


def test_candidates_are_samples_and_what_makes_them() -> None:
    own = Candidates([{"width": 4}], lambda sample: f"mlp:width={sample['width']}")
    assert Judge(MADE, REST, QUICK)(own.make(own.samples[0]), own.samples[0]).sample == {"width": 4}


class Told:
    """An estimator that says nothing of itself, whose ``fit`` gives nothing back."""

    def __init__(self, score: float) -> None:
        self._score = score

    def fit(self, x: Any, y: Any) -> None:
        pass

    def score(self, x: Any, y: Any) -> float:
        return self._score


def test_estimators_that_say_nothing_of_themselves_are_not_taken_for_each_other(tmp_path: Path) -> None:
    assert [Judge(MADE, REST, QUICK)(Told(score)).metric for score in (0.25, 0.75)] == [0.25, 0.75]
    own = Judge(MADE, REST, QUICK, journal=tmp_path / "journal")
    for silent in (Told(0.25), make_pipeline(FunctionTransformer(lambda x: x), KNeighborsClassifier(1))):
        with pytest.raises(OptionError, match="has no sample, and a journal could not tell it from others"):
            own(silent)
        with pytest.raises(OptionError, match="has no sample"):
            own(silent, {})
    assert [own(Told(score), {"score": score}).metric for score in (0.25, 0.75)] == [0.25, 0.75]


@pytest.mark.parametrize(
    "estimator",
    [
        KNeighborsClassifier(np.int64(3)),
        GaussianNB(priors=np.array([0.5, 0.25, 0.25])),
        make_pipeline(FunctionTransformer(np.abs), KNeighborsClassifier(1)),
        GridSearchCV(KNeighborsClassifier(), {"n_neighbors": np.array([1, 3])}, cv=KFold(2)),
        DecisionTreeClassifier(random_state=np.random.RandomState(0)),
    ],
)
def test_parameters_of_estimators_may_be_anything_that_has_a_name(estimator: Any, tmp_path: Path) -> None:
    own = Judge(MADE, REST, QUICK, journal=tmp_path / "journal")
    found = own(estimator, {"n": 1})
    assert found.failure is None
    assert own.find(estimator, {"n": 1}) == found


def test_what_the_journal_has_by_itself_is_no_name_of_others() -> None:
    for name in ("train", "steps", "candidate"):
        with pytest.raises(OptionError, match=f"about names '{name}', which the journal has by itself"):
            Judge(MADE, REST, QUICK, about={name: "mine"})


def test_sets_of_the_package_and_devices_have_names() -> None:
    digits = ddplug.load_dataset("digits").split(0.1)[1]
    found = Judge("digits-dm", digits, Protocol(steps=1, device=torch.device("cpu")))  # type: ignore[arg-type]
    assert found.sets()[0].provenance == ddplug.load("digits-dm").provenance
    assert found.protocol.device == "cpu"


@pytest.mark.parametrize(("options", "said"), [({"n": 2.5}, "n is 2.5"), ({"num_classes": 0}, "num_classes is 0")])
def test_spaces_of_no_networks(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        convnets(**{"shape": (1, 8, 8), "num_classes": 3, "n": 2, "depth": (1,), **options})


def test_choices_are_json_ready_whatever_they_came_in() -> None:
    drawn = convnets((1, 8, 8), 3, 2, width=np.array([4, 8]), depth=iter((1,)))  # type: ignore[arg-type]
    assert all(type(sample["width"]) is int for sample in drawn.samples)
