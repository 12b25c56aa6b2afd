r"""Kernel ridge regression on the features of networks, and the labels that serve it best.

With the features :math:`Z` ``(M, D)`` of a few images and :math:`F` ``(N, D)`` of real ones, labels :math:`Y` of the
few predict

.. math::  \hat T = A Y, \qquad A = F Z^\top \Big(Z Z^\top + \lambda \tfrac{\operatorname{tr} Z Z^\top}{M} I\Big)^{-1},

which is linear in the labels: the best ones have a closed form. With nearly as many images as features the kernel is so
ill-conditioned (500 images of MNIST in 512 features: 1e9) that float32 gets the gradient wrong by three quarters, so
systems are solved in float64 whatever the data type of the features.

Reference: Zhou, Nezhadarya & Ba, "Dataset Distillation using Neural Feature Regression", NeurIPS 2022, equation 4;
for the label solve Nguyen, Chen & Lee, "Dataset Meta-Learning from Kernel Ridge-Regression", ICLR 2021, equation 4.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ddplug.errors import DivergedError
from ddplug.utils.surroundings import own_surroundings

__all__ = ["best_labels", "centered", "nearest_distribution", "predict"]

_RIDGE = 1e-6
"""The published :math:`\\lambda`, a share of the mean diagonal entry of the kernel."""


def centered(labels: Tensor, num_classes: int) -> Tensor:
    r"""Turn labels into the targets of a regression, which sum to zero: the probabilities minus :math:`1/C`.

    Args:
        labels: ``(n,)`` int64, or ``(n, C)`` probabilities.
        num_classes: :math:`C`.

    Returns:
        ``(n, C)``.

    Example:
        >>> centered(torch.tensor([1]), 2)
        tensor([[-0.5000,  0.5000]])
    """
    rows = one_hot(labels, num_classes).float() if labels.ndim == 1 else labels
    return rows - 1 / num_classes


def _exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert tensors to float64; Apple's devices have none."""
    return tuple(tensor if tensor.device.type == "mps" else tensor.double() for tensor in tensors)


def _ridged(kernel: Tensor, ridge: float) -> Tensor:
    """Add a share of its mean diagonal entry to the diagonal of an ``(M, M)`` kernel."""
    return kernel + ridge * kernel.trace() / len(kernel) * torch.eye(len(kernel)).to(kernel)


def _solved(kernel: Tensor, right: Tensor) -> Tensor:
    """Solve for an ``(M, M)`` kernel.

    Raises:
        DivergedError: it is singular, as where all features are zero, NaN or infinite.
    """
    try:
        solved: Tensor = torch.linalg.solve(kernel, right)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise DivergedError("the ridge regression has no solution: all features are zero, or NaN or infinite") from None
    return solved


@own_surroundings(gradients=False)
def predict(query: Tensor, support: Tensor, labels: Tensor, ridge: float = _RIDGE) -> Tensor:
    """Predict by kernel ridge regression; differentiable in everything.

    Args:
        query: ``(N, D)`` features of what to predict.
        support: ``(M, D)`` features of the images that have labels.
        labels: ``(M, C)`` their regression targets.
        ridge: share of the kernel's mean diagonal entry that is added to the diagonal, above 0.

    Returns:
        ``(N, C)`` predictions.

    Raises:
        DivergedError: the features have no solution, as where all are zero.

    Example:
        >>> predict(torch.tensor([[2.0]]), torch.tensor([[1.0]]), torch.tensor([[3.0]]))
        tensor([[6.0000]])
    """
    exact, targets = _exact(support, labels)
    weights = _solved(_ridged(exact @ exact.T, ridge), targets)
    return query @ (exact.T @ weights).to(query)


@own_surroundings(gradients=False)
def best_labels(views: Iterable[tuple[Tensor, Tensor, Tensor]], ridge: float = _RIDGE) -> Tensor:
    r"""Return the labels whose predictions are nearest to real ones, over any number of feature maps (the label solve).

    .. math::  Y = \arg\min_Y \sum_k \| A_k Y - T_k \|^2 = \Big(\sum_k A_k^\top A_k\Big)^{-1} \sum_k A_k^\top T_k,

    where the sum that is inverted gets the same share of its mean diagonal entry added as the kernels.

    Args:
        views: for each feature map the ``(N, D)`` features of real data, their ``(N, C)`` regression targets, and the
            ``(M, D)`` features of the images that want labels; at least one.
        ridge: share of the mean diagonal entry that is added to a diagonal, above 0.

    Returns:
        ``(M, C)`` regression targets, in float64; their rows sum to zero if those of the real targets do.

    Raises:
        DivergedError: the features have no solution, as where all are zero.

    Example:
        >>> best_labels([(torch.eye(2), torch.eye(2), torch.eye(2))]).round()
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    normal, right = torch.zeros(()), torch.zeros(())
    for query, targets, support in views:
        query, targets, support = _exact(query, targets, support)
        transposed = _solved(_ridged(support @ support.T, ridge), support) @ query.T
        normal, right = normal.to(query) + transposed @ transposed.T, right.to(query) + transposed @ targets
    return _solved(_ridged(normal, ridge), right)


@own_surroundings(gradients=False)
def nearest_distribution(rows: Tensor) -> Tensor:
    r"""Project every row on the probability simplex: the nearest :math:`p` with :math:`p \ge 0` and sum 1.

    Args:
        rows: ``(n, C)``.

    Returns:
        ``(n, C)`` probabilities.

    Reference: Held, Wolfe & Crowder, "Validation of subgradient optimization", Mathematical Programming 1974; the
    threshold is found by sorting.

    Example:
        >>> nearest_distribution(torch.tensor([[1.25, 0.75, -3.0]]))
        tensor([[0.7500, 0.2500, 0.0000]])
    """
    falling = rows.sort(1, descending=True).values
    excess = falling.cumsum(1) - 1
    counts = torch.arange(1, rows.shape[1] + 1).to(rows)
    kept = (falling - excess / counts > 0).sum(1, keepdim=True)
    return (rows - excess.gather(1, kept - 1) / kept).clamp_min(0)
