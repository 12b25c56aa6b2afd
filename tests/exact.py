"""Data in float64, generators that agree and what graphs hold, for comparing a method with its slow, obvious form."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from ddplug.data.labeled import LabeledData
from ddplug.networks.convnet import ConvNet
from ddplug.networks.factory import build
from ddplug.testing import toy_images
from ddplug.utils.randomness import twin as twin


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Exact(LabeledData):
    """Data whose batches are float64, so that ours and the slow form differ by rounding alone."""

    def batch(self, index: Tensor) -> Tensor:
        return super().batch(index).double()


def exact_images(counts: Sequence[int] = (9, 12)) -> LabeledData:
    data = toy_images(tuple(counts))
    return Exact(**{f.name: getattr(data, f.name) for f in fields(data) if f.init})


def double_convnet(depth: int, norm: str) -> nn.Module:
    """What "convnet:width=8" is, in float64."""
    return ConvNet((1, 8, 8), 2, width=8, depth=depth, norm=norm).double()


def network_of(method: Any, data: LabeledData, tensors: Mapping[str, Tensor]) -> nn.Module:
    """An ordinary float64 module that holds the numbers of a functional network."""
    module = build(method.network, data.shape, data.num_classes, generator()).double()
    module.load_state_dict({name: tensor.double() for name, tensor in tensors.items()})
    return module


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a state under a prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def moved(state: Mapping[str, Tensor], gradient: Tensor, rate: float, momentum: float) -> Tensor:
    """The images after a step of torch's own SGD."""
    images = nn.Parameter(state["inputs"].double())
    optimizer = torch.optim.SGD([images], lr=rate, momentum=momentum)
    images.grad = torch.zeros_like(images)
    optimizer.step()  # creates the momentum buffer, which is then set to the state's
    optimizer.state[images]["momentum_buffer"] = state["velocity"].double()
    images.grad = gradient
    optimizer.step()
    return images.detach()


def peak_of_graphs(function: Callable[[], object]) -> int:
    """Most bytes that tensors saved for backward passes held at once while a function ran; all are let go of in it."""
    held, peak = 0, 0

    class Held:
        """A tensor saved for a backward pass, as long as its graph lives."""

        def __init__(self, tensor: Tensor) -> None:
            nonlocal held, peak
            # of a tensor that held its own graph, torch 2.4 never lets go
            self.tensor, self.size = tensor.detach(), tensor.numel() * tensor.element_size()
            held += self.size
            peak = max(peak, held)

        def __del__(self) -> None:
            nonlocal held
            held -= self.size

    gc.collect()
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda kept: kept.tensor):
        function()
    gc.collect()
    assert held == 0
    return peak
