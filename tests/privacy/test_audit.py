"""An audit finds what is there to be found, and nothing where there is nothing."""

from __future__ import annotations

import itertools
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from sklearn.metrics import roc_auc_score

import ddplug
from ddplug.cli.program import main
from ddplug.data import LabeledData, from_arrays
from ddplug.distillation.protocol import Metrics, State
from ddplug.distillers import DPDM, Random
from ddplug.distillers.parts.images import balanced_labels, to_set
from ddplug.errors import DdplugError, OptionError
from ddplug.privacy import Nearest, audit, clopper_pearson
from ddplug.privacy.attacks import ATTACKS, as_of_members, by_person, halves, judge, judge_one
from ddplug.privacy.canaries import coins, judge_canaries, plant
from ddplug.privacy.intervals import area, area_interval, epsilon_of_guesses, lowest_by_chance
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images
from ddplug.utils.notes import Note

SMALL: dict[str, Any] = {"network": "convnet:width=4,depth=1", "device": "cpu", "beside": False}


def noise(number: int, seed: int) -> LabeledData:
    """Images without any sense, so that nothing of one tells of another."""
    rng = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(number, 1, 10, 10, generator=rng) * 255).to(torch.uint8)
    return from_arrays(pixels, torch.arange(number) % 2, preprocess="identity", augmentation="")


TRAIN, REST = noise(60, 11), noise(60, 12)
ALL = Random(images_per_class=15)  # all that a half has


@dataclass(frozen=True)
class Blind:
    """Makes images without looking at any."""

    name: ClassVar[str] = "blind"
    steps: int = 0
    images_per_class: int = 3

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        return {"inputs": torch.rand(2 * self.images_per_class, *data.shape, generator=rng)}

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        raise NotImplementedError

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        return to_set(data, state["inputs"], balanced_labels(data, self.images_per_class), Recipe(epochs=3))


@pytest.fixture(scope="module")
def stored() -> Any:
    made = ddplug.distill(TRAIN, replace(ALL, images_per_class=30), device="cpu")
    # a network that learns noise by heart
    return audit(made, TRAIN, REST, shadows=4, distiller=ALL, network="mlp:width=128", device="cpu")


@pytest.fixture(scope="module")
def blind() -> Any:
    made = ddplug.distill(TRAIN, Blind(), device="cpu")
    return audit(made, TRAIN, REST, shadows=8, canaries=16, distiller=Blind(), **SMALL)


def test_stored_training_images_are_found(stored: Any) -> None:
    assert [(each.near, each.found) for each in stored.nearest] == [(60, True)] * 2
    assert all(float(each.ratios.max()) < 1e-3 for each in stored.nearest)
    assert stored.provenance["real_images"] and stored.provenance["real_start"]
    found = {(each.target, each.attack, each.signal): each for each in stored.membership}
    assert len(found) == 6
    for way in (("shadow sets", "offline"), ("shadow sets", "online"), ("this set", "offline")):
        assert found[way[0], way[1], "nearness"].area > 0.99
        assert found[way[0], way[1], "confidence"].area > 0.6
    for attack in ("offline", "online"):
        near = found["shadow sets", attack, "nearness"]
        assert near.epsilon > 1
        assert near.found[0.01][0] > 0.9
        assert near.curve[0][1] > 0.9 and near.curve[-1] == (1.0, 1.0)
    assert "membership in this set by nearness" in stored.text
    assert "60 samples near training samples in pixels" in stored.text


def test_what_else_might_be_passed_on_is_attacked_beside_it(stored: Any, blind: Any) -> None:
    found = {(each.target, each.attack, each.signal): each for each in stored.beside}
    random, trained = "random samples in the set's bytes", "a network trained on the data"
    assert {(target, signal) for target, _, signal in found} == {
        (random, "confidence"),
        (random, "nearness"),
        (trained, "confidence"),
    }
    for attack in ("offline", "online"):
        assert found[random, attack, "nearness"].area > 0.99  # of 60 records a half has 30, and all fit
        assert found[trained, attack, "confidence"].area > 0.9  # labels without sense are learned by heart
    assert all(each.members == each.others == 120 for each in stored.beside)
    assert "a network trained on the data" in stored.text and not blind.beside
    assert stored.to_json()["beside"][0]["target"] == random


