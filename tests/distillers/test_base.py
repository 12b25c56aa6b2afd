"""The bases that methods are written on: two functions make a method of images, one a selection by features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ddplug import distill
from ddplug.data.labeled import LabeledData
from ddplug.distillation.protocol import State
from ddplug.distillers.base import AgedPool, ImageDistiller, Momentum, RenewedPool
from ddplug.distillers.selection.base import FeatureSelection
from ddplug.distillers.selection.herding import Herding
from ddplug.errors import OptionError
from ddplug.functional.resize import enlarge
from ddplug.testing import check_distiller, made_small, toy_images, toy_table


@dataclass(frozen=True)
class Pull(ImageDistiller):
    """Pulls every image towards the mean of a real batch of its class."""

    name: ClassVar[str] = "pull"
    augment: str = ""

    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        return {"goal": torch.stack([data.sample(label, 5, rng).mean(0) for label in range(data.num_classes)])}

    def loss(self, state: State, view: Mapping[str, Any], data: LabeledData) -> Tensor:
        images = enlarge(state["inputs"], data.shape)
        goal: Tensor = view["goal"].repeat_interleave(len(images) // data.num_classes, 0)
        return (images - goal).square().sum() / 2


@dataclass(frozen=True)
class MomentumPull(Momentum, Pull):
    """The same by SGD."""

    learning_rate: float = 0.1


@dataclass(frozen=True)
class RenewedPull(Momentum, RenewedPool, Pull):
    """The same with goals that are kept."""


@dataclass(frozen=True)
class AgedPull(AgedPool, Pull):
    """The same, with a goal for each of a few networks."""

    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        network = {name: tensor for name, tensor in state.items() if name.startswith("network.")}
        return {**network, **super().view(state, data, rng)}


@pytest.mark.parametrize("method", [Pull(), Pull(factor=2), MomentumPull(), RenewedPull(), AgedPull()], ids=repr)
def test_a_view_and_a_loss_make_a_method(method: ImageDistiller) -> None:
    check_distiller(method)


def test_a_table_needs_nothing_else() -> None:
    check_distiller(Pull(network="mlp:width=5"), toy_table())


def test_sgd_follows_the_heavy_ball() -> None:
    data = toy_images()
    method = MomentumPull(images_per_class=2, init_from="noise", momentum=0.8, learning_rate=0.05)
    rng, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    state: State = method.init(data, rng)
    images = torch.randn(6, 1, 8, 8, generator=other)
    before = images
    for _ in range(4):
        state, metrics = method.step(state, data, rng)
        goal = torch.stack([data.sample(label, 5, other).mean(0) for label in range(3)]).repeat_interleave(2, 0)
        assert float(metrics["loss"]) == pytest.approx(float((images - goal).square().sum() / 2), rel=1e-5)
        images, before = images - 0.1 * (images - goal) + 0.8 * (images - before), images
        torch.testing.assert_close(state["inputs"], images, rtol=1e-4, atol=1e-5)


def test_the_oldest_goal_is_renewed_in_turn() -> None:
    data, rng = toy_images(), torch.Generator().manual_seed(0)
    method = RenewedPull(images_per_class=1, pool_size=2, renew=3)
    states: list[State] = [method.init(data, rng)]
    for _ in range(10):
        states.append(method.step(states[-1], data, rng)[0])
    goals = [state["pool.goal"] for state in states]
    changed = [[k for k in range(2) if not torch.equal(one[k], other[k])] for one, other in pairwise(goals)]
    assert changed == [[], [], [], [1], [], [], [0], [], [], [1]]


@pytest.mark.parametrize(("steps", "renew"), [(0, 3), (1, 3), (6, 3), (7, 3), (7, 0)])
def test_estimates_count_the_goals_that_are_drawn(steps: int, renew: int, monkeypatch: pytest.MonkeyPatch) -> None:
    view, seen = RenewedPull.view, []

    def counted(*given: Any) -> dict[str, Tensor]:
        seen.append(given)
        return view(*given)

    monkeypatch.setattr(RenewedPull, "view", counted)
    method = RenewedPull(images_per_class=1, pool_size=2, renew=renew, steps=steps)
    distill(toy_images(), method, device="cpu")
    assert method.work() == {"views": len(seen)}


def test_adams_first_step_moves_every_number_by_the_rate() -> None:
    method = Pull(images_per_class=1, init_from="noise", learning_rate=0.03)
    first, second = (distill(toy_images(), method, steps=steps, device="cpu").inputs for steps in (0, 1))
    torch.testing.assert_close((second - first).abs(), torch.full_like(first, 0.03), rtol=1e-3, atol=0)


@dataclass(frozen=True)
class Longest(FeatureSelection):
    """Keeps the rows of the largest norm."""

    name: ClassVar[str] = "longest"

    def choose(self, features: Tensor, number: int, rng: torch.Generator) -> Tensor:
        norms: Tensor = features.norm(dim=1)
        return norms.argsort(descending=True)[:number].cpu()


def test_one_function_makes_a_selection() -> None:
    check_distiller(Longest())
    data = toy_images()
    made = distill(data, Longest(images_per_class=1), device="cpu")
    norms = data.batch(torch.arange(len(data))).flatten(1).norm(dim=1)
    for label, own in enumerate(data.class_indices):
        best = own[norms[own].argmax()]
        torch.testing.assert_close(made[label][0], data.batch(best[None])[0])


def test_quick_values_leave_alone_what_was_set() -> None:
    assert made_small(RenewedPull()).pool_size == 2
    assert made_small(RenewedPull(pool_size=7)).pool_size == 7


def test_common_options_are_checked() -> None:
    with pytest.raises(OptionError, match="images_per_class is 0; it must be at least 1"):
        Pull(images_per_class=0)
    with pytest.raises(OptionError, match="momentum is -1; it must be at least 0"):
        MomentumPull(momentum=-1)
    with pytest.raises(OptionError, match="pool_size is -1; it must be at least 0"):
        RenewedPull(pool_size=-1)


@pytest.mark.parametrize("factor", [1, 2])
def test_images_start_from_what_a_method_selects(factor: int) -> None:
    data = toy_images((9, 10, 11))
    chosen = distill(data, Herding(2 * factor**2), device="cpu")
    made = distill(data, Pull(images_per_class=2, init_from="herding", factor=factor), steps=0, device="cpu")
    torch.testing.assert_close(made.inputs, chosen.reduced(factor).inputs)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ("herdin", "unknown init_from 'herdin'; did you mean 'herding'"),
        ("dm", "init_from is 'dm', which learns; give a method that selects"),
        ("herding:depth=2", "unknown option of init_from 'herding', 'depth'"),
    ],
)
def test_what_images_cannot_start_from_is_refused(start: str, message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        distill(toy_images(), Pull(images_per_class=1, init_from=start), device="cpu")
    assert "\n" not in str(caught.value)
