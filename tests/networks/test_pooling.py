"""Pooling by sums of rows and columns is the mean of 2x2 pixels, whatever is differentiated."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import vmap

from ddplug.networks.layers import AveragePool


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (1, 1, 7, 6), (2, 2, 6, 9), (1, 2, 5, 3), (1, 1, 2, 2)])
def test_it_is_the_mean_of_four_and_so_are_its_derivatives(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    height, width = shape[2] // 2, shape[3] // 2
    pooled = AveragePool()(x)
    assert pooled.shape == (*shape[:2], height, width)
    for row in range(height):
        for column in range(width):
            mean = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean((2, 3))
            assert torch.allclose(pooled[:, :, row, column], mean, atol=1e-15)
    with torch.random.fork_rng():  # the checks draw from the global state
        assert gradcheck(AveragePool(), x)
        assert gradgradcheck(lambda x: AveragePool()(x).square(), x)


def test_many_networks_pool_at_once() -> None:
    x = torch.randn(3, 2, 4, 7, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(vmap(AveragePool())(x), torch.stack([AveragePool()(own) for own in x]))
