"""Every public function takes whatever holds labeled data, and gives what it gives for the labeled data in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import ddplug
from ddplug.auto import choose
from ddplug.data.labeled import LabeledData
from ddplug.distillers.parts.experts import train_experts
from ddplug.distillers.parts.teachers import train_teacher
from ddplug.distillers.parts.training import ExpertTraining
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import DataError, OptionError
from ddplug.evaluation import train_on
from ddplug.privacy import audit
from ddplug.search import budget
from ddplug.synthetic.export import inspect
from ddplug.testing import toy_images

QUICK: dict[str, Any] = {
    "network": "mlp:width=4",
    "repeats": 1,
    "recipe": ddplug.Recipe(epochs=1),
    "device": "cpu",
}


def data() -> LabeledData:
    return ddplug.from_arrays(toy_images().inputs, toy_images().targets, name="dataset")


def dataset() -> Any:
    own = data()
    return TensorDataset(own.inputs, own.targets)


def made(data: Any) -> Any:
    return ddplug.distill(data, Random(images_per_class=2), device="cpu")


FUNCTIONS: dict[str, Callable[[Any, Path], Any]] = {
    "distill": lambda d, _: made(d).inputs.tolist(),
    "evaluate": lambda d, _: ddplug.evaluate(made(data()), d, **QUICK).accuracies,
    "cross_architecture": lambda d, _: (
        ddplug.cross_architecture(
            made(data()), d, ["mlp:width=4"], **{k: v for k, v in QUICK.items() if k != "network"}
        )[0].accuracies
    ),
    "compare": lambda d, _: [
        row.evaluation.accuracies
        for row in ddplug.compare(made(data()), d, d, **QUICK, baselines=["random"], whole_steps=1).rows
    ],
    "holdout": lambda d, _: ddplug.holdout(d, cut_from=d).provenance,
    "choose": lambda d, _: choose(d, seconds=0.001, nbytes=1000, device="cpu").distiller,
    "train_teacher": lambda d, _: [
        weight.tolist()
        for weight in train_teacher("mlp:width=4", d, epochs=1, rng=torch.Generator().manual_seed(0)).parameters()
    ],
    "train_experts": lambda d, folder: train_experts(
        d, folder, "mlp:width=4", ExpertTraining(epochs=1), number=1, device="cpu"
    )[0].read_bytes(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_torch_dataset_is_as_good_as_labeled_data(name: str, tmp_path: Path) -> None:
    function = FUNCTIONS[name]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert function(DataLoader(dataset(), 4), tmp_path / "a") == function(data(), tmp_path / "b")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a NoneType holds no labeled data; give a torch Dataset") as caught:
        FUNCTIONS[name](None, tmp_path)
    assert "\n" not in str(caught.value)


def test_names_mean_the_part_that_is_wanted() -> None:
    small = ddplug.distill("digits", Random(images_per_class=1), device="cpu")
    train, test = ddplug.load_dataset("digits"), ddplug.load_dataset("digits", split="test")
    assert small.provenance["data"]["fingerprint"] == train.fingerprint
    assert ddplug.evaluate(small, "digits", **QUICK).accuracies == ddplug.evaluate(small, test, **QUICK).accuracies


def test_a_set_is_judged_by_the_real_data_in_another() -> None:
    small, real = made(data()), ddplug.holdout(data())
    assert ddplug.evaluate(small, real, **QUICK).accuracies == ddplug.evaluate(small, data(), **QUICK).accuracies


def test_files_for_a_search_are_made_of_a_torch_dataset(tmp_path: Path) -> None:
    files = [budget.data_file(each, tmp_path / "data.safetensors") for each in (dataset(), data())]
    assert files[0] == files[1]
    assert len(ddplug.SyntheticSet.load(budget.selection_file(dataset(), "random", 1, tmp_path))) == 3


OF_A_SET: dict[str, Callable[[Any], Any]] = {
    "evaluate": lambda s: ddplug.evaluate(s, data(), **QUICK).accuracies,
    "cross_architecture": lambda s: (
        ddplug.cross_architecture(s, data(), ["mlp:width=4"], **{k: v for k, v in QUICK.items() if k != "network"})[
            0
        ].accuracies
    ),
    "compare": lambda s: [
        row.evaluation.accuracies
        for row in ddplug.compare(s, data(), data(), **QUICK, baselines=[], whole_steps=1).rows
    ],
    "train_on": lambda s: [
        weight.tolist()
        for weight in train_on(
            s, "mlp:width=4", recipe=ddplug.Recipe(epochs=1), rng=torch.Generator().manual_seed(0), device="cpu"
        )[0].parameters()
    ],
    "audit": lambda s: (
        audit(s, data(), data().split(0.5)[1], shadows=0, network="mlp:width=4", device="cpu")
        .nearest[0]
        .positions.tolist()
    ),
    "inspect": lambda s: inspect(s)["samples"],
}


@pytest.mark.parametrize("name", OF_A_SET)
def test_the_file_of_a_set_is_as_good_as_the_set(name: str, tmp_path: Path) -> None:
    small = made(data())
    small.save(tmp_path / "made.safetensors")
    assert OF_A_SET[name](tmp_path / "made.safetensors") == OF_A_SET[name](small)
    assert OF_A_SET[name](str(tmp_path / "made.safetensors")) == OF_A_SET[name](small)
    for wrong in ({"a": 1}, data(), 3):
        with pytest.raises(OptionError, match=f"the set is a {type(wrong).__name__}; give a SyntheticSet"):
            OF_A_SET[name](wrong if name != "compare" or not isinstance(wrong, dict) else [wrong])


@pytest.mark.parametrize("recipe", [{"epochs": 1}, 3, ddplug.Recipe])
def test_what_is_no_recipe_is_one_line(recipe: Any) -> None:
    with pytest.raises(OptionError, match=r"^recipe is .*; give ddplug\.Recipe\(epochs=100\), .*: set, paper, quick$"):
        ddplug.evaluate(made(data()), data(), **{**QUICK, "recipe": recipe})
