"""The noise of the Gaussian mechanism, beside an integral of the hockey-stick divergence that knows no closed form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad, trapezoid
from scipy.stats import norm

from ddplug.errors import OptionError
from ddplug.functional import gaussian_delta, gaussian_sigma


def hockey_stick(epsilon: float, sigma: float) -> float:
    """Integrate how far one density is above the other's multiple; of normal ones that lie 1 apart, in this order."""
    start = sigma**2 * epsilon + 0.5  # where the ratio of the densities is the multiple
    points = [start, start + sigma, start + 4 * sigma]

    def above(x: float) -> float:
        return float(norm.pdf(x, 1, sigma) - math.exp(epsilon) * norm.pdf(x, 0, sigma))

    return float(quad(above, start, start + 40 * sigma, points=points, epsabs=0, epsrel=1e-9, limit=500)[0])


@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1, 3, 10, 30])
@pytest.mark.parametrize("delta", [1e-2, 1e-5, 1e-9])
def test_the_noise_is_just_enough(epsilon: float, delta: float) -> None:
    sigma = gaussian_sigma(epsilon, delta)
    assert hockey_stick(epsilon, sigma) == pytest.approx(delta, rel=1e-5)
    assert gaussian_delta(epsilon, sigma) <= delta < gaussian_delta(epsilon, sigma * (1 - 1e-9))


def test_neither_order_of_the_neighbors_is_worse() -> None:
    """The other order of the densities gives the same, so that adding and removing cost the same."""
    x = np.linspace(-60, 60, 400_001)
    p, q = norm.pdf(x, 0, 3), norm.pdf(x, 1, 3)
    one, other = (float(trapezoid(np.maximum(a - math.e * b, 0), x)) for a, b in ((p, q), (q, p)))
    assert one == pytest.approx(other, rel=1e-3)
    assert one == pytest.approx(gaussian_delta(1, 3), rel=1e-3)


def test_it_is_less_than_the_classical_noise() -> None:
    assert gaussian_sigma(1, 1e-5) == pytest.approx(3.7306, abs=1e-4)
    assert gaussian_sigma(1, 1e-5) < math.sqrt(2 * math.log(1.25 / 1e-5))


def test_tiny_deltas_do_not_vanish() -> None:
    assert gaussian_delta(30, 1.0) > 0
    assert gaussian_sigma(1, 1e-30) > gaussian_sigma(1, 1e-15) > gaussian_sigma(1, 1e-5)


@pytest.mark.parametrize(
    ("epsilon", "delta", "message"),
    [
        (0, 1e-5, "epsilon is 0; it must be above 0"),
        (-1, 1e-5, "epsilon is -1; it must be above 0"),
        (math.nan, 1e-5, "epsilon is nan"),
        (math.inf, 1e-5, "epsilon is inf; it must be above 0 and finite"),
        (1, 0, "delta is 0; it must be above 0 and far below 1 over the number of records"),
        (1, 1, "delta is 1; it must be"),
        (1, math.nan, "delta is nan"),
    ],
)
def test_what_is_no_guarantee_is_refused(epsilon: float, delta: float, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        gaussian_sigma(epsilon, delta)


@pytest.mark.parametrize("epsilon", [1e-9, 1e-6, 1e-3, 0.01, 0.03, 1.0, 1000.0])
@pytest.mark.parametrize("delta", [1e-15, 1e-12, 1e-5, 0.9])
def test_noise_is_never_too_small_in_many_digits(epsilon: float, delta: float) -> None:
    sigma = gaussian_sigma(epsilon, delta)

    # minus the derivative of delta by epsilon is positive, so that its integral loses no digits, and delta is 0 far out
    def slope(t: float) -> float:
        return math.exp(t + float(norm.logcdf(-0.5 / sigma - t * sigma)))

    end = epsilon + 60 / sigma + 2 / sigma**2
    points = np.linspace(epsilon, end, 200)
    found = math.fsum(quad(slope, *ends, epsabs=0, epsrel=1e-12)[0] for ends in itertools.pairwise(points))
    assert found == pytest.approx(delta, rel=1e-7)
    assert found < delta * (1 + 1e-9)


def test_an_epsilon_beyond_all_numbers_needs_next_to_no_noise() -> None:
    assert gaussian_sigma(1e200, 1e-5) < 1e-99
