"""What real data look like through a network and an augmentation: the half of a matching loss that can be kept.

A *view* is a flat dictionary of tensors: a network's parameters and buffers under ``network.*``, an augmentation for
each class (``operation`` ``(C,)`` and ``numbers`` ``(C, 3)``), and whatever a method keeps of a real batch seen through
both. The real half of a loss does not depend on the synthetic images, so one view serves many steps
(:mod:`ddplug.distillers.parts.pools`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillers.parts.training import batch_norm_updated
from ddplug.functional import augmentation as augment
from ddplug.functional.augmentation import Draw
from ddplug.functional.losses import gradient_matching
from ddplug.functional.resize import enlarge
from ddplug.functional.summation import sum_of_parts
from ddplug.functional.types import Tensors
from ddplug.networks.classwise import class_gradients, classes_together
from ddplug.networks.factory import Network, has_batch_norm
from ddplug.networks.functional import forward, loss_gradient, prefixed, stateless, unprefixed
from ddplug.networks.precision import call

__all__ = [
    "class_outputs",
    "draw_view",
    "gradient_loss",
    "gradient_loss_bytes",
    "gradient_view",
    "kept_gradients",
    "of_rank",
    "real_statistics",
]


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


def gradient_view(
    network: Network, tensors: Tensors, strategy: str, data: LabeledData, batch_real: int, rng: torch.Generator
) -> Tensors:
    """Draw an augmentation and a real batch for each class, whose gradients in a network are to be matched.

    Args:
        network: name or function.
        tensors: its parameters and buffers; batch normalization is moved by one real batch first.
        strategy: operations joined by ``_``; ``""`` for none.
        data: real data.
        batch_real: images of each class.
        rng: generator on the CPU.

    Returns:
        What :func:`draw_view` gives, and the positions ``(C, batch_real)`` of the real images under ``batches``.
    """
    tensors = batch_norm_updated(stateless(network, data.shape, data.num_classes), tensors, data, rng)
    view = draw_view(tensors, strategy, data.num_classes, rng)
    return {**view, "batches": torch.stack([data.draw(label, batch_real, rng) for label in range(data.num_classes)])}


def of_rank(module: nn.Module, least: int) -> list[str]:
    """Name the parameters of a network that have some number of dimensions or more."""
    return [name for name, parameter in module.named_parameters() if parameter.ndim >= least]


def kept_gradients(module: nn.Module, view: Tensors, names: Sequence[str], data: LabeledData) -> Tensors:
    """Take the real gradients of a view once, for a pool.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits.
        view: from :func:`gradient_view`.
        names: of the parameters whose gradients are matched.
        data: real data.

    Returns:
        The view with the classes' gradients ``(C, *shape)`` of these parameters under ``real.*``.
    """
    found = _real_gradients(module, view, names, data, range(data.num_classes))
    return {**{name: tensor for name, tensor in view.items() if name != "batches"}, **prefixed("real.", found)}


def gradient_loss(
    module: nn.Module,
    view: Mapping[str, Tensor],
    inputs: Tensor,
    names: Sequence[str],
    data: LabeledData,
    distance: str,
) -> Tensor:
    """Sum over classes of the distance between the gradients of real and of synthetic images.

    One class at a time, in the memory of one class's graph; several in one pass where that is faster.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits, not in training mode.
        view: from :func:`gradient_view` or :func:`kept_gradients`.
        inputs: the images as they are stored, as many of each class, sorted by class.
        names: of the parameters whose gradients are matched.
        data: real data.
        distance: see :func:`ddplug.functional.gradient_matching`.

    Returns:
        0-d loss, differentiable in ``inputs``, once.
    """
    each = len(inputs) // data.num_classes
    together = classes_together(module, names, inputs.new_zeros(1, *data.shape, device="cpu"), each, inputs.device)

    def term(own: Tensor, number: int) -> Tensor:
        first = number * together
        classes = range(first, first + len(own) // each)
        synthetic = _synthetic_gradients(module, view, names, enlarge(own, data.shape), torch.tensor(classes))
        return gradient_matching(_real_part(module, view, names, data, classes), synthetic, distance)

    return sum_of_parts(term, inputs, together * each)


def gradient_loss_bytes(sizes: Sizes, each: int, least: int) -> int:
    """Count what :func:`gradient_loss` takes for one class, or for those that go together.

    Args:
        sizes: of the network.
        each: images of each class.
        least: dimensions of the parameters whose gradients are matched, or more.
    """
    module, sample = sizes.module, torch.zeros(1, *sizes.shape)
    together = classes_together(module, of_rank(module, least), sample, each, torch.device("cpu"))
    # real and synthetic gradients, and what the distance makes of them
    return min(together, sizes.classes) * (each * sizes.twice + 4 * sizes.of_rank(least))


def _real_part(
    module: nn.Module, view: Mapping[str, Tensor], names: Sequence[str], data: LabeledData, classes: range
) -> Tensors:
    """Return the real gradients of some classes, which a pool's views have and others have not."""
    if "batches" in view:
        return _real_gradients(module, view, names, data, classes)
    return {name: view[f"real.{name}"][classes.start : classes.stop] for name in names}


def _real_gradients(
    module: nn.Module, view: Mapping[str, Tensor], names: Sequence[str], data: LabeledData, classes: range
) -> Tensors:
    """Gradients of the cross-entropy of a view's real images, for each name and all of some classes ``(C, *shape)``."""
    network, found = unprefixed("network.", view), []
    if data.inputs.is_meta:  # all is drawn
        return {}
    for label in classes:
        images = _augmented(data.batch(view["batches"][label]), torch.tensor([label]), view)
        targets = torch.full((len(images),), label, device=data.device)
        gradients, _ = loss_gradient(module, network, images, targets)
        found.append([gradients[name] for name in names])
    return {name: torch.stack(parts) for name, parts in zip(names, zip(*found, strict=True), strict=True)}


def _synthetic_gradients(
    module: nn.Module, view: Mapping[str, Tensor], names: Sequence[str], images: Tensor, labels: Tensor
) -> Tensors:
    """The same of the images of some classes, differentiable in the images."""
    seen, network = _augmented(images, labels, view), unprefixed("network.", view)
    if len(labels) > 1:
        return class_gradients(module, network, names, seen, labels)
    leaves = {name: network[name].detach().requires_grad_() for name in names}
    logits = call(module, {**network, **leaves}, seen)
    loss = cross_entropy(logits, labels.to(images.device).expand(len(images)))
    parts = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, materialize_grads=True)
    return {name: part[None] for name, part in zip(names, parts, strict=True)}
