"""The loop: what it hands to a method, what it writes down, and when it stops."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import ddplug
from ddplug.data.labeled import LabeledData
from ddplug.distillation.checkpoint import Snapshot, load
from ddplug.distillation.config import config_of
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import Metrics, State
from ddplug.distillation.provenance import identity_of
from ddplug.distillation.run import Run
from ddplug.distillers.dm import DM
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import DivergedError, OptionError
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images
from ddplug.utils.devices import pick_device
from tests.toy_distillers import MeanMatching

CPU = torch.device("cpu")


class Watcher:
    """Records what a callback is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def start(self, total: int, done: int, name: str) -> None:
        self.told.append((total, done, name))

    def step(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        self.told.append((step, sorted(metrics)))

    def close(self) -> None:
        self.told.append("close")


@dataclass(frozen=True)
class Stopped(MeanMatching):
    """Is interrupted inside its step number ``at``, after it has drawn from the generator; ``limit`` times in all."""

    at: int = 7
    limit: int = 1
    stops: ClassVar[list[int]] = []

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        following = super().step(state, data, rng)
        if int(state["seen"]) + 1 == self.at and len(self.stops) < self.limit:
            self.stops.append(self.at)
            raise KeyboardInterrupt
        return following


@dataclass(frozen=True)
class Bad(MeanMatching):
    """Reports ``value`` as its loss, or puts it into its state, at step ``at``."""

    value: float = torch.nan
    at: int = 5
    where: str = "loss"

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        following, metrics = super().step(state, data, rng)
        if int(following["seen"]) != self.at:
            return following, metrics
        poison = torch.tensor(self.value)
        if self.where == "loss":
            return following, {"loss": poison}
        return {**following, "images": following["images"] * poison}, {"loss": metrics["loss"]}


def test_the_loop_is_init_steps_and_result() -> None:
    data, method = toy_images(), MeanMatching(images_per_class=2)
    rng = torch.Generator().manual_seed(3)
    state = method.init(data, rng)
    for _ in range(6):
        state, _ = method.step(state, data, rng)
    made = distill(data, method, steps=6, seed=3, device="cpu")
    assert torch.equal(made.inputs, method.result(state, data).inputs)
    assert not torch.equal(made.inputs, distill(data, method, steps=6, seed=4, device="cpu").inputs)


def test_provenance_says_how_the_set_was_made() -> None:
    data = toy_images()
    made = distill(data, MeanMatching(learning_rate=0.25), steps=3, seed=5, device="cpu").provenance
    assert made["method"] == "mean-matching"
    assert made["config"]["learning_rate"] == 0.25
    assert (made["seed"], made["steps"], made["device"]) == (5, 3, "cpu")
    assert made["data"] == {"name": "toy-images", "fingerprint": data.fingerprint, "size": 30}
    assert made["versions"]["ddplug"] == ddplug.__version__
    assert made["versions"]["torch"] == torch.__version__
    assert set(made["versions"]) == {"ddplug", "torch", "numpy", "python"}
    assert made["seconds"] > 0
    json.dumps(dict(made), allow_nan=False)


def test_a_name_stands_for_the_defaults() -> None:
    data = toy_images((12, 11))
    assert torch.equal(distill(data, "random", device="cpu").inputs, distill(data, Random(), device="cpu").inputs)


def test_selection_takes_no_step_and_tells_callbacks_so() -> None:
    watcher = Watcher()
    made = distill(toy_images(), Random(images_per_class=2), device="cpu", callbacks=[watcher])
    assert watcher.told == [(0, 0, "random"), "close"]
    assert made.provenance["steps"] == 0


def test_callbacks_hear_every_step() -> None:
    watcher = Watcher()
    distill(toy_images(), MeanMatching(steps=2), device="cpu", callbacks=[watcher])
    assert watcher.told == [(2, 0, "mean-matching"), (1, ["loss"]), (2, ["loss"]), "close"]


def factory() -> nn.Module:
    return nn.Identity()


@dataclass(frozen=True)
class Configured(MeanMatching):
    """Has hyper-parameters of every kind."""

    network: Callable[..., nn.Module] = factory
    made: Any = field(default_factory=lambda: functools.partial(dict, 1, width=2))
    module: Any = field(default_factory=nn.Identity)
    recipe: Recipe = field(default_factory=lambda: Recipe(epochs=3))
    pair: Any = (1, "a", None, float("inf"))
    table: Any = field(default_factory=lambda: {"k": 0.5})


def test_config_is_json_with_callables_by_name() -> None:
    config = config_of(Configured())
    assert config["network"] == f"{__name__}.factory"
    assert config["made"] == ["builtins.dict", [1], {"width": 2}]
    # a network is told by its weights too; this one has none
    assert config["module"] == {
        "module": "torch.nn.modules.linear.Identity",
        "weights": hashlib.sha256().hexdigest(),
    }
    assert config["recipe"]["epochs"] == 3
    assert (config["pair"], config["table"]) == ([1, "a", None, "inf"], {"k": 0.5})
    json.dumps(config, allow_nan=False)


def test_config_refuses_what_cannot_be_written_down() -> None:
    with pytest.raises(OptionError, match=r"hyper-parameter 'pair' is a Tensor, which cannot be written down"):
        config_of(Configured(pair=torch.zeros(2)))


def test_a_class_instead_of_an_instance_is_refused() -> None:
    method: Any = MeanMatching
    with pytest.raises(OptionError, match=r"MeanMatching is not an instance .* such as MeanMatching\(\.\.\.\)"):
        distill(toy_images(), method, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps is -1; it must be at least 0"),
        ({"seed": -2}, "seed is -2; it must be at least 0"),
        ({"checkpoint_every": float("nan")}, "checkpoint_every is nan; it must"),
        ({"device": "cuda:99"}, r"device 'cuda:99' is not available: \d+ of its kind found"),
        ({"device": "meta"}, "device 'meta' is not available: 0 of its kind found"),
        ({"device": "quantum"}, "unknown device 'quantum'; use auto, cpu, cuda"),
        ({"checkpoint": "nowhere/run.safetensors"}, "the folder .*nowhere does not exist; create it first"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        distill(toy_images(), MeanMatching(), **options)
    assert "\n" not in str(caught.value)


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="unknown distiller 'herdin'; did you mean 'herding'"):
        distill(toy_images(), "herdin", device="cpu")


def test_auto_picks_a_device_that_is_there() -> None:
    assert torch.zeros(1, device=pick_device()).device.type == pick_device("auto").type
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        assert pick_device("auto") == CPU


def test_interrupt_inside_a_step_loses_that_step_only(tmp_path: Path) -> None:
    data, path, watcher = toy_images(), tmp_path / "run", Watcher()
    Stopped.stops.clear()
    with pytest.raises(KeyboardInterrupt):
        distill(data, Stopped(steps=12), device="cpu", checkpoint=path, callbacks=[watcher])
    assert load(str(path), identity_of(data, Stopped(), 0), CPU, 12)[0].step == 6
    assert watcher.told[-2:] == [(6, ["loss"]), "close"]
    resumed = distill(data, Stopped(steps=12), device="cpu", checkpoint=path, callbacks=[watcher])
    assert watcher.told[-8] == (12, 6, "mean-matching")
    assert torch.equal(resumed.inputs, distill(data, MeanMatching(steps=12), device="cpu").inputs)


def test_interrupt_in_a_callback_keeps_what_the_log_covers(tmp_path: Path) -> None:
    class Stop(Watcher):
        def step(self, step: int, metrics: Mapping[str, Tensor]) -> None:
            if step == 4:
                raise KeyboardInterrupt

    data, path = toy_images(), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        distill(data, MeanMatching(), device="cpu", checkpoint=path, callbacks=[Stop()])
    assert load(str(path), identity_of(data, MeanMatching(), 0), CPU, 20)[0].step == 3


def test_interrupt_before_there_is_a_state_writes_nothing(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Early(MeanMatching):
        def init(self, data: LabeledData, rng: torch.Generator) -> State:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(toy_images(), Early(), device="cpu", checkpoint=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path: Path, value: float) -> None:
    data, method, path = toy_images(), Bad(value=value), tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        distill(data, method, device="cpu", checkpoint=path)
    message = str(caught.value)
    assert message.startswith(f"mean-matching diverged: the loss is {value} at step 5; lower the learning rate;")
    assert message.endswith(f"the last good checkpoint is {path}")
    kept, _ = load(str(path), identity_of(data, method, 0), CPU, 20)
    assert kept.finite
    assert kept.step == 3  # the state that gave the last finite loss, that of step 4


def test_without_a_checkpoint_the_message_says_so() -> None:
    with pytest.raises(DivergedError, match="at step 5; lower the learning rate; there is no checkpoint"):
        distill(toy_images(), Bad(), device="cpu")


def test_a_state_that_is_not_finite_is_never_kept(tmp_path: Path) -> None:
    data, method, path = toy_images(), Bad(where="state", steps=5), tmp_path / "run"
    with pytest.raises(DivergedError, match=r"the state holds NaN or infinity after step 5; .* checkpoint is .*run"):
        distill(data, method, device="cpu", checkpoint=path, checkpoint_every=0)
    kept, _ = load(str(path), identity_of(data, method, 0), CPU, 20)
    assert kept.finite
    assert kept.step == 4


def test_an_interrupt_does_not_keep_a_state_that_is_not_finite(tmp_path: Path) -> None:
    class Stop(Watcher):
        def step(self, step: int, metrics: Mapping[str, Tensor]) -> None:
            if step == 6:
                raise KeyboardInterrupt

    @dataclass(frozen=True)
    class Silent(Bad):
        """Poisons its state and reports a finite loss all the same."""

        def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
            return super().step(state, data, rng)[0], {"loss": torch.zeros(())}

    data, method, path = toy_images(), Silent(where="state"), tmp_path / "run"
    distill(data, method, steps=3, device="cpu", checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        distill(data, method, device="cpu", checkpoint=path, callbacks=[Stop()])
    assert path.read_bytes() == before


def test_on_an_accelerator_losses_are_looked_at_every_25_steps() -> None:
    data, method = toy_images(), Bad(at=7)
    run = Run(method, identity_of(data, method, 0), torch.device("cuda"), None, 1e9)
    run.now = run.sound = Snapshot(method.init(data, run.rng), run.rng.get_state(), 0)
    for _ in range(24):
        run.step(data, ())
    with pytest.raises(DivergedError, match="the loss is nan at step 7;"):
        run.step(data, ())


def test_what_the_loop_does_not_look_at_every_step_it_looks_at_before_the_end() -> None:
    data, method = toy_images(), Bad(at=7)
    run = Run(method, identity_of(data, method, 0), torch.device("cuda"), None, 1e9)
    run.now = run.sound = Snapshot(method.init(data, run.rng), run.rng.get_state(), 0)
    with pytest.raises(DivergedError, match="the loss is nan at step 7;"):
        run.loop(data, 10, ())


def test_hyper_parameters_are_given_beside_a_name() -> None:
    data = toy_images((5, 6))
    options: dict[str, Any] = {"images_per_class": 1, "network": "mlp:width=3", "batch_real": 2, "bank": 1}
    made = distill(data, "dm", steps=1, device="cpu", **options)
    same = distill(data, DM(**options), steps=1, device="cpu")
    assert torch.equal(made.inputs, same.inputs)
    assert made.provenance["config"] == same.provenance["config"]


@pytest.mark.parametrize(
    ("distiller", "options", "says"),
    [
        ("dm", {"images_per_clas": 1}, "unknown option of dm, 'images_per_clas'; did you mean 'images_per_class'"),
        ("random", {"bank": 1}, "unknown option of random, 'bank'"),
        (DM(), {"images_per_class": 1}, "images_per_class given beside a distiller: set its own fields, or name the"),
        ("dm", {"images_per_class": 0}, "images_per_class is 0; it must be at least 1"),
    ],
)
def test_hyper_parameters_that_are_none_are_refused(distiller: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        distill(toy_images(), distiller, device="cpu", **options)
