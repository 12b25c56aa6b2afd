"""A sum over parts that is differentiated part by part, in the memory of one part's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddplug.utils.surroundings import own_surroundings

__all__ = ["sum_of_parts"]


@own_surroundings(gradients=False)
def sum_of_parts(term: Callable[[Tensor, int], Tensor], x: Tensor, size: int) -> Tensor:
    """Add up what a function makes of the parts of a tensor.

    Automatic differentiation would keep the graphs of all parts until it goes back. Here a part's gradient is taken as
    soon as its term is known, and its graph is let go.

    Args:
        term: 0-d tensor from a part and its number from 0, called once for each.
        x: ``(n, ...)``; nothing else that the terms depend on is differentiated in.
        size: rows of a part; the last one may have fewer.

    Returns:
        The 0-d sum, differentiable in ``x``, once.

    Example:
        >>> x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        >>> total = sum_of_parts(lambda part, number: part.square().sum(), x, 2)
        >>> total.item(), *torch.autograd.grad(total, x)
        (14.0, tensor([2., 4., 6.]))
    """
    found: Tensor = _Sum.apply(term, size, x)
    return found


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, term: Callable[[Tensor, int], Tensor], size: int, x: Tensor) -> Tensor:
        wanted, total, gradients = ctx.needs_input_grad[2], x.new_zeros(()), []
        for number, part in enumerate(x.detach().split(size)):
            own = part.detach().requires_grad_(wanted)
            with torch.enable_grad():
                value = term(own, number)
            if wanted and value.requires_grad:
                gradients += torch.autograd.grad(value, [own], materialize_grads=True)
            elif wanted:
                gradients.append(torch.zeros_like(own))
            total = total + value.detach()
        if wanted:
            ctx.save_for_backward(torch.cat(gradients))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[None, None, Tensor]:
        return None, None, outer * ctx.saved_tensors[0]
