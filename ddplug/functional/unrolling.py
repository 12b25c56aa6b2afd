r"""Training as a function that can be differentiated: unrolled gradient descent, memory flat in the number of steps.

:math:`T` steps of plain gradient descent on what is to be learned, :math:`S` (images, labels),

.. math::  \theta_{t+1} = \theta_t - \eta_t \, \nabla_\theta \ell_t(\theta_t; S), \qquad t = 0, \dots, T-1,

give weights :math:`\theta_T` that any loss :math:`L` may be taken of. Automatic differentiation keeps the graphs of all
steps. The reverse sweep keeps the weights only, and builds one step's graph anew when it comes to it: with
:math:`w_T = \partial L / \partial \theta_T`,

.. math::

   s_t = \langle w_{t+1}, \nabla_\theta \ell_t(\theta_t; S) \rangle, \qquad
   \frac{\partial L}{\partial \eta_t} = -s_t, \qquad
   \frac{\partial L}{\partial S} = -\sum_t \eta_t \frac{\partial s_t}{\partial S}, \qquad
   w_t = w_{t+1} - \eta_t \frac{\partial s_t}{\partial \theta_t},

where the derivatives of :math:`s_t` hold :math:`w_{t+1}` fixed. It is exact: the same sums, in the same order.

Reference: Maclaurin, Duvenaud & Adams, "Gradient-based Hyperparameter Optimization through Reversible Learning", ICML
2015, algorithm 2, with recomputation instead of reversal; Wang, Zhu, Torralba & Efros, "Dataset Distillation",
arXiv 1811.10959, algorithm 1. Keeping :math:`w_t = w_T` throughout is TESLA's approximation: Cui, Wang, Si & Hsieh,
"Scaling Up Dataset Distillation to ImageNet-1K with Constant Memory", ICML 2023, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddplug.errors import OptionError
from ddplug.functional.types import Tensors
from ddplug.utils.checks import values_at_least
from ddplug.utils.surroundings import own_surroundings

__all__ = ["StepLoss", "unroll"]

StepLoss = Callable[[Tensors, Sequence[Tensor], int], Tensor]
"""0-d loss of a training step, from the weights before it, what is learned, and the number of the step from 0.

