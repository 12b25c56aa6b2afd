"""Training of networks: on real data, as modules, as functions or as experts; and on a synthetic set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from ddplug.data.labeled import LabeledData
from ddplug.errors import DivergedError, OptionError
from ddplug.functional import augmentation as augment
from ddplug.functional.optim import descend
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network, check_outputs, has_batch_norm, name_of
from ddplug.networks.functional import initial_parameters, loss_gradient, sgd_step, stateless, unprefixed
from ddplug.networks.precision import applied
from ddplug.utils.checks import at_least
from ddplug.utils.options import TakesNumbers
from ddplug.utils.preparation import Stage
from ddplug.utils.progress import progress
from ddplug.utils.randomness import temporary_seed

__all__ = [
    "POOL",
    "TRAIN_BATCH",
    "ExpertTraining",
    "batch_norm_updated",
    "draw_pool",
    "flatten",
    "structure",
    "train",
    "trained_on_real",
    "trained_on_set",
    "trajectory",
    "unflatten",
]

POOL = 500
"""Samples a class that a scoring network is trained on at most, unless told otherwise."""


def draw_pool(data: LabeledData, per_class: int, rng: torch.Generator) -> Tensor:
    """Draw at most ``per_class`` samples of each class; positions ``(n,)`` int64, sorted by class, on the CPU."""
    counts = [min(per_class, len(members)) for members in data.class_indices]
    return torch.cat([data.draw(label, n, rng).sort().values for label, n in enumerate(counts)])


def train(
    module: nn.Module, data: LabeledData, index: Tensor, epochs: int, rng: torch.Generator, batch_size: int = 256
) -> Iterator[Tensor]:
    """Train a network in place by SGD with learning rate 0.01 and momentum 0.9, one epoch for each item drawn.

    Args:
        module: network on the device of the data.
        data: real data.
        index: ``(n,)`` positions to train on.
        epochs: passes.
        rng: generator on the CPU, for the order and for what the network itself draws (dropout).
        batch_size: samples a step, at most; batches are of equal size up to one.

    Yields:
        ``(n,)`` int64, on the CPU: the class that each sample was taken for when its batch came up, before the step.
    """
    check_outputs(module, data.batch(index[:1]), data.num_classes)
    momenta: dict[str, Tensor] = {}
    targets = data.targets.to(data.device)
    own, history = Stage(rng), list[Tensor]()
    before = own.begun()
    if before is not None:
        history = list(before["predictions"])
        module.load_state_dict(unprefixed("module.", before))
        own_ones = dict(module.named_parameters())
        momenta = {n: v.to(own_ones[n], copy=True) for n, v in unprefixed("momentum.", before).items()}
    for predictions in history:
        yield predictions.long()
    for _ in progress(range(len(history), epochs), "epochs"):
        seen = torch.empty(len(index), dtype=torch.int64)
        module.train()
        with temporary_seed(int(torch.randint(2**31, (), generator=rng)), data.device):  # for dropout
            for part in torch.randperm(len(index), generator=rng).tensor_split(-(-len(index) // batch_size)):
                output = applied(module, data.batch(index[part]))
                module.zero_grad()
                cross_entropy(output, targets[index[part].to(data.device)]).backward()
                _descend(module, momenta)
                seen[part] = output.detach().argmax(1).cpu()
        history.append(seen.int())
        own.keep(lambda: {"predictions": torch.stack(history), **_taken(module, momenta)})
        yield seen


def _descend(module: nn.Module, momenta: dict[str, Tensor]) -> None:
    """Take a step by the gradients that have flowed back."""
    moved = {name: p for name, p in module.named_parameters() if p.grad is not None}
    velocities = [momenta.setdefault(name, torch.zeros_like(p)) for name, p in moved.items()]
    gradients = [p.grad for p in moved.values() if p.grad is not None]
    descend(moved.values(), gradients, velocities, rate=0.01, momentum=0.9)


def _taken(module: nn.Module, momenta: Mapping[str, Tensor]) -> Tensors:
    """Copy a network and the momentum of its parameters."""
    momentum = {f"momentum.{name}": velocity.clone() for name, velocity in momenta.items()}
    return {**momentum, **{f"module.{name}": tensor.clone() for name, tensor in module.state_dict().items()}}


TRAIN_BATCH = 64
"""Real samples in a step of a network that a method trains."""

_BATCH_NORM_IMAGES = 16
"""Real images of each class whose statistics batch normalization is frozen at for gradients, as published for DC."""


def batch_norm_updated(module: nn.Module, network: Tensors, data: LabeledData, rng: torch.Generator) -> Tensors:
    """Move the running statistics of batch normalization by one real batch; other networks stay as they are.

    Args:
        module: from :func:`ddplug.networks.stateless`, in training mode.
        network: its parameters and buffers, which stay as they are.
        data: real data.
        rng: generator on the CPU; nothing is drawn without batch normalization.

    Returns:
        The new parameters and buffers.
    """
    if not has_batch_norm(module):
        return network
    images = torch.cat([data.sample(label, _BATCH_NORM_IMAGES, rng) for label in range(data.num_classes)])
    network = {**network, **{name: network[name].clone() for name, _ in module.named_buffers()}}
    with torch.no_grad():
        functional_call(module, network, (images,))
    return network


def trained_on_real(
    module: nn.Module,
    network: Tensors,
    data: LabeledData,
    strategy: str,
    *,
    steps: int,
    rate: float,
    rng: torch.Generator,
) -> Tensors:
    """Train a network on real data by plain SGD on the cross-entropy.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits, in training mode.
        network: its parameters and buffers, which stay as they are.
        data: real data.
        strategy: augmentation, drawn for each image; ``""`` for none.
        steps: number of steps, each on 64 images drawn from all data alike.
        rate: learning rate.
        rng: generator on the CPU.

    Returns:
        The new parameters and buffers.
    """
    for _ in range(steps):
        index = torch.randint(len(data), (TRAIN_BATCH,), generator=rng)
        images = augment.augment(data.batch(index), strategy, rng)
        network = sgd_step(module, network, images, data.labels(index), rate)
    return network


def trained_on_set(
    module: nn.Module,
    network: Tensors,
    images: tuple[Tensor, Tensor],
    batches: Iterable[Tensor | slice],
    data: LabeledData,
    strategy: str,
    *,
    rate: float,
    rng: torch.Generator,
) -> Tensors:
    """Train a network on synthetic images by plain SGD on the cross-entropy, a step for each batch.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits, in training mode.
        network: its parameters and buffers, which stay as they are.
        images: ``(M, *stored)`` images and their labels, ``(M,)`` classes or ``(M, C)`` probabilities.
        batches: positions of the images of each step.
        data: real data, whose shape the images are enlarged to.
        strategy: augmentation, drawn for each image; ``""`` for none.
        rate: learning rate.
        rng: generator on the CPU.

    Returns:
        The new parameters and buffers.
    """
    inputs, targets = images
    for index in batches:
        seen = augment.augment(enlarge(inputs[index], data.shape), strategy, rng)
        network = sgd_step(module, network, seen, targets[index], rate)
    return network


@dataclass(frozen=True)
class ExpertTraining(metaclass=TakesNumbers):
    """How experts are trained: SGD without momentum and weight decay.

    Attributes:
        epochs: snapshots to take after the first, one an epoch.
        epoch_steps: SGD steps that count as an epoch; 0 for a pass over the data, as published.
        learning_rate: learning rate of SGD.
        batch_size: real samples a step.
        augment: operations of :mod:`ddplug.functional.augmentation` joined by ``_``, ``"auto"`` for what suits the
            data, or ``""``.
        rho: how far the weights are moved uphill before the gradient is taken, for flat experts: 0.01 in FTD. 0 for
            plain SGD.
        alpha: share of the plain gradient's part across the uphill one that is taken off it, for flat experts: 0.3 or 1
            in FTD.

    Raises:
        OptionError: an option is outside its range.

    Reference: Du, Jiang, Tan, Zhou & Li, "Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation",
        CVPR 2023, section 4; Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware Training", ICLR 2022,
        algorithm 1.

    Example:
        >>> ExpertTraining(epochs=100, rho=0.01, alpha=0.3).learning_rate
        0.01
    """

    epochs: int = 50
    epoch_steps: int = 0
    learning_rate: float = 0.01
    batch_size: int = 256
    augment: str = "auto"
    rho: float = 0.0
    alpha: float = 0.0

    def __post_init__(self) -> None:
        at_least(self, epochs=1, epoch_steps=0, learning_rate=1e-9, batch_size=1, rho=0, alpha=0)
        if self.alpha and not self.rho:
            raise OptionError(f"alpha is {self.alpha} and rho is 0; flat experts need both: rho=0.01")

    def steps(self, data: LabeledData) -> int:
        """Return the SGD steps of an epoch."""
        return self.epoch_steps or math.ceil(len(data) / self.batch_size)


def structure(network: Network, data: LabeledData) -> nn.Module:
    """Return the structure that experts are trained and matched with: without dropout or batch statistics.

    Raises:
        OptionError: the network has batch normalization, whose running statistics are not parameters.
    """
    module = stateless(network, data.shape, data.num_classes, training=False)
    if has_batch_norm(module):
        raise OptionError(
            f"trajectories do not take batch normalization: the running statistics of {name_of(network)!r} are not "
            "among its parameters; use a network without, e.g. convnet (norm=instance)"
        )
    return module


def flatten(weights: Mapping[str, Tensor], module: nn.Module) -> Tensor:
    """Put the parameters of a network one after the other, ``(P,)``, in the network's order."""
    return torch.cat([weights[name].flatten() for name, _ in module.named_parameters()])


