"""Features of samples, a micro-batch at a time: pixels, or the embedding of a network trained for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ddplug.data.labeled import LabeledData
from ddplug.distillers.parts.training import POOL, draw_pool, train
from ddplug.errors import OptionError
from ddplug.functional.clustering import LARGEST, clusters
from ddplug.networks.factory import build, embed
from ddplug.networks.precision import applied

__all__ = ["MICRO_BATCH", "Features", "cluster_means", "extractor", "logits", "mean_input", "pixels", "thinned"]

MICRO_BATCH = 256
"""Samples turned into model space at once, which bounds the memory however large a class is."""

Features = Callable[[Tensor], Tensor]
"""From ``(n,)`` positions to ``(n, d)`` float32 features on the device of the data."""


@torch.no_grad()
def _in_micro_batches(data: LabeledData, apply: Callable[[Tensor], Tensor], index: Tensor) -> Tensor:
    return torch.cat([apply(data.batch(part)) for part in index.split(MICRO_BATCH)])


def logits(module: nn.Module, data: LabeledData, index: Tensor) -> Tensor:
    """Return the ``(n, classes)`` outputs of a network, in evaluation mode, for the samples at ``(n,)`` positions."""
    return _in_micro_batches(data, partial(applied, module.eval()), index)


def pixels(data: LabeledData) -> Features:
    """Return the map from samples to their pixels in model space, flattened."""
    return partial(_in_micro_batches, data, partial(torch.flatten, start_dim=1))


def extractor(features: str, train_epochs: int, data: LabeledData, rng: torch.Generator) -> Features:
    """Prepare the map from samples to features.

    Args:
        features: ``"pixels"`` for the flattened model-space input, or the specification of a network (see
            :func:`ddplug.networks.build`) whose embedding is taken.
        train_epochs: epochs to train that network for, on at most :data:`ddplug.distillers.parts.training.POOL` real
            samples a class; 0 leaves it as it was initialized.
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
        return pixels(data)
    module = build(features, data.shape, data.num_classes, rng).to(data.device)
    for _ in train(module, data, draw_pool(data, POOL, rng), train_epochs, rng):
        pass
    return partial(_in_micro_batches, data, partial(embed, module.eval()))


def mean_input(data: LabeledData, index: Tensor) -> Tensor:
    """Average the samples at ``(n,)`` positions in model space; ``(*shape)`` float32 on the device of the data."""
    # sums of micro-batches are joined in float64 on the CPU, since not every device has float64
    total = sum(
        (data.batch(part).sum(0).cpu().double() for part in index.split(MICRO_BATCH)), torch.zeros(data.shape).double()
    )
    return (total / len(index)).float().to(data.device)


def thinned(data: LabeledData, members: Tensor, least: int) -> Tensor:
    """Take every so-manieth of samples that are too many to have all in memory at once.

    Args:
        data: real data.
        members: ``(n,)`` positions of the samples, at least ``least``.
        least: number of samples to take at the least.

    Returns:
        Positions; all of them up to :data:`ddplug.functional.clustering.LARGEST` numbers in model space.
    """
    most = min(len(members), max(least, LARGEST // math.prod(data.shape)))
    return members[torch.arange(most) * len(members) // most]


def cluster_means(data: LabeledData, members: Tensor, extract: Features, number: int, rng: torch.Generator) -> Tensor:
    """Cluster samples by k-means and average each cluster in model space; ``draw_seed`` is all that it draws.

    Args:
        data: real data.
        members: ``(n,)`` positions of the samples, at least ``number``, of which :func:`thinned` takes a part.
        extract: what they are clustered by; with :func:`pixels` the averages are the centroids.
        number: clusters.
        rng: generator on the CPU.

    Returns:
        ``(number, *shape)`` float32 on the device of the data.
    """
    members = thinned(data, members, number)
    labels = clusters(extract(members), number, rng)
    return torch.stack([mean_input(data, members[labels == k]) for k in range(number)])
