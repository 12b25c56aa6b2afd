"""The network of series, and what ``"auto"`` is."""

from __future__ import annotations

import pytest
import torch

from ddplug.errors import OptionError
from ddplug.networks.factory import build


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("spec", "shape", "parameters", "features"),
    [
        # convolutions (inputs x kernel + bias), scale and shift of each norm, the linear layer
        ("conv1d", (3, 128), (3 * 5 + 1 + 2 + 2 * (64 * 5 + 1 + 2)) * 64 + 65 * 4, 64),
        ("conv1d:width=8,depth=2,kernel=3,norm=none", (2, 21), (2 * 3 + 1 + 8 * 3 + 1) * 8 + 9 * 4, 8),
        ("conv1d:width=8,depth=2,kernel=3,norm=none,head=flat", (2, 21), (7 + 25) * 8 + (8 * 5 + 1) * 4, 40),
        ("conv1d:width=8,depth=1,pool=none,norm=layer,head=flat", (1, 9), 6 * 8 + 2 * 72 + 73 * 4, 72),
    ],
)
def test_it_has_the_layers_that_it_says(spec: str, shape: tuple[int, ...], parameters: int, features: int) -> None:
    network = build(spec, shape, 4, rng())
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network(torch.randn(5, *shape, generator=rng())).shape == (5, 4)
    assert network.head.in_features == features  # type: ignore[union-attr]


def test_its_features_do_not_tell_when_something_happens() -> None:
    x = torch.zeros(2, 1, 128)
    x[0, 0, 48:56], x[1, 0, 64:72] = 1.0, 1.0  # apart from the ends, and by a multiple of the pooling
    mean, flat = (build(f"conv1d:norm=none,head={head}", (1, 128), 2, rng())(x) for head in ("mean", "flat"))
    assert torch.allclose(mean[0], mean[1], atol=1e-6)
    assert not torch.allclose(flat[0], flat[1], atol=1e-3)


def test_pooling_is_that_of_torch() -> None:
    from ddplug.networks.conv1d import POOLS

    x = torch.randn(2, 3, 9, generator=rng())
    assert torch.allclose(POOLS["avg"]()(x), torch.nn.AvgPool1d(2)(x))


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ("conv1d", (6,), r"conv1d needs \(C, L\) series, not inputs of shape \(6,\); use auto or mlp"),
        ("conv1d", (1, 8, 8), "use auto or mlp"),
        ("conv1d", (1, 7), "depth=3 leaves nothing of series of 7 values; use a lower depth or mlp"),
        ("conv1d:kernel=4", (1, 64), "kernel is 4; it must be odd"),
        ("conv1d:head=last", (1, 64), "unknown value of option 'head', 'last'"),
        ("conv1d:norm=group", (1, 64), "unknown value of option 'norm', 'group'"),
        ("conv1d:pool=mean", (1, 64), "unknown value of option 'pool', 'mean'"),
    ],
)
def test_what_cannot_be_built_is_one_line(spec: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build(spec, shape, 2, rng())


@pytest.mark.parametrize("length", [2, 7, 8, 9, 31])
def test_auto_takes_series_of_any_length(length: int) -> None:
    assert build("auto", (2, length), 3, rng())(torch.randn(4, 2, length, generator=rng())).isfinite().all()
