"""MTT against slow loops in float64, TESLA's approximation against its formula, and runs on experts in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import one_hot
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ddplug import distill
from ddplug.data.labeled import LabeledData
from ddplug.distillers.mtt import MTT
from ddplug.distillers.parts.experts import expert_path, read_expert, train_experts
from ddplug.distillers.parts.images import balanced_labels
from ddplug.distillers.parts.training import ExpertTraining, trajectory
from ddplug.errors import CheckpointError, DataError, OptionError
from ddplug.functional import augmentation as augment
from ddplug.networks.convnet import ConvNet
from ddplug.networks.factory import build
from ddplug.testing import check_distiller, toy_images, toy_table
from tests.exact import Exact, exact_images, generator, peak_of_graphs, twin

SMALL = MTT(
    images_per_class=2,
    network="convnet:width=4,depth=1",
    num_experts=2,
    epoch_steps=2,
    syn_steps=3,
    max_start_epoch=2,
    train_learning_rate=0.01,
    learning_rate=100.0,
    lr_rate=0.1,
    init_from="real",
)


def double_convnet() -> nn.Module:
    return ConvNet((1, 8, 8), 3, width=4, depth=1).double()


EXACT = replace(SMALL, network=double_convnet, train_learning_rate=0.3, learning_rate=0.5, lr_rate=0.05)


def doubles(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.double() if t.is_floating_point() else t for name, t in state.items()}


def weights_of(vector: Tensor) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        module = double_convnet()
    vector_to_parameters(vector.clone(), module.parameters())
    return {name: p.detach() for name, p in module.named_parameters()}


def slow_run(
    method: MTT, learned: Mapping[str, Tensor], start: Tensor, rng: torch.Generator, cut: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """Train on the images, written out: for each step the weights before it and its gradient, both as vectors."""
    with torch.random.fork_rng(devices=[]):
        module = double_convnet()
    order: list[int] = []
    parts: list[list[int]] = []
    while len(parts) < method.syn_steps:
        order = torch.randperm(len(learned["inputs"]), generator=rng).tolist()
        size = method.batch_synthetic or len(order)
        parts += [order[first : first + size] for first in range(0, len(order), size)]
    parts = parts[: method.syn_steps]
    draws = [augment.draw(method.augment, len(part), rng) for part in parts]
    labels = one_hot(balanced_labels(toy_images((5, 5, 5)), method.images_per_class), 3).double()
    if method.label_rate:
        labels = learned["labels"].softmax(1)
    weights, alpha, steps = weights_of(start), learned["log_rate"].exp(), []
    for part, drawn in zip(parts, draws, strict=True):
        weights = {name: w.detach() if cut else w for name, w in weights.items()}
        weights = {name: w if w.requires_grad else w.requires_grad_() for name, w in weights.items()}
        logs = functional_call(module, weights, (augment.apply(learned["inputs"][part], drawn),)).log_softmax(1)
        loss = -(labels[part] * logs).sum(1).mean()
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        steps.append((parameters_to_vector(weights.values()), parameters_to_vector(gradients)))
        weights = {name: w - alpha * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    return steps


def slow_loss(method: MTT, learned: Mapping[str, Tensor], start: Tensor, goal: Tensor, rng: torch.Generator) -> Tensor:
    last, gradient = slow_run(method, learned, start, rng)[-1]
    end = last - learned["log_rate"].exp() * gradient
    return (end - goal).square().sum() / (start - goal).square().sum()


@pytest.mark.parametrize("gradient", ["auto", "exact", "unrolled"])
@pytest.mark.parametrize(
    "options",
    [
        {"augment": ""},
        {"augment": "crop_flip_color", "batch_synthetic": 4},
        {"augment": "flip", "batch_synthetic": 4, "label_rate": 2.0, "expert_epochs": 2},
    ],
    ids=["plain", "augmented", "soft"],
)
def test_a_step_is_algorithm_1(gradient: Any, options: dict[str, Any]) -> None:
    data, rng = exact_images((9, 12, 10)), generator(5)
    method = replace(EXACT, gradient=gradient, **options)
    state: Mapping[str, Tensor] = doubles(method.init(data, rng))
    assert tuple(state["trajectories"].shape[:2]) == (2, method.max_start_epoch + method.expert_epochs)
    names = ["inputs", "log_rate", *(["labels"] if method.label_rate else [])]
    leaves = {name: nn.Parameter(state[name].clone()) for name in names}
    groups = [
        {"params": [leaf], "lr": rate, "momentum": momentum}
        for leaf, rate, momentum in zip(
            leaves.values(), (method.learning_rate, method.lr_rate, method.label_rate), (0.5, 0.5, 0.9), strict=False
        )
    ]
    optimizer = torch.optim.SGD(groups)
    for _ in range(3):
        other = twin(rng)
        k, epoch = (int(torch.randint(2, (), generator=other)) for _ in range(2))
        start, goal = (state["trajectories"][k, t] for t in (epoch, epoch + method.expert_epochs))
        state, metrics = method.step(state, data, rng)
        loss = slow_loss(method, leaves, start, goal, other)
        torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-10, atol=1e-12)
        optimizer.zero_grad()
        loss.backward()
        assert all(leaf.grad is not None and float(leaf.grad.norm()) > 1e-6 for leaf in leaves.values())
        optimizer.step()
        for name, leaf in leaves.items():
            torch.testing.assert_close(state[name], leaf.detach(), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(metrics["learned_rate"], leaves["log_rate"].exp().detach(), rtol=1e-8, atol=0)


def gradients(method: MTT, steps: int, seed: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """What is learned, the gradient of a loss in it, and where that loss starts and is to come to."""
    data = exact_images((9, 12, 10))
    method = replace(method, syn_steps=steps)
    state = doubles(method.init(data, generator(5)))
    learned = {name: state[name].requires_grad_() for name in ("inputs", "log_rate")}
    start, goal = state["trajectories"][0, :2]
    view = {"start": start, "goal": goal, **method._draws(len(state["inputs"]), data, generator(seed))}
    loss = method.loss(learned, view, data)
    return learned, dict(zip(learned, torch.autograd.grad(loss, list(learned.values())), strict=True)), start, goal


@pytest.mark.parametrize("steps", [10, 50])
def test_the_exact_gradient_is_that_of_the_full_unroll(steps: int) -> None:
    method = replace(EXACT, augment="crop_flip_color", batch_synthetic=4)
    found, whole = (gradients(replace(method, gradient=how), steps)[1] for how in ("exact", "unrolled"))
    for name, gradient in whole.items():
        assert float((found[name] - gradient).norm()) < 1e-6 * float(gradient.norm())


def test_tesla_is_its_formula() -> None:
    r"""Gradients of :math:`|\theta_0 - \alpha G - \theta^*|^2` with the sum written out, and its factor of two."""
    method = replace(EXACT, gradient="tesla", augment="crop_flip", batch_synthetic=4)
    learned, found, start, goal = gradients(method, 6)
    steps = slow_run(replace(method, syn_steps=6), learned, start, generator(), cut=True)
    alpha, size = learned["log_rate"].exp(), (start - goal).square().sum()
    total = torch.stack([gradient for _, gradient in steps]).sum(0).detach()
    along = (2 * (alpha * (goal - start) + alpha**2 * total) / size).detach()
    for_images = torch.autograd.grad(torch.stack([along @ g for _, g in steps]).sum(), learned["inputs"])[0]
    for_rate = alpha * (-2 * total @ (start - alpha * total - goal)) / size
    torch.testing.assert_close(found["inputs"], for_images, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found["log_rate"], for_rate.detach(), rtol=1e-9, atol=1e-14)


def test_tesla_is_exact_for_one_step_only() -> None:
    angles = []
    for steps in (1, 20):
        tesla, exact = (gradients(replace(EXACT, gradient=how), steps)[1]["inputs"] for how in ("tesla", "exact"))
        if steps == 1:
            torch.testing.assert_close(tesla, exact, rtol=1e-9, atol=1e-15)
        angles.append(float((tesla * exact).sum() / tesla.norm() / exact.norm()))
    assert angles[0] > 1 - 1e-12 and 0.5 < angles[1] < 0.999


def test_graphs_take_as_much_memory_for_50_steps_as_for_10() -> None:
    data = toy_images((9, 12, 10))
    state = {name: t.requires_grad_() for name, t in SMALL.init(data, generator()).items() if t.is_floating_point()}
    learned = {name: state[name] for name in ("inputs", "log_rate")}
    start, goal = state["trajectories"][0, :2].detach()

    def peak(how: Any, steps: int) -> int:
        method = replace(SMALL, gradient=how, syn_steps=steps, augment="crop_flip")

        def gradient() -> None:
            view = {"start": start, "goal": goal, **method._draws(len(state["inputs"]), data, generator())}
            loss = method.loss(learned, view, data)
            torch.autograd.grad(loss, list(learned.values()))

        return peak_of_graphs(gradient)

    few = peak("exact", 10)
    assert peak("exact", 50) <= 1.01 * few
    assert peak("unrolled", 10) > 2 * few > peak("tesla", 10)


def test_the_memory_that_is_left_chooses_the_gradient_of_a_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    data, method = toy_images((9, 12, 10)), replace(SMALL, syn_steps=5)
    cases: list[tuple[int | None, Any]] = [(10**9, "unrolled"), (10**5, "exact"), (None, "exact")]
    for free, how in cases:
        monkeypatch.setattr("ddplug.distillers.mtt.available", lambda device, free=free: free)
        state = method.init(data, generator())
        assert bool(state["unrolled"]) == (how == "unrolled")
        monkeypatch.setattr("ddplug.distillers.mtt.available", lambda device, free=free: None if free else 10**9)
        after, _ = method.step(state, data, generator(1))
        same, _ = replace(method, gradient=how).step(
            {name: t for name, t in state.items() if name != "unrolled"}, data, generator(1)
        )
        assert torch.equal(after["inputs"], same["inputs"])


def test_naming_the_classes_in_another_order_gives_the_same_images() -> None:
    """With the rows of the experts' last layer named in that order too."""
    data = exact_images((9, 12, 10))
    shifted = Exact(
        **{f.name: getattr(data, f.name) for f in fields(data) if f.init and f.name != "targets"},
        targets=(data.targets + 1) % 3,
    )
    method = replace(EXACT, label_rate=1.0)
    one: Any = doubles(method.init(data, generator()))
    other: Any = dict(one)
    for name in ("inputs", "velocity.inputs"):
        other[name] = one[name].roll(2, 0)
    for name in ("labels", "velocity.labels"):
        other[name] = one[name].roll((2, 1), (0, 1))

    def renamed(vector: Tensor) -> Tensor:
        weights = weights_of(vector)
        return parameters_to_vector([w.roll(1, 0) if name.startswith("head") else w for name, w in weights.items()])

    other["trajectories"] = torch.stack([torch.stack(list(map(renamed, rows))) for rows in one["trajectories"]])
    assert not torch.equal(other["trajectories"], one["trajectories"])
    before = one["inputs"]
    for seed in range(3):
        one, _ = method.step(one, data, generator(seed))
        other, _ = method.step(other, shifted, generator(seed))
    assert float((one["inputs"] - before).norm()) > 1e-4
    torch.testing.assert_close(other["inputs"], one["inputs"].roll(2, 0), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(other["labels"], one["labels"].roll((2, 1), (0, 1)), rtol=1e-7, atol=1e-9)


def test_each_image_is_taken_once_before_any_is_taken_again() -> None:
    parts = replace(SMALL, syn_steps=5, batch_synthetic=4)._batches(10, generator())
    assert [len(part) for part in parts] == [4, 4, 2, 4, 4]
    assert sorted(torch.cat(parts[:3]).tolist()) == list(range(10))
    assert len(set(torch.cat(parts[3:]).tolist())) == 8
    assert [len(part) for part in replace(SMALL, syn_steps=2)._batches(6, generator())] == [6, 6]


def test_the_window_of_epochs_grows_in_a_straight_line() -> None:
    method = replace(SMALL, min_start_epoch=1, early_start_epoch=2, max_start_epoch=6, grow_steps=8, expert_epochs=2)
    assert [method._limit(done) for done in (0, 1, 2, 4, 7, 8, 100)] == [2, 2, 3, 4, 5, 6, 6]
    assert [replace(method, early_start_epoch=0)._limit(done) for done in (0, 8)] == [6, 6]
    # trajectories whose weights are the number of the epoch, plus a hundred times that of the expert
    rows = torch.arange(8.0).view(1, 8, 1) + 100 * torch.arange(2.0).view(2, 1, 1)
    rng, data, seen = generator(), toy_images(), set()
    for _ in range(200):
        state = {"trajectories": rows, "inputs": torch.zeros(3, 1, 8, 8), "done": torch.tensor(4)}
        view = method.view(state, data, rng)
        assert float(view["goal"] - view["start"]) == 2
        seen.add(float(view["start"]))
    assert seen == {1, 2, 3, 101, 102, 103}


def test_updates_above_the_threshold_are_left_out() -> None:
    data = toy_images()
    state = SMALL.init(data, generator())
    moved, metrics = SMALL.step(state, data, generator())
    loss = float(metrics["loss"])
    for threshold, stays in ((loss * 1.01, False), (loss * 0.99, True)):
        after, again = replace(SMALL, threshold=threshold).step(state, data, generator())
        assert float(again["loss"]) == loss and int(after["done"]) == 1
        assert torch.equal(after["inputs"], state["inputs"]) == stays != torch.equal(after["inputs"], moved["inputs"])
        assert torch.equal(after["log_rate"], state["log_rate"]) == stays


def test_the_learned_rate_travels_with_the_set_and_stays_positive() -> None:
    data = toy_images()
    made = distill(data, replace(SMALL, lr_rate=5.0, learning_rate=0.0), steps=3, device="cpu")
    assert 0 < made.recipe.learning_rate != pytest.approx(0.01)
    kept = distill(data, replace(SMALL, lr_rate=0.0, augment="flip"), steps=3, device="cpu")
    assert kept.recipe.learning_rate == pytest.approx(0.01)
    assert (kept.recipe.epochs, kept.recipe.momentum, kept.recipe.augment) == (1001, 0.9, "flip")


def test_labels_begin_with_the_experts_that_recognize_the_image() -> None:
    data = toy_images((30, 30, 30))
    method = replace(SMALL, images_per_class=10, num_experts=3, train_learning_rate=0.02, label_rate=1.0)
    state = method.init(data, generator())
    own, seen = balanced_labels(data, 10), [0, 0, 0, 0]
    networks = []
    for rows in state["trajectories"]:
        module = build(SMALL.network, data.shape, 3, generator())
        vector_to_parameters(rows[-1].clone(), module.parameters())
        networks.append(module)
    for image, label, logits in zip(state["inputs"], own.tolist(), state["labels"], strict=True):
        with torch.no_grad():
            found = [module(image[None])[0] for module in networks]
        right = [one for one in found if int(one.argmax()) == label]
        seen[len(right)] += 1
        expected = torch.stack(right).mean(0) if right else 5.0 * one_hot(torch.tensor(label), 3)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert sum(count > 0 for count in seen) >= 2, seen
    made = distill(data, method, steps=2, device="cpu")
    torch.testing.assert_close(made.targets.sum(1), torch.ones(30))
    start = distill(data, method, steps=0, device="cpu").targets
    assert float((made.targets - start).abs().max()) > 1e-6
    assert distill(data, SMALL, steps=2, device="cpu").targets.tolist() == [0, 0, 1, 1, 2, 2]


def on_files(folder: Path, data: LabeledData) -> MTT:
    """MTT on three experts in a folder."""
    train_experts(data, folder, SMALL.network, ExpertTraining(epochs=2, epoch_steps=2), number=3, device="cpu")
    return replace(SMALL, experts=str(folder), num_experts=0)


def test_experts_in_files_do_as_those_in_the_state(tmp_path: Path) -> None:
    data = toy_images()
    method = on_files(tmp_path, data)
    state: Mapping[str, Tensor] = method.init(data, generator())
    assert "trajectories" not in state and tuple(state["experts"].shape) == (3, 32)
    rows = [[read_expert(expert_path(tmp_path, k)).at(t) for t in range(3)] for k in range(3)]
    inside: Mapping[str, Tensor] = {**state, "trajectories": torch.stack([torch.stack(one) for one in rows])}
    for seed in range(5):
        state, _ = method.step(state, data, generator(seed))
        inside, _ = replace(method, experts="").step(inside, data, generator(seed))
    assert torch.equal(state["inputs"], inside["inputs"])
    assert len(replace(method, num_experts=2).init(data, generator())["experts"]) == 2


def test_the_contract_holds_with_experts_in_files(tmp_path: Path) -> None:
    data = toy_images()
    check_distiller(on_files(tmp_path, data), data)


def test_a_run_goes_on_with_its_own_experts_only(tmp_path: Path) -> None:
    data = toy_images()
    method = on_files(tmp_path / "e", data)
    go = partial(distill, data, method, device="cpu", checkpoint=tmp_path / "run.safetensors")
    go(steps=2)
    for k in range(3):
        expert_path(tmp_path / "e", k).unlink()
    with pytest.raises(OptionError, match=r"cannot read .*expert-0000\d.safetensors"):
        go(steps=3)
    train_experts(
        data, tmp_path / "e", SMALL.network, ExpertTraining(epochs=2, epoch_steps=2), number=3, seed=1, device="cpu"
    )
    with pytest.raises(DataError, match="is not the expert that this run began with"):
        go(steps=3)
    with pytest.raises(CheckpointError, match="its hyper-parameter experts was"):
        distill(data, SMALL, device="cpu", checkpoint=tmp_path / "run.safetensors")


def test_experts_that_do_not_suit_are_refused(tmp_path: Path) -> None:
    data = toy_images()
    method = on_files(tmp_path, data)
    with pytest.raises(OptionError, match=r"were trained for 2 epochs, but max_start_epoch - 1 \+ expert_epochs is 3"):
        distill(data, replace(method, expert_epochs=2), device="cpu")
    with pytest.raises(DataError, match="its network is 'convnet:width=4,depth=1', not 'convnet:width=8"):
        distill(data, replace(method, network="convnet:width=8,depth=1"), device="cpu")
    with pytest.raises(DataError, match="its data's fingerprint is"):
        distill(data.subset(torch.arange(20)), method, device="cpu")


def test_it_learns() -> None:
    data = toy_images((40, 40, 40))
    method = replace(
        SMALL, init_from="noise", num_experts=1, epoch_steps=10, train_learning_rate=0.1, max_start_epoch=1
    )
    rng, losses = generator(), []
    state: Mapping[str, Tensor] = method.init(data, rng)
    for _ in range(60):
        state, metrics = method.step(state, data, rng)
        losses.append(float(metrics["loss"]))
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])


