"""IDM, a step at a time, against ordinary modules in float64."""

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
from ddplug.distillers.idm import IDM
from ddplug.errors import OptionError
from ddplug.functional import augmentation as augment
from ddplug.functional.resize import enlarge
from ddplug.networks.factory import embed, has_batch_norm
from ddplug.networks.functional import initial_parameters
from ddplug.testing import check_class_symmetry, toy_images, toy_table
from tests.exact import double_convnet, exact_images, generator, moved, network_of, part, twin

STRATEGY = "color_crop_cutout_flip_scale_rotate"
SMALL = IDM(
    images_per_class=2,
    network="convnet:width=8,depth=1",
    batch_real=7,
    pool_size=3,
    max_age=4,
    reuse=2,
    advance=2,
    learning_rate=0.3,
)


def outputs(module: nn.Module, images: Tensor, view: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Features and logits of each class, augmented; with batch normalization all classes together."""
    draws = [augment.Draw(view["operation"][[c]], view["numbers"][[c]].double()) for c in range(2)]
    seen = [augment.apply(own, drawn) for own, drawn in zip(images.chunk(2), draws, strict=True)]
    groups = [torch.cat(seen)] if has_batch_norm(module) else seen
    features = torch.cat([embed(module, own) for own in groups]).chunk(2)
    logits = torch.cat([module(own) for own in groups]).chunk(2)
    return list(zip(features, logits, strict=True))


def slow_loss(method: IDM, data: LabeledData, view: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    module = network_of(method, data, part(view, "network."))
    total = torch.zeros((), dtype=torch.float64)
    for c, (features, logits) in enumerate(outputs(module, enlarge(inputs, data.shape), view)):
        total = total + (view["means"][c] - features.mean(0)).pow(2).sum()
        errors = cross_entropy(logits, torch.full((len(logits),), c))
        total = total + method.calibration * view["accuracy"] * errors
    return total


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("factor", [1, 2])
def test_steps_are_the_papers_loss_and_training_on_real_data(norm: str, factor: int) -> None:
    data = exact_images()
    method = replace(SMALL, network=partial(double_convnet, 1, norm), init_from="real", augment=STRATEGY, factor=factor)
    rng = generator(4)
    state: Mapping[str, Tensor] = method.init(data, rng)
    assert state["pool.age"].tolist() == [0, 1, 2]
    trained = 0
    for _ in range(9):
        other = twin(rng)
        after, metrics = method.step(state, data, rng)
        k = int(torch.randint(3, (), generator=other))
        view = {name: tensor[k] for name, tensor in part(state, "pool.").items()}
        inputs = state["inputs"].double().requires_grad_()
        loss = slow_loss(method, data, view, inputs)
        (gradient,) = torch.autograd.grad(loss, inputs)
        torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(after["inputs"], moved(state, gradient, 0.3 * 2, 0.5), rtol=1e-6, atol=1e-9)
        if int(view["used"]) == 1:
            new = {name: tensor[k] for name, tensor in part(after, "pool.").items()}
            old = int(view["age"]) >= method.max_age
            tensors = initial_parameters(method.network, data, other) if old else part(view, "network.")
            check_training(method, data, tensors, 0 if old else 2, new, other)
            assert int(new["age"]) == (0 if old else int(view["age"]) + 2)
            trained += 1
        state = after
    assert trained >= 3


def plain_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def test_a_network_of_the_users_own_gives_features_and_logits_too() -> None:
    data = exact_images()
    method = replace(SMALL, network=plain_network, init_from="real", augment=STRATEGY)
    rng = generator(1)
    state = method.init(data, rng)
    k = int(torch.randint(3, (), generator=twin(rng)))
    view = {name: tensor[k] for name, tensor in part(state, "pool.").items()}
    loss = slow_loss(method, data, view, state["inputs"].double())
    torch.testing.assert_close(method.step(state, data, rng)[1]["loss"], loss, rtol=1e-9, atol=1e-9)


def check_training(
    method: IDM,
    data: LabeledData,
    tensors: Mapping[str, Tensor],
    steps: int,
    view: Mapping[str, Tensor],
    rng: torch.Generator,
) -> None:
    """A view is what training on real data made of a network, with the statistics of the next real batch."""
    module = network_of(method, data, tensors)
    optimizer = torch.optim.SGD(module.parameters(), lr=method.network_learning_rate)
    for _ in range(steps):
        index = torch.randint(len(data), (64,), generator=rng)
        images = augment.augment(data.batch(index), STRATEGY, rng)
        optimizer.zero_grad()
        cross_entropy(module(images), data.targets[index]).backward()
        optimizer.step()
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(view[f"network.{name}"], tensor, rtol=1e-7, atol=1e-9)
    drawn = augment.draw(STRATEGY, 2, rng, common=False)
    assert torch.equal(view["numbers"], drawn.numbers)
    real = torch.cat([data.sample(c, method.batch_real, rng) for c in range(2)])
    sides = outputs(module, real, view)
    means = torch.stack([features.mean(0) for features, _ in sides]).detach()
    torch.testing.assert_close(view["means"], means, rtol=1e-7, atol=1e-9)
    right = [float((logits.argmax(1) == c).double().mean()) for c, (_, logits) in enumerate(sides)]
    assert float(view["accuracy"]) == pytest.approx(sum(right) / 2)


def test_older_networks_know_more_and_count_more() -> None:
    data = toy_images((60, 60, 60), size=8)
    method = replace(SMALL, pool_size=2, max_age=80, batch_real=40, augment="", network_learning_rate=0.3)
    state = method.init(data, generator())
    young, old = state["pool.accuracy"].tolist()
    assert state["pool.age"].tolist() == [0, 40] and young < 0.7 < 0.9 < old


def test_it_learns() -> None:
    data = toy_images((40, 40, 40), channels=3)
    method = replace(SMALL, init_from="noise", augment="", learning_rate=1.0, advance=0, batch_real=40)
    rng = generator()
    state: Mapping[str, Tensor] = method.init(data, rng)
    losses = []
    for _ in range(60):
        state, metrics = method.step(state, data, rng)
        losses.append(float(metrics["loss"]))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_networks_that_are_never_trained_treat_the_classes_alike() -> None:
    # whole classes behind each mean, so that drawing them in another order changes nothing; the networks' guesses, and
    # so the cross-entropy, depend on the names
    method = replace(SMALL, images_per_class=1, factor=1, batch_real=9, advance=0, max_age=0, augment="")
    check_class_symmetry(replace(method, calibration=0.0), toy_images((9, 9, 9)))


def test_tables_and_what_is_refused() -> None:
    table = toy_table((20, 20))
    made = distill(table, replace(SMALL, network="mlp", factor=1, augment=""), steps=2, device="cpu")
    assert made.shape == table.shape
    with pytest.raises(OptionError, match=r"needs \(C, H, W\) images"):
        replace(SMALL, network="mlp", factor=2).init(table, generator())
    with pytest.raises(OptionError, match="pool_size is 0; it must be at least 1"):
        IDM(pool_size=0)