It is called more than once for a step and must give the same each time: whatever it draws at random is drawn before.
"""


@own_surroundings(gradients=False)
def unroll(
    loss: StepLoss,
    weights: Mapping[str, Tensor],
    learned: Sequence[Tensor],
    rates: Tensor,
    *,
    recompute: bool = True,
    every: int = 1,
    carry: bool = True,
) -> Tensors:
    """Train a network by gradient descent, as a differentiable function of what it is trained on and at what rates.

    Args:
        loss: of each step.
        weights: start of the trained parameters by name.
        learned: what the loss depends on apart from the weights, e.g. images and labels.
        rates: ``(T,)`` learning rates, one a step.
        recompute: keep the weights of the steps and compute their graphs again one by one in the backward pass; the
            result can then be differentiated once. Otherwise all graphs are kept: faster by the recomputed forward
            passes, and limited by memory.
        every: steps from one set of kept weights to the next, at least 1; those between are computed again from it.
            The square root of ``T`` needs the least memory, for one more gradient a step.
        carry: whether the gradient goes from each step to the ones before it; without, every step counts as if the
            weights before it were constant (TESLA's approximation), which saves the second derivative in them.

    Returns:
        The weights after ``T`` steps. They are differentiable in ``weights``, ``learned`` and ``rates``, and the
        gradient is the exact one in both modes, as long as it is carried.

    Raises:
        OptionError: the rates are not a vector, ``every`` is below 1, or a full unroll is not to be carried.

    Example:
        One step from 1 at the rate 0.1 on the loss ``(w - x)^2`` with ``x = 3`` leads to ``1 - 0.1 * 2 * (1 - 3)``:

        >>> x, rates = torch.tensor(3.0, requires_grad=True), torch.tensor([0.1], requires_grad=True)
        >>> square = lambda weights, learned, step: (weights["w"] - learned[0]) ** 2
        >>> end = unroll(square, {"w": torch.tensor(1.0)}, [x], rates)["w"]
        >>> end.item(), *(g.item() for g in torch.autograd.grad(end, [x, rates]))
        (1.399999976158142, 0.20000000298023224, 4.0)
    """
    if rates.ndim != 1:
        raise OptionError(f"rates have the shape {tuple(rates.shape)}; give one learning rate a step, shape (T,)")
    values_at_least(1, every=every)
    if not recompute and not carry:
        raise OptionError("carry=False needs recompute=True: a full unroll is there for the exact gradient")
    if not recompute:
        return _graphed(loss, dict(weights), learned, rates)
    plan = _Plan(loss, tuple(weights), len(learned), every, carry)
    found = _Sweep.apply(plan, rates, *learned, *weights.values())
    return dict(zip(weights, found, strict=True))


def _graphed(loss: StepLoss, weights: Tensors, learned: Sequence[Tensor], rates: Tensor) -> Tensors:
    """Unroll with the graphs of all steps."""
    weights = {name: w if w.requires_grad else w.detach().requires_grad_() for name, w in weights.items()}
    for step, rate in enumerate(rates):
        gradients = _gradient(loss(weights, learned, step), weights, create_graph=True)
        weights = {name: w - rate * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    return weights


def _gradient(loss: Tensor, weights: Tensors, create_graph: bool = False) -> tuple[Tensor, ...]:
    # not every parameter need take part in the loss
    return torch.autograd.grad(loss, list(weights.values()), create_graph=create_graph, materialize_grads=True)


@dataclass(frozen=True)
class _Plan:
    """What a sweep needs apart from tensors: the loss, the names of the weights, how many tensors are learned."""

    loss: StepLoss
    names: tuple[str, ...]
    learned: int
    every: int
    carry: bool

    def leaves(self, tensors: Sequence[Tensor]) -> Tensors:
        """Name weights, cut off from whatever they were computed from."""
        return {name: t.detach().requires_grad_() for name, t in zip(self.names, tensors, strict=True)}

    def descend(self, tensors: Sequence[Tensor], learned: Sequence[Tensor], step: int, rate: Tensor) -> list[Tensor]:
        """Take a step without keeping a graph."""
        with torch.enable_grad():
            weights = self.leaves(tensors)
            gradients = _gradient(self.loss(weights, learned, step), weights)
        return [w.detach() - rate * g for w, g in zip(tensors, gradients, strict=True)]


class _Sweep(torch.autograd.Function):
    """All steps as one function; its backward pass is the reverse sweep."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, rates: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.plan = plan
        ctx.save_for_backward(rates, *tensors)
        learned = [tensor.detach() for tensor in tensors[: plan.learned]]
        weights = [tensor.detach() for tensor in tensors[plan.learned :]]
        ctx.kept = []
        for step, rate in enumerate(rates.detach()):
            if step % plan.every == 0:
                ctx.kept.append(weights)
            weights = plan.descend(weights, learned, step, rate)
        # a function must not give back what it was given, which no step at all would do
        return tuple(weights) if len(rates) else tuple(weight.clone() for weight in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        rates, *tensors = ctx.saved_tensors
        fixed = [tensor.detach() for tensor in tensors[: plan.learned]]
        wanted = [k for k in range(plan.learned) if ctx.needs_input_grad[2 + k]]
        learned = [tensor.requires_grad_() if k in wanted else tensor for k, tensor in enumerate(fixed)]
        totals = {k: torch.zeros_like(learned[k]) for k in wanted}
        along = list(outer)
        slopes: list[Tensor] = []
        span: list[list[Tensor]] = []
        for step in reversed(range(len(rates))):
            if not span:
                span = _between(plan, ctx.kept[step // plan.every], fixed, step, rates)
            rate = rates[step]
            with torch.enable_grad():
                weights = plan.leaves(span.pop())
                gradients = _gradient(plan.loss(weights, learned, step), weights, create_graph=True)
                product = sum(((a * g).sum() for a, g in zip(along, gradients, strict=True)), rate.new_zeros(()))
            carried = [*weights.values()] if plan.carry else []
            inputs = [*carried, *(learned[k] for k in wanted)]
            # a loss that is linear in the weights has no second derivative, and then there is no graph at all
            here = bool(inputs) and product.requires_grad
            found = torch.autograd.grad(product, inputs, materialize_grads=True) if here else ()
            slopes.append(-product.detach())
            along = [a - rate * h for a, h in zip(along, found, strict=False)] if carried and found else along
            for k, gradient in zip(wanted, found[len(carried) :], strict=False):
                totals[k] -= rate * gradient
        slope = torch.stack(slopes[::-1]) if slopes else torch.zeros_like(rates)
        return (None, slope, *(totals.get(k) for k in range(plan.learned)), *along)


def _between(
    plan: _Plan, weights: list[Tensor], learned: Sequence[Tensor], step: int, rates: Tensor
) -> list[list[Tensor]]:
    """Compute the weights before each step from the kept ones up to ``step`` again."""
    span = [weights]
    for number in range(step // plan.every * plan.every, step):
        span.append(plan.descend(span[-1], learned, number, rates[number]))
    return span
