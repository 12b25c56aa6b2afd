"""A sum over parts that is differentiated part by part, in the memory of one part's graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ddplug.functional.types import Tensors
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.teams import spread

__all__ = ["sum_of_parts"]


@own_surroundings(gradients=False)
def sum_of_parts(term: Callable[[Tensor, int], Tensor], x: Tensor, size: int) -> Tensor:
    """Add up what a function makes of the parts of a tensor.

    Automatic differentiation would keep the graphs of all parts until it goes back. Here a part's gradient is taken as
    soon as its term is known, and its graph is let go. Processes that work together (:mod:`ddplug.utils.teams`) take
    some parts each.

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
        wanted, total, parts = ctx.needs_input_grad[2], x.new_zeros(()), x.detach().split(size)

        def piece(number: int) -> Tensors:
            own = parts[number].detach().requires_grad_(wanted)
            with torch.enable_grad():
                value = term(own, number)
            if not (wanted and value.requires_grad):
                return {"value": value.detach(), "gradient": torch.zeros_like(own)}
            (gradient,) = torch.autograd.grad(value, [own], materialize_grads=True)
            return {"value": value.detach(), "gradient": gradient}

        found = spread(len(parts), piece, x.device)
        for part in found:
            total = total + part["value"]
        if wanted:
            ctx.save_for_backward(torch.cat([part["gradient"] for part in found]))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[None, None, Tensor]:
        return None, None, outer * ctx.saved_tensors[0]
