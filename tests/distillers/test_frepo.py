"""FRePo and its ridge regression against numpy, scipy and slow loops in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug import distill
from ddplug.data.labeled import LabeledData
from ddplug.distillers.frepo import FRePo, solve_labels
from ddplug.errors import DataError, DivergedError, OptionError
from ddplug.functional.optim import adam_step
from ddplug.functional.ridge import best_labels, centered, nearest_distribution, predict
from ddplug.networks.convnet import ConvNet
from ddplug.networks.factory import build, embed
from ddplug.testing import check_class_symmetry, check_distiller, toy_images, toy_table
from tests.exact import exact_images, generator

SMALL = FRePo(images_per_class=2, network="convnet:width=8,depth=1", batch_real=4, pool_size=3, max_age=4, reuse=2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("dimensions", [3, 40])
def test_predictions_are_those_of_the_dual_and_of_the_primal_problem(dimensions: int) -> None:
    query, support, labels = normal(9, dimensions), normal(6, dimensions, seed=1), normal(6, 4, seed=2)
    ours = predict(query, support, labels, ridge=0.1).numpy()
    f, z, y = query.numpy(), support.numpy(), labels.numpy()
    penalty = 0.1 * np.trace(z @ z.T) / 6
    dual = f @ z.T @ scipy.linalg.solve(z @ z.T + penalty * np.eye(6), y, assume_a="pos")
    # the same weights by least squares on rows to which the penalty is appended
    rows = np.vstack([z, np.sqrt(penalty) * np.eye(dimensions)])
    weights = np.linalg.lstsq(rows, np.vstack([y, np.zeros((dimensions, 4))]), rcond=None)[0]
    np.testing.assert_allclose(ours, dual, rtol=1e-10)
    np.testing.assert_allclose(ours, f @ weights, rtol=1e-8)


def test_a_small_ridge_reproduces_the_labels_of_the_support() -> None:
    support, labels = normal(5, 30), normal(5, 3, seed=1)
    torch.testing.assert_close(predict(support, support, labels), labels, rtol=1e-4, atol=1e-4)


def test_features_in_float32_are_solved_as_in_float64() -> None:
    # as many nearly parallel images as features: float32 alone is wrong by more than the predictions themselves
    support = (normal(40, 1) @ normal(1, 40, seed=1) + 0.002 * normal(40, 40, seed=2)).float()
    query, labels = normal(9, 40, seed=3).float(), normal(40, 3, seed=4).float()
    weights = torch.linalg.solve(
        support @ support.T + 1e-6 * (support @ support.T).trace() / 40 * torch.eye(40), labels
    )
    arguments = [tensor.double().numpy() for tensor in (query, support, labels)]
    f, z, y = arguments
    exact = f @ z.T @ scipy.linalg.solve(z @ z.T + 1e-6 * np.trace(z @ z.T) / 40 * np.eye(40), y)
    scale = np.abs(exact).max()
    assert np.abs(predict(query, support, labels).numpy() - exact).max() < 1e-4 * scale
    assert np.abs((query @ support.T @ weights).numpy() - exact).max() > 1e-3 * scale


def test_the_gradients_of_the_prediction() -> None:
    arguments = [normal(4, 5), normal(3, 5, seed=1), normal(3, 2, seed=2)]
    assert torch.autograd.gradcheck(partial(predict, ridge=0.01), [a.requires_grad_() for a in arguments])


def test_the_label_solve_is_the_least_squares_solution_over_all_views() -> None:
    views = [(normal(20, 8, seed=k), normal(20, 3, seed=10 + k), normal(5, 8, seed=20 + k)) for k in range(3)]
    ours = best_labels(views, ridge=1e-9).numpy()
    blocks, targets = [], []
    for query, target, support in views:
        f, z = query.numpy(), support.numpy()
        blocks.append(f @ z.T @ np.linalg.inv(z @ z.T + 1e-9 * np.trace(z @ z.T) / 5 * np.eye(5)))
        targets.append(target.numpy())
    expected = np.linalg.lstsq(np.vstack(blocks), np.vstack(targets), rcond=None)[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8)


def test_no_label_predicts_better_than_the_solved_ones() -> None:
    views = [(normal(20, 8), centered(torch.eye(3).double()[torch.arange(20) % 3], 3), normal(5, 8, seed=1))]
    labels = best_labels(views, ridge=1e-8).requires_grad_()
    loss = (predict(views[0][0], views[0][2], labels, ridge=1e-8) - views[0][1]).square().sum()
    (gradient,) = torch.autograd.grad(loss, labels)
    assert float(gradient.abs().max()) < 1e-5
    torch.testing.assert_close(labels.sum(1), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-9)


def test_the_nearest_distribution_is_the_one_that_an_optimizer_finds() -> None:
    rows = normal(6, 4) * 2
    ours = nearest_distribution(rows)
    assert bool((ours >= 0).all())
    for row, found in zip(rows.numpy(), ours.numpy(), strict=True):
        sums = {"type": "eq", "fun": lambda p: p.sum() - 1}
        best = scipy.optimize.minimize(
            lambda p, row=row: ((p - row) ** 2).sum(),
            np.full(4, 0.25),
            bounds=[(0, 1)] * 4,
            constraints=[sums],
            method="SLSQP",
            tol=1e-14,
        )
        np.testing.assert_allclose(found, best.x, atol=1e-6)
    torch.testing.assert_close(nearest_distribution(ours), ours)


def double_convnet(norm: str) -> nn.Module:
    return ConvNet((1, 8, 8), 2, width=8, depth=2, norm=norm).double()


def module_of(method: FRePo, data: LabeledData, tensors: Mapping[str, Tensor]) -> nn.Module:
    module = build(method.network, data.shape, data.num_classes, generator())
    module.load_state_dict(dict(tensors))
    return module


def networks_of(state: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    prefix = "pool.network."
    return {name.removeprefix(prefix): t[k].clone() for name, t in state.items() if name.startswith(prefix)}


def slow_loss(
    method: FRePo, module: nn.Module, state: Mapping[str, Tensor], k: int, inputs: Tensor, y: Tensor
) -> Tensor:
    """The loss on one view's real features, one real image at a time, with an explicit inverse."""
    support = embed(module, inputs)
    kernel = support @ support.T
    inverse = torch.linalg.inv(kernel + 1e-6 * kernel.diag().mean() * torch.eye(len(kernel), dtype=kernel.dtype))
    classes = y.shape[1]
    total = torch.zeros((), dtype=torch.float64)
    for i, feature in enumerate(state["pool.features"][k]):
        target = torch.full((classes,), -1 / classes, dtype=torch.float64)
        target[i // method.batch_real] += 1
        prediction = (support @ feature) @ inverse @ (y - 1 / classes)
        total = total + (prediction - target).square().sum()
    return total / len(state["pool.features"][k])


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_a_step_is_algorithm_1(norm: str) -> None:
    data = exact_images()
    method = replace(SMALL, network=partial(double_convnet, norm), reuse=2, advance=3, init_from="real", augment="")
    rng = generator(3)
    state: Mapping[str, Tensor] = method.init(data, rng)
    assert state["pool.age"].tolist() == [0, 1, 2]
    state = {**state, **{name: t.double() for name, t in state.items() if name.split(".")[-1] in ("inputs", "labels")}}
    trained = 0
    for step in range(1, 11):
        other = torch.Generator()
        other.set_state(rng.get_state())
        after, metrics = method.step(state, data, rng)
        k = int(torch.randint(3, (), generator=other))
        module = module_of(method, data, networks_of(state, k))
        inputs, logits = (state[name].clone().requires_grad_() for name in ("inputs", "labels"))
        loss = slow_loss(method, module, state, k, inputs, logits.softmax(1))
        torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-6, atol=1e-9)
        rate = 0.55 + 0.45 * np.cos(np.pi * step / method.steps)
        for name, gradient in zip(("inputs", "labels"), torch.autograd.grad(loss, [inputs, logits]), strict=True):
            expected = adam_step(state, {name: gradient}, 0.01 * rate)[name]
            torch.testing.assert_close(after[name], expected, rtol=1e-5, atol=1e-6)
        if int(state["pool.used"][k]) == 1 and int(state["pool.age"][k]) < method.max_age:
            module = module_of(method, data, networks_of(state, k))
            optimizer = torch.optim.SGD(module.parameters(), lr=method.network_learning_rate)
            for _ in range(3):
                optimizer.zero_grad()
                cross_entropy(module(after["inputs"]), after["labels"].softmax(1)).backward()
                optimizer.step()
            for name, tensor in networks_of(after, k).items():
                torch.testing.assert_close(tensor, module.state_dict()[name], rtol=1e-6, atol=1e-9)
            real = torch.cat([data.sample(c, method.batch_real, other) for c in range(2)])
            torch.testing.assert_close(after["pool.features"][k], embed(module, real).detach(), rtol=1e-6, atol=1e-9)
            trained += 1
        state = after
    assert trained >= 2


