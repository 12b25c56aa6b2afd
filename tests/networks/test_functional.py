"""Structures are built once for whoever asks, and live no longer than the function that builds them."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from ddplug.distillation import distill
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


def test_threads_have_structures_of_their_own() -> None:
    def found() -> nn.Module:
        return stateless("mlp:width=4", (2,), 2)

    with ThreadPoolExecutor(2) as pool:
        meeting = threading.Barrier(2)
        others = list(pool.map(lambda _: (meeting.wait(), found(), found())[1:], range(2)))
    assert others[0][0] is others[0][1]
    assert others[0][0] is not others[1][0]
    assert found() is found()


def test_runs_in_threads_give_what_they_give_alone() -> None:
    data = toy_images((8, 8), size=8)

    def run(seed: int) -> torch.Tensor:
        options: dict[str, Any] = {"pool_size": 2, "batch_real": 4, "network": "convnet:width=4,depth=1"}
        return distill(data, "dm", images_per_class=1, steps=6, seed=seed, device="cpu", **options).inputs

    alone = [run(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(run, range(3)))
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
