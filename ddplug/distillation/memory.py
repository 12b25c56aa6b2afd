"""The memory of a run, stage by stage, computed before it begins, so that one that cannot fit is refused at once.

A method says how much its options need by an optional function ``memory(sizes)``
(:class:`ddplug.distillation.Distiller`): for each stage of a run, such as the filling of a pool or a step, the bytes
that are alive at the same time, by the option that they come from. One that has none is not checked. What a pass
through the network takes is not guessed: :class:`Sizes` measures it on one input. What a method says is within a factor
of two of the peak of its tensors, as tests make sure of; loaded code and fragments of the heap come on top.
"""

from __future__ import annotations

import copy
import math
import sys
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from ddplug.data.labeled import LabeledData
from ddplug.distillation.settling import settled
from ddplug.errors import OptionError
from ddplug.functional.clustering import LARGEST
from ddplug.networks.batching import PIECE_BYTES, activation_bytes
from ddplug.networks.factory import Network
from ddplug.networks.functional import stateless

__all__ = ["Sizes", "Stages", "available", "check", "needed", "peak_bytes", "sizes_of"]

Stages: TypeAlias = Mapping[str, Mapping[str, int]]
"""Stage of a run -> option -> bytes that are alive at the same time."""

_CGROUP = Path("/sys/fs/cgroup")

_CLUSTERING = 100_000_000
"""Bytes of scikit-learn, which is loaded when something is first clustered."""


class _Living(TorchDispatchMode):
    """Counts the bytes of the tensors that are made and still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.living: dict[int, int] = {}
        self.held = self.peak = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would else import its compiler, for seconds, which makes a folder for its own files
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = function(*args, **(kwargs or {}))
        for tensor in given if isinstance(given, tuple | list) else [given]:
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return given

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.living:
            self.living[key] = storage.nbytes()
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.held -= self.living.pop(key, 0)


def peak_bytes(function: Callable[[], object]) -> int:
    """Return the most bytes that the tensors made by a function take at once, those of backward passes included.

    Example:
        >>> peak_bytes(lambda: torch.zeros(1000) + torch.zeros(1000)), peak_bytes(lambda: None)
        (12000, 0)
    """
    tensors = _Living()
    with tensors:
        function()
    return tensors.peak


@dataclass(frozen=True)
class Sizes:
    """Bytes of what a run is made of; what a pass through the network takes is measured when it is first asked for.

    Attributes:
        classes: number of classes.
        largest: number of samples of the largest class.
        inputs: of one input in model space.
        network: of the parameters and buffers of a network.
        parameters: of the parameters, by their number of dimensions.
        activations: that the graph of a call keeps for one input, until the backward pass.
        features: of the features of one input, 0 where nobody asks for them.
        piece: inputs that go through the network at once at the most, where it is trained on or looks at real data.
        module: the network; its numbers may be anything.
        shape: of one input.
    """

    classes: int
    largest: int
    inputs: int
    network: int
    parameters: Mapping[int, int]
    activations: int
    features: int
    piece: int
    module: nn.Module = field(repr=False)
    shape: tuple[int, ...]

    @cached_property
    def forward(self) -> int:
        """The most that a pass without gradients takes for one input."""
        return self._each(lambda x: self.module(x), gradients=False)

    @cached_property
    def backward(self) -> int:
        """The most that a pass and its gradient take for one input."""
        return self._each(lambda x: torch.autograd.grad(self.module(x).sum(), x))

    @cached_property
    def twice(self) -> int:
        """The most that a pass, its gradient in the weights, and the gradient of that take for one input."""

        def differentiated(x: Tensor) -> None:
            weights = {name: w.detach().requires_grad_() for name, w in self.module.named_parameters()}
            loss = functional_call(self.module, weights, (x,)).square().sum()
            first = torch.autograd.grad(loss, list(weights.values()), create_graph=True, materialize_grads=True)
            torch.autograd.grad(torch.stack([part.square().sum() for part in first]).sum(), x)

        return self._each(differentiated)

    def start(self, init_from: str) -> int:
        """Count what finding the first images takes, where they are clustered."""
        if init_from != "kmeans":
            return 0
        loaded = "sklearn.cluster" in sys.modules
        return 2 * min(self.largest * self.inputs, 4 * LARGEST) + (0 if loaded else _CLUSTERING)

    def seen(self, number: int) -> int:
        """Count what passing real samples takes, without gradients; they are there as they are stored as well."""
        return 2 * number * self.inputs + min(number, self.piece) * self.forward

    def trained(self, number: int) -> int:
        """Count what a gradient of real samples in the weights takes."""
        return 2 * number * self.inputs + min(number, self.piece) * self.backward + 2 * self.network

    def of_rank(self, least: int) -> int:
        """Count the parameters that have some number of dimensions or more."""
        return sum(size for rank, size in self.parameters.items() if rank >= least)

    def _each(self, function: Callable[[Tensor], object], gradients: bool = True) -> int:
        # what does not grow with the batch is none of an input's
        two, three = (self._peak(function, number, gradients) for number in (2, 3))
        return max(0, three - two)

    def _peak(self, function: Callable[[Tensor], object], number: int, gradients: bool) -> int:
        with torch.set_grad_enabled(gradients):
            return peak_bytes(lambda: function(_zeros(self.module, number, self.shape).requires_grad_(gradients)))


def sizes_of(network: Network | nn.Module, data: LabeledData, *, embedding: bool = True) -> Sizes:
    """Measure a network on one input of some data.

    Args:
        network: name or function, or a module, which is left alone.
        data: gives the shape of an input, the number of classes and the size of the largest.
        embedding: whether anybody asks for its features.

    Example:
        >>> from ddplug.testing import toy_images
        >>> sizes = sizes_of("convnet:width=4,depth=1", toy_images())
        >>> sizes.inputs, sizes.network, sizes.features
        (256, 1932, 576)
    """
    module = _structure(network, data)
    parameters = list(module.parameters())
    ranks = {parameter.ndim for parameter in parameters}
    on_cpu = data.device.type == "cpu"
    return Sizes(
        classes=data.num_classes,
        largest=max(map(len, data.class_indices)),
        inputs=4 * math.prod(data.shape),
        network=sum(tensor.numel() * tensor.element_size() for tensor in (*parameters, *module.buffers())),
        parameters={rank: sum(p.numel() * p.element_size() for p in parameters if p.ndim == rank) for rank in ranks},
        # what does not grow with the batch is no activation
        activations=_graph_bytes(module, data.shape, 3) - _graph_bytes(module, data.shape, 2),
        features=_feature_bytes(network, data) if embedding else 0,
        piece=PIECE_BYTES // activation_bytes(module, _zeros(module, 1, data.shape)) + 1 if on_cpu else sys.maxsize,
        module=module,
        shape=data.shape,
    )


def _structure(network: Network | nn.Module, data: LabeledData) -> nn.Module:
    """Return a network whose own numbers may be anything, on the CPU."""
    if isinstance(network, nn.Module):
        return copy.deepcopy(network).cpu().eval().requires_grad_(False)
    return stateless(network, data.shape, data.num_classes, training=False)


def _zeros(module: nn.Module, number: int, shape: tuple[int, ...]) -> Tensor:
    """Return inputs of the type that a network takes."""
    own = next((parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()), torch.float32)
    return torch.zeros(number, *shape, dtype=own)


def _feature_bytes(network: Network | nn.Module, data: LabeledData) -> int:
    if isinstance(network, nn.Module):
        raise OptionError(f"{type(network).__name__} is a module; only networks by name or function have features")
    module = stateless(network, data.shape, data.num_classes, embedding=True, training=False)
    with torch.no_grad():
        features = module(_zeros(module, 1, data.shape))
    return int(features.numel() * features.element_size())


def _graph_bytes(module: nn.Module, shape: tuple[int, ...], number: int) -> int:
    """Count what the graph of a call keeps for the backward pass, each storage once."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> None:
        # a graph that held what belongs to it would never be let go of by torch 2.4
        kept[tensor.untyped_storage().data_ptr()] = tensor.detach()

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda nothing: nothing):
        module(_zeros(module, number, shape).requires_grad_())
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
    counted = _counted(method, data) if free is not None else None
    if free is None or counted is None:
        return
    sizes, stages = counted
    parts = max(stages.values(), key=lambda stage: sum(stage.values()))
    total = sum(parts.values())
    if total <= free:
        return
    option = max(parts, key=parts.__getitem__)
    raise OptionError(
        f"{method.name} needs at least {_gigabytes(total)} of memory, of which {_gigabytes(parts[option])} for "
        f"{option}={getattr(method, option)}, but {device} has {_gigabytes(free)} left; "
        f"{_advice(method, option, sizes, free)}"
    )


