"""Untrained scores against what they are by hand, and by slow definitions in float64."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.errors import OptionError
from ddplug.networks.factory import build
from ddplug.search.zero_cost import SCORES, zero_cost
from ddplug.utils.randomness import temporary_seed


def data(n: int = 6) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(n, 1, 8, 8, generator=rng), torch.arange(n) % 3


def network(norm: str = "instance", act: str = "relu") -> Callable[[], nn.Module]:
    spec = f"convnet:width=4,depth=2,norm={norm},act={act}"
    return lambda: build(spec, (1, 8, 8), 3, torch.Generator().manual_seed(2))


def chain(*widths: int) -> nn.Sequential:
    """Linear layers without biases and ReLU between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    with temporary_seed(3):
        for before, width in itertools.pairwise((64, *widths)):
            layers += [nn.Linear(before, width, bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_parameters_are_counted() -> None:
    # 3x3 convolutions 1 -> 4 and 4 -> 4 with biases and normalizations, and a head on what is left of 14x14 and 7x7
    found = zero_cost("parameters", network(), *data())
    assert found == sum(p.numel() for p in network()().parameters())
    assert zero_cost("parameters", lambda: chain(7, 3), *data()) == 64 * 7 + 7 * 3


def test_gradient_norm_is_that_of_finite_differences() -> None:
    x, y = data()
    linear = chain(3)
    found = zero_cost("gradient-norm", lambda: linear, x, y)
    weight = next(linear.parameters()).detach().double()
    slopes = []
    for i in range(weight.numel()):
        values = []
        for sign in (1, -1):
            moved = weight.clone().flatten()
            moved[i] += sign * 1e-5
            values.append(float(cross_entropy(x.double().flatten(1) @ moved.view_as(weight).T, y)))
        slopes.append((values[0] - values[1]) / 2e-5)
    assert found == pytest.approx(math.sqrt(sum(s * s for s in slopes)), rel=1e-4)


def test_synflow_of_a_linear_chain_is_the_number_of_layers_times_its_flow() -> None:
    # R is linear in each layer, so that |theta| dR/d|theta| sums to R for each of them (no biases)
    two = chain(5, 3)
    first, second = (p.detach().abs().double() for p in two.parameters())
    flow = (second @ first @ torch.ones(64).double()).sum()
    assert zero_cost("synflow", lambda: two, *data()) == pytest.approx(math.log(2 * float(flow)), rel=1e-9)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "instance", "group"])
def test_synflow_sees_no_normalization_and_no_sign(norm: str) -> None:
    # normalization layers start at the identity scale, so that without them all five are one network
    negated = copy.deepcopy(network("none")())
    with torch.no_grad():
        for p in negated.parameters():
            p.neg_()
    expected = zero_cost("synflow", lambda: negated, *data())
    if norm == "none":
        assert zero_cost("synflow", network(norm), *data()) == expected
    assert math.isfinite(zero_cost("synflow", network(norm), *data()))


def test_nwot_is_the_determinant_of_the_agreements() -> None:
    x, y = data(4)
    two = chain(40, 3)
    found = zero_cost("nwot", lambda: two, x, y)
    codes = (two[1](x.flatten(1)) > 0).tolist()
    kernel = [[sum(a == b for a, b in zip(one, two, strict=True)) for two in codes] for one in codes]
    assert found == pytest.approx(float(torch.tensor(kernel, dtype=torch.float64).logdet()), rel=1e-9)


def test_nwot_of_inputs_that_switch_alike_is_low_and_finite() -> None:
    x, y = data(3)
    alike = zero_cost("nwot", network(), x[:1].repeat(3, 1, 1, 1), y)
    # one eigenvalue, the number of units times the inputs; two that are zero
    units = sum(4 * side * side for side in (12, 6))
    assert alike == pytest.approx(math.log(3 * units) + 2 * math.log(1e-6), rel=1e-6)
    assert alike < zero_cost("nwot", network(), x, y)
    assert zero_cost("nwot", lambda: nn.Flatten(), x, y) == pytest.approx(3 * math.log(1e-6))


def test_synflow_without_flow_is_the_worst_and_finite() -> None:
    dead = chain(5, 3)
    with torch.no_grad():
        for p in dead.parameters():
            p.zero_()
    assert -800 < zero_cost("synflow", lambda: dead, *data()) < -700


@pytest.mark.parametrize("name", SCORES)
def test_scores_depend_on_the_seed_alone_and_leave_the_generators(name: str) -> None:
    before = torch.get_rng_state()

    def build_globally() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))

    scores = [zero_cost(name, build_globally, *data(), seed=seed) for seed in (0, 0, 1)]
    assert scores[0] == scores[1]
    assert (scores[0] == scores[2]) == (name in ("parameters", "flops"))
    assert torch.equal(before, torch.get_rng_state())


def test_unknown_names_are_refused() -> None:
    with pytest.raises(OptionError, match="synflow"):
        zero_cost("synflo", network(), *data())
