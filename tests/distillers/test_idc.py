"""IDC, a step at a time, against ordinary modules in float64."""

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
from ddplug.distillers.idc import IDC
from ddplug.errors import OptionError
from ddplug.functional import augmentation as augment
from ddplug.functional.resize import enlarge
from ddplug.testing import toy_images, toy_table
from tests.exact import double_convnet, exact_images, generator, moved, network_of, part, twin

STRATEGY = "color_crop_cutout_flip_scale_rotate"
SMALL = IDC(
    images_per_class=2,
    network="convnet:width=8,depth=1",
    batch_real=7,
    pool_size=3,
    max_age=4,
    reuse=2,
    advance=2,
    learning_rate=0.3,
)


def seen(images: Tensor, view: Mapping[str, Tensor]) -> list[Tensor]:
    draws = [augment.Draw(view["operation"][[c]], view["numbers"][[c]].double()) for c in range(2)]
    return [augment.apply(own, drawn) for own, drawn in zip(images.chunk(2), draws, strict=True)]


def gradients(module: nn.Module, images: Tensor, label: int) -> dict[str, Tensor]:
    loss = cross_entropy(module(images), torch.full((len(images),), label))
    names = [name for name, _ in module.named_parameters()]
    return dict(zip(names, torch.autograd.grad(loss, list(module.parameters()), create_graph=True), strict=True))


def slow_loss(method: IDC, data: LabeledData, view: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    module = network_of(method, data, part(view, "network.")).eval()
    total = torch.zeros((), dtype=torch.float64)
    for c, images in enumerate(seen(enlarge(inputs, data.shape), view)):
        for name, gradient in gradients(module, images, c).items():
            if gradient.ndim == 4:
                apart = view[f"real.{name}"][c] - gradient
                total = total + (apart.pow(2).sum() if method.distance == "mse" else apart.abs().sum())
    return total


@pytest.mark.parametrize(
    ("norm", "distance", "factor"), [("instance", "mse", 1), ("instance", "l1", 2), ("batch", "mse", 2)]
)
def test_steps_match_the_gradients_of_convolutions(norm: str, distance: str, factor: int) -> None:
    data = exact_images()
    network = partial(double_convnet, 2, norm)
    method = replace(SMALL, network=network, init_from="real", augment=STRATEGY, distance=distance, factor=factor)
    rng = generator(4)
    state: Mapping[str, Tensor] = method.init(data, rng)
    trained = 0
    for _ in range(6):
        other = twin(rng)
        after, metrics = method.step(state, data, rng)
        k = int(torch.randint(3, (), generator=other))
        view = {name: tensor[k] for name, tensor in part(state, "pool.").items()}
        inputs = state["inputs"].double().requires_grad_()
        loss = slow_loss(method, data, view, inputs)
        (gradient,) = torch.autograd.grad(loss, inputs)
        torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(after["inputs"], moved(state, gradient, 0.3 * 2, 0.5), rtol=1e-6, atol=1e-9)
        if int(view["used"]) == 1 and int(view["age"]) < method.max_age:
            new = {name: tensor[k] for name, tensor in part(after, "pool.").items()}
            check_training(method, data, part(view, "network."), new, other)
            trained += 1
        state = after
    assert trained


def check_training(
    method: IDC, data: LabeledData, tensors: Mapping[str, Tensor], view: Mapping[str, Tensor], rng: torch.Generator
) -> None:
    """A view is what training on real data made of a network, with the gradients of the next real batch."""
    module = network_of(method, data, tensors)
    optimizer = torch.optim.SGD(module.parameters(), lr=method.network_learning_rate)
    for _ in range(method.advance):
        index = torch.randint(len(data), (64,), generator=rng)
        images = augment.augment(data.batch(index), STRATEGY, rng)
        optimizer.zero_grad()
        cross_entropy(module(images), data.targets[index]).backward()
        optimizer.step()
    if any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()):
        module(torch.cat([data.sample(c, 16, rng) for c in range(2)]))
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(view[f"network.{name}"], tensor, rtol=1e-7, atol=1e-9)
    drawn = augment.draw(STRATEGY, 2, rng, common=False)
    assert torch.equal(view["numbers"], drawn.numbers)
    real = torch.cat([data.sample(c, method.batch_real, rng) for c in range(2)])
    for c, images in enumerate(seen(real, view)):
        for name, gradient in gradients(module.eval(), images, c).items():
            assert (f"real.{name}" in view) == (gradient.ndim == 4)  # the others are not read
            if gradient.ndim < 4:
                continue
            torch.testing.assert_close(view[f"real.{name}"][c], gradient.detach(), rtol=1e-6, atol=1e-10)


def test_it_learns() -> None:
    data = toy_images((40, 40, 40), channels=3)
    method = replace(SMALL, init_from="noise", augment="", batch_real=40, pool_size=1, max_age=0, advance=0)
    rng = generator()
    state: Mapping[str, Tensor] = method.init(data, rng)
    losses = []
    for _ in range(60):
        state, metrics = method.step(state, data, rng)
        losses.append(float(metrics["loss"]))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_networks_without_convolutions_match_all_weights() -> None:
    table = toy_table((20, 20))
    method = replace(SMALL, network="mlp", factor=1, augment="")
    state = method.init(table, generator())
    after, metrics = method.step(state, table, generator())
    assert float(metrics["loss"]) > 0 and not torch.equal(after["inputs"], state["inputs"])
    assert distill(table, method, steps=1, device="cpu").shape == table.shape


def test_what_is_refused() -> None:
    with pytest.raises(OptionError, match=r"needs \(C, H, W\) images"):
        replace(SMALL, network="mlp", factor=2).init(toy_table((20, 20)), generator())
    with pytest.raises(OptionError, match="unknown gradient distance 'l2'"):
        IDC(distance="l2")
    with pytest.raises(OptionError, match="pool_size is 0; it must be at least 1"):
        IDC(pool_size=0)
