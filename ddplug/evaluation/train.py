"""Train fresh networks, as a set's recipe says; no ``DataLoader``, and no randomness but the generators given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy, one_hot
from tqdm.auto import tqdm

from ddplug.data.labeled import LabeledData
from ddplug.errors import DivergedError
from ddplug.evaluation.protocols import settled
from ddplug.functional import augmentation as augment
from ddplug.functional.optim import cosine_fall, descend
from ddplug.networks.batching import batch_pieces, go_together
from ddplug.networks.factory import Network, build, check_outputs
from ddplug.networks.precision import applied
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.given import AnySet, as_set
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import values_at_least, whole
from ddplug.utils.devices import pick_device
from ddplug.utils.randomness import spawn, temporary_seed
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.teams import Team

__all__ = ["Trainable", "fit", "rate_at", "steps_of", "train_each", "train_on"]

Trainable = SyntheticSet | LabeledData

_BY_ITSELF = Team()


@dataclass(frozen=True)
class _Group:
    """Networks that take their steps together: parameters, and logits ``(K, n, C)`` of batches ``(K, n, *shape)``."""

    parameters: list[Tensor]
    forward: Callable[[Tensor], Tensor]


def _alone(module: nn.Module) -> _Group:
    def forward(x: Tensor) -> Tensor:
        return applied(module, x[0])[None]

    return _Group([p for p in module.parameters() if p.requires_grad], forward)


def _stacked(modules: Sequence[nn.Module]) -> tuple[_Group, Callable[[], None]]:
    """Stack networks; the function returned with the group writes its parameters back into them."""
    parameters, buffers = stack_module_state(list(modules))

    def one(own: dict[str, Tensor], fixed: dict[str, Tensor], x: Tensor) -> Tensor:
        logits: Tensor = functional_call(modules[0], (own, fixed), (x,))
        return logits

    def write_back() -> None:
        with torch.no_grad():
            for k, module in enumerate(modules):
                for name, parameter in module.named_parameters():
                    parameter.copy_(parameters[name][k])

    forward = partial(vmap(one), parameters, buffers)
    return _Group(list(parameters.values()), partial(applied, forward)), write_back


def _samples(data: Trainable, index: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return inputs and labels at positions, in model space."""
    if isinstance(data, LabeledData):
        inputs, targets = data.batch(index), data.labels(index)
    else:
        inputs, targets = data[index.to(data.inputs.device)]
    return inputs.to(device), targets.to(device)


