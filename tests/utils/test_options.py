"""Numbers of numpy and torch are taken wherever options are; what is no number is refused in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddplug import SyntheticSet, distill, evaluate
from ddplug.data.preprocess import Identity
from ddplug.distillation.config import config_of
from ddplug.distillers import DM, DSA, RDED, ExpertTraining, Random
from ddplug.errors import OptionError
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images
from ddplug.utils.checks import whole
from ddplug.utils.randomness import seeded
from tests.toy_distillers import MeanMatching

THREE = [np.int64(3), np.int32(3), np.uint8(3), np.array(3), torch.tensor(3), np.float64(3), 3.0, torch.tensor(3.0)]


@pytest.mark.parametrize("three", THREE, ids=lambda value: f"{type(value).__module__} {getattr(value, 'dtype', '')}")
def test_a_whole_number_is_one_of_pythons(three: Any) -> None:
    method = DM(images_per_class=three, network="mlp:width=3", augment="", pool_size=1, batch_real=three, steps=three)
    assert (type(method.images_per_class), method.images_per_class) == (int, 3)
    made = distill(toy_images((5, 6)), method, seed=three, steps=three, device="cpu")
    plain = distill(toy_images((5, 6)), method, seed=3, steps=3, device="cpu")
    assert torch.equal(made.inputs, plain.inputs)
    assert made.provenance["seed"] == 3 and made.provenance["steps"] == 3
    json.dumps({**made.provenance, "seconds": 0})


@pytest.mark.parametrize("half", [np.float32(0.5), np.float64(0.5), np.array(0.5), torch.tensor(0.5), 0.5])
def test_a_number_is_one_of_pythons(half: Any) -> None:
    for made in (DM(learning_rate=half), DSA(learning_rate=half), Recipe(learning_rate=half), ExpertTraining(rho=half)):
        value = getattr(made, "rho", 0.5) if isinstance(made, ExpertTraining) else made.learning_rate
        assert (type(value), value) == (float, 0.5)
    assert RDED(least_area=half).least_area == 0.5
    assert json.loads(json.dumps(config_of(DM(learning_rate=half))))["learning_rate"] == 0.5


def test_texts_and_truths_are_plain_too() -> None:
    assert type(DM(init_from=np.str_("real")).init_from) is str
    assert DM(**{"start": np.str_("real")}).init_from == "real"
    assert type(DM(np.int64(2)).images_per_class) is int  # by its place


def test_a_dataclass_of_somebody_elses_is_written_down() -> None:
    config = config_of(MeanMatching(images_per_class=np.int64(2), learning_rate=np.float32(0.5)))
    assert json.loads(json.dumps(config)) == config
    assert (config["images_per_class"], config["learning_rate"]) == (2, 0.5)


@pytest.mark.parametrize("value", [2.5, "3", None, np.array([1, 2]), torch.tensor([1, 2]), float("nan"), 1j])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    for make in (lambda: DM(images_per_class=value), lambda: Recipe(epochs=value), lambda: Random(value)):
        with pytest.raises(OptionError, match="must be a whole number"):
            make()
    for name in ("seed", "steps", "nbytes"):
        if value is not None or name == "seed":
            with pytest.raises(OptionError, match=rf"{name} is .*; it must be a whole number"):
                distill(toy_images(), "random", device="cpu", **{name: value})
    with pytest.raises(OptionError, match=r"repeats is .*; it must be a whole number"):
        evaluate(distill(toy_images((12, 12)), "random", device="cpu"), toy_images((12, 12)), repeats=value)


@pytest.mark.parametrize("value", ["0.1", None, [1.0]])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(OptionError, match=r"learning_rate is .*; it must be a number"):
        DM(learning_rate=value)


def test_seeds_lie_in_their_range() -> None:
    assert seeded(np.int64(3)).initial_seed() == seeded(torch.tensor(3)).initial_seed() == 3
    with pytest.raises(OptionError, match="seed is True; it must be a whole number"):
        whole("seed", True)
    for value in (-1, 2**63):
        with pytest.raises(OptionError, match=f"seed is {value}; it must be at least 0"):
            seeded(value)
    assert whole("seed", np.uint64(2**63)) == 2**63


def test_a_set_of_numpys_numbers_is_stored(tmp_path: Path) -> None:
    names: Any = np.array(["ant", "bee"])
    classes: Any = np.int64(2)
    made = SyntheticSet(torch.zeros(2, 1, 2, 2), torch.arange(2), classes, Identity(), class_names=names)
    made.save(tmp_path / "made")
    back = SyntheticSet.load(tmp_path / "made")
    assert (back.num_classes, back.class_names) == (2, ("ant", "bee"))
    assert all(type(name) is str for name in made.class_names)