def test_nothing_is_found_where_no_datum_was_seen(blind: Any) -> None:
    assert [each.found for each in blind.nearest] == [False, False]
    assert blind.nearest[0].by_chance == pytest.approx(6 / 31)
    assert "found: nothing by these" in blind.text
    assert {each.target for each in blind.membership} == {
        "shadow sets",
        "this set",
        "canaries",
        "mislabeled canaries",
        "shuffled canaries",
    }
    for each in blind.membership:
        low, high = each.interval
        assert each.exposure is not None or low - 0.02 <= 0.5 <= high + 0.02  # canaries are few
        assert each.epsilon is None or each.epsilon < 0.3
    assert "only a proof excludes them" in blind.text
    assert "private" not in blind.text.replace("differential privacy", "")


def test_the_account_is_plain(stored: Any) -> None:
    values = json.loads(json.dumps(stored.to_json(), allow_nan=False))
    assert values["shadows"] == 4
    assert values["nearest"][0]["nearer_than_all_held_out"] == 60
    assert {each["signal"] for each in values["membership"]} == {"confidence", "nearness"}
    assert len(stored.pairs) == 32
    inputs = stored.pairs.inputs
    assert torch.equal(inputs[::2], inputs[1::2])  # copies, each followed by what it is a copy of


def test_the_method_is_made_again_from_the_file(tmp_path: Path) -> None:
    made = ddplug.distill(TRAIN, ALL, device="cpu", codec="pixels:bits=1")
    made.save(tmp_path / "set")
    told: list[str] = []
    found = audit(SyntheticSet.load(tmp_path / "set"), TRAIN, REST, shadows=4, say=told.append, **SMALL)
    assert len(told) == 1 and "4 shadow sets of halves of the data will take about" in told[0]
    assert len(found.membership) == 6


def test_a_method_that_is_not_known_is_said() -> None:
    made = ddplug.distill(TRAIN, Blind(), device="cpu")
    with pytest.raises(OptionError, match=r"cannot be made again .*blind.*shadows=0"):
        audit(made, TRAIN, REST, shadows=4, **SMALL)
    with pytest.raises(OptionError, match="cannot be made again"):
        audit(replace(made, provenance={"method": "dm", "config": {"steps": "x"}}), TRAIN, REST, shadows=4, **SMALL)
    found = audit(replace(made, provenance={}), TRAIN, REST, shadows=0, **SMALL)
    assert found.membership == () and found.provenance["real_images"] is None
    assert "not known" in found.text


@pytest.mark.parametrize("shadows", [-2, 1, 2, 5])
def test_a_number_of_shadow_sets_that_does_not_do(shadows: int) -> None:
    made = ddplug.distill(TRAIN, ALL, device="cpu")
    with pytest.raises(OptionError, match=rf"shadows is {shadows}; it must be 0, or an even number of at least 4"):
        audit(made, TRAIN, REST, shadows=shadows, **SMALL)


@pytest.mark.filterwarnings("ignore::ddplug.utils.notes.Note")
def test_a_statement_is_shown() -> None:
    method = DPDM(images_per_class=1, network="convnet:width=4,depth=1", pool_size=1, steps=0, factor=1)
    made = ddplug.distill(TRAIN, method, device="cpu")
    found = audit(made, TRAIN, REST, shadows=0, **SMALL)
    assert "epsilon 1, delta 1e-05, for one record added or removed" in found.text
    assert not found.provenance["real_start"]


def test_halves_are_halves_of_each_class_in_pairs() -> None:
    data = toy_images((9, 14))
    inside = halves(data, 6, torch.Generator().manual_seed(0))
    assert torch.equal(inside[1::2], ~inside[::2])
    assert inside.sum(0).tolist() == [3] * 23
    assert inside[0][data.targets == 0].sum() == 4
    assert inside[0][data.targets == 1].sum() == 7
    assert not torch.equal(inside[0], inside[2])


