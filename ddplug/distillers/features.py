"""What a method of selection sees of the data, a chunk at a time, and the short training some of them need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.callbacks import tracked
from ddplug.data import LabelledData
from ddplug.errors import OptionError
from ddplug.networks import build, embed

__all__ = ["CHUNK", "POOL", "Features", "draw_pool", "extractor", "logits", "mean_input", "train"]

CHUNK = 256
"""Samples turned into model space at once: memory stays bounded however large a class is."""

POOL = 500
"""Samples a class that a scoring network is trained on at most, unless told otherwise."""

Features = Callable[[Tensor], Tensor]
"""From ``(n,)`` positions to ``(n, d)`` float32 features on the device of the data."""


@torch.no_grad()
def _chunked(data: LabelledData, apply: Callable[[Tensor], Tensor], index: Tensor) -> Tensor:
    return torch.cat([apply(data.batch(part)) for part in index.split(CHUNK)])


def logits(module: nn.Module, data: LabelledData, index: Tensor) -> Tensor:
    """Give the ``(n, classes)`` outputs of a network, in evaluation mode, for the samples at ``(n,)`` positions."""
    return _chunked(data, module.eval(), index)


def extractor(features: str, train_epochs: int, data: LabelledData, rng: torch.Generator) -> Features:
    """Prepare the map from samples to features.

    Args:
        features: ``"pixels"`` for the flattened model-space input, or the specification of a network (see
            :func:`ddplug.networks.build`) whose embedding is taken.
        train_epochs: epochs to train that network for, on at most :data:`POOL` real samples a class; 0 leaves it as
            it was initialised.
        data: real data.
        rng: generator on the CPU.

    Returns:
        The map; it is deterministic.

    Raises:
        OptionError: the network is not known, or ``train_epochs`` is out of range.
    """
    if train_epochs < 0 or (features == "pixels" and train_epochs):
        raise OptionError(f"train_epochs is {train_epochs} for features {features!r}; give 0, or a network and >= 1")
    if features == "pixels":
        return partial(_chunked, data, partial(torch.flatten, start_dim=1))
    module = build(features, data.shape, data.num_classes, rng).to(data.device)
    for _ in train(module, data, draw_pool(data, POOL, rng), train_epochs, rng):
        pass
    return partial(_chunked, data, partial(embed, module.eval()))


def draw_pool(data: LabelledData, per_class: int, rng: torch.Generator) -> Tensor:
    """Draw at most ``per_class`` samples of each class; positions ``(n,)`` int64, sorted by class, on the CPU."""
    counts = [min(per_class, len(members)) for members in data.class_indices]
    return torch.cat([data.draw(label, n, rng).sort().values for label, n in enumerate(counts)])


@contextmanager
def _own_noise(device: torch.device, rng: torch.Generator) -> Iterator[None]:
    """Let dropout draw from global generators that are seeded from ``rng`` and then put back as they were."""
    seed = int(torch.randint(2**31, (), generator=rng))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield


def train(
    module: nn.Module, data: LabelledData, index: Tensor, epochs: int, rng: torch.Generator, batch_size: int = 256
) -> Iterator[Tensor]:
    """Train a network in place by SGD with learning rate 0.01 and momentum 0.9, one epoch for each item drawn.

    Args:
        module: network on the device of the data.
        data: real data.
        index: ``(n,)`` positions to train on.
        epochs: passes.
        rng: generator on the CPU, for the order and for what the network itself draws (dropout).
        batch_size: at most so many samples a step; batches are of equal size up to one.

    Yields:
        ``(n, classes)`` logits on the CPU that each sample had when its batch came up, before the step on it.
    """
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    targets = data.targets.to(data.device)
    for _ in tracked(range(epochs), "epochs"):
        seen = torch.empty(len(index), data.num_classes)
        module.train()
        with _own_noise(data.device, rng):
            for part in torch.randperm(len(index), generator=rng).tensor_split(-(-len(index) // batch_size)):
                output = module(data.batch(index[part]))
                optimiser.zero_grad()
                cross_entropy(output, targets[index[part].to(data.device)]).backward()
                optimiser.step()
                seen[part] = output.detach().cpu()
        yield seen


def mean_input(data: LabelledData, index: Tensor) -> Tensor:
    """Average the samples at ``(n,)`` positions in model space; ``(*shape)`` float32 on the device of the data."""
    # sums of chunks are joined in float64 on the CPU, since not every device has float64
    total = sum(
        (data.batch(part).sum(0).cpu().double() for part in index.split(CHUNK)), torch.zeros(data.shape).double()
    )
    return (total / len(index)).float().to(data.device)
