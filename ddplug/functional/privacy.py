r"""The Gaussian mechanism of differential privacy, calibrated exactly.

A sum of vectors of norm at most 1, plus normal noise of the standard deviation :math:`\sigma` in each coordinate, is
:math:`(\varepsilon, \delta)`-differentially private for adding or removing one vector if and only if

.. math::  \Phi\big(\tfrac{1}{2\sigma} - \varepsilon\sigma\big)
           - e^\varepsilon \, \Phi\big(-\tfrac{1}{2\sigma} - \varepsilon\sigma\big) \le \delta

with the distribution function :math:`\Phi` of the standard normal. It holds for any number of coordinates, and in high
dimension the noise, not the vector, is most of what is seen.

Reference: Balle & Wang, "Improving the Gaussian Mechanism for Differential Privacy: Analytical Calibration and Optimal
Denoising", ICML 2018, theorem 8.
"""

from __future__ import annotations

import math

import torch

from ddplug.errors import OptionError

__all__ = ["check_guarantee", "gaussian_delta", "gaussian_sigma"]


def check_guarantee(epsilon: float, delta: float) -> None:
    """Refuse what is no guarantee of differential privacy.

    Raises:
        OptionError: epsilon is not positive and finite, or delta is not within 0 and 1.

    Example:
        >>> check_guarantee(1.0, 1e-5)
    """
    if not 0 < epsilon < math.inf:
        raise OptionError(f"epsilon is {epsilon}; it must be above 0 and finite: 1 is strict, 10 is lenient")
    if not 0 < delta < 1:
        raise OptionError(f"delta is {delta}; it must be above 0 and far below 1 over the number of records")


def _log_phi(x: float) -> float:
    return float(torch.special.log_ndtr(torch.tensor(x, dtype=torch.float64, device="cpu")))


_WIDE = 100.0
"""Noise from which on the two terms are so nearly equal that their difference has few digits left."""


def _of_wide(epsilon: float, sigma: float) -> float:
    """Compute the least delta where noise is wide: of the difference, only what is left is computed."""
    step, middle = 1 / sigma, epsilon * sigma
    # of the integral of the density over a short step, by Taylor's series around its middle
    square = middle * middle
    series = 1 + step**2 * (square - 1) / 24 + step**4 * (square * square - 6 * square + 3) / 1920
    between = step * math.exp(-square / 2) / math.sqrt(2 * math.pi) * series
    return max(0.0, between - math.expm1(epsilon) * math.exp(_log_phi(-step / 2 - middle)))


def gaussian_delta(epsilon: float, sigma: float) -> float:
    """Compute the least delta of the Gaussian mechanism on a sum of vectors of norm at most 1.

    Args:
        epsilon: at least 0.
        sigma: standard deviation of the noise, above 0.

    Example:
        >>> f"{gaussian_delta(1.0, 3.73):.1e}"
        '1.0e-05'
    """
    if sigma > _WIDE:
        return _of_wide(epsilon, sigma)
    # as the difference of logarithms: both terms may be too small for the difference of numbers
    first = _log_phi(0.5 / sigma - epsilon * sigma)
    if first == -math.inf:
        return 0.0
    second = epsilon + _log_phi(-0.5 / sigma - epsilon * sigma)
    return math.exp(first) * -math.expm1(min(second - first, 0.0))


def gaussian_sigma(epsilon: float, delta: float) -> float:
    """Compute the least noise with which a sum of vectors of norm at most 1 is differentially private.

    Args:
        epsilon: above 0.
        delta: within 0 and 1.

    Returns:
        Standard deviation, the least; its delta exceeds ``delta`` by a share of 1e-10 at most, as numbers are rounded.

    Raises:
        OptionError: they are no guarantee.

    Example:
        >>> round(gaussian_sigma(1.0, 1e-5), 2), round(gaussian_sigma(0.1, 1e-5), 1)
        (3.73, 30.7)
    """
    check_guarantee(epsilon, delta)
    low = high = 1.0
    while gaussian_delta(epsilon, high) > delta:
        low, high = high, 2 * high
    while gaussian_delta(epsilon, low) <= delta:
        low, high = low / 2, low
    while high / low > 1 + 1e-12:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if gaussian_delta(epsilon, middle) <= delta else (middle, high)
    return high
