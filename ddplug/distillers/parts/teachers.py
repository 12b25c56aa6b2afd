"""Teachers: networks that know the real data, frozen; named and trained here, or a user's own, trained before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ddplug.data.anything import Data, as_labeled
from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillers.parts.training import POOL, TRAIN_BATCH, draw_pool, train
from ddplug.errors import OptionError
from ddplug.functional.types import Tensors
from ddplug.networks.batching import batch_pieces
from ddplug.networks.factory import Network, build, logits_of
from ddplug.networks.functional import stateless
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.checks import one_of, values_at_least
from ddplug.utils.devices import pick_device
from ddplug.utils.surroundings import own_surroundings

__all__ = [
    "Teacher",
    "check_labels",
    "check_teacher",
    "frozen",
    "predict",
    "soft_labels",
    "teacher_bytes",
    "teacher_module",
    "teacher_state",
    "train_teacher",
]

Teacher = Network | nn.Module
"""A network to be trained on the data, by name or by a function that builds one; or the user's own trained module."""

_MICRO_BATCH = 256
"""Samples through a teacher at once on an accelerator."""


@own_surroundings()
def train_teacher(
    network: Network, data: Data, *, epochs: int = 10, max_samples_per_class: int = POOL, rng: torch.Generator
) -> nn.Module:
    """Train a teacher on real data: SGD with learning rate 0.01, momentum 0.9, batches of 64, no augmentation.

    Args:
        network: name with options, or a function that builds one.
        data: real data.
        epochs: passes over the samples it is trained on, at least 1.
        max_samples_per_class: samples of each class, at most, drawn at random.
        rng: generator on the CPU.

    Returns:
        The network, on the device of the data, in evaluation mode.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> rng = torch.Generator().manual_seed(0)
        >>> train_teacher("convnet:width=4,depth=1", toy_images(), rng=rng).training
        False
    """
    values_at_least(1, epochs=epochs, max_samples_per_class=max_samples_per_class)
    data = as_labeled(data)
    module = build(network, data.shape, data.num_classes, rng).to(data.device)
    for _ in train(module, data, draw_pool(data, max_samples_per_class, rng), epochs, rng, batch_size=TRAIN_BATCH):
        pass
    return module.eval()


def teacher_bytes(teacher: Teacher, sizes: Sizes) -> int:
    """Count what the training of a teacher takes; a user's own is trained already."""
    if isinstance(teacher, nn.Module):
        return 0
    return min(TRAIN_BATCH, sizes.classes * sizes.largest) * sizes.backward + 4 * sizes.network


def teacher_state(
    teacher: Teacher, data: LabeledData, epochs: int, max_samples_per_class: int, rng: torch.Generator
) -> Tensors:
    """Return the parameters and buffers of a teacher, for a method's state; train a named teacher first.

    Args:
        teacher: the teacher.
        data: real data.
        epochs: see :func:`train_teacher`.
        max_samples_per_class: see :func:`train_teacher`.
        rng: generator on the CPU.

    Returns:
        Tensors by name; empty for the user's own module, which has them itself.

    Raises:
        OptionError: your own module does not turn the inputs into one logit a class, or another option is wrong.
    """
    if isinstance(teacher, nn.Module):
        check_teacher(teacher, data)
        return {}
    module = train_teacher(teacher, data, epochs=epochs, max_samples_per_class=max_samples_per_class, rng=rng)
    return {name: tensor.detach() for name, tensor in _tensors(module).items()}


def check_teacher(teacher: nn.Module, data: LabeledData) -> None:
    """Refuse a module of the user's own that cannot teach the classes of some data.

    Raises:
        OptionError: it does not turn the inputs into one finite logit a class.
    """
    with frozen(teacher, {}, data.device) as ready:
        _check(ready, teacher, data.batch(torch.zeros(1, dtype=torch.int64)), data.num_classes)


def _tensors(module: nn.Module) -> Tensors:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def teacher_module(teacher: Teacher, data: LabeledData) -> nn.Module:
    """Return the user's own module, or the structure of a named teacher; :func:`frozen` makes it callable."""
    if isinstance(teacher, nn.Module):
        return teacher
    return stateless(teacher, data.shape, data.num_classes, training=False)


