"""A lower bound of the memory of a run, computed before it begins, so that one that cannot fit is refused at once.

A method says how much its options need by an optional function ``memory(sizes)``
(:class:`ddplug.distillation.Distiller`); one that has none is not checked. It counts tensors that are certainly alive
at the same time. So a refusal is always right, and what is let through may still fail.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ddplug.data.labeled import LabeledData
from ddplug.distillation.settling import settled
from ddplug.errors import OptionError
from ddplug.networks.factory import Network
from ddplug.networks.functional import stateless

__all__ = ["Sizes", "available", "check", "sizes_of"]

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Sizes:
    """Bytes of what a run is made of.

    Attributes:
        classes: number of classes.
        inputs: of one input in model space.
        network: of the parameters and buffers of a network.
        activations: that the graph of a call keeps for one input, until the backward pass.
        features: of the features of one input, 0 where nobody asks for them.
    """

    classes: int
    inputs: int
    network: int
    activations: int
    features: int


def sizes_of(network: Network | nn.Module, data: LabeledData, *, embedding: bool = True) -> Sizes:
    """Measure a network on one input of some data.

    Args:
        network: name or function, or a module, which is left alone.
        data: gives the shape of an input and the number of classes.
        embedding: whether anybody asks for its features.

    Example:
        >>> from ddplug.testing import toy_images
        >>> sizes = sizes_of("convnet:width=4,depth=1", toy_images())
        >>> sizes.inputs, sizes.network, sizes.features
        (256, 1932, 576)
    """
    module = _structure(network, data)
    tensors = [*module.parameters(), *module.buffers()]
    return Sizes(
        classes=data.num_classes,
        inputs=4 * math.prod(data.shape),
        network=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        # what does not grow with the batch is no activation
        activations=_graph_bytes(module, data.shape, 3) - _graph_bytes(module, data.shape, 2),
        features=_feature_bytes(network, data) if embedding else 0,
    )


def _structure(network: Network | nn.Module, data: LabeledData) -> nn.Module:
    """Return a network whose own numbers may be anything, on the CPU."""
    if isinstance(network, nn.Module):
        return copy.deepcopy(network).cpu().eval().requires_grad_(False)
    return stateless(network, data.shape, data.num_classes, training=False)


def _feature_bytes(network: Network | nn.Module, data: LabeledData) -> int:
    if isinstance(network, nn.Module):
        raise OptionError(f"{type(network).__name__} is a module; only networks by name or function have features")
    module = stateless(network, data.shape, data.num_classes, embedding=True, training=False)
    with torch.no_grad():
        features = module(torch.zeros(1, *data.shape))
    return int(features.numel() * features.element_size())


def _graph_bytes(module: nn.Module, shape: tuple[int, ...], number: int) -> int:
    """Count what the graph of a call keeps for the backward pass, each storage once."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        module(torch.zeros(number, *shape, requires_grad=True))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def available(device: torch.device) -> int | None:
    """Tell how many bytes can still be had on a device; ``None`` where nobody knows.

    On the CPU it is what the system can give without swapping, or what is left of a container's limit.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    import psutil

    free = int(psutil.virtual_memory().available)
    return min([free, *_left_in_container()])


def _left_in_container() -> list[int]:
    """Return what control groups leave, if there is a limit: the page cache is given back when memory is short."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines()).get("file", "0")
    except (OSError, ValueError):  # no limit says "max", and other systems have no such files
        return []
    return [max(0, limit - used + int(cache))]


def check(method: Any, data: LabeledData, device: torch.device) -> None:
    """Refuse a run that cannot fit.

    Args:
        method: a distiller; one without ``memory``, and without ``network`` or ``teacher``, is let through.
        data: real data.
        device: where to work.

    Raises:
        OptionError: the run needs more than there is; the message names the option that needs most, and a value of it
            that would fit, if there is one.
    """
    free, method = available(device), settled(method, data.shape)
    sizes = _sizes_for(method, data) if hasattr(method, "memory") and free is not None else None
    if free is None or sizes is None:
        return
    parts: Mapping[str, int] = method.memory(sizes)
    needed = sum(parts.values())
    if needed <= free:
        return
    option = max(parts, key=parts.__getitem__)
    value, left = getattr(method, option), free - needed + parts[option]
    fitting = int(value * left / parts[option]) if isinstance(value, int) else 0
    advice = f"use {option}={fitting} or less" if fitting >= 1 else "use a smaller network"
    raise OptionError(
        f"{method.name} needs at least {_gigabytes(needed)} of memory, of which {_gigabytes(parts[option])} for "
        f"{option}={value}, but {device} has {_gigabytes(free)} left; {advice}"
    )


def _sizes_for(method: Any, data: LabeledData) -> Sizes | None:
    """Measure what a method works with, if there is such a thing."""
    if hasattr(method, "network"):
        stateless(method.network, data.shape, data.num_classes)  # which refuses what is no network for such data
        return sizes_of(method.network, data)
    if not hasattr(method, "teacher"):
        return None
    try:
        return sizes_of(method.teacher, data, embedding=False)
    except Exception:  # a user's module may raise anything; the method itself says what is wrong with it
        return None


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB"