def test_the_bound_on_epsilon_holds_for_randomized_response() -> None:
    """Answers that are true with probability ``e/(1+e)`` are private with epsilon 1; the bound must stay below."""
    rng = np.random.default_rng(0)
    inside = halves(toy_images((4000,)), 8, torch.Generator().manual_seed(0))
    for epsilon in (0.0, 1.0, 3.0):
        true = rng.random((8, 4000)) < math.exp(epsilon) / (1 + math.exp(epsilon))
        seen = torch.from_numpy(np.where(true, inside, ~inside).astype(float))
        found = judge("answers", seen, inside)
        assert found.epsilon is not None
        assert 0.6 * epsilon - 0.01 < found.epsilon <= epsilon + 0.01


@pytest.mark.filterwarnings("ignore::ddplug.utils.notes.Note")  # halves have fewer, and all are stored
def test_canaries_that_are_stored_are_found_and_bound_epsilon() -> None:
    every = Random(images_per_class=100)
    made = ddplug.distill(TRAIN, ALL, device="cpu")
    found = audit(made, TRAIN, REST, shadows=4, canaries=24, distiller=every, **SMALL)
    near = {each.target: each for each in found.membership if each.signal == "nearness"}
    for target in ("canaries", "mislabeled canaries", "shuffled canaries"):
        assert near[target].area > 0.99
        assert (near[target].exposure or 0.0) > 2
    assert near["canaries"].members + near["canaries"].others == 2 * 24
    # two sets, a quarter of the canaries guessed to be in and one out: 24 right of 24, whatever else is known
    assert near["canaries"].epsilon == pytest.approx(epsilon_of_guesses(24, 24, 48, 0.0, 1 - 0.05 / 6))
    assert "canaries by nearness" in found.text and "exposure in bits" in found.text


def test_canaries_are_what_they_are_called() -> None:
    held = toy_images((30, 20, 10))
    planted, rest = plant(held, 12, torch.Generator().manual_seed(0))
    assert len(rest) == 48
    original = {
        tuple(row): int(label) for row, label in zip(held.inputs.flatten(1).tolist(), held.targets, strict=True)
    }
    rows = planted.inputs.flatten(1).tolist()
    kept = {tuple(row) for row in rest.inputs.flatten(1).tolist()}
    for row, label in zip(rows[::2], planted.targets[::2], strict=True):
        assert original[tuple(row)] != label and tuple(row) not in kept
    shapes = {tuple(sorted(row)) for row in original}
    for row in rows[1::2]:
        assert tuple(row) not in original and tuple(sorted(row)) in shapes
    tossed = coins(halves(planted, 8, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1))
    assert torch.equal(tossed[1], ~tossed[0]) and not torch.equal(tossed[3], ~tossed[2])


@pytest.mark.parametrize(("delta", "epsilon"), [(0.0, 1.0), (0.0, 3.0), (1e-4, 1.0)])
def test_the_bound_of_one_run_holds_for_randomized_response(delta: float, epsilon: float) -> None:
    rng = np.random.default_rng(1)
    right = rng.binomial(2000, 1 / (1 + math.exp(-epsilon)), 40)
    bounds = [epsilon_of_guesses(int(each), 2000, 2000, delta) for each in right]
    assert np.mean([bound > epsilon for bound in bounds]) <= 0.1
    assert np.mean(bounds) > 0.85 * epsilon - (0.3 if delta else 0)
    # without delta it is the end of the exact interval of one side, as odds
    low, _ = clopper_pearson(int(right[0]), 2000, 0.9)
    assert epsilon_of_guesses(int(right[0]), 2000, 2000) == pytest.approx(math.log(low / (1 - low)), abs=1e-4)


def test_online_is_the_ratio_of_two_normal_densities() -> None:
    rng = torch.Generator().manual_seed(0)
    seen, values = torch.randn(5, generator=rng).double(), torch.randn(6, 5, generator=rng).double()
    inside = torch.tensor([True, False, True, False, False, True])[:, None].expand(6, 5)
    parts = [values[inside[:, 0]], values[~inside[:, 0]]]
    mean = [part.mean(0) for part in parts]
    spread = [float(part.var(0, correction=1).mean().sqrt()) for part in parts]
    log = [norm.logpdf(seen, m, s) for m, s in zip(mean, spread, strict=True)]
    assert ATTACKS["online"](seen, values, inside).tolist() == pytest.approx((log[0] - log[1]).tolist())