def test_the_pool_keeps_its_ages_apart_and_replaces_the_oldest() -> None:
    data = toy_images((9, 12))
    method = replace(SMALL, pool_size=2, max_age=4, reuse=1, advance=2, learning_rate=0.0, label_rate=0.0)
    rng = generator()
    state: Mapping[str, Tensor] = method.init(data, rng)
    assert state["pool.age"].tolist() == [0, 2]
    seen = []
    for _ in range(12):
        before = state["pool.age"].tolist()
        state, _ = method.step(state, data, rng)
        seen += [(a, b) for a, b in zip(before, state["pool.age"].tolist(), strict=True) if a != b]
    assert set(seen) == {(0, 2), (2, 4), (4, 0)}


def test_networks_that_are_never_trained_treat_the_classes_alike() -> None:
    # whole classes behind each loss, so that drawing them in another order changes nothing
    method = replace(SMALL, images_per_class=1, batch_real=9, advance=0, augment="")
    check_class_symmetry(method, toy_images((9, 9, 9)))


def test_labels_are_learned_unless_told_otherwise() -> None:
    data = toy_images((9, 12))
    learned = distill(data, SMALL, steps=5, device="cpu").targets
    torch.testing.assert_close(learned.sum(1), torch.ones(4))
    fixed = distill(data, replace(SMALL, label_rate=0.0), steps=5, device="cpu").targets
    assert fixed.tolist() == [0, 0, 1, 1]
    start = distill(data, SMALL, steps=0, device="cpu").targets
    assert float((learned - start).abs().max()) > 1e-4


