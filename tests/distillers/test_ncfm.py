"""NCFM, a step at a time, against complex numbers and ordinary modules in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug import distill
from ddplug.data.labeled import LabeledData
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.parts.images import balanced_labels
from ddplug.errors import OptionError
from ddplug.functional import augmentation as augment
from ddplug.functional.optim import adam_step
from ddplug.functional.resize import enlarge
from ddplug.networks.factory import embed, has_batch_norm
from ddplug.networks.functional import initial_parameters
from ddplug.testing import check_class_symmetry, toy_images, toy_table
from tests.exact import double_convnet, exact_images, generator, network_of, part, twin

STRATEGY = "color_crop_cutout_flip_scale_rotate"
SMALL = NCFM(
    images_per_class=2,
    network="convnet:width=8,depth=1",
    batch_real=7,
    networks=2,
    train_steps=3,
    frequencies=16,
    calibration=0.3,
    pool_size=3,
)


def slow_training(module: nn.Module, data: LabeledData, method: NCFM, rng: torch.Generator) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=method.network_learning_rate)
    for _ in range(method.train_steps):
        index = torch.randint(len(data), (64,), generator=rng)
        images = augment.augment(data.batch(index), STRATEGY, rng)
        optimizer.zero_grad()
        cross_entropy(module(images), data.targets[index]).backward()
        optimizer.step()


def seen(images: Tensor, view: Mapping[str, Tensor], classes: int) -> list[Tensor]:
    draws = [augment.Draw(view["operation"][[c]], view["numbers"][[c]].double()) for c in range(classes)]
    return [augment.apply(own, drawn) for own, drawn in zip(images.chunk(classes), draws, strict=True)]


def features_of(module: nn.Module, classes: list[Tensor]) -> list[Tensor]:
    """Features of unit length; with batch normalization all classes together."""
    if has_batch_norm(module):
        features = embed(module, torch.cat(classes)).split([len(own) for own in classes])
    else:
        features = tuple(embed(module, own) for own in classes)
    return [rows / rows.norm(dim=1, keepdim=True) for rows in features]


def functions(features: list[Tensor], view: Mapping[str, Tensor], count: int) -> list[Tensor]:
    """Complex characteristic functions, one a class."""
    seeded = generator(int(view["seed"]))
    frequencies = torch.randn(count, features[0].shape[1], generator=seeded).double()
    return [torch.exp(1j * (rows @ frequencies.T)).mean(0) for rows in features]


def slow_loss(
    method: NCFM, data: LabeledData, state: Mapping[str, Tensor], view: Mapping[str, Tensor], inputs: Tensor
) -> Tensor:
    images = seen(enlarge(inputs, data.shape), view, 2)
    module = network_of(method, data, part(view, "network."))
    total = torch.zeros((), dtype=torch.float64)
    reached = functions(features_of(module, images), view, method.frequencies)
    for real, psi in zip(view["real"], reached, strict=True):
        phi = torch.complex(real[:, 0], real[:, 1])
        phases = 2 * (phi.abs() * psi.abs() - (phi * psi.conj()).real)
        squares = method.amplitude * (phi.abs() - psi.abs()).pow(2) + (1 - method.amplitude) * phases
        total = total + squares.sqrt().mean()
    trained = {name: t[view["which"]] for name, t in part(state, "trained.").items()}
    logits = network_of(method, data, trained)(torch.cat(images))
    return total + method.calibration * cross_entropy(logits, balanced_labels(data, len(inputs) // 2))


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("factor", [1, 2])
def test_a_step_is_the_papers_on_the_pool_it_has(norm: str, factor: int) -> None:
    data = exact_images()
    network = partial(double_convnet, 1, norm)
    method = replace(SMALL, network=network, init_from="real", augment=STRATEGY, factor=factor, amplitude=0.3)
    rng = generator(4)
    state: Mapping[str, Tensor] = method.init(data, rng)
    for _ in range(3):
        other = twin(rng)
        after, metrics = method.step(state, data, rng)
        k = int(torch.randint(3, (), generator=other))
        view = {name: tensor[k] for name, tensor in part(state, "pool.").items()}
        inputs = state["inputs"].double().requires_grad_()
        loss = slow_loss(method, data, state, view, inputs)
        (gradient,) = torch.autograd.grad(loss, inputs)
        torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-9, atol=1e-9)
        expected = adam_step(state, {"inputs": gradient}, method.learning_rate)["inputs"]
        torch.testing.assert_close(after["inputs"], expected, rtol=1e-6, atol=1e-9)
        state = after


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_networks_are_trained_on_real_data_and_a_view_lies_between(norm: str) -> None:
    data = exact_images()
    network = partial(double_convnet, 1, norm)
    method = replace(SMALL, network=network, init_from="real", augment=STRATEGY, factor=1, networks=1, pool_size=1)
    rng = generator(2)
    other = twin(rng)
    state = method.init(data, rng)
    for c in range(2):
        data.sample(c, 2, other)  # the images to start from
    begun = initial_parameters(network, data, other)
    module = network_of(method, data, begun)
    slow_training(module, data, method, other)
    trained = module.state_dict()
    for name, tensor in trained.items():
        assert torch.equal(state[f"begun.{name}"][0], begun[name])
        torch.testing.assert_close(state[f"trained.{name}"][0], tensor, rtol=1e-9, atol=1e-12)
    torch.randint(1, (), generator=other)
    share = float(torch.rand((), generator=other))
    view = {name: tensor[0] for name, tensor in part(state, "pool.").items()}
    for name, tensor in trained.items():
        if tensor.is_floating_point():
            between = begun[name] + share * (tensor - begun[name])
            torch.testing.assert_close(view[f"network.{name}"], between, rtol=1e-9, atol=1e-12)
    drawn = augment.draw(STRATEGY, 2, other, common=False)
    assert torch.equal(view["numbers"], drawn.numbers) and torch.equal(view["operation"], drawn.operation)
    assert int(view["seed"]) == int(torch.randint(2**63 - 1, (), generator=other))
    real = torch.cat([data.sample(c, 7, other) for c in range(2)])
    module = network_of(method, data, part(view, "network."))
    phi = torch.stack(functions(features_of(module, seen(real, view, 2)), view, 16))
    torch.testing.assert_close(torch.complex(view["real"][..., 0], view["real"][..., 1]), phi, rtol=1e-9, atol=1e-9)


def test_without_a_pool_every_step_draws_anew_and_a_pool_can_be_renewed() -> None:
    data = toy_images((9, 9))
    published = replace(SMALL, pool_size=0)
    state = published.init(data, generator())
    assert not part(state, "pool.")
    losses = [float(published.step(state, data, generator(seed))[1]["loss"]) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    method, rng = replace(SMALL, renew=2), generator()
    now: Mapping[str, Tensor] = method.init(data, rng)
    changes = []
    for _ in range(5):
        after, _ = method.step(now, data, rng)
        changes.append((after["pool.real"] != now["pool.real"]).flatten(1).any(1).nonzero().flatten().tolist())
        now = after
    assert changes == [[], [], [1], [], [2]]


def test_the_distance_falls() -> None:
    data = toy_images((40, 40, 40), channels=3)
    method = replace(SMALL, init_from="noise", augment="", learning_rate=0.1, calibration=0.0)
    rng = generator()
    state: Mapping[str, Tensor] = method.init(data, rng)
    losses = []
    for _ in range(60):
        state, metrics = method.step(state, data, rng)
        losses.append(float(metrics["loss"]))
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_without_training_the_classes_are_treated_alike() -> None:
    # whole classes behind each function, so that drawing them in another order changes nothing; a random network's
    # guesses, and so the cross-entropy, depend on the names
    method = replace(SMALL, images_per_class=1, factor=1, batch_real=9, train_steps=0, augment="", calibration=0.0)
    check_class_symmetry(method, toy_images((9, 9, 9)))


def test_tables_and_what_is_refused() -> None:
    table = toy_table((20, 20))
    made = distill(table, replace(SMALL, network="mlp", factor=1, augment=""), steps=2, device="cpu")
    assert made.shape == table.shape
    with pytest.raises(OptionError, match=r"needs \(C, H, W\) images"):
        replace(SMALL, network="mlp", factor=2).init(table, generator())
    with pytest.raises(OptionError, match=r"amplitude is 1\.5; it must lie between 0 and 1"):
        NCFM(amplitude=1.5)
    with pytest.raises(OptionError, match="networks is 0; it must be at least 1"):
        NCFM(networks=0)
