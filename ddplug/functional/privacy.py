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


def gaussian_delta(epsilon: float, sigma: float) -> float:
    """Compute the least delta of the Gaussian mechanism on a sum of vectors of norm at most 1.

    Args:
        epsilon: at least 0.
        sigma: standard deviation of the noise, above 0.

    Example:
        >>> f"{gaussian_delta(1.0, 3.73):.1e}"
        '1.0e-05'
    """
    # as the difference of logarithms: both terms may be too small for the difference of numbers
    first = _log_phi(0.5 / sigma - epsilon * sigma)
    second = epsilon + _log_phi(-0.5 / sigma - epsilon * sigma)
    return math.exp(first) * -math.expm1(min(second - first, 0.0))


def gaussian_sigma(epsilon: float, delta: float) -> float:
    """Compute the least noise with which a sum of vectors of norm at most 1 is differentially private.

    Args:
        epsilon: above 0.
        delta: within 0 and 1.

    Returns:
        Standard deviation; to a relative error of 1e-12, never too small.

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
