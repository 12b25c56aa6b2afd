"""Matching losses against loops that spell the formulas out in float64."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from ddplug.errors import OptionError
from ddplug.functional.clustering import centroids
from ddplug.functional.losses import (
    GRADIENT_DISTANCES,
    characteristic_function,
    characteristic_matching,
    gradient_matching,
    mean_matching,
)

SHAPES = [(4, 3, 3, 3), (4,), (4, 5, 5), (2, 7), (2,)]
"""A convolution, its bias, a layer norm's scale, a linear layer and its bias."""


def gradients(seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(3, *shape, generator=rng, dtype=torch.float64) for shape in SHAPES]


def slow(real: list[Tensor], synthetic: list[Tensor], distance: str) -> float:
    """The distances, one class and one output unit at a time."""
    total = 0.0
    for label in range(3):
        a = [g[label].numpy() for g in real]
        b = [g[label].numpy() for g in synthetic]
        if distance == "layerwise":
            for x, y in zip(a, b, strict=True):
                if x.ndim == 1:
                    continue
                for u, v in zip(x.reshape(len(x), -1), y.reshape(len(y), -1), strict=True):
                    total += 1 - float(u @ v) / (float(np.linalg.norm(u) * np.linalg.norm(v)) + 1e-6)
        else:
            u, v = (np.concatenate([g.ravel() for g in side]) for side in (a, b))
            cosine = float(u @ v) / (float(np.linalg.norm(u) * np.linalg.norm(v)) + 1e-6)
            total += {"mse": float(((u - v) ** 2).sum()), "l1": float(abs(u - v).sum()), "cosine": 1 - cosine}[distance]
    return total


@pytest.mark.parametrize("distance", GRADIENT_DISTANCES)
def test_distances_agree_with_the_slow_form(distance: str) -> None:
    real, synthetic = gradients(0), gradients(1)
    ours = float(gradient_matching(real, synthetic, distance))
    assert ours == pytest.approx(slow(real, synthetic, distance), rel=1e-12)


@pytest.mark.parametrize("distance", GRADIENT_DISTANCES)
def test_equal_gradients_are_at_distance_zero_and_classes_add_up(distance: str) -> None:
    real, synthetic = gradients(0), gradients(1)
    assert float(gradient_matching(real, real, distance)) == pytest.approx(0, abs=1e-4)
    each = [gradient_matching([r[[c]] for r in real], [s[[c]] for s in synthetic], distance) for c in range(3)]
    assert float(sum(each)) == pytest.approx(float(gradient_matching(real, synthetic, distance)))


def test_cosines_do_not_see_the_length_of_a_gradient() -> None:
    real, synthetic = gradients(0), gradients(1)
    longer = [10 * g for g in synthetic]
    assert float(gradient_matching(real, longer)) == pytest.approx(float(gradient_matching(real, synthetic)), rel=1e-5)
    assert float(gradient_matching(real, longer, "mse")) > 2 * float(gradient_matching(real, synthetic, "mse"))


def test_a_dead_unit_does_not_spoil_the_derivative() -> None:
    real = gradients(0)
    synthetic = gradients(1)
    synthetic[0][:, 0] = 0  # a unit that never fires has a gradient of zero
    leaves = [g.requires_grad_() for g in synthetic]
    gradient_matching(real, leaves).backward()
    assert all(bool(leaf.grad.isfinite().all()) for leaf in leaves if leaf.grad is not None)


@pytest.mark.parametrize("distance", GRADIENT_DISTANCES)
def test_derivatives(distance: str) -> None:
    real = gradients(0)
    inputs = tuple(g.requires_grad_() for g in gradients(1))
    assert torch.autograd.gradcheck(lambda *g: gradient_matching(real, g, distance), inputs)


def test_mean_matching_is_the_squared_distance_summed_over_classes() -> None:
    a, b = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = sum(np.linalg.norm(u - v) ** 2 for u, v in zip(a.numpy(), b.numpy(), strict=True))
    assert float(mean_matching(a, b)) == pytest.approx(expected)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    assert float(mean_matching(a @ turn, b @ turn)) == pytest.approx(float(mean_matching(a, b)))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b))


def test_means_of_plain_features_need_no_classes() -> None:
    real, synthetic = normal(9, 4).numpy(), normal(2, 4, seed=1).numpy()
    expected = float(((real.mean(0) - synthetic.mean(0)) ** 2).sum())
    a, b = torch.from_numpy(real), torch.from_numpy(synthetic)
    assert float(mean_matching(a.mean(0), b.mean(0))) == pytest.approx(expected)
    with pytest.raises(OptionError, match=r"the shapes \(9, 4\) and \(2, 4\); average over samples first"):
        mean_matching(a, b)
    labels = torch.tensor([0, 1, 1, 0, 2, 2, 2, 0, 1])
    each = [((real[labels == c].mean(0) - synthetic[c % 2]) ** 2).sum() for c in range(3)]
    assert float(mean_matching(centroids(a, labels), b[[0, 1, 0]])) == pytest.approx(float(sum(each)))