def needed(stages: Stages) -> int:
    """Return the bytes of the stage that needs most."""
    return max((sum(parts.values()) for parts in stages.values()), default=0)


def _advice(method: Any, option: str, sizes: Sizes, free: int) -> str:
    """Name the largest value of an option that fits, if a smaller one does."""

    def fits(value: int) -> bool:
        try:
            return needed(replace(method, **{option: value}).memory(sizes)) <= free
        except OptionError:  # it is below the least
            return False

    value = getattr(method, option)
    if isinstance(value, int):
        fitting = bisect_left(range(1, value), True, key=lambda smaller: not fits(smaller))
        if fitting:
            return f"use {option}={fitting} or less"
        if fits(0):
            return f"use {option}=0"
    return "use a smaller network"


def _counted(method: Any, data: LabeledData) -> tuple[Sizes, Stages] | None:
    """Measure what a method works with, and count what it needs, if it says so."""
    if not hasattr(method, "memory"):
        return None
    if hasattr(method, "network"):
        stateless(method.network, data.shape, data.num_classes)  # which refuses what is no network for such data
        sizes = sizes_of(method.network, data)
        return sizes, method.memory(sizes)
    if not hasattr(method, "teacher"):
        return None
    try:
        sizes = sizes_of(method.teacher, data, embedding=False)
        return sizes, method.memory(sizes)
    except Exception:  # a user's module may raise anything; the method itself says what is wrong with it
        return None


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB"
