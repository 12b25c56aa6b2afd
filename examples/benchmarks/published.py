"""Plain float32 steps of DM, DC, DSA, IDC and MTT, written from the papers, to time the library's own against.

One class after the other, whole batches, ordinary modules and optimizers, as the published loops do it; no network is
kept, no batch is cut, no graph is let go early. Augmentations and the reading of real images are the library's, on both
sides. The same generator gives the same networks, batches and augmentations, so the images come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, interpolate

from ddplug.data.labeled import LabeledData
from ddplug.functional import augmentation as augment
from ddplug.networks.functional import initial_parameters, unprefixed

__all__ = ["STEPS", "Step", "network"]

Step = Callable[[Any, LabeledData, Mapping[str, Tensor], torch.Generator], Tensor]
"""From method, data, state and generator to the images after a step."""


class Network(nn.Module):
    """ConvNet-3 of the papers."""

    def __init__(self, shape: tuple[int, ...], num_classes: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, side = shape[0], shape[1]
        for block in range(3):
            padding = 3 if block == 0 and channels == 1 else 1
            layers += [nn.Conv2d(channels, width, 3, padding=padding), nn.GroupNorm(width, width), nn.ReLU()]
            layers.append(nn.AvgPool2d(2))
            channels, side = width, (side + 2 * padding - 2) // 2
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width * side * side, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


def network(tensors: Mapping[str, Tensor], data: LabeledData) -> Network:
    """Return an ordinary module with these parameters."""
    width = len(tensors["features.0.weight"])
    with torch.random.fork_rng(devices=[]):
        module = Network(data.shape, data.num_classes, width)
    module.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()})
    return module


def _moved(method: Any, state: Mapping[str, Tensor], gradient: Tensor) -> Tensor:
    velocity = method.momentum * state["velocity"] + gradient
    # published rates are those of a class's mean, but for DC and DSA
    times = 1 if method.name in ("dc", "dsa") else method.images_per_class
    moved: Tensor = state["inputs"] - times * method.learning_rate * velocity
    return moved


def _alike(images: Tensor, drawn: augment.Draw, label: int) -> Tensor:
    return augment.apply(images, drawn[label : label + 1])


def _drawn(method: Any, data: LabeledData, rng: torch.Generator) -> augment.Draw:
    strategy = data.augmentation if method.augment == "auto" else method.augment
    return augment.draw(strategy, data.num_classes, rng, common=False)


def distribution(method: Any, data: LabeledData, state: Mapping[str, Tensor], rng: torch.Generator) -> Tensor:
    """DM: a new network, and a new real batch of each class, for one step."""
    module = network(initial_parameters(method.network, data, rng), data).requires_grad_(False)
    drawn = _drawn(method, data, rng)
    images = state["inputs"].clone().requires_grad_()
    loss = torch.zeros(())
    for label, own in enumerate(images.split(method.images_per_class)):
        real = _alike(data.sample(label, method.batch_real, rng), drawn, label)
        with torch.no_grad():
            goal = module.features(real).flatten(1).mean(0)
        loss = loss + (goal - module.features(_alike(own, drawn, label)).flatten(1).mean(0)).square().sum()
    return _moved(method, state, torch.autograd.grad(loss, images)[0])


def _layerwise(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    total = torch.zeros(())
    for a, b in zip(real, synthetic, strict=True):
        if a.ndim > 1:
            a, b = a.flatten(1), b.flatten(1)
            total = total + (1 - (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)).sum()
    return total


def _convolutions(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    pairs = zip(real, synthetic, strict=True)
    return torch.stack([(a - b).square().sum() for a, b in pairs if a.ndim == 4]).sum()


def _gradients(
    method: Any,
    module: Network,
    data: LabeledData,
    state: Mapping[str, Tensor],
    rng: torch.Generator,
    distance: Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor],
) -> Tensor:
    drawn, parameters = _drawn(method, data, rng), list(module.parameters())
    found = []
    for label, stored in enumerate(state["inputs"].split(len(state["inputs"]) // data.num_classes)):
        real = _alike(data.sample(label, method.batch_real, rng), drawn, label)
        loss = cross_entropy(module(real), torch.full((len(real),), label))
        goals = torch.autograd.grad(loss, parameters)
        own = stored.clone().requires_grad_()
        images = own if own.shape[1:] == data.shape else interpolate(own, data.shape[1:], mode="bilinear")
        loss = cross_entropy(module(_alike(images, drawn, label)), torch.full((len(own),), label))
        reached = torch.autograd.grad(loss, parameters, create_graph=True)
        found.append(torch.autograd.grad(distance([goal.detach() for goal in goals], reached), own)[0])
    return _moved(method, state, torch.cat(found))


def gradient(method: Any, data: LabeledData, state: Mapping[str, Tensor], rng: torch.Generator) -> Tensor:
    """DC and DSA: match the gradients of each class, then train the network on the images."""
    module = network(unprefixed("network.", state), data)
    images = _gradients(method, module, data, state, rng, _layerwise)
    if method.outer_loop > 1:
        labels = torch.arange(data.num_classes).repeat_interleave(method.images_per_class)
        strategy = data.augmentation if method.augment == "auto" else method.augment
        optimizer = torch.optim.SGD(module.parameters(), lr=method.network_learning_rate)
        for _ in range(method.inner_loop):
            for index in torch.randperm(len(images), generator=rng).split(method.batch_train):
                optimizer.zero_grad()
                cross_entropy(module(augment.augment(images[index], strategy, rng)), labels[index]).backward()
                optimizer.step()
    return images


def small_images(method: Any, data: LabeledData, state: Mapping[str, Tensor], rng: torch.Generator) -> Tensor:
    """IDC: the same with small images, in a network that has been trained, which other lines of the paper do."""
    tensors = {name: tensor[0] for name, tensor in unprefixed("pool.network.", state).items()}
    return _gradients(method, network(tensors, data), data, state, rng, _convolutions)


def trajectory(method: Any, data: LabeledData, state: Mapping[str, Tensor], rng: torch.Generator) -> Tensor:
    """MTT: train from an expert's weights on the images, with the graphs of all steps."""
    view = method.view(state, data, rng)
    with torch.random.fork_rng(devices=[]):
        module = Network(data.shape, data.num_classes, int(method.network.split("width=")[1]))
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    parts = zip(shapes.items(), view["start"].split([shape.numel() for shape in shapes.values()]), strict=True)
    weights = {name: part.view(shape).requires_grad_() for (name, shape), part in parts}
    images, rate = state["inputs"].clone().requires_grad_(), state["log_rate"].exp()
    labels = torch.arange(data.num_classes).repeat_interleave(len(images) // data.num_classes)
    for batch, drawn in zip(view["batches"], view["draws"], strict=True):
        logits = functional_call(module, weights, (augment.apply(images[batch], drawn),))
        found = torch.autograd.grad(cross_entropy(logits, labels[batch]), list(weights.values()), create_graph=True)
        weights = {name: w - rate * g for (name, w), g in zip(weights.items(), found, strict=True)}
    end = torch.cat([w.flatten() for w in weights.values()])
    loss = (end - view["goal"]).square().sum() / (view["start"] - view["goal"]).square().sum()
    velocity = 0.5 * state["velocity.inputs"] + torch.autograd.grad(loss, images)[0]
    moved: Tensor = state["inputs"] - method.learning_rate * velocity
    return moved


STEPS: Mapping[str, Step] = {
    "dm": distribution,
    "dc": gradient,
    "dsa": gradient,
    "idc": small_images,
    "mtt": trajectory,
}
"""The published step of each method, by its name."""