def _batches(data: Sequence[Trainable], recipe: Recipe, rngs: Sequence[torch.Generator]) -> Iterator[list[Tensor]]:
    """Give, without end, the positions of the next batch of each network: every epoch in an order of its own."""
    number = -(-len(data[0]) // recipe.batch_size)
    while True:
        orders = [torch.randperm(len(data[0]), generator=rng) for rng in rngs]
        # the published protocol has a small last batch; at the higher rates of a training by steps all are of one size
        cut = [order.tensor_split(number) if recipe.steps else order.split(recipe.batch_size) for order in orders]
        yield from map(list, zip(*cut, strict=True))


_WARM_UP = 0.3
"""Share of the steps in which the rate of a ``"cycle"`` rises."""


def steps_of(recipe: Recipe, samples: int) -> int:
    """Return the SGD steps that a recipe takes on a number of samples."""
    return recipe.steps or recipe.epochs * -(-samples // recipe.batch_size)


def rate_at(recipe: Recipe, step: int, total: int, drop: int) -> float:
    """Return the learning rate of a step (counted from 0) of ``total``; ``"step"`` divides it by ten at ``drop``."""
    factors = {
        "constant": 1.0,
        "cosine": cosine_fall(step, total),
        "cycle": min((step + 1) / (_WARM_UP * total), (1 - step / total) / (1 - _WARM_UP), 1.0),
        "step": 0.1 if step >= drop else 1.0,
    }
    return recipe.learning_rate * factors[recipe.schedule]


def _gradients(group: _Group, x: Tensor, y: Tensor, cuts: Sequence[slice]) -> list[Tensor]:
    """Return the gradient of the sum over networks of the mean loss over a batch, accumulated over pieces of it."""
    totals: list[Tensor] = []
    for cut in cuts:
        logits, labels = group.forward(x[:, cut]).flatten(0, 1), y[:, cut].flatten(0, 1)
        loss = cross_entropy(logits, labels, reduction="sum") / x.shape[1]
        gradients = torch.autograd.grad(loss, group.parameters, materialize_grads=True)
        totals = [t + g for t, g in zip(totals, gradients, strict=True)] if totals else list(gradients)
    return totals


@own_surroundings()
def fit(
    modules: Sequence[nn.Module],
    data: Sequence[Trainable],
    recipe: Recipe,
    rngs: Sequence[torch.Generator],
    *,
    steps: int | None = None,
    together: bool | None = None,
    tick: Callable[[int], object] = lambda steps: None,
) -> None:
    """Train networks of one kind in place, each on its own data and with its own generator.

    They compute in the precision that is chosen (:mod:`ddplug.networks.precision`); weights, losses and the optimizer
    are float32 in any case.

    Args:
        modules: networks, on one device, in training mode.
        data: for each network what to train it on; all of one size and shape.
        recipe: how to train.
        rngs: for each network a generator on the CPU, for the order of the samples and the augmentation.
        steps: SGD steps; the recipe's epochs if not given.
        together: whether to train them together; by rule if not given. The results are equal up to rounding.
        tick: called after each step, with the number of networks that took it.

    Raises:
        DivergedError: a parameter became NaN or infinite.
    """
    device = next(modules[0].parameters()).device
    sample = _samples(data[0], torch.zeros(1, dtype=torch.int64), device)[0]
    seeds = [int(torch.randint(2**63 - 1, (), generator=rng)) for rng in rngs]
    if together is None:
        together = go_together(modules, sample, min(recipe.batch_size, len(data[0])))
    if together:
        group, write_back = _stacked(modules)
        _train(group, modules[0], data, recipe, rngs, sample, steps, tick)
        write_back()
    else:
        for module, own, rng, seed in zip(modules, data, rngs, seeds, strict=True):
            with temporary_seed(seed, device):  # for dropout
                _train(_alone(module), module, [own], recipe, [rng], sample, steps, tick)
    if not all(bool(p.isfinite().all()) for module in modules for p in module.parameters()):
        raise DivergedError(
            f"training diverged to NaN or infinity with learning_rate={recipe.learning_rate}; lower it in the recipe"
        )


def _train(
    group: _Group,
    module: nn.Module,
    data: Sequence[Trainable],
    recipe: Recipe,
    rngs: Sequence[torch.Generator],
    sample: Tensor,
    steps: int | None,
    tick: Callable[[int], object],
) -> None:
    epoch = -(-len(data[0]) // recipe.batch_size)
    total = steps_of(recipe, len(data[0])) if steps is None else steps
    drop = (total // epoch // 2 + 1) * epoch
    order = torch.arange(len(data[0]))
    sizes = {len(part) for part in (order.tensor_split(epoch) if recipe.steps else order.split(recipe.batch_size))}
    cuts = {n: batch_pieces(module, sample, n) for n in sizes}
    batches = _batches(data, recipe, rngs)
    momenta = [torch.zeros_like(p) for p in group.parameters]
    for step in range(total):
        x, y = _drawn(data, next(batches), recipe, rngs, sample.device)
        if recipe.schedule == "step" and step == drop:
            momenta = [torch.zeros_like(p) for p in group.parameters]  # the published protocol restarts the optimizer
        gradients = _gradients(group, x, y, cuts[x.shape[1]])
        descend(
            group.parameters,
            gradients,
            momenta,
            rate=rate_at(recipe, step, total, drop),
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        tick(len(data))


def _drawn(
    data: Sequence[Trainable],
    indices: Sequence[Tensor],
    recipe: Recipe,
    rngs: Sequence[torch.Generator],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return the augmented inputs ``(K, n, *shape)`` and the labels ``(K, n)`` or ``(K, n, C)`` at positions."""
    pairs = [_samples(own, index, device) for own, index in zip(data, indices, strict=True)]
    x, y = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    if recipe.augment:
        draws = [augment.draw(recipe.augment, x.shape[1], rng) for rng in rngs]
        joined = augment.Draw(torch.cat([d.operation for d in draws]), torch.cat([d.numbers for d in draws]))
        x = augment.apply(x.flatten(0, 1), joined).view_as(x)
    if recipe.cutmix:
        y = y if y.ndim == 3 else one_hot(y, data[0].num_classes).to(x.dtype)
        mixed = [_mixed(own, labels, recipe.cutmix, rng) for own, labels, rng in zip(x, y, rngs, strict=True)]
        x, y = (torch.stack(parts) for parts in zip(*mixed, strict=True))
    return x, y


def _mixed(x: Tensor, y: Tensor, share: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix the batch of one network in a share of its steps."""
    return augment.cutmix(x, y, rng) if float(torch.rand((), generator=rng)) < share else (x, y)


@own_surroundings()
def train_each(
    data: Sequence[Trainable],
    network: Network,
    recipe: Recipe,
    *,
    rng: torch.Generator,
    device: torch.device | str = "auto",
    steps: int | None = None,
    progress: bool = False,
    tick: Callable[[int], object] = lambda networks: None,
    ready: Callable[[dict[int, nn.Module]], object] = lambda networks: None,
    done: Collection[int] = (),
    share: Team = _BY_ITSELF,
) -> list[nn.Module]:
    """Train one fresh network on each of several sets of one size: all together, or one after the other.

    Args:
        data: synthetic or real, of the same shape, classes and size.
        network: name with options, or a function that builds one; see :func:`ddplug.networks.build`.
        recipe: how to train.
        rng: generator on the CPU; every network gets one of its own from it.
        device: see :func:`ddplug.utils.devices.pick_device`.
        steps: SGD steps; the recipe's epochs if not given.
        progress: show a progress bar.
        tick: called after each step, with the number of networks that took it.
        ready: takes networks that are trained, by the numbers of their sets, as soon as they are.
        done: numbers of sets whose networks are not needed. The others are the same without them, since each draws
            from a generator of its own.
        share: of whom this process trains but a part; it calls ``ready`` as often as the others, with nothing where
            there is nothing left for it.

    Returns:
        The networks, in evaluation mode; those that are not needed, or are trained elsewhere, may be as they were
        initialized.

    Raises:
        OptionError: an option is unknown or outside its range, or does not suit the data.
        DivergedError: a network became NaN or infinite.
    """
    first, place = data[0], pick_device(device)
    recipe.check(first.shape)
    rngs = spawn(rng, len(data))
    modules = [build(network, first.shape, first.num_classes, own).to(place).train() for own in rngs]
    sample = _samples(first, torch.zeros(1, dtype=torch.int64), place)[0]
    check_outputs(modules[0], sample, first.num_classes)
    together = go_together(modules, sample, min(recipe.batch_size, len(first)))
    groups = [list(range(len(data)))] if together else [[k] for k in range(len(data))]
    groups = [group for group in groups if not set(group) <= set(done)]
    turns = [(groups[k : k + share.size] + [[]] * share.size)[share.rank] for k in range(0, len(groups), share.size)]
    number = (steps_of(recipe, len(first)) if steps is None else steps) * sum(map(len, turns))
    with tqdm(total=number, desc="train", unit="step", disable=not progress, leave=False) as bar:

        def step(networks: int) -> None:
            bar.update(networks)
            tick(networks)

        for group in turns:
            sets, own = [data[k] for k in group], [rngs[k] for k in group]
            if group:
                fit([modules[k] for k in group], sets, recipe, own, steps=steps, together=together, tick=step)
            ready({k: modules[k].eval() for k in group})
    return [module.eval() for module in modules]


@own_surroundings()
def train_on(
    data: AnySet,
    network: Network,
    *,
    recipe: Recipe | str | None = None,
    repeats: int = 1,
    rng: torch.Generator,
    device: torch.device | str = "auto",
    progress: bool = False,
) -> list[nn.Module]:
    """Train fresh networks on a synthetic set.

    Args:
        data: the set, or the file of one; hard or soft labels.
        network: name with options, or a function that builds one; see :func:`ddplug.networks.build`.
        recipe: how to train; the set's own if not given.
        repeats: networks to train, at least 1.
        rng: generator on the CPU; every network gets one of its own from it.
        device: see :func:`ddplug.utils.devices.pick_device`.
        progress: show a progress bar.

    Returns:
        The networks, in evaluation mode.

    Raises:
        OptionError: an option is unknown or outside its range, or does not suit the data.
        DivergedError: a network became NaN or infinite.

    Example:
        >>> from ddplug.distillation.loop import distill
        >>> from ddplug.testing import toy_images
        >>> made = distill(toy_images((12, 11)), "random", device="cpu")
        >>> rng = torch.Generator().manual_seed(0)
        >>> len(train_on(made, "mlp", recipe=Recipe(epochs=2), repeats=3, rng=rng, device="cpu"))
        3
    """
    data, repeats = as_set(data), whole("repeats", repeats)
    values_at_least(1, repeats=repeats)
    place = pick_device(device)
    chosen = settled("set" if recipe is None else recipe, data.recipe, place)
    return train_each([data.to(place)] * repeats, network, chosen, rng=rng, device=place, progress=progress)
