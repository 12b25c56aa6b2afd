"""Networks as data: their parameters in plain dictionaries, and calls that take these as an argument."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

from ddplug.data.labeled import LabeledData
from ddplug.functional.types import Tensors
from ddplug.functional.unrolling import StepLoss
from ddplug.networks.batching import batch_pieces
from ddplug.networks.factory import Network, build, features_of, logits_of
from ddplug.networks.layers import Classifier
from ddplug.networks.precision import call
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.teams import spread, team

__all__ = [
    "forward",
    "initial_parameters",
    "loss_gradient",
    "minibatch_loss",
    "prefixed",
    "sgd_step",
    "stateless",
    "unprefixed",
]


class _Embedding(nn.Module):
    """Let a functional call reach the features of a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return features_of(self.network, x)


class _Outputs(_Embedding):
    """Return the features and, behind them in the same rows, the logits; our own networks need one pass for both."""

    def forward(self, x: Tensor) -> Tensor:
        network, features = self.network, features_of(self.network, x)
        return torch.cat([features, network.head(features) if isinstance(network, Classifier) else network(x)], 1)


def stateless(
    network: Network,
    shape: tuple[int, ...],
    num_classes: int,
    *,
    embedding: bool = False,
    outputs: bool = False,
    training: bool = True,
) -> nn.Module:
    """Return a network's structure, for functional calls only: its own parameters are never used.

    Args:
        network: name or function.
        shape: of one input.
        num_classes: number of outputs.
        embedding: whether a call gives features instead of logits.
        outputs: whether a call gives features and, behind them, logits: ``(n, D + num_classes)``.
        training: whether batch normalization uses the batch's own statistics.

    Returns:
        A module shared by all callers of a thread with the same arguments; one that a function built lives as long as
        the function. Threads have their own, since a call puts the parameters into the module for a moment.

    Raises:
        OptionError: as for :func:`build`, or the network does not turn such an input into one logit a class.
    """
    kind = (tuple(shape), num_classes, embedding, outputs, training)
    if isinstance(network, str):
        return _OWN.named(network, *kind)
    if not callable(network):
        return _structure(network, *kind)  # which refuses it
    known = _OWN.built.setdefault(network, {})
    if kind not in known:
        known[kind] = _structure(network, *kind)
    return known[kind]


def _structure(
    network: Network, shape: tuple[int, ...], num_classes: int, embedding: bool, outputs: bool, training: bool
) -> nn.Module:
    module = build(network, shape, num_classes, torch.Generator().manual_seed(0))
    if embedding or outputs:
        module = (_Outputs if outputs else _Embedding)(module)
    else:
        own = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
        logits_of(f"network {type(module).__name__}", module, torch.zeros(1, *shape, dtype=own), num_classes)
    return module.train(training).requires_grad_(False)


class _Own(threading.local):
    """The structures of a thread."""

    def __init__(self) -> None:
        self.named = lru_cache(maxsize=32)(_structure)
        # by the function that built them; weak, because a function may hold on to a model that somebody trains
        self.built: WeakKeyDictionary[Callable[..., nn.Module], dict[tuple[object, ...], nn.Module]] = (
            WeakKeyDictionary()
        )


_OWN = _Own()


@own_surroundings()
def initial_parameters(
    network: Network, data: LabeledData, rng: torch.Generator, shape: tuple[int, ...] | None = None
) -> Tensors:
    """Initialize a new network for some data.

    Args:
        network: name or function.
        data: gives the input shape, the number of classes and the device.
        rng: generator on the CPU.
        shape: of one input, if it is not that of the data.

    Returns:
        Its parameters and buffers, detached, on the data's device.
    """
    module = build(network, shape or data.shape, data.num_classes, rng)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor.detach().to(data.device) for name, tensor in tensors.items()}


_MEASURED: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], list[slice]]] = WeakKeyDictionary()
"""Micro-batches of a structure by the shape and type of a batch, since finding them takes a forward pass."""


