"""DM, DC and DSA, a step at a time, against slow and obvious loops in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.data.labeled import LabeledData
from ddplug.distillers.dc import DC, loops
from ddplug.distillers.dm import DM
from ddplug.distillers.dsa import DSA
from ddplug.distillers.idc import IDC
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.parts.images import balanced_labels
from ddplug.errors import OptionError
from ddplug.functional import augmentation as augment
from ddplug.networks.factory import embed, has_batch_norm
from ddplug.networks.functional import initial_parameters
from ddplug.testing import toy_images, toy_table
from ddplug.utils.notes import Note
from tests.exact import double_convnet, exact_images, generator, moved, network_of, part, peak_of_graphs, twin

STRATEGY = "color_crop_cutout_flip_scale_rotate"


def slow_dm(method: DM, data: LabeledData, inputs: Tensor, view: Mapping[str, Tensor], real: list[Tensor]) -> Tensor:
    """The paper's loss, one class at a time; with batch normalization all images have to go together."""
    module = network_of(method, data, part(view, "network."))
    sides = []
    for images in (real, list(inputs.double().split(method.images_per_class))):
        seen = [
            augment.apply(batch.double(), augment.Draw(view["operation"][[c]], view["numbers"][[c]].double()))
            for c, batch in enumerate(images)
        ]
        if has_batch_norm(module):
            features = embed(module, torch.cat(seen)).split([len(batch) for batch in seen])
        else:
            features = tuple(embed(module, batch) for batch in seen)
        sides.append([rows.mean(0) for rows in features])
    return torch.stack([(a - b).pow(2).sum() for a, b in zip(*sides, strict=True)]).sum()


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("pool_size", [0, 3])
def test_a_dm_step_is_the_papers(norm: str, pool_size: int) -> None:
    data = exact_images()
    method = DM(
        images_per_class=2,
        network=partial(double_convnet, 1, norm),
        batch_real=7,
        init_from="real",
        augment=STRATEGY,
        pool_size=pool_size,
        learning_rate=0.3,
    )
    rng = generator(4)
    state: Mapping[str, Tensor] = method.init(data, rng)
    for _ in range(3):
        other = twin(rng)
        after, metrics = method.step(state, data, rng)
        inputs = state["inputs"].double().requires_grad_()
        if pool_size:
            k = int(torch.randint(pool_size, (), generator=other))
            view = {name: tensor[k] for name, tensor in part(state, "pool.").items()}
        else:
            network = initial_parameters(method.network, data, other)
            drawn = augment.draw(STRATEGY, 2, other, common=False)
            view = {f"network.{name}": t for name, t in network.items()}
            view |= {"operation": drawn.operation, "numbers": drawn.numbers}
            real = [data.sample(c, 7, other) for c in range(2)]
        if pool_size:  # the cached means stand for the real side: their distance to the synthetic side is checked below
            seen = [
                augment.apply(images, augment.Draw(view["operation"][[c]], view["numbers"][[c]].double()))
                for c, images in enumerate(inputs.split(2))
            ]
            module = network_of(method, data, part(view, "network."))
            means = embed(module, torch.cat(seen)).view(2, 2, -1).mean(1)
            loss = (means - view["means"].double()).pow(2).sum()
        else:
            loss = slow_dm(method, data, inputs, view, real)
        (gradient,) = torch.autograd.grad(loss, inputs)
        torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-9, atol=1e-9)
        expected = moved(state, gradient, 0.3 * 2, 0.5)
        torch.testing.assert_close(after["inputs"], expected, rtol=1e-6, atol=1e-9)
        state = after


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_pool_holds_what_the_papers_loop_would_compute(norm: str) -> None:
    data = toy_images((9, 12))
    network = f"convnet:width=8,depth=1,norm={norm}"
    method = DM(images_per_class=1, network=network, batch_real=40, init_from="real", augment="flip", pool_size=1)
    rng = generator(1)
    other = twin(rng)
    state = method.init(data, rng)
    inputs = torch.cat([data.sample(c, 1, other) for c in range(2)])
    assert torch.equal(inputs, state["inputs"])
    tensors = initial_parameters(method.network, data, other)
    drawn = augment.draw("flip", 2, other, common=False)
    assert torch.equal(drawn.numbers, state["pool.numbers"][0])
    real = torch.cat([data.sample(c, 40, other) for c in range(2)]).double()
    seen = augment.apply(real, augment.Draw(drawn.operation, drawn.numbers.double()).repeat_interleave(40))
    features = embed(network_of(method, data, tensors), seen).view(2, 40, -1)
    torch.testing.assert_close(state["pool.means"][0].double(), features.mean(1).detach(), rtol=1e-4, atol=1e-5)


