"""Tensors in, tensors out: losses, augmentations, ridge regression, unrolled training, k-means, optimizer steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.functional.augmentation import augment as augment
    from ddplug.functional.augmentation import cutmix as cutmix
    from ddplug.functional.clustering import centroids as centroids
    from ddplug.functional.clustering import clusters as clusters
    from ddplug.functional.clustering import nearest_rows as nearest_rows
    from ddplug.functional.crops import draw_boxes as draw_boxes
    from ddplug.functional.crops import resample as resample
    from ddplug.functional.losses import characteristic_function as characteristic_function
    from ddplug.functional.losses import characteristic_matching as characteristic_matching
    from ddplug.functional.losses import gradient_matching as gradient_matching
    from ddplug.functional.losses import mean_matching as mean_matching
    from ddplug.functional.optim import adam_start as adam_start
    from ddplug.functional.optim import adam_step as adam_step
    from ddplug.functional.optim import momentum_step as momentum_step
    from ddplug.functional.packing import best_span as best_span
    from ddplug.functional.packing import pack as pack
    from ddplug.functional.packing import packed_bytes as packed_bytes
    from ddplug.functional.packing import unpack as unpack
    from ddplug.functional.privacy import gaussian_delta as gaussian_delta
    from ddplug.functional.privacy import gaussian_sigma as gaussian_sigma
    from ddplug.functional.resize import enlarge as enlarge
    from ddplug.functional.resize import reduce as reduce
    from ddplug.functional.resize import reduced_shape as reduced_shape
    from ddplug.functional.ridge import best_labels as best_labels
    from ddplug.functional.ridge import centered as centered
    from ddplug.functional.ridge import nearest_distribution as nearest_distribution
    from ddplug.functional.ridge import predict as ridge_predict
    from ddplug.functional.types import Tensors as Tensors
    from ddplug.functional.unrolling import StepLoss as StepLoss
    from ddplug.functional.unrolling import unroll as unroll

_HOMES = {
    "StepLoss": "unrolling",
    "Tensors": "types",
    "adam_start": "optim",
    "adam_step": "optim",
    "augment": "augmentation",
    "best_labels": "ridge",
    "best_span": "packing",
    "centered": "ridge",
    "centroids": "clustering",
    "characteristic_function": "losses",
    "characteristic_matching": "losses",
    "clusters": "clustering",
    "cutmix": "augmentation",
    "draw_boxes": "crops",
    "enlarge": "resize",
    "gaussian_delta": "privacy",
    "gaussian_sigma": "privacy",
    "gradient_matching": "losses",
    "mean_matching": "losses",
    "momentum_step": "optim",
    "nearest_distribution": "ridge",
    "nearest_rows": "clustering",
    "pack": "packing",
    "packed_bytes": "packing",
    "reduce": "resize",
    "reduced_shape": "resize",
    "resample": "crops",
    "ridge_predict": "ridge:predict",
    "unpack": "packing",
    "unroll": "unrolling",
}

__all__ = [
    "StepLoss",
    "Tensors",
    "adam_start",
    "adam_step",
    "augment",
    "best_labels",
    "best_span",
    "centered",
    "centroids",
    "characteristic_function",
    "characteristic_matching",
    "clusters",
    "cutmix",
    "draw_boxes",
    "enlarge",
    "gaussian_delta",
    "gaussian_sigma",
    "gradient_matching",
    "mean_matching",
    "momentum_step",
    "nearest_distribution",
    "nearest_rows",
    "pack",
    "packed_bytes",
    "reduce",
    "reduced_shape",
    "resample",
    "ridge_predict",
    "unpack",
    "unroll",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
