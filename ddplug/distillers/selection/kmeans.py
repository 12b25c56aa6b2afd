"""KMeans and KMeansCentroid: the real sample nearest to each cluster's centroid, or the centroids themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillers.parts.features import cluster_means, extractor
from ddplug.distillers.selection.base import FeatureSelection, Selection, each_class
from ddplug.functional.clustering import centroids, clusters, draw_seed, nearest_rows

__all__ = ["KMeans", "KMeansCentroid"]


@dataclass(frozen=True)
class KMeans(FeatureSelection):
    """Cluster each class by k-means and keep the real sample nearest to each centroid.

    Where a sample is the nearest to two centroids, the later one takes its next nearest: no sample is kept twice.

    Args:
        images_per_class: clusters in each class, one sample each.

    Reference: Lloyd, "Least Squares Quantization in PCM", 1982; a baseline of dataset distillation since Cui et al.,
        "DC-BENCH: Dataset Condensation Benchmark", NeurIPS 2022.

    Example:
        >>> KMeans().name
        'kmeans'
    """

    name: ClassVar[str] = "kmeans"
    apart: ClassVar[bool] = True

    def move(self, rng: torch.Generator) -> None:
        draw_seed(rng)

    def choose(self, features: Tensor, number: int, rng: torch.Generator) -> Tensor:
        return nearest_rows(features, centroids(features, clusters(features, number, rng)))


@dataclass(frozen=True)
class KMeansCentroid(Selection):
    """Cluster each class by k-means and average the samples of each cluster in model space.

    With the features ``"pixels"`` these averages are the centroids. They are not real samples.

    Args:
        images_per_class: clusters in each class, one average each.
        features: ``"pixels"`` (model space), or the specification of a network whose embedding is clustered.
        train_epochs: epochs to train that network for first, on real data; 0 for a random network.

    Example:
        >>> KMeansCentroid().name
        'kmeans-centroid'
    """

    name: ClassVar[str] = "kmeans-centroid"
    apart: ClassVar[bool] = True
    real_images: ClassVar[bool] = False
    features: str = "pixels"
    train_epochs: int = 0

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        extract = extractor(self.features, self.train_epochs, data, rng)

        def average(members: Tensor, rng: torch.Generator) -> Tensor:
            return cluster_means(data, members, extract, min(self.images_per_class, len(members)), rng)

        def move(members: Tensor, rng: torch.Generator) -> None:
            draw_seed(rng)

        return {"inputs": each_class(data, self.images_per_class, average, rng, move)}