def unflatten(vector: Tensor, module: nn.Module) -> Tensors:
    """Cut a vector ``(P,)`` into the parameters of a network; the inverse of :func:`flatten`."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    parts = vector.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


def _batches(size: int, batch_size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Return positions of batches without end, every pass over the data in a new order."""
    while True:
        yield from torch.randperm(size, generator=rng).split(batch_size)


def _dot(one: Tensors, other: Tensors) -> Tensor:
    return torch.stack([(one[name] * other[name]).sum() for name in one]).sum()


def _gradient(module: nn.Module, weights: Tensors, x: Tensor, y: Tensor, training: ExpertTraining) -> Tensors:
    """Return the direction to descend in: the gradient, or that of GSAM."""
    buffers = {name: buffer.to(x.device) for name, buffer in module.named_buffers()}
    plain, _ = loss_gradient(module, {**buffers, **weights}, x, y)
    if not training.rho:
        return plain
    tiny = torch.finfo(x.dtype).tiny
    reach = training.rho / (_dot(plain, plain).sqrt() + tiny)
    uphill = {name: weight + reach * plain[name] for name, weight in weights.items()}
    steep, _ = loss_gradient(module, {**buffers, **uphill}, x, y)
    along = _dot(plain, steep) / (_dot(steep, steep) + tiny)
    return {name: g - training.alpha * (plain[name] - along * g) for name, g in steep.items()}


