"""Images and labels that have left the data behind, though every number is finite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ddplug import distill
from ddplug.data import LabeledData, from_arrays
from ddplug.data.preprocess import Identity, fit
from ddplug.distillation.straying import Straying
from ddplug.errors import DivergedError
from ddplug.testing import toy_images, toy_table


def raw(scale: float) -> LabeledData:
    return replace(toy_table(), inputs=scale * toy_table().inputs, preprocess=Identity())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_images_are_compared_with_the_largest_real_value(scale: float) -> None:
    data = raw(scale)
    most = 30 * max(1.0, scale * float(toy_table().inputs.abs().max()))
    images = torch.ones(4, *data.shape)
    assert Straying(data).found({"inputs": 0.99 * most * images}) is None
    assert str(Straying(data).found({"inputs": 1.01 * most * images})).startswith("the images have values of about")
    assert Straying(data).found({"inputs": 1e38 * images}) is not None


def test_whitened_images_are_compared_as_pixels() -> None:
    data = toy_images((12, 11), channels=3)
    numbers = data.inputs.float()  # 23 images of values up to 255, so that most directions hold nothing
    data = replace(data, inputs=numbers, preprocess=fit("zca", numbers))
    checkered = data.preprocess.forward(255.0 * (torch.arange(192).view(1, 3, 8, 8) % 2))
    assert float(checkered.abs().max()) > 30 * max(1.0, float(data.batch(torch.arange(len(data))).abs().max()))
    assert Straying(data).found({"inputs": checkered}) is None
    assert Straying(data).found({"inputs": 1000 * checkered}) is not None


def test_labels_are_looked_at_and_what_has_other_names_is_not() -> None:
    straying = Straying(toy_images())
    assert straying.found({"labels": torch.full((3, 3), 20.0), "network.weight": torch.tensor([1e30])}) is None
    assert straying.found({"labels": torch.full((3, 3), 1e4)}) is not None


def test_private_data_are_not_asked() -> None:
    assert Straying().found({"inputs": torch.full((3, 4), 1e20)}) is None


@pytest.mark.parametrize("rate", [1e6, 1e12])
def test_another_method_ends_alike(rate: float) -> None:
    options: dict[str, Any] = {
        "network": "convnet:width=4,depth=1",
        "pool_size": 1,
        "batch_real": 2,
        "images_per_class": 1,
    }
    with pytest.raises(DivergedError, match="dm diverged: the images have values of about"):
        distill(toy_images(), "dm", steps=3, device="cpu", learning_rate=rate, **options)


def test_values_that_are_large_by_nature_are_no_divergence() -> None:
    rows = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)) * 1e6
    data = replace(from_arrays(rows, [0, 1] * 6), preprocess=Identity())
    options: dict[str, Any] = {"network": "mlp:width=4", "pool_size": 1, "batch_real": 2, "images_per_class": 1}
    assert distill(data, "dm", steps=2, device="cpu", init_from="real", **options).inputs.abs().max() > 1e4
