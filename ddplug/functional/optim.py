"""Optimizer steps as functions: SGD with momentum, and Adam; and the fall of their rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["adam_start", "adam_step", "cosine_fall", "descend", "momentum_step", "share_done"]


def share_done(done: int, steps: int) -> float:
    """Return the share of a run's steps that are done, no more than 1, however many more were asked for.

    Example:
        >>> share_done(1, 4), share_done(9, 4), share_done(0, 0)
        (0.25, 1.0, 0.0)
    """
    return min(done / max(steps, 1), 1.0)


def cosine_fall(step: float, total: float = 1.0) -> float:
    """Return the share of a learning rate that is left on its way to zero along half a wave of the cosine.

    Args:
        step: that is to be taken, from 0 to ``total``; or the share of the steps that are done.
        total: number of steps.

    Reference: Loshchilov & Hutter, "SGDR", ICLR 2017, equation 5, without restarts.

    Example:
        >>> cosine_fall(0), cosine_fall(0.5), cosine_fall(20, 20)
        (1.0, 0.5, 0.0)
    """
    return (1 + math.cos(math.pi * step / total)) / 2


@torch.no_grad()
def descend(
    parameters: Iterable[Tensor],
    gradients: Iterable[Tensor],
    momenta: Iterable[Tensor],
    *,
    rate: float,
    momentum: float,
    weight_decay: float = 0.0,
) -> None:
    """Move parameters in place by SGD with momentum; torch.optim would first import a compiler, for seconds.

    Args:
        parameters: to be moved.
        gradients: of the loss in each.
        momenta: of each, zero at first; changed in place.
        rate: learning rate.
        momentum: share of the old momenta that is kept.
        weight_decay: share of each parameter that is added to its gradient.

    Example:
        >>> weight, velocity = torch.ones(1), torch.ones(1)
        >>> descend([weight], [torch.ones(1)], [velocity], rate=0.1, momentum=0.5)
        >>> weight, velocity
        (tensor([0.8500]), tensor([1.5000]))
    """
    for parameter, gradient, velocity in zip(parameters, gradients, momenta, strict=True):
        velocity.mul_(momentum).add_(gradient).add_(parameter, alpha=weight_decay)
        parameter.add_(velocity, alpha=-rate)


def momentum_step(state: Mapping[str, Tensor], gradient: Tensor, rate: float, momentum: float) -> dict[str, Tensor]:
    """Move ``state["inputs"]`` by SGD with momentum, keeping the old tensors.

    Args:
        state: holds ``inputs`` and ``velocity``, of the gradient's shape.
        gradient: of the loss in the inputs.
        rate: learning rate.
        momentum: share of the old velocity that is kept.

    Returns:
        The new ``inputs`` and ``velocity``.

    Example:
        >>> momentum_step({"inputs": torch.ones(1), "velocity": torch.ones(1)}, torch.ones(1), 0.1, 0.5)
        {'inputs': tensor([0.8500]), 'velocity': tensor([1.5000])}
    """
    velocity = momentum * state["velocity"] + gradient
    return {"inputs": state["inputs"] - rate * velocity, "velocity": velocity}


def adam_start(learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of a state that :func:`adam_step` needs.

    Args:
        learned: tensors that are to be moved, by name.

    Returns:
        What is learned, its first and second moments, zero at first, and the count ``done`` of the steps taken.

    Example:
        >>> sorted(adam_start({"x": torch.ones(2)}))
        ['done', 'first.x', 'second.x', 'x']
    """
    moments = {f"{which}.{name}": torch.zeros_like(t) for which in ("first", "second") for name, t in learned.items()}
    return {**learned, **moments, "done": torch.tensor(0, device="cpu")}


def adam_step(
    state: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rate: float, betas: tuple[float, float] = (0.9, 0.999)
) -> dict[str, Tensor]:
    """Move tensors of a state by Adam, keeping the old ones.

    Args:
        state: what :func:`adam_start` gave, among others.
        gradients: of the loss in each learned tensor, by its name.
        rate: learning rate.
        betas: shares of the old first and second moments that are kept.

    Returns:
        The new tensors and moments, and the count ``done`` of the steps taken.

    Reference: Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

    Example:
        >>> adam_step(adam_start({"x": torch.ones(1)}), {"x": torch.full((1,), 3.0)}, rate=0.1)["x"]
        tensor([0.9000])
    """
    done = int(state["done"]) + 1
    after = {"done": torch.tensor(done, device="cpu")}
    for name, gradient in gradients.items():
        first = torch.lerp(gradient, state[f"first.{name}"], betas[0])
        second = torch.lerp(gradient.square(), state[f"second.{name}"], betas[1])
        slope = first / (1 - betas[0] ** done) / ((second / (1 - betas[1] ** done)).sqrt() + 1e-8)
        after |= {name: state[name] - rate * slope, f"first.{name}": first, f"second.{name}": second}
    return after
