"""Matching losses: pure functions of tensors, zero where synthetic data do what real data do.

Each compares a statistic of real data with that of synthetic data: mean features, characteristic functions of features,
gradients of a loss. The statistics of all classes are compared at once, along a first dimension ``C``, which may be
left out where there are no classes: features ``(n, D)`` have the means ``features.mean(0)``, and
:func:`ddplug.functional.centroids` gives those of each class, ``(C, D)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ddplug.errors import OptionError
from ddplug.utils.checks import one_of
from ddplug.utils.surroundings import own_surroundings

__all__ = [
    "GRADIENT_DISTANCES",
    "characteristic_function",
    "characteristic_matching",
    "gradient_matching",
    "mean_matching",
]


def mean_matching(real: Tensor, synthetic: Tensor) -> Tensor:
    r"""Sum over classes of the squared distance of mean features, :math:`\sum_c \|\mu_c - \nu_c\|^2`.

    Args:
        real: ``(C, D)`` mean features of real data, a row a class, or ``(D,)``.
        synthetic: mean features of synthetic data, of the same shape.

    Returns:
        0-d loss.

    Raises:
        OptionError: the shapes differ, as those of features before the mean is taken do.

    Reference: Zhao & Bilen, "Dataset Condensation with Distribution Matching", WACV 2023, equation 4.

    Example:
        >>> real, synthetic = torch.tensor([[0.0, 1.0], [2.0, 5.0]]), torch.tensor([[1.0, 1.0]])
        >>> mean_matching(real.mean(0), synthetic.mean(0))
        tensor(4.)
    """
    if real.shape != synthetic.shape:
        shapes = f"{tuple(real.shape)} and {tuple(synthetic.shape)}"
        raise OptionError(
            f"the mean features have the shapes {shapes}; average over samples first, for real and synthetic features"
        )
    return (real - synthetic).square().sum()


@own_surroundings(gradients=False)
def characteristic_function(features: Tensor, frequencies: Tensor) -> Tensor:
    r"""Empirical characteristic function, :math:`\Phi_c(t) = \frac1n \sum_i e^{i \langle t, f_i \rangle}`.

    It determines a distribution, all its moments included.

    Args:
        features: ``(C, n, D)`` features of ``n`` samples a class, or ``(n, D)``.
        frequencies: ``(T, D)`` arguments ``t``.

    Returns:
        ``(C, T, 2)`` real and imaginary parts, or ``(T, 2)``.

    Example:
        >>> characteristic_function(torch.zeros(1, 3, 2), torch.ones(1, 2)).tolist()
        [[[1.0, 0.0]]]
    """
    angles = features @ frequencies.T
    return torch.stack([angles.cos().mean(-2), angles.sin().mean(-2)], -1)


@own_surroundings(gradients=False)
def characteristic_matching(real: Tensor, synthetic: Tensor, amplitude: float = 0.5) -> Tensor:
    r"""Sum over classes of a distance of characteristic functions, averaged over frequencies.

    .. math::  \sqrt{\alpha \, (|\Phi| - |\Psi|)^2 + 2 (1 - \alpha) \, |\Phi| |\Psi| (1 - \cos(a_\Phi - a_\Psi))}

    The first term compares amplitudes, the second phases; with :math:`\alpha = 1/2` it is
    :math:`|\Phi - \Psi| / \sqrt2`.

    Args:
        real: ``(C, T, 2)`` or ``(T, 2)``, from :func:`characteristic_function`.
        synthetic: the same of synthetic data.
        amplitude: share :math:`\alpha` of the amplitudes, within 0 and 1.

    Returns:
        0-d loss.

    Reference: Wang et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective" (NCFM),
    CVPR 2025.
    """
    # neither square root has a derivative at zero
    tiny = torch.finfo(real.dtype).eps ** 2
    lengths = [(side.square().sum(-1) + tiny).sqrt() for side in (real, synthetic)]
    apart = (lengths[0] - lengths[1]).square()
    # the phases' term is what the amplitudes leave of the squared distance: exact also where both are nearly equal
    squares = (1 - amplitude) * (real - synthetic).square().sum(-1) + (2 * amplitude - 1) * apart
    return squares.clamp_min(tiny).sqrt().mean(-1).sum()


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


def _l1(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    return (_flat(real) - _flat(synthetic)).abs().sum()


def _cosine(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    a, b = _flat(real), _flat(synthetic)
    return _one_minus_cosine(a, b).sum()


GRADIENT_DISTANCES: Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "layerwise": _layerwise,
    "mse": _mse,
    "l1": _l1,
    "cosine": _cosine,
}
"""Distances of gradients by name; see :func:`gradient_matching`."""


Gradients = Sequence[Tensor] | Mapping[str, Tensor]
"""Gradients of a loss in the parameters of a network, in order or by name."""


def _listed(gradients: Gradients, names: Iterable[str], by_class: bool) -> list[Tensor]:
    """Put gradients in order, with a dimension for classes."""
    listed = [gradients[name] for name in names] if isinstance(gradients, Mapping) else gradients
    return [gradient if by_class else gradient[None] for gradient in listed]


def gradient_matching(
    real: Gradients, synthetic: Gradients, distance: str = "layerwise", *, by_class: bool = True
) -> Tensor:
    r"""Sum over classes of a distance between the gradients of two losses.

    ``layerwise`` groups every weight by output unit and sums :math:`1 - \cos` over the groups of all layers; biases
    and normalization scales do not count. ``mse`` is the squared distance, ``l1`` the sum of absolute differences, and
    ``cosine`` one minus the cosine, of all gradients of a class as one vector.

    Args:
        real: for each parameter ``(C, *shape)``, the gradients of the classes' real losses; both sides in the same
            order, or both by name.
        synthetic: the same of the synthetic losses.
        distance: a key of :data:`GRADIENT_DISTANCES`.
        by_class: whether there is the dimension ``C``. Without, each side is the gradient of one loss, of the
            parameters' own shapes, as ``torch.autograd.grad`` and ``torch.func.grad`` return it.

    Returns:
        0-d loss.

    Raises:
        OptionError: the distance is not known.

    Reference: Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, equations 9 and 10.

    Example:
        >>> a, b = {"weight": torch.tensor([[0.0, 1.0]])}, {"weight": torch.tensor([[0.0, -1.0]])}
        >>> gradient_matching(a, b, "mse", by_class=False)
        tensor(4.)
    """
    one_of("gradient distance", distance, GRADIENT_DISTANCES)
    names = list(synthetic) if isinstance(synthetic, Mapping) else []
    return GRADIENT_DISTANCES[distance](*(_listed(side, names, by_class) for side in (real, synthetic)))