def test_persons_are_in_with_all_their_records_or_none() -> None:
    # each of 20 persons has three records, which nobody would know but together
    persons = [f"person {k % 20}" for k in range(60)]
    made = ddplug.distill(TRAIN, ALL, device="cpu")
    found = audit(made, TRAIN, REST, shadows=4, persons=persons, distiller=ALL, **SMALL)
    of = [each for each in found.membership if each.target == "persons"]
    assert [(each.signal, each.attack) for each in of] == [
        (signal, attack) for signal in ("confidence", "nearness") for attack in ("offline", "online")
    ]
    assert all(each.members == each.others == 40 for each in of)
    assert of[2].area > 0.99
    numbers = torch.arange(60) % 20
    inside = halves(TRAIN, 4, torch.Generator().manual_seed(0), numbers)
    assert torch.equal(inside[:, :20], inside[:, 20:40])
    seen = torch.rand(3, 60, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(by_person(seen, numbers), seen.view(3, 3, 20).mean(1).double())
    with pytest.raises(OptionError, match="persons names 2, and there are 60"):
        audit(made, TRAIN, REST, shadows=4, persons=[1, 2], **SMALL)
    with pytest.raises(OptionError, match="half of the persons has no record of class"):
        audit(made, TRAIN, REST, shadows=4, persons=(TRAIN.targets == 0).long(), **SMALL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"canaries": 6, "shadows": 4}, "canaries is 6; it must be 0, or an even number of at least 8"),
        ({"canaries": 32, "shadows": 4}, "canaries is 32; .* at most 30"),
        ({"canaries": 8, "shadows": 0}, "shadows is 0; make at least 4"),
    ],
)
def test_canaries_that_cannot_be(options: dict[str, Any], said: str) -> None:
    made = ddplug.distill(TRAIN, ALL, device="cpu")
    with pytest.raises(OptionError, match=said):
        audit(made, TRAIN, REST, **options, **SMALL)


def test_intervals_are_those_of_the_binomial_distribution() -> None:
    for hits, trials in ((3, 20), (0, 7), (7, 7), (150, 1000)):
        low, high = clopper_pearson(hits, trials)
        if hits:
            assert binom.sf(hits - 1, trials, low) == pytest.approx(0.025, rel=1e-6)
        if hits < trials:
            assert binom.cdf(hits, trials, high) == pytest.approx(0.025, rel=1e-6)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


