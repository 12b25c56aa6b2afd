"""Structures are built once for whoever asks, and live no longer than the function that builds them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import torch
from torch import nn

from ddplug.networks.factory import build
from ddplug.networks.functional import forward, initial_parameters, stateless
from ddplug.testing import toy_images


def test_a_structure_is_shared_by_name_and_by_function() -> None:
    def plain() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    for network in ("mlp:width=5", plain):
        assert stateless(network, (1, 8, 8), 3) is stateless(network, (1, 8, 8), 3)
        assert stateless(network, (1, 8, 8), 3) is not stateless(network, (1, 8, 8), 3, training=False)


def holding(learner: nn.Module) -> Callable[[], nn.Module]:
    """A function that holds on to a model, which every network it gives is a part of."""
    return lambda: nn.Sequential(learner, nn.Flatten())


def test_nothing_outlives_the_function_that_built_it() -> None:
    data = toy_images()
    learner = build("mlp:width=5", data.shape, 3, torch.Generator())
    network = holding(learner)
    module = stateless(network, data.shape, 3, embedding=True)
    forward(module, initial_parameters(network, data, torch.Generator()), data.batch(torch.arange(4)))
    kept = weakref.ref(module), weakref.ref(learner)
    del module, learner, network
    gc.collect()
    assert [reference() for reference in kept] == [None, None]