def _micro_batches(module: nn.Module, *batch: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut a batch into what is best passed through a structure at once."""
    first = batch[0]
    if first.device.type != "cpu":
        return iter([batch])
    known, kind = _MEASURED.setdefault(module, {}), (first.shape, first.dtype)
    if kind not in known:
        known[kind] = batch_pieces(module, torch.zeros((1, *first.shape[1:]), dtype=first.dtype), len(first))
    return (tuple(tensor[part] for tensor in batch) for part in known[kind])


def _width(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Return how many numbers a structure gives for an input of a shape."""
    known = _WIDTHS.setdefault(module, {})
    if shape not in known:
        training = module.training
        with torch.no_grad():
            known[shape] = module.eval()(torch.zeros(1, *shape)).shape[1]
        module.train(training)
    return known[shape]


_WIDTHS: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], int]] = WeakKeyDictionary()


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Put a prefix before every name, to keep several networks in one state."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """Take the tensors whose names have a prefix, without it; the inverse of :func:`prefixed`."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@own_surroundings(gradients=False)
def forward(module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Call a network with parameters and buffers that are given, and stay as they are.

    Args:
        module: the structure.
        tensors: parameters and buffers, as :func:`initial_parameters` names them.
        x: ``(n, *shape)`` in model space.

    Returns:
        ``(n, D)`` features or ``(n, num_classes)`` logits.
    """
    if x.is_meta:  # there are no values to compute with
        return x.new_empty(len(x), _width(module, x.shape[1:]))
    if isinstance(module, _Embedding):
        tensors = prefixed("network.", tensors)
    # batch normalization writes its running statistics into the buffers it is given: hand it copies
    own = {**tensors, **{name: tensors[name].clone() for name, _ in module.named_buffers()}}
    through = partial(call, module, own)
    if team().size > 1 and x.requires_grad and not any(tensor.requires_grad for tensor in own.values()):
        sizes = [len(part) for (part,) in _micro_batches(module, x)]
        if len(sizes) > 1:
            shared: Tensor = _Shared.apply(x, through, sizes)
            return shared
    return torch.cat([through(part) for (part,) in _micro_batches(module, x)])


class _Shared(torch.autograd.Function):
    """The call of a network on a batch, a share of whose micro-batches each process computes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, through: Callable[[Tensor], Tensor], sizes: list[int]) -> Tensor:
        parts, own = x.detach().split(sizes), team()
        leaves = [part.requires_grad_() for part in parts[own.rank :: own.size]]
        with torch.enable_grad():
            outputs = [through(leaf) for leaf in leaves]
        ctx.graphs, ctx.sizes = list(zip(leaves, outputs, strict=True)), sizes
        found = spread(len(sizes), lambda k: {"y": outputs[k // own.size]}, x.device)
        return torch.cat([part["y"].detach() for part in found])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        parts, size = gradient.split(ctx.sizes), team().size

        def back(k: int) -> Tensors:
            leaf, output = ctx.graphs[k // size]
            return {"x": torch.autograd.grad(output, leaf, parts[k])[0]}

        found = spread(len(parts), back, gradient.device)
        return torch.cat([part["x"] for part in found]), None, None


@own_surroundings()
def loss_gradient(module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensors, Tensors]:
    """Gradient of the mean cross-entropy in a network's parameters, without a graph.

    Args:
        module: from :func:`stateless`.
        tensors: parameters and buffers.
        x: ``(n, *shape)`` in model space.
        y: ``(n,)`` labels, or ``(n, C)`` class probabilities.

    Returns:
        The gradients, and the buffers after the call (batch normalization in training mode moves them).
    """
    if x.is_meta:
        own = {name: tensors[name] for name, _ in module.named_parameters()}
        return own, {name: tensors[name] for name, _ in module.named_buffers()}
    buffers = {name: tensors[name].clone() for name, _ in module.named_buffers()}
    leaves = {name: tensors[name].detach().requires_grad_() for name, _ in module.named_parameters()}
    total = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    for part, labels in _micro_batches(module, x, y):
        loss = cross_entropy(call(module, {**leaves, **buffers}, part), labels, reduction="sum")
        # not every parameter need take part in the outputs
        parts = torch.autograd.grad(loss / len(x), list(leaves.values()), materialize_grads=True)
        total = {name: total[name] + part_gradient for name, part_gradient in zip(leaves, parts, strict=True)}
    return total, buffers


@own_surroundings()
def sgd_step(module: nn.Module, tensors: Tensors, x: Tensor, y: Tensor, rate: float) -> Tensors:
    """Take one step of plain gradient descent on the mean cross-entropy.

    Args:
        module: from :func:`stateless`.
        tensors: parameters and buffers, which stay as they are.
        x: ``(n, *shape)`` in model space.
        y: ``(n,)`` labels, or ``(n, C)`` class probabilities.
        rate: learning rate.

    Returns:
        The new parameters and buffers.
    """
    if x.is_meta:
        return tensors
    gradients, buffers = loss_gradient(module, tensors, x, y)
    return {**{name: tensors[name] - rate * gradient for name, gradient in gradients.items()}, **buffers}


def minibatch_loss(
    module: nn.Module,
    buffers: Mapping[str, Tensor],
    batches: Sequence[Tensor],
    change: Callable[[Tensor, int], Tensor] = lambda images, step: images,
) -> StepLoss:
    """Make the loss of training on images and labels, a minibatch a step: the mean cross-entropy.

    Args:
        module: the network's structure, from :func:`ddplug.networks.stateless`.
        buffers: its buffers, if it has any; every step begins with them.
        batches: ``(n,)`` int64 positions of the samples of each step; used again from the first when they are through.
        change: what is done to the ``(n, *shape)`` images of a step, which has a number; the same each time it is
            called for a step, so an augmentation that was drawn before.

    Returns:
        A loss for :func:`ddplug.functional.unroll` whose ``learned`` are the images ``(M, *shape)`` and their labels,
        ``(M,)`` int64 or ``(M, num_classes)`` weights of the classes, which need not add up to 1.
    """

    def loss(weights: Tensors, learned: Sequence[Tensor], step: int) -> Tensor:
        images, labels = learned
        index = batches[step % len(batches)]
        return cross_entropy(forward(module, {**buffers, **weights}, change(images[index], step)), labels[index])

    return loss
