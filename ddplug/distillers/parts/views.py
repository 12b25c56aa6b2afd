"""What real data look like through a network and an augmentation: the half of a matching loss that can be kept.

A *view* is a flat dictionary of tensors: a network's parameters and buffers under ``network.*``, an augmentation for
each class (``operation`` ``(C,)`` and ``numbers`` ``(C, 3)``), and whatever a method keeps of a real batch seen through
both. The real half of a loss does not depend on the synthetic images, so one view serves many steps
(:mod:`ddplug.distillers.parts.pools`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from ddplug.data.labeled import LabeledData
from ddplug.distillers.parts.training import batch_norm_updated
from ddplug.functional import augmentation as augment
from ddplug.functional.augmentation import Draw
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network, has_batch_norm
from ddplug.networks.functional import forward, loss_gradient, prefixed, stateless, unprefixed

__all__ = ["class_outputs", "draw_view", "gradient_view", "real_statistics", "synthetic_gradients"]


def draw_view(network: Tensors, strategy: str, num_classes: int, rng: torch.Generator) -> Tensors:
    """Begin a view: a network and an augmentation drawn for each class.

    Args:
        network: parameters and buffers.
        strategy: operations joined by ``_``; ``""`` for none.
        num_classes: number of classes.
        rng: generator on the CPU.

    Returns:
        ``network.*``, ``operation`` ``(C,)`` and ``numbers`` ``(C, 3)``.
    """
    drawn = augment.draw(strategy, num_classes, rng, common=False)
    return {**prefixed("network.", network), "operation": drawn.operation.clone(), "numbers": drawn.numbers}


def _augmented(images: Tensor, labels: Tensor, view: Mapping[str, Tensor]) -> Tensor:
    drawn = Draw(view["operation"][labels], view["numbers"][labels])
    return augment.apply(images, drawn if len(labels) == 1 else drawn.repeat_interleave(len(images) // len(labels)))


def class_outputs(module: nn.Module, images: Tensor, labels: Tensor, view: Mapping[str, Tensor]) -> Tensor:
    """Return what a view's network makes of the augmented images of some classes.

    Args:
        module: from :func:`ddplug.networks.stateless`; it decides on features, logits or both.
        images: as many of each class, sorted by class.
        labels: the classes.
        view: see :func:`draw_view`.

    Returns:
        ``(len(labels), images of each, D)``.
    """
    outputs = forward(module, unprefixed("network.", view), _augmented(images, labels, view))
    return outputs.view(len(labels), len(images) // len(labels), -1)


@torch.no_grad()
def real_statistics(
    module: nn.Module,
    view: Mapping[str, Tensor],
    data: LabeledData,
    batch_real: int,
    rng: torch.Generator,
    statistic: Callable[[Tensor], Tensor],
) -> Tensor:
    """Take a statistic of what a view's network makes of new real images of each class.

    Class by class, to bound the memory, unless batch statistics need the classes together.

    Args:
        module: from :func:`ddplug.networks.stateless`.
        view: see :func:`draw_view`.
        data: real data.
        batch_real: images of each class.
        rng: generator on the CPU.
        statistic: from ``(classes, batch_real, D)`` outputs to a tensor with the classes first.

    Returns:
        The statistic of all classes; of data without values (:meth:`ddplug.data.LabeledData.shadow`) nothing.
    """
    labels = torch.arange(data.num_classes)
    if data.inputs.is_meta:
        return _drawn(data, batch_real, rng)
    groups = [labels] if has_batch_norm(module) else labels.split(1)
    parts = []
    for group in groups:
        images = torch.cat([data.sample(int(label), batch_real, rng) for label in group])
        parts.append(statistic(class_outputs(module, images, group, view)))
    return torch.cat(parts)


def _drawn(data: LabeledData, batch_real: int, rng: torch.Generator) -> Tensor:
    """Draw what is looked at of each class, without looking at it."""
    for label in range(data.num_classes):
        data.draw(label, batch_real, rng)
    return torch.empty(data.num_classes, 0)


def _real_gradients(
    module: nn.Module, view: Mapping[str, Tensor], data: LabeledData, batch_real: int, rng: torch.Generator
) -> Tensors:
    """Gradients of the cross-entropy of new real images of each class.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits.
        view: see :func:`draw_view`.
        data: real data.
        batch_real: images of each class.
        rng: generator on the CPU.

    Returns:
        For each parameter ``(C, *shape)``; of data without values nothing.
    """
    if data.inputs.is_meta:
        return {"": _drawn(data, batch_real, rng)}
    classes = []
    for label in range(data.num_classes):
        images = _augmented(data.sample(label, batch_real, rng), torch.tensor([label]), view)
        targets = torch.full((batch_real,), label, device=data.device)
        classes.append(loss_gradient(module, unprefixed("network.", view), images, targets)[0])
    return {name: torch.stack([gradients[name] for gradients in classes]) for name in classes[0]}


def gradient_view(
    network: Network, tensors: Tensors, strategy: str, data: LabeledData, batch_real: int, rng: torch.Generator
) -> Tensors:
    """Draw an augmentation for each class, and take the gradients that new real batches give in a network.

    Args:
        network: name or function.
        tensors: its parameters and buffers; batch normalization is moved by one real batch first.
        strategy: operations joined by ``_``; ``""`` for none.
        data: real data.
        batch_real: images of each class.
        rng: generator on the CPU.

    Returns:
        What :func:`draw_view` gives, and for each parameter the classes' gradients ``(C, *shape)`` under ``real.*``.
    """
    tensors = batch_norm_updated(stateless(network, data.shape, data.num_classes), tensors, data, rng)
    view = draw_view(tensors, strategy, data.num_classes, rng)
    frozen = stateless(network, data.shape, data.num_classes, training=False)
    return {**view, **prefixed("real.", _real_gradients(frozen, view, data, batch_real, rng))}


def synthetic_gradients(module: nn.Module, view: Mapping[str, Tensor], images: Tensor, num_classes: int) -> Tensors:
    """Gradients of the cross-entropy of each class's images, differentiable in the images.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits.
        view: see :func:`draw_view`.
        images: as many of each class, sorted by class.
        num_classes: number of classes.

    Returns:
        For each parameter ``(C, *shape)``.
    """
    network = unprefixed("network.", view)
    leaves = {name: network[name].detach().requires_grad_() for name, _ in module.named_parameters()}
    classes = []
    # one class at a time: torch.func.vmap would be a little faster, but on torch 2.15 the second derivative of a
    # layer norm under it is wrong by several per cent
    for label, own in enumerate(images.split(len(images) // num_classes)):
        logits = functional_call(module, {**network, **leaves}, (_augmented(own, torch.tensor([label]), view),))
        loss = cross_entropy(logits, torch.full((len(own),), label, device=images.device))
        parts = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, materialize_grads=True)
        classes.append(parts)
    return {name: torch.stack(parts) for name, parts in zip(leaves, zip(*classes, strict=True), strict=True)}