def test_renewing_replaces_the_networks_of_the_pool_in_turn() -> None:
    data = toy_images((6, 6))
    method = DM(images_per_class=1, network="convnet:width=4,depth=1", batch_real=4, pool_size=3, renew=2)
    rng = generator()
    state: Mapping[str, Tensor] = method.init(data, rng)
    changes = []
    for _ in range(8):
        after, _ = method.step(state, data, rng)
        differs = (after["pool.means"] != state["pool.means"]).flatten(1).any(1)
        changes.append(differs.nonzero().flatten().tolist())
        state = after
    assert changes == [[], [], [1], [], [2], [], [0], []]


def slow_distance(real: list[Tensor], synthetic: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(real, synthetic, strict=True):
        if a.ndim == 1:
            continue
        for u, v in zip(a.flatten(1), b.flatten(1), strict=True):
            total = total + 1 - (u @ v) / (u.norm() * v.norm() + 1e-6)
    return total


def slow_dc_step(
    method: DC, data: LabeledData, state: Mapping[str, Tensor], rng: torch.Generator
) -> tuple[Tensor, Tensor, nn.Module]:
    """One step of algorithm 1 on an ordinary module: loss, new images and the network before its training."""
    module = network_of(method, data, part(state, "network."))
    if any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        module.train()(torch.cat([data.sample(c, 16, rng) for c in range(data.num_classes)]).double())
    module.eval()
    strategy = data.augmentation if method.augment == "auto" else method.augment
    drawn = augment.draw(strategy, data.num_classes, rng, common=False)
    drawn = augment.Draw(drawn.operation, drawn.numbers.double())
    inputs = state["inputs"].double().requires_grad_()
    loss = torch.zeros((), dtype=torch.float64)
    for c, synthetic in enumerate(inputs.split(method.images_per_class)):
        real = augment.apply(data.sample(c, method.batch_real, rng).double(), drawn[c : c + 1])
        goals = torch.autograd.grad(cross_entropy(module(real), torch.full((len(real),), c)), list(module.parameters()))
        images = augment.apply(synthetic, drawn[c : c + 1])
        reached = torch.autograd.grad(
            cross_entropy(module(images), torch.full((len(images),), c)), list(module.parameters()), create_graph=True
        )
        loss = loss + slow_distance(list(goals), list(reached))
    (gradient,) = torch.autograd.grad(loss, inputs)
    return loss.detach(), moved(state, gradient, method.learning_rate, method.momentum), module


def slow_training(method: DC, data: LabeledData, module: nn.Module, images: Tensor, rng: torch.Generator) -> None:
    strategy = data.augmentation if method.augment == "auto" else method.augment
    labels = balanced_labels(data, method.images_per_class)
    optimizer = torch.optim.SGD(module.parameters(), lr=method.network_learning_rate)
    module.train()
    for _ in range(method.inner_loop):
        for index in torch.randperm(len(images), generator=rng).split(method.batch_train):
            optimizer.zero_grad()
            seen = augment.augment(images[index].double(), strategy, rng)
            cross_entropy(module(seen), labels[index]).backward()
            optimizer.step()


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "none"])
@pytest.mark.parametrize("kind", [DC, DSA])
def test_dc_and_dsa_steps_are_the_papers(kind: type[DC], norm: str) -> None:
    data = exact_images()
    method = kind(
        images_per_class=2,
        network=partial(double_convnet, 2, norm),
        batch_real=7,
        init_from="real",
        outer_loop=3,
        inner_loop=2,
        batch_train=3,
        augment="" if kind is DC else STRATEGY,
    )
    rng = generator(2)
    state: Mapping[str, Tensor] = method.init(data, rng)
    for step in range(1, 5):
        other = twin(rng)
        after, metrics = method.step(state, data, rng)
        loss, images, module = slow_dc_step(method, data, state, other)
        torch.testing.assert_close(metrics["loss"], loss, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(after["inputs"], images, rtol=1e-6, atol=1e-9)
        if step % 3:
            slow_training(method, data, module, after["inputs"], other)
            for name, tensor in module.state_dict().items():
                torch.testing.assert_close(after[f"network.{name}"], tensor, rtol=1e-7, atol=1e-9)
        else:
            new = initial_parameters(method.network, data, other)
            assert all(torch.equal(after[f"network.{name}"], tensor) for name, tensor in new.items())
        state = after


@pytest.mark.parametrize(
    "method", [DM(images_per_class=1, network="mlp", batch_real=8, pool_size=2), DC(network="mlp")]
)
def test_tables_are_distilled_too_and_refuse_image_operations(method: DM | DC) -> None:
    data = toy_table((40, 40))
    state, metrics = method.step(method.init(data, generator()), data, generator())
    assert state["inputs"].shape[1:] == data.shape and bool(metrics["loss"].isfinite())
    with pytest.raises(OptionError, match=r"needs \(C, H, W\) images, not inputs of shape"):
        type(method)(network="mlp", augment="flip").init(data, generator())


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_pool_of_dc_gives_the_published_step_on_the_networks_it_holds(norm: str) -> None:
    data = exact_images()
    options: dict[str, Any] = {
        "images_per_class": 1,
        "network": partial(double_convnet, 2, norm),
        "batch_real": 7,
        "init_from": "real",
    }
    rng = generator(3)
    other = twin(rng)
    pooled, published = DC(**options, pool_size=1), DC(**options, pool_size=0)
    state, start = pooled.init(data, rng), published.init(data, other)
    ours, metrics = pooled.step(state, data, rng)
    theirs, expected = published.step(start, data, other)
    torch.testing.assert_close(metrics["loss"], expected["loss"])
    torch.testing.assert_close(ours["inputs"], theirs["inputs"])
    assert not torch.equal(ours["inputs"], state["inputs"])


def test_published_loops_and_the_rule_between_them() -> None:
    assert loops(1) == (1, 1) and loops(50) == (50, 10)
    assert loops(100) == (100, 5) and loops(7) == (7, 71)


@pytest.mark.parametrize("kind", [DC, IDC])
def test_classes_go_together_or_not_and_nothing_else_changes(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_images((9, 8, 10, 9, 8))
    method = kind(**{**kind.small, "init_from": "noise"})
    state = method.init(data, generator())
    found, peaks = [], []
    for together in (5, 2, 1):
        monkeypatch.setattr("ddplug.distillers.parts.views.classes_together", lambda *_, number=together: number)
        found.append(method.step(state, data, generator(1))[0]["inputs"])
        peaks.append(peak_of_graphs(lambda: method.step(state, data, generator(1))))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
    assert not torch.equal(found[0], state["inputs"])
    assert peaks[1] < 0.5 * peaks[0] and peaks[2] < 0.7 * peaks[1]


def test_real_batches_are_larger_where_a_pool_keeps_them() -> None:
    data = toy_images((6, 6))
    options: dict[str, Any] = {"network": "mlp:width=4", "init_from": "noise"}
    drawn = DC(images_per_class=2, **options)
    state = drawn.init(data, generator())
    assert drawn.view(state, data, generator())["batches"].shape == (2, 64)
    pooled = DC(images_per_class=1, pool_size=1, **options)
    kept = replace(pooled, batch_real=256).init(data, generator())
    assert all(torch.equal(tensor, kept[name]) for name, tensor in pooled.init(data, generator()).items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_real": -1}, "batch_real is -1; it must be at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be at least 0"),
        ({"distance": "l2"}, "unknown gradient distance 'l2'"),
    ],
)
def test_bad_options_name_the_value_and_the_limit(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DC(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", ["real", "kmeans", "noise"])
def test_a_small_class_is_started_from_more_than_once_and_it_is_said(start: str) -> None:
    data = toy_images((6, 2))
    with pytest.warns(Note, match=r"1 of 2 classes have fewer than 5 samples, .* \('class1' has 2\): some serve more"):
        state = DM(images_per_class=5, init_from=start, network="mlp:width=4").init(data, torch.Generator())
    rows = state["inputs"][5:].flatten(1)
    assert len(rows) == 5
    assert len(rows.unique(dim=0)) == (5 if start == "noise" else 2)


@pytest.mark.parametrize("method", [IDC, NCFM, DM])
def test_advice_on_single_samples_can_be_followed(method: Callable[..., Any]) -> None:
    data = toy_images((1, 1), size=12)
    options = {"images_per_class": 1, "network": "mlp:width=4", "augment": ""}
    with pytest.raises(OptionError, match=r"with factor 2\), but no class has more than 1 samples; use factor=1$"):
        method(**options, factor=2).init(data, torch.Generator())
    assert len(method(**options, factor=1).init(data, torch.Generator())["inputs"]) == 2


def test_unknown_start_and_too_many_images() -> None:
    data = toy_images((6, 6))
    with pytest.raises(OptionError, match="unknown init_from 'reel'; did you mean 'real'"):
        DM(images_per_class=1, init_from="reel").init(data, generator())
    with pytest.raises(
        OptionError, match="images per class is 7, but no class has more than 6 samples; ask for at most 6"
    ):
        DM(images_per_class=7).init(data, generator())
