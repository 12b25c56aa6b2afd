"""K-means, and the rows that stand for its clusters."""

from __future__ import annotations

import torch
from torch import Tensor

from ddplug.utils.surroundings import own_surroundings

__all__ = ["LARGEST", "centroids", "clusters", "draw_seed", "nearest_rows"]

LARGEST = 1 << 28
"""Numbers of the rows, at most, that are clustered at once: a gibibyte of them."""

_MAX_ITER = 30
"""Later iterations of Lloyd's algorithm lower the squared distance by less than one in a hundred, on MNIST."""


def draw_seed(rng: torch.Generator) -> int:
    """Draw what :func:`clusters` draws, whatever the rows."""
    return int(torch.randint(2**31 - 1, (), generator=rng))


@own_surroundings(gradients=False)
def clusters(features: Tensor, number: int, rng: torch.Generator) -> Tensor:
    """Cluster rows by k-means (scikit-learn's, k-means++ start).

    Args:
        features: ``(n, d)``.
        number: clusters, at most ``n``.
        rng: generator on the CPU, for the start.

    Returns:
        ``(n,)`` int64 cluster of each row, in ``0..number-1``, on the CPU; no cluster is empty.

    Example:
        >>> labels = clusters(torch.tensor([[0.0], [9.0], [0.1]]), 2, torch.Generator().manual_seed(0))
        >>> bool(labels[0] == labels[2]), bool(labels[0] == labels[1])
        (True, False)
    """
    from sklearn import cluster  # here, since it takes a second to import
    from threadpoolctl import threadpool_limits

    seed = draw_seed(rng)
    with threadpool_limits(1):  # rounding, and so the clusters, would depend on the number of threads
        fitted = cluster.KMeans(number, n_init=1, max_iter=_MAX_ITER, random_state=seed).fit(features.cpu().numpy())
    labels = torch.from_numpy(fitted.labels_).long()
    for k in range(number):
        if not bool((labels == k).any()):  # fewer distinct rows than clusters
            largest = labels.bincount(minlength=number).argmax()
            labels[(labels == largest).nonzero()[0]] = k
    return labels


def centroids(features: Tensor, labels: Tensor) -> Tensor:
    """Average the rows of each cluster, or of each class.

    Args:
        features: ``(n, d)``.
        labels: ``(n,)`` int64 cluster of each row, in ``0..k-1``; none is empty.

    Returns:
        ``(k, d)`` means.

    Example:
        >>> centroids(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))
        tensor([[1.],
                [5.]])
    """
    labels = labels.to(features.device)
    return torch.stack([features[labels == k].mean(0) for k in range(int(labels.max()) + 1)])


def nearest_rows(features: Tensor, points: Tensor) -> Tensor:
    """Return, for each point in turn, the nearest row that no earlier point has taken.

    Args:
        features: ``(n, d)``.
        points: ``(k, d)``, at most ``n``.

    Returns:
        ``(k,)`` int64 rows, all different, on the CPU.

    Example:
        >>> nearest_rows(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.9], [1.1]])).tolist()
        [1, 0]
    """
    taken = torch.zeros_like(features[:, 0], dtype=torch.bool)
    rows: list[Tensor] = []
    for point in points:
        distance = torch.linalg.vector_norm(features - point, dim=1)
        rows.append(distance.masked_fill(taken, torch.inf).argmin())
        taken[rows[-1]] = True
    return torch.stack(rows).cpu()