def test_the_area_is_that_of_others() -> None:
    rng = np.random.default_rng(0)
    members, others = rng.normal(0.5, 1, 300).round(1), rng.normal(0, 1, 200).round(1)
    truth = np.concatenate([np.ones(300), np.zeros(200)])
    assert area(members, others) == pytest.approx(roc_auc_score(truth, np.concatenate([members, others])))
    draws = [area(rng.normal(0.5, 1, 300), rng.normal(0, 1, 200)) for _ in range(200)]
    low, high = area_interval(float(np.mean(draws)), 300, 200)
    assert high - low == pytest.approx(4 * np.std(draws), rel=0.2)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = ddplug.load_dataset("digits")
    ddplug.distill(train, "random", images_per_class=2, device="cpu").save("set")
    words = "audit set --data digits --shadows 0 --network convnet:width=4,depth=1 --picture pairs.png"
    assert main(words.split()) == 0
    out = capsys.readouterr().out
    assert "20 of 20" in out and "wrote pairs.png" in out
    assert (tmp_path / "pairs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("stored", "others"), [(100, 2000), (1000, 10), (40, 5)])
def test_samples_that_are_as_others_are_not_called_near(stored: int, others: int) -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(1000):
        ratios = torch.from_numpy(rng.random(stored + others))
        found += Nearest("pixels", ratios[:stored], torch.zeros(stored), ratios[stored:]).found
    assert found <= 5  # one of a thousand is told; the binomial distribution finds 300 by 10 others


def test_the_lowest_by_chance_are_counted() -> None:
    # of 3 and 2 in any order, 2 of the 3 are first in so many of the 5! orders
    orders = list(itertools.permutations(range(5)))
    first = sum(set(order[:2]) <= {0, 1, 2} for order in orders)
    assert lowest_by_chance(2, 3, 2) == pytest.approx(first / len(orders))


def test_strangers_are_compared_with_sets_as_members_are() -> None:
    # sets that differ from each other, and know nothing of any record
    rng, wrong = torch.Generator().manual_seed(0), 0
    for _ in range(60):
        inside = halves(TRAIN, 4, rng)
        every = torch.cat([~inside, as_of_members(4, 60, rng)], 1)
        shown = torch.randn(4, 1, generator=rng) + torch.randn(4, 120, generator=rng)
        seen = torch.randn(1, generator=rng) + torch.randn(120, generator=rng)
        low, high = judge_one("nearness", seen, shown, every, 60).interval
        wrong += not low <= 0.5 <= high
    assert wrong <= 8  # 3 are expected; 30 where strangers are all compared with the same sets


def test_each_stranger_is_compared_with_one_set_of_a_pair() -> None:
    chosen = as_of_members(6, 50, torch.Generator().manual_seed(0))
    assert torch.equal(chosen[::2], ~chosen[1::2])
    assert 0 < int(chosen[0].sum()) < 50


@pytest.mark.parametrize("where", [True, False])
def test_coins_may_all_fall_alike(where: bool) -> None:
    inside = torch.full((4, 8), where)
    inside[0] = torch.arange(8) % 2 == 0
    inside[1] = ~inside[0]
    found = judge_canaries("nearness", torch.arange(32.0).view(4, 8).double().sin(), inside, 0.0)
    assert [(each.area, each.interval, each.curve) for each in found] == [(0.5, (0.0, 1.0), ((1.0, 1.0),))] * 3
    assert all(math.isfinite(each.exposure or 0.0) for each in found)


@pytest.mark.parametrize(
    ("data", "held_out", "shadows", "said"),
    [
        (TRAIN, TRAIN, 0, "the held-out data are the training data 'arrays' themselves"),
        (TRAIN, REST.subset(torch.arange(1)), 0, "have 1 sample; give at least 2"),
        (TRAIN.subset(torch.tensor([*range(0, 60, 2), 1])), REST, 4, "no record of class '1'; give at least two"),
    ],
)
def test_data_that_tell_nothing(data: Any, held_out: Any, shadows: int, said: str) -> None:
    made = ddplug.distill(data, "random", images_per_class=1, device="cpu")
    with pytest.raises(DdplugError, match=re.escape(said)):
        audit(made, data, held_out, shadows=shadows, **SMALL)


def test_rows_and_series_have_a_network_too() -> None:
    labels = np.arange(40) % 2
    for shape in ((5,), (2, 16)):
        data = from_arrays(np.random.default_rng(0).random((40, *shape), np.float32), labels)
        train, rest = data.split(0.5)
        found = audit(ddplug.distill(train, "random", device="cpu"), train, rest, shadows=0, device="cpu")
        assert found.nearest[1].space == "features"


@pytest.mark.parametrize("seed", [np.int64(3), 3.0])
def test_seeds_of_any_kind(seed: Any) -> None:
    made = ddplug.distill(TRAIN, "random", device="cpu")
    one, two = (audit(made, TRAIN, REST, shadows=0, seed=each, **SMALL) for each in (3, seed))
    assert one.to_json() == two.to_json()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: clopper_pearson(5, 3), "hits is 5 of 3 trials; it must be between 0 and their number"),
        (lambda: clopper_pearson(3, 5, 95), "confidence is 95; it must be above 0 and below 1"),
        (lambda: epsilon_of_guesses(5, 3, 10), "right is 5 of 3 guesses"),
        (lambda: epsilon_of_guesses(1, 30, 10), "guesses is 30 of 10 canaries"),
        (lambda: epsilon_of_guesses(1, 3, 10, -1), "delta is -1; it must be above 0 and below 1"),
    ],
)
def test_counts_that_cannot_be(call: Any, said: str) -> None:
    with pytest.raises(OptionError, match=re.escape(said)):
        call()


def test_other_data_than_the_set_was_made_from_are_told() -> None:
    made = ddplug.distill(TRAIN, "random", device="cpu")
    with pytest.warns(Note, match="by its file the set was made from other data than 'arrays' as given here"):
        audit(made, REST, TRAIN, shadows=0, **SMALL)