@pytest.mark.parametrize("size", [8, 32])
def test_color_and_other_sizes(size: int) -> None:
    data = toy_images((6, 6), channels=3, size=size)
    made = distill(data, replace(SMALL, images_per_class=3, augment="color_flip"), steps=2, device="cpu")
    assert tuple(made.inputs.shape) == (6, 3, size, size)


def test_tables_take_an_mlp_and_refuse_image_operations() -> None:
    check_distiller(replace(SMALL, network="mlp:width=6", augment="", learning_rate=1.0), toy_table())
    with pytest.raises(OptionError, match=r"needs \(C, H, W\) images"):
        distill(toy_table(), replace(SMALL, network="mlp", augment="flip"), device="cpu")


def test_dropout_does_not_disturb_what_is_computed_twice() -> None:
    def dropping() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3), nn.Dropout(0.5))

    check_distiller(replace(SMALL, network=dropping), toy_images())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"syn_steps": 0}, "syn_steps is 0; it must be at least 1"),
        ({"min_start_epoch": 2}, "max_start_epoch is 2; it must be at least 3"),
        ({"early_start_epoch": 3}, "early_start_epoch is 3; it must be 0, or above min_start_epoch 0 and at most"),
        ({"early_start_epoch": 1}, "early_start_epoch is 1 and grow_steps is 0; say how many"),
        ({"train_learning_rate": 0.0}, "train_learning_rate is 0.0; it must be at least 1e-06"),
        ({"gradient": "exactly"}, "unknown gradient 'exactly'; did you mean 'exact'"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(SMALL, **options)


def test_batch_normalization_is_refused() -> None:
    with pytest.raises(
        OptionError, match="the running statistics of 'convnet:norm=batch' are not among its parameters"
    ):
        distill(toy_images(), replace(SMALL, network="convnet:norm=batch"), device="cpu")


def test_the_loss_before_any_training_is_one() -> None:
    """A rate of next to nothing leaves the network where it starts."""
    data = toy_images()
    method = replace(SMALL, lr_rate=0.0)
    state = dict(method.init(data, generator()))
    state["log_rate"] = torch.tensor(-40.0)
    assert float(method.step(state, data, generator())[1]["loss"]) == pytest.approx(1)


def test_experts_trained_at_the_start_are_those_of_the_generator() -> None:
    data, rng = toy_images(), generator(1)
    state = replace(SMALL, init_from="noise").init(data, rng)
    other = generator(1)
    torch.randn(6, 1, 8, 8, generator=other)
    training = ExpertTraining(epochs=2, epoch_steps=2, batch_size=64)
    rows = [torch.stack(list(trajectory(SMALL.network, data, training, other))) for _ in range(2)]
    assert torch.equal(state["trajectories"], torch.stack(rows))
