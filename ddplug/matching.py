"""Matching losses: pure functions of tensors, zero where synthetic data do what real data do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ddplug.errors import unknown

__all__ = ["GRADIENT_DISTANCES", "gradient_matching", "mean_matching"]


def mean_matching(real: Tensor, synthetic: Tensor) -> Tensor:
    r"""Sum over classes of the squared distance of mean features, :math:`\sum_c \|\mu_c - \nu_c\|^2`.

    Args:
        real: ``(C, D)`` mean features of real data, a row a class.
        synthetic: ``(C, D)`` mean features of synthetic data.

    Returns:
        0-d loss.

    Reference: Zhao & Bilen, "Dataset Condensation with Distribution Matching", WACV 2023, equation 4.
    """
    return (real - synthetic).square().sum()


def _rows(gradient: Tensor) -> Tensor | None:
    """View ``(C, out, ...)`` gradients as rows ``(C, out, rest)``; ``None`` for biases and scales."""
    return gradient.flatten(2) if gradient.ndim > 2 else None


def _one_minus_cosine(a: Tensor, b: Tensor) -> Tensor:
    """One minus the cosine along the last dimension; vectors of length zero count as orthogonal."""
    lengths: Tensor = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    return 1 - (a * b).sum(-1) / (lengths + 1e-6)


def _layerwise(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    total = synthetic[0].new_zeros(())
    for a, b in zip(real, synthetic, strict=True):
        rows_a, rows_b = _rows(a), _rows(b)
        if rows_a is None or rows_b is None:
            continue
        total = total + _one_minus_cosine(rows_a, rows_b).sum()
    return total


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([g.flatten(1) for g in gradients], 1)


def _mse(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    return (_flat(real) - _flat(synthetic)).square().sum()


def _cosine(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    a, b = _flat(real), _flat(synthetic)
    return _one_minus_cosine(a, b).sum()


GRADIENT_DISTANCES: Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "layerwise": _layerwise,
    "mse": _mse,
    "cosine": _cosine,
}
"""Distances of gradients by name; see :func:`gradient_matching`."""


def gradient_matching(real: Sequence[Tensor], synthetic: Sequence[Tensor], distance: str = "layerwise") -> Tensor:
    r"""Sum over classes of a distance between the gradients of two losses.

    ``layerwise`` groups every weight by output unit and sums :math:`1 - \cos` over the groups of all layers; biases
    and normalisation scales do not count. ``mse`` is the squared distance and ``cosine`` one minus the cosine of all
    gradients of a class as one vector.

    Args:
        real: for each parameter ``(C, *shape)``, the gradients of the classes' real losses.
        synthetic: the same of the synthetic losses.
        distance: a key of :data:`GRADIENT_DISTANCES`.

    Returns:
        0-d loss.

    Raises:
        OptionError: the distance is not known.

    Reference: Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, equations 9 and 10.
    """
    if distance not in GRADIENT_DISTANCES:
        raise unknown("gradient distance", distance, GRADIENT_DISTANCES)
    return GRADIENT_DISTANCES[distance](real, synthetic)
