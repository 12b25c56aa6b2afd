"""What real data look like through a network and an augmentation: the half of a matching loss that can be kept.

A *view* is a flat dictionary of tensors: a network's numbers under ``network.*``, an augmentation for each class
(``operation`` ``(C,)`` and ``numbers`` ``(C, 3)``), and whatever a method keeps of a real batch seen through both. The
real half of a loss does not depend on the synthetic images, so one view serves many steps (:mod:`ddplug.bank`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from ddplug import augment
from ddplug.augment import Draw
from ddplug.bank import Tensors, descended, fill, forward, loss_gradient, prefixed, replaced, unprefixed
from ddplug.callbacks import tracked
from ddplug.data import LabelledData
from ddplug.networks import has_batch_norm

__all__ = [
    "Make",
    "after_use",
    "class_outputs",
    "draw_view",
    "real_gradients",
    "real_statistics",
    "settled",
    "staggered",
    "synthetic_gradients",
    "trained_on_real",
]

_TRAIN_BATCH = 64

_BATCH_NORM_IMAGES = 16
"""Real images of each class whose statistics batch normalisation is frozen at for gradients, as published for DC."""

Make = Callable[[Tensors | None, int], Tensors]
"""Function of a network (``None`` for a new one) and a number of training steps: a view of the network after them."""


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


def _seen(images: Tensor, labels: Tensor, view: Mapping[str, Tensor]) -> Tensor:
    drawn = Draw(view["operation"][labels], view["numbers"][labels])
    return augment.apply(images, drawn if len(labels) == 1 else drawn.repeat_interleave(len(images) // len(labels)))


def class_outputs(module: nn.Module, images: Tensor, labels: Tensor, view: Mapping[str, Tensor]) -> Tensor:
    """Give what a view's network makes of the augmented images of some classes.

    Args:
        module: from :func:`ddplug.bank.skeleton`; it decides on features, logits or both.
        images: as many of each class, sorted by class.
        labels: the classes.
        view: see :func:`draw_view`.

    Returns:
        ``(len(labels), images of each, D)``.
    """
    outputs = forward(module, unprefixed("network.", view), _seen(images, labels, view))
    return outputs.view(len(labels), len(images) // len(labels), -1)


@torch.no_grad()
def real_statistics(
    module: nn.Module,
    view: Mapping[str, Tensor],
    data: LabelledData,
    batch_real: int,
    rng: torch.Generator,
    statistic: Callable[[Tensor], Tensor],
) -> Tensor:
    """Take a statistic of what a view's network makes of new real images of each class.

    Class by class, to bound the memory, unless batch statistics need the classes together.

    Args:
        module: from :func:`ddplug.bank.skeleton`.
        view: see :func:`draw_view`.
        data: real data.
        batch_real: images of each class.
        rng: generator on the CPU.
        statistic: from ``(classes, batch_real, D)`` outputs to a tensor with the classes first.

    Returns:
        The statistic of all classes.
    """
    labels = torch.arange(data.num_classes)
    groups = [labels] if has_batch_norm(module) else labels.split(1)
    parts = []
    for group in groups:
        images = torch.cat([data.sample(int(label), batch_real, rng) for label in group])
        parts.append(statistic(class_outputs(module, images, group, view)))
    return torch.cat(parts)


def real_gradients(
    module: nn.Module, view: Mapping[str, Tensor], data: LabelledData, batch_real: int, rng: torch.Generator
) -> Tensors:
    """Gradients of the cross-entropy of new real images of each class.

    Args:
        module: from :func:`ddplug.bank.skeleton`, with logits.
        view: see :func:`draw_view`.
        data: real data.
        batch_real: images of each class.
        rng: generator on the CPU.

    Returns:
        For each parameter ``(C, *shape)``.
    """
    classes = []
    for label in range(data.num_classes):
        images = _seen(data.sample(label, batch_real, rng), torch.tensor([label]), view)
        targets = torch.full((batch_real,), label, device=data.device)
        classes.append(loss_gradient(module, unprefixed("network.", view), images, targets)[0])
    return {name: torch.stack([gradients[name] for gradients in classes]) for name in classes[0]}


def settled(module: nn.Module, network: Tensors, data: LabelledData, rng: torch.Generator) -> Tensors:
    """Move the running statistics of batch normalisation by one real batch; other networks stay as they are.

    Args:
        module: from :func:`ddplug.bank.skeleton`, in training mode.
        network: its numbers, which stay as they are.
        data: real data.
        rng: generator on the CPU; nothing is drawn without batch normalisation.

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


def synthetic_gradients(module: nn.Module, view: Mapping[str, Tensor], images: Tensor, num_classes: int) -> Tensors:
    """Gradients of the cross-entropy of each class's images, differentiable in the images.

    Args:
        module: from :func:`ddplug.bank.skeleton`, with logits.
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
        logits = functional_call(module, {**network, **leaves}, (_seen(own, torch.tensor([label]), view),))
        loss = cross_entropy(logits, torch.full((len(own),), label, device=images.device))
        parts = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, materialize_grads=True)
        classes.append(parts)
    return {name: torch.stack(parts) for name, parts in zip(leaves, zip(*classes, strict=True), strict=True)}


def trained_on_real(
    module: nn.Module,
    network: Tensors,
    data: LabelledData,
    strategy: str,
    *,
    steps: int,
    rate: float,
    rng: torch.Generator,
) -> Tensors:
    """Train a network on real data by plain SGD on the cross-entropy.

    Args:
        module: from :func:`ddplug.bank.skeleton`, with logits, in training mode.
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
        network = descended(module, network, images, data.targets[index.to(data.device)], rate)
    return network


def staggered(number: int, max_age: int, make: Make) -> Tensors:
    """Fill a bank with new networks at ages spread evenly below ``max_age``, as if it had been in use for long.

    Args:
        number: networks in the bank.
        max_age: in training steps.
        make: see :data:`Make`.

    Returns:
        The part ``bank.*`` of a state, with the counts ``age`` and ``used`` of each view.
    """
    ages = [k * max_age // number for k in range(number)]
    return fill([_counted(make(None, age), age) for age in tracked(ages, "networks")])


def _counted(view: Tensors, age: int) -> Tensors:
    return {**view, "age": torch.tensor(age), "used": torch.tensor(0)}


def after_use(
    state: Mapping[str, Tensor], k: int, make: Make, *, reuse: int, advance: int, max_age: int
) -> dict[str, Tensor]:
    """Count a use of a bank's ``k``-th network; after the last in its state train it, or put a new one there.

    Args:
        state: with a bank of :func:`staggered`.
        k: position in the bank.
        make: see :data:`Make`.
        reuse: uses of a network between two trainings.
        advance: steps of a training; with 0 only the real batch is drawn anew.
        max_age: training steps after which a network is replaced by a new one.

    Returns:
        The tensors of the bank that change.
    """
    used, age = int(state["bank.used"][k]) + 1, int(state["bank.age"][k])
    if used < reuse:
        counts = state["bank.used"].clone()
        counts[k] = used
        return {"bank.used": counts}
    bank = {name: tensor for name, tensor in state.items() if name.startswith("bank.")}
    if advance and age >= max_age:
        return replaced(bank, k, _counted(make(None, 0), 0))
    network = {name: stacked[k] for name, stacked in unprefixed("bank.network.", state).items()}
    return replaced(bank, k, _counted(make(network, advance), age + advance))