def test_it_learns() -> None:
    data = toy_images((40, 40, 40), size=8)
    method = replace(SMALL, images_per_class=1, init_from="noise", learning_rate=0.1, augment="", steps=60)
    rng = generator()
    state: Mapping[str, Tensor] = method.init(data, rng)
    losses = []
    for _ in range(60):
        state, metrics = method.step(state, data, rng)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


@pytest.mark.parametrize("size", [8, 32])
def test_color_and_other_sizes(size: int) -> None:
    data = toy_images((6, 6), channels=3, size=size)
    made = distill(data, replace(SMALL, images_per_class=3), steps=2, device="cpu")
    assert tuple(made.inputs.shape) == (6, 3, size, size)


def test_tables_take_an_mlp_and_refuse_image_operations() -> None:
    check_distiller(replace(SMALL, network="mlp", augment=""), toy_table())
    with pytest.raises(OptionError, match=r"needs \(C, H, W\) images"):
        distill(toy_table(), replace(SMALL, network="mlp", augment="flip"), device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"pool_size": 0}, "pool_size is 0; it must be at least 1"), ({"reuse": 0}, "reuse is 0; it must be at least 1")],
)
def test_options_out_of_range(options: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(SMALL, **options)  # type: ignore[arg-type]


def test_solved_labels_find_the_classes_whatever_the_old_labels_say() -> None:
    data = toy_images((30, 30, 30))
    made = distill(data, "class-mean", device="cpu")
    wrong = replace(made, targets=made.targets.roll(1))
    solved = solve_labels(wrong, data, network="convnet:width=8,depth=1", networks=3, rng=generator())
    assert torch.equal(solved.hard_targets, made.targets) and torch.equal(solved.inputs, made.inputs)
    torch.testing.assert_close(solved.targets.sum(1), torch.ones(3))


def test_solving_labels_refuses_other_data() -> None:
    made = distill(toy_images(), "class-mean", device="cpu")
    with pytest.raises(DataError, match="differ in shape"):
        solve_labels(made, toy_images(size=9), rng=generator())
    with pytest.raises(OptionError, match="networks is 0"):
        solve_labels(made, toy_images(), networks=0, rng=generator())


class Dead(nn.Module):
    """A network whose rectifiers have died, as they do at large rates."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 3)

    def embed(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x))
        return logits


def test_a_regression_without_a_solution_is_a_divergence(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="the ridge regression has no solution"):
        predict(torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(DivergedError, match="no solution"):
        best_labels([(torch.zeros(2, 3), torch.zeros(2, 2), torch.zeros(4, 3))])
    method = FRePo(images_per_class=1, network=Dead, pool_size=1, max_age=0, batch_real=2)
    with pytest.raises(DivergedError, match=r"frepo diverged: .* at step 1; lower the learning rate; the last good"):
        distill(toy_images(), method, device="cpu", checkpoint=tmp_path / "run")
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize("rates", [{"learning_rate": 1e2}, {"learning_rate": 1e12}, {"label_rate": 1e6}], ids=str)
def test_a_rate_that_leaves_finite_nonsense_is_a_divergence(tmp_path: Path, rates: dict[str, Any]) -> None:
    path, method = tmp_path / "run", replace(SMALL, **rates)
    with pytest.raises(
        DivergedError, match=r"far outside of the data's after step 3; lower the learning rate; no good"
    ):
        distill(toy_images(), method, steps=3, device="cpu", checkpoint=path)
    assert not path.exists()
    with pytest.raises(DivergedError, match=r"far outside .* after step [12]; .*; the last good checkpoint is .*run"):
        distill(toy_images(), method, steps=3, device="cpu", checkpoint=path, checkpoint_every=0)
