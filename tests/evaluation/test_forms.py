"""Judging takes the network that suits the data, and says which."""

from __future__ import annotations

from typing import Any

import pytest

from ddplug import Recipe, compare, cross_architecture, distill, evaluate
from ddplug.data.labeled import LabeledData
from ddplug.distillers import IDC
from ddplug.testing import made_small, toy_images, toy_series, toy_table

QUICK: dict[str, Any] = {"repeats": 1, "recipe": Recipe(epochs=2), "device": "cpu"}
FORMS = [(toy_table((6, 7)), "mlp"), (toy_series((6, 7)), "conv1d"), (toy_images((6, 7)), "convnet")]


@pytest.mark.parametrize(("data", "network"), FORMS, ids=lambda value: getattr(value, "name", None))
def test_the_network_suits_the_data_and_is_named(data: LabeledData, network: str) -> None:
    made = distill(data, "random", images_per_class=1, device="cpu")
    assert evaluate(made, data, **QUICK).network == network
    assert compare(made, data, data, baselines=["random"], whole=False, **QUICK).network == network


@pytest.mark.parametrize("data", [toy_table((6, 7)), toy_series((6, 7))], ids=lambda data: data.name)
def test_other_architectures_and_baselines_that_learn_suit_them_too(data: LabeledData) -> None:
    made = distill(data, "random", images_per_class=2, device="cpu")
    found = cross_architecture(made, data, **QUICK)
    assert len({one.network for one in found}) == 3
    learned = made_small(IDC(steps=1, pool_size=1, max_age=1), data.shape)
    rows = compare(made, data, data, baselines=[IDC(**vars(learned) | {"factor": "auto"})], whole=False, **QUICK).rows
    assert [row.method for row in rows] == ["random", "idc"]
    assert rows[1].images_per_class >= 1