@pytest.mark.parametrize("distance", GRADIENT_DISTANCES)
def test_plain_gradients_of_one_loss_are_matched_in_order_or_by_name(distance: str) -> None:
    layer = {"weight": normal(4, 7), "bias": normal(4, seed=1)}
    features, labels = normal(6, 7, seed=2), torch.tensor([0, 1, 2, 3, 0, 1])

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return cross_entropy(linear(x, weights["weight"], weights["bias"]), labels)

    real, synthetic = (torch.func.grad(loss)(layer, x) for x in (features, features + normal(7, seed=3)))
    u, v = ({name: g.numpy() for name, g in side.items()} for side in (real, synthetic))
    flat = [np.concatenate([side["weight"].ravel(), side["bias"]]) for side in (u, v)]
    expected = {
        "layerwise": sum(1 - cosine(a, b) for a, b in zip(u["weight"], v["weight"], strict=True)),
        "mse": float(((flat[0] - flat[1]) ** 2).sum()),
        "l1": float(abs(flat[0] - flat[1]).sum()),
        "cosine": 1 - cosine(flat[0], flat[1]),
    }
    by_name = gradient_matching(real, dict(reversed(synthetic.items())), distance, by_class=False)
    in_order = gradient_matching([*real.values()], [*synthetic.values()], distance, by_class=False)
    assert [float(by_name), float(in_order)] == pytest.approx([expected[distance]] * 2, rel=1e-4)


def test_an_unknown_distance_names_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"unknown gradient distance 'cosin'; did you mean 'cosine'\?"):
        gradient_matching(gradients(0), gradients(1), "cosin")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_function(features: Tensor, frequency: Tensor) -> complex:
    return sum((cmath.exp(1j * float(frequency @ row)) for row in features), 0j) / len(features)


@pytest.mark.parametrize("amplitude", [0.0, 0.3, 0.5, 1.0])
def test_characteristic_functions_are_matched_as_complex_numbers(amplitude: float) -> None:
    real, synthetic, frequencies = normal(3, 7, 5), normal(3, 2, 5, seed=1), normal(6, 5, seed=2)
    total = 0.0
    for a, b in zip(real, synthetic, strict=True):
        for t in frequencies:
            phi, psi = slow_function(a, t), slow_function(b, t)
            turn = cmath.phase(phi) - cmath.phase(psi)
            phases = 2 * abs(phi) * abs(psi) * (1 - math.cos(turn))
            total += math.sqrt(amplitude * (abs(phi) - abs(psi)) ** 2 + (1 - amplitude) * phases) / len(frequencies)
    ours, theirs = (characteristic_function(side, frequencies) for side in (real, synthetic))
    assert float(characteristic_matching(ours, theirs, amplitude)) == pytest.approx(total, rel=1e-9)


def test_characteristic_functions_of_plain_features_need_no_classes() -> None:
    real, synthetic, frequencies = normal(7, 5), normal(2, 5, seed=1), normal(6, 5, seed=2)
    one = [characteristic_function(side, frequencies) for side in (real, synthetic)]
    expected = [[abs(slow_function(side, t)) for t in frequencies] for side in (real, synthetic)]
    np.testing.assert_allclose([torch.linalg.vector_norm(f, dim=-1).tolist() for f in one], expected, rtol=1e-9)
    apart = [abs(slow_function(real, t) - slow_function(synthetic, t)) / math.sqrt(2) for t in frequencies]
    assert float(characteristic_matching(one[0], one[1])) == pytest.approx(sum(apart) / 6, rel=1e-9)


@pytest.mark.parametrize("amplitude", [0.0, 0.3, 0.5, 1.0])
def test_the_gradients_of_the_characteristic_distance(amplitude: float) -> None:
    real, frequencies = characteristic_function(normal(2, 7, 5), normal(6, 5, seed=2)), normal(6, 5, seed=2)

    def loss(synthetic: Tensor) -> Tensor:
        return characteristic_matching(real, characteristic_function(synthetic, frequencies), amplitude)

    assert torch.autograd.gradcheck(loss, normal(2, 3, 5, seed=1).requires_grad_())


@pytest.mark.parametrize("amplitude", [0.0, 0.5, 1.0])
def test_equal_distributions_are_at_distance_zero_where_the_gradient_is_finite(amplitude: float) -> None:
    frequencies, features = normal(6, 5, seed=2).float(), normal(2, 7, 5).float().requires_grad_()
    shuffled = characteristic_function(features.detach().flip(1).repeat(1, 2, 1), frequencies)
    loss = characteristic_matching(shuffled, characteristic_function(features, frequencies), amplitude)
    (gradient,) = torch.autograd.grad(loss, features)
    assert float(loss.detach()) < 1e-3 and bool(gradient.isfinite().all())


def test_the_amplitudes_do_not_see_a_shift_of_all_features() -> None:
    features, frequencies = normal(2, 7, 5), normal(6, 5, seed=2)
    here, there = (characteristic_function(side, frequencies) for side in (features, features + 0.3))
    amplitudes, whole = (float(characteristic_matching(here, there, amplitude)) for amplitude in (1.0, 0.5))
    assert amplitudes < 1e-6 < 0.01 < whole