def trajectory(
    network: Network,
    data: LabeledData,
    training: ExpertTraining,
    rng: torch.Generator,
    tick: Callable[[], object] = lambda: None,
) -> Iterator[Tensor]:
    """Train an expert.

    Args:
        network: name with options, or a function that builds one.
        data: real data.
        training: how.
        rng: generator on the CPU.
        tick: called after each step.

    Yields:
        ``(P,)`` weights on the data's device: before the training, and after each epoch.

    Raises:
        OptionError: the network or the augmentation does not suit.
        DivergedError: a weight became NaN or infinite.

    Example:
        >>> from ddplug.testing import toy_images
        >>> rng = torch.Generator().manual_seed(0)
        >>> [len(w) for w in trajectory("mlp:width=5", toy_images(), ExpertTraining(epochs=2), rng)]
        [373, 373, 373]
    """
    strategy = data.augmentation if training.augment == "auto" else training.augment
    augment.check(strategy, data.shape)
    module = structure(network, data)
    started = initial_parameters(network, data, rng)
    weights = {name: started[name] for name, _ in module.named_parameters()}
    yield flatten(weights, module)
    batches = _batches(len(data), training.batch_size, rng)
    for epoch in range(training.epochs):
        for index in islice(batches, training.steps(data)):
            x = augment.augment(data.batch(index), strategy, rng)
            direction = _gradient(module, weights, x, data.labels(index), training)
            weights = {name: weight - training.learning_rate * direction[name] for name, weight in weights.items()}
            tick()
        vector = flatten(weights, module)
        if vector.device.type != "meta" and not bool(vector.isfinite().all()):  # there are no values to look at
            raise DivergedError(
                f"an expert diverged to NaN or infinity in epoch {epoch + 1} with "
                f"learning_rate={training.learning_rate}; lower it"
            )
        yield vector
