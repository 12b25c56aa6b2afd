"""KMeans and KMeansCentroid: the real sample nearest to each cluster's centroid, or the centroids themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddplug.data import LabelledData
from ddplug.distillers.features import extractor, mean_input
from ddplug.distillers.selection import Selection, each_class

__all__ = ["KMeans", "KMeansCentroid", "centroids", "clusters", "nearest_rows"]

_MAX_ITER = 30
"""Later iterations of Lloyd's algorithm lower the squared distance by less than one in a hundred, on MNIST."""


@dataclass(frozen=True)
class KMeans(Selection):
    """Cluster each class by k-means and keep the real sample nearest to each centroid.

    Where a sample is the nearest to two centroids, the later one takes its next nearest: no sample is kept twice.

    Args:
        images_per_class: clusters in each class, one sample each.
        steps: none are needed.
        features: ``"pixels"`` (model space), or the specification of a network whose embedding is clustered.
        train_epochs: epochs to train that network for first, on real data; 0 for a random network.

    Reference: Lloyd, "Least Squares Quantization in PCM", 1982; a baseline of dataset distillation since Cui et al.,
        "DC-BENCH: Dataset Condensation Benchmark", NeurIPS 2022.

    Example:
        >>> KMeans().name
        'kmeans'
    """

    name: ClassVar[str] = "kmeans"
    images_per_class: int = 10
    steps: int = 0
    features: str = "pixels"
    train_epochs: int = 0

    def init(self, data: LabelledData, rng: torch.Generator) -> dict[str, Tensor]:
        extract = extractor(self.features, self.train_epochs, data, rng)

        def choose(members: Tensor) -> Tensor:
            rows = extract(members)
            labels = clusters(rows, self.images_per_class, rng)
            return members[nearest_rows(rows, centroids(rows, labels))]

        return {"index": each_class(data, self.images_per_class, choose)}


@dataclass(frozen=True)
class KMeansCentroid(Selection):
    """Cluster each class by k-means and average the samples of each cluster in model space.

    With the features ``"pixels"`` these averages are the centroids. They are not real samples.

    Args:
        images_per_class: clusters in each class, one average each.
        steps: none are needed.
        features: ``"pixels"`` (model space), or the specification of a network whose embedding is clustered.
        train_epochs: epochs to train that network for first, on real data; 0 for a random network.

    Example:
        >>> KMeansCentroid().name
        'kmeans-centroid'
    """

    name: ClassVar[str] = "kmeans-centroid"
    images_per_class: int = 10
    steps: int = 0
    features: str = "pixels"
    train_epochs: int = 0

    def init(self, data: LabelledData, rng: torch.Generator) -> dict[str, Tensor]:
        extract = extractor(self.features, self.train_epochs, data, rng)

        def average(members: Tensor) -> Tensor:
            labels = clusters(extract(members), self.images_per_class, rng)
            return torch.stack([mean_input(data, members[labels == k]) for k in range(self.images_per_class)])

        return {"inputs": each_class(data, self.images_per_class, average)}


def clusters(features: Tensor, number: int, rng: torch.Generator) -> Tensor:
    """Cluster rows by k-means (scikit-learn's, k-means++ start).

    Args:
        features: ``(n, d)``.
        number: clusters, at most ``n``.
        rng: generator on the CPU, for the start.

    Returns:
        ``(n,)`` int64 cluster of each row, in ``0..number-1``, on the CPU; no cluster is empty.
    """
    from sklearn import cluster  # here, since it takes a second to import
    from threadpoolctl import threadpool_limits

    seed = int(torch.randint(2**31 - 1, (), generator=rng))
    with threadpool_limits(1):  # rounding, and so the clusters, would depend on the number of threads
        fitted = cluster.KMeans(number, n_init=1, max_iter=_MAX_ITER, random_state=seed).fit(features.cpu().numpy())
    labels = torch.from_numpy(fitted.labels_).long()
    for k in range(number):
        if not bool((labels == k).any()):  # fewer distinct rows than clusters
            largest = labels.bincount(minlength=number).argmax()
            labels[(labels == largest).nonzero()[0]] = k
    return labels


def centroids(features: Tensor, labels: Tensor) -> Tensor:
    """Average the ``(n, d)`` rows of each cluster, ``(clusters, d)``."""
    labels = labels.to(features.device)
    return torch.stack([features[labels == k].mean(0) for k in range(int(labels.max()) + 1)])


def nearest_rows(features: Tensor, points: Tensor) -> Tensor:
    """Give, for each point in turn, the nearest row that no earlier point has taken.

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
