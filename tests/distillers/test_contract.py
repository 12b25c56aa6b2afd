"""The contract over every registered distiller, and over broken ones, which it must catch."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from ddplug import registry
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity
from ddplug.distillation import distill
from ddplug.distillation.protocol import Metrics, State
from ddplug.distillers.parts.images import to_set
from ddplug.distillers.presets import Preset
from ddplug.errors import OptionError
from ddplug.evaluation.results import evaluate
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import check_class_symmetry, check_distiller, made_small, toy_images, toy_series, toy_table
from ddplug.utils.randomness import known_secrets
from tests.toy_distillers import MeanMatching


@pytest.mark.parametrize("name", registry.names("distiller"))
def test_registered_distillers_keep_the_contract(name: str) -> None:
    method = registry.resolve("distiller", name)()
    assert method.name == name
    check_distiller(method)


ACCELERATORS = [
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")),
    pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="there is no MPS")),
]


@pytest.mark.parametrize("device", ACCELERATORS)
@pytest.mark.parametrize("name", registry.names("distiller"))
def test_methods_run_on_accelerators_and_go_on_there(name: str, device: str, tmp_path: Path) -> None:
    method = made_small(registry.resolve("distiller", name)())
    data = toy_images((500, 500)) if getattr(method, "private", False) else toy_images()
    steps = 2 if method.steps else 0
    with known_secrets():
        made = distill(data, method, steps=steps // 2, device=device, checkpoint=tmp_path / "run")
        again = distill(data, method, steps=steps, device=device, checkpoint=tmp_path / "run")
    assert made.shape == again.shape == data.shape and made.inputs.device.type == "cpu"
    assert again.provenance["device"] == device and bool(again.inputs.isfinite().all())
    found = evaluate(again, data, network="mlp", repeats=2, recipe=Recipe(epochs=2), device=device)
    assert all(0 <= right <= 1 for right in found.accuracies)


IMAGES_ONLY = ("rded", "sre2l")
"""Methods that crop and shift."""


OTHERS = [name for name in registry.names("distiller") if name not in IMAGES_ONLY]


@pytest.mark.parametrize("name", OTHERS)
def test_methods_keep_the_contract_on_series(name: str) -> None:
    check_distiller(registry.resolve("distiller", name)(), toy_series(length=8))


@pytest.mark.parametrize("name", OTHERS)
def test_methods_take_tables(name: str) -> None:
    method = made_small(registry.resolve("distiller", name)(), (6,))
    made = distill(toy_table(), method, steps=min(method.steps, 2), device="cpu")
    assert made.shape == (6,)
    assert len(made) == 3 * method.images_per_class


@pytest.mark.parametrize("data", [toy_table(), toy_series()], ids=lambda data: data.name)
@pytest.mark.parametrize("name", IMAGES_ONLY)
def test_methods_of_images_say_what_to_use_for_others(name: str, data: LabeledData) -> None:
    with pytest.raises(OptionError, match=rf"{name} .*\(C, H, W\) images, .*; use .*kmeans"):
        distill(data, name, images_per_class=2, device="cpu")


@pytest.mark.parametrize("name", ["dm", "idc", "dd", "mtt", "difficulty"])
def test_the_account_names_what_auto_became(name: str) -> None:
    fields = {"steps": 1, "images_per_class": 1} if name != "difficulty" else {"images_per_class": 1}
    own = registry.resolve("distiller", name)
    options = {key: value for key, value in own.small.items() if value != "convnet:width=8,depth=1"} | fields
    made = distill(toy_table(), own(**options), device="cpu")
    assert {made.provenance["config"].get(option, "mlp") for option in own.suits if option != "factor"} == {"mlp"}
    assert made.provenance["config"].get("factor", 1) == 1


@pytest.mark.parametrize("name", ["herding", "k-center"])
def test_the_order_of_the_classes_does_not_matter(name: str) -> None:
    check_class_symmetry(registry.resolve("distiller", name)(images_per_class=2))


def test_the_toy_distiller_keeps_the_contract() -> None:
    check_distiller(MeanMatching(images_per_class=2))


def test_toys_are_small_and_repeatable() -> None:
    assert toy_images().fingerprint == toy_images().fingerprint != toy_images(seed=1).fingerprint
    assert [len(members) for members in toy_images((3, 1, 2), channels=3, size=5).class_indices] == [3, 1, 2]
    assert toy_images((3, 1), channels=3, size=5).shape == (3, 5, 5)
    assert toy_table((3, 1), columns=4).shape == (4,)
    assert toy_table().inputs.dtype == torch.float32


@dataclass(frozen=True)
class Mutating(MeanMatching):
    """Changes the state it is given."""

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        state["images"].add_(1)
        return super().step(state, data, rng)


@dataclass(frozen=True)
class Global(MeanMatching):
    """Draws from a global generator."""

    source: str = "torch"

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        draw = {"torch": lambda: float(torch.rand(())), "numpy": np.random.rand, "python": random.random}[self.source]
        state = super().init(data, rng)
        return {**state, "images": state["images"] + draw()}


@dataclass(frozen=True)
class Moving(MeanMatching):
    """Moves the global generator without using what it draws."""

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        torch.rand(())
        return super().init(data, rng)


@dataclass(frozen=True)
class Hidden(MeanMatching):
    """Keeps a part of its state outside the state: how many steps it took since it began or was loaded."""

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        self.__dict__["count"] = 0
        return super().init(data, rng)

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        count = self.__dict__["count"] = self.__dict__.get("count", 0) + 1
        following, metrics = super().step(state, data, rng)
        return {**following, "images": following["images"] + count}, metrics


@dataclass(frozen=True)
class Unbalanced(MeanMatching):
    """Gives one class too many samples, at the cost of another."""

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        made = super().result(state, data)
        targets = made.targets.clone()
        targets[-1] = 0
        return replace(made, targets=targets)


@dataclass(frozen=True)
class Short(MeanMatching):
    """Leaves out a sample."""

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        made = super().result(state, data)
        return to_set(data, made.inputs[1:], made.targets[1:], made.recipe)


@dataclass(frozen=True)
class Lossless(MeanMatching):
    """Reports no loss."""

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        return super().step(state, data, rng)[0], {}


@dataclass(frozen=True)
class LongLoss(MeanMatching):
    """Reports a loss a class."""

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        return super().step(state, data, rng)[0], {"loss": torch.zeros(3)}


@dataclass(frozen=True)
class Attached(MeanMatching):
    """Gives a state with a gradient."""

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        state = super().init(data, rng)
        return {**state, "images": state["images"].requires_grad_()}


@dataclass(frozen=True)
class Numbered(MeanMatching):
    """Keeps a plain number in its state."""

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        number: Any = 3
        return {**super().init(data, rng), "count": number}


@dataclass(frozen=True)
class Unstorable(MeanMatching):
    """Keeps a type of tensor that the file does not take."""

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        return {**super().init(data, rng), "half": torch.zeros(2, dtype=torch.bfloat16)}

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        following, metrics = super().step(state, data, rng)
        return {**state, **following}, metrics


@dataclass(frozen=True)
class Unwhitened(MeanMatching):
    """Loses the preprocessing."""

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        return replace(super().result(state, data), preprocess=Identity())


@dataclass(frozen=True)
class Spoiling(MeanMatching):
    """Changes the real data."""

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        state = super().init(data, rng)
        data.inputs[0] += 1
        return state


@dataclass(frozen=True)
class Generous(MeanMatching):
    """Takes no images a class for one."""

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        return super().init(data, rng) if self.images_per_class else replace(self, images_per_class=1).init(data, rng)

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        made = replace(self, images_per_class=max(self.images_per_class, 1))
        return MeanMatching.result(made, state, data)


@dataclass(frozen=True)
class Misprinted(MeanMatching):
    """Has a preset of options that it has not."""

    presets: ClassVar[Mapping[str, Preset]] = {"paper": Preset({"batches": 4}, "nowhere")}


@dataclass
class Thawed:
    """Is not frozen."""

    name: ClassVar[str] = "thawed"
    steps: int = 1
    images_per_class: int = 1


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Mutating(), "step 1 changes the state it is given: images"),
        (Global(), "two runs of one seed differ; take all randomness from rng"),
        (Global(source="numpy"), "two runs of one seed differ"),
        (Global(source="python"), "two runs of one seed differ"),
        (Moving(), "it moves the global random state of torch, numpy or Python"),
        (Hidden(), "2 steps, a checkpoint and as many again are not 4 steps"),
        (Unbalanced(images_per_class=2), r"the set has \[3, 2, 1\] samples of its classes, not 2 of each"),
        (Short(), "the set has 2 samples, 1 a class asked for"),
        (Lossless(), "step 1 reports no loss"),
        (LongLoss(), "metric 'loss' of step 1 is not a detached 0-d tensor"),
        (Attached(), "state 'images' after init requires a gradient"),
        (Numbered(), "state 'count' after init is a int, not a tensor"),
        (Unstorable(), "its state cannot be kept in a checkpoint: cannot store 'state.half': torch.bfloat16"),
        (Unwhitened(), "the set's preprocessing is not the data's"),
        (Spoiling(), "it changes the real data"),
        (Generous(), "images_per_class=0 raises no OptionError"),
        (Misprinted(), "preset 'paper' cannot be made: .* unexpected keyword argument 'batches'"),
        (Thawed(), "it is a dataclass, but not a frozen one"),
        (MeanMatching(learning_rate=float("inf")), "state 'images' after step 1 holds NaN or infinity"),
        (MeanMatching, "is not an instance of a dataclass"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_distillers_are_caught(method: Any, message: str) -> None:
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    with pytest.raises(AssertionError, match=message):
        check_distiller(method)
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])
    random.setstate(before[2])


def test_asymmetry_is_caught() -> None:
    @dataclass(frozen=True)
    class First(MeanMatching):
        """Takes the first samples, and darkens those of class 0."""

        steps: int = 0

        def init(self, data: LabeledData, rng: torch.Generator) -> State:
            images = torch.stack([data.batch(members[:1]) for members in data.class_indices])
            images[0] -= 1
            return {"images": images, "seen": torch.tensor(0)}

    with pytest.raises(AssertionError, match="class 0 depends on the order of the classes"):
        check_class_symmetry(First())
