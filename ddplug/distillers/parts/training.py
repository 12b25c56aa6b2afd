"""Short trainings on real data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from ddplug.data.labeled import LabeledData
from ddplug.functional import augmentation as augment
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.networks.factory import has_batch_norm
from ddplug.networks.functional import sgd_step
from ddplug.utils.progress import progress

__all__ = ["POOL", "batch_norm_updated", "draw_pool", "train", "trained_on_real", "trained_on_set"]

POOL = 500
"""Samples a class that a scoring network is trained on at most, unless told otherwise."""


def draw_pool(data: LabeledData, per_class: int, rng: torch.Generator) -> Tensor:
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
    module: nn.Module, data: LabeledData, index: Tensor, epochs: int, rng: torch.Generator, batch_size: int = 256
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
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    targets = data.targets.to(data.device)
    for _ in progress(range(epochs), "epochs"):
        seen = torch.empty(len(index), data.num_classes)
        module.train()
        with _own_noise(data.device, rng):
            for part in torch.randperm(len(index), generator=rng).tensor_split(-(-len(index) // batch_size)):
                output = module(data.batch(index[part]))
                optimizer.zero_grad()
                cross_entropy(output, targets[index[part].to(data.device)]).backward()
                optimizer.step()
                seen[part] = output.detach().cpu()
        yield seen


_TRAIN_BATCH = 64

_BATCH_NORM_IMAGES = 16
"""Real images of each class whose statistics batch normalization is frozen at for gradients, as published for DC."""


def batch_norm_updated(module: nn.Module, network: Tensors, data: LabeledData, rng: torch.Generator) -> Tensors:
    """Move the running statistics of batch normalization by one real batch; other networks stay as they are.

    Args:
        module: from :func:`ddplug.networks.stateless`, in training mode.
        network: its numbers, which stay as they are.
        data: real data.
        rng: generator on the CPU; nothing is drawn without batch normalization.

    Returns:
        The new numbers.
    """
    if not has_batch_norm(module):
        return network
    images = torch.cat([data.sample(label, _BATCH_NORM_IMAGES, rng) for label in range(data.num_classes)])
    network = {**network, **{name: network[name].clone() for name, _ in module.named_buffers()}}
    with torch.no_grad():
        functional_call(module, network, (images,))
    return network


def trained_on_real(
    module: nn.Module,
    network: Tensors,
    data: LabeledData,
    strategy: str,
    *,
    steps: int,
    rate: float,
    rng: torch.Generator,
) -> Tensors:
    """Train a network on real data by plain SGD on the cross-entropy.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits, in training mode.
        network: its numbers, which stay as they are.
        data: real data.
        strategy: augmentation, drawn for each image; ``""`` for none.
        steps: number of steps, each on 64 images drawn from all data alike.
        rate: learning rate.
        rng: generator on the CPU.

    Returns:
        The new numbers.
    """
    for _ in range(steps):
        index = torch.randint(len(data), (_TRAIN_BATCH,), generator=rng)
        images = augment.augment(data.batch(index), strategy, rng)
        network = sgd_step(module, network, images, data.targets[index.to(data.device)], rate)
    return network


def trained_on_set(
    module: nn.Module,
    network: Tensors,
    images: tuple[Tensor, Tensor],
    batches: Iterable[Tensor | slice],
    data: LabeledData,
    strategy: str,
    *,
    rate: float,
    rng: torch.Generator,
) -> Tensors:
    """Train a network on synthetic images by plain SGD on the cross-entropy, a step for each batch.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits, in training mode.
        network: its numbers, which stay as they are.
        images: ``(M, *stored)`` images and their labels, ``(M,)`` classes or ``(M, C)`` probabilities.
        batches: positions of the images of each step.
        data: real data, whose shape the images are enlarged to.
        strategy: augmentation, drawn for each image; ``""`` for none.
        rate: learning rate.
        rng: generator on the CPU.

    Returns:
        The new numbers.
    """
    inputs, targets = images
    for index in batches:
        seen = augment.augment(enlarge(inputs[index], data.shape), strategy, rng)
        network = sgd_step(module, network, seen, targets[index], rate)
    return network
