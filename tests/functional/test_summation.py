"""Sums of parts against the sum in one piece: value, gradient, and how much of a graph there is at once."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ddplug.functional.summation import sum_of_parts
from tests.exact import generator, peak_of_graphs


def term(part: Tensor, number: int) -> Tensor:
    return (part * part.sin() * (number + 1)).exp().sum()


def test_it_is_the_sum_and_so_is_its_gradient() -> None:
    x = torch.randn(7, 3, generator=generator(), dtype=torch.float64).requires_grad_()
    slow = term(x[:3], 0) + term(x[3:6], 1) + term(x[6:], 2)
    fast = sum_of_parts(term, x, 3)
    torch.testing.assert_close(fast, slow, rtol=1e-14, atol=0)
    (a,), (b,) = (torch.autograd.grad(2 * total, x) for total in (fast, slow))
    torch.testing.assert_close(a, b, rtol=1e-14, atol=0)
    with torch.no_grad():
        assert not sum_of_parts(term, x, 3).requires_grad
    assert not sum_of_parts(term, x.detach(), 3).requires_grad


def test_a_part_that_a_term_does_not_look_at_has_no_gradient() -> None:
    x = torch.ones(2, requires_grad=True)
    total = sum_of_parts(lambda part, number: part.sum() if number else torch.tensor(4.0), x, 1)
    assert total.item() == 5
    assert torch.autograd.grad(total, x)[0].tolist() == [0, 1]


def gradient(x: Tensor, size: int) -> Tensor:
    return torch.autograd.grad(sum_of_parts(term, x, size), x)[0]


def test_one_graph_is_there_at_once() -> None:
    x = torch.randn(40, 50, generator=generator()).requires_grad_()
    peaks = [peak_of_graphs(partial(gradient, x, n)) for n in (40, 4)]
    # besides the gradient of all
    assert peaks[1] - 4 * x.numel() <= 0.11 * (peaks[0] - 4 * x.numel())