class _Frozen(nn.Module):
    """A module that is called with other tensors than its own, which are neither used nor changed."""

    def __init__(self, structure: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.structure = structure
        self.tensors = tensors

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.structure, dict(self.tensors), (x,))
        return logits


@contextmanager
def frozen(structure: nn.Module, tensors: Mapping[str, Tensor], device: torch.device) -> Iterator[nn.Module]:
    """Make a teacher callable for a while, frozen and in evaluation mode; the module given stays as it was.

    Args:
        structure: see :func:`teacher_module`.
        tensors: what :func:`teacher_state` gave; where that is empty, the module's own.
        device: to compute on.

    Yields:
        A module from ``(n, *shape)`` model-space inputs to ``(n, C)`` logits; differentiable in the inputs alone.
    """
    modes = [(part, part.training) for part in structure.modules()]
    # copies of the buffers, since a module may write to them even in evaluation mode
    buffers = {name for name, _ in structure.named_buffers()}
    ready = {name: t.detach().to(device, copy=name in buffers) for name, t in (tensors or _tensors(structure)).items()}
    try:
        yield _Frozen(structure, ready).eval()
    finally:
        for part, mode in modes:
            part.training = mode


def _check(ready: nn.Module, teacher: nn.Module, sample: Tensor, classes: int) -> None:
    """Refuse a teacher that does not turn a sample ``(1, *shape)`` into one finite logit a class."""
    name = f"teacher {type(teacher).__name__}"
    if not bool(logits_of(name, ready, sample, classes).isfinite().all()):
        raise OptionError(f"{name} gives NaN or infinity for the first sample; check its weights")


@torch.no_grad()
def predict(ready: nn.Module, inputs: Tensor) -> Tensor:
    """Return a frozen teacher's ``(n, C)`` logits of ``(n, *shape)`` inputs, in micro-batches that bound the memory."""
    pieces = [
        slice(part.start + piece.start, part.start + piece.stop)
        for part in (
            slice(first, min(first + _MICRO_BATCH, len(inputs))) for first in range(0, len(inputs), _MICRO_BATCH)
        )
        for piece in batch_pieces(ready, inputs[:1], part.stop - part.start)
    ]
    return torch.cat([ready(inputs[piece]) for piece in pieces])


@own_surroundings()
def soft_labels(images: SyntheticSet, teacher: nn.Module, *, device: torch.device | str = "auto") -> SyntheticSet:
    """Give any set a teacher's soft labels; selected real images with them are the control for methods that use them.

    Args:
        images: selected or synthetic images; their labels are not looked at.
        teacher: a trained module, see :func:`train_teacher`; used in evaluation mode and left as it was.
        device: see :func:`ddplug.utils.devices.pick_device`.

    Returns:
        The set with ``(M, C)`` class probabilities.

    Raises:
        OptionError: the teacher does not turn the set's inputs into one logit a class.

    Example:
        >>> from ddplug import distill
        >>> from ddplug.testing import toy_images
        >>> teacher = train_teacher("convnet:width=4,depth=1", toy_images(), rng=torch.Generator().manual_seed(0))
        >>> soft_labels(distill(toy_images((12, 11, 10)), "random", device="cpu"), teacher, device="cpu").targets.shape
        torch.Size([30, 3])
    """
    inputs = images.enlarged().inputs.to(pick_device(device))
    with frozen(teacher, {}, inputs.device) as ready:
        _check(ready, teacher, inputs[:1], images.num_classes)
        targets = predict(ready, inputs).softmax(1)
    stored = None if images.stored is None else replace(images.stored, labels={})  # those were of the labels before
    return replace(images, targets=targets.to(images.inputs), half_labels=False, stored=stored)


def check_labels(labels: str) -> None:
    """Refuse an unknown kind of labels.

    Raises:
        OptionError: it is neither ``"soft"`` nor ``"hard"``.
    """
    one_of("kind of labels", labels, ("soft", "hard"))
