"""Comparisons: what a set stands beside takes as many bytes, is stored alike, and is said to where it does not."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from ddplug import errors
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity
from ddplug.distillation.loop import distill
from ddplug.distillers.dm import DM
from ddplug.distillers.rded import RDED
from ddplug.distillers.selection.kmeans import KMeans
from ddplug.distillers.selection.random_ import Random
from ddplug.evaluation.comparison import compare
from ddplug.evaluation.train import train_each
from ddplug.synthetic.budget import images_within
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images
from tests.evaluation.test_evaluation import NETWORK, SHORT, make_set, rng


def watch_training(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Any]]:
    """Keep what each round of networks is trained on."""
    seen: list[Sequence[Any]] = []

    def spy(data: Sequence[Any], *rest: Any, **options: Any) -> list[nn.Module]:
        seen.append(data)
        return train_each(data, *rest, **options)

    monkeypatch.setattr("ddplug.evaluation.results.train_each", spy)
    return seen


@pytest.mark.parametrize("quantized", [False, True])
def test_baselines_take_as_many_images_as_fit_in_the_bytes_of_the_set(quantized: bool) -> None:
    train, test = toy_images((30, 30, 30)).split(0.3)
    made = distill(train, Random(images_per_class=2), device="cpu")
    made = made.quantize("uint8" if quantized else "float32")
    result = compare(made, train, test, network="mlp:width=8", recipe=SHORT, repeats=2, whole_steps=5, device="cpu")
    # a class: 64 bytes a pixel each and one for the label; levels of one channel: two numbers of four bytes
    expected = 2 if quantized else (2 * 3 * (64 * 4 + 1) - 8) // (3 * 65)
    assert [row.images_per_class for row in result.rows[1:4]] == [expected] * 3
    for row in result.rows[1:4]:
        assert row.nbytes == 8 + 3 * expected * 65 <= made.nbytes < row.nbytes + 3 * 65
        assert (row.n, row.fits) == (2, True)
    assert [row.method for row in result.rows] == ["random", "random", "class-mean", "kmeans", "whole data"]
    whole = result.rows[-1]
    assert (whole.n, whole.steps, whole.nbytes, whole.images_per_class) == (1, 5, len(train) * 65, len(train) / 3)


@pytest.mark.parametrize(("factor", "bits"), [(2, 8), (1, 1), (2, 1), (3, 4)])
def test_baselines_are_stored_as_the_set_is(factor: int, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_training(monkeypatch)
    train = toy_images((40, 40, 40))
    made = distill(train, Random(images_per_class=7), device="cpu").reduced(factor).quantize(bits=bits)
    options: dict[str, Any] = {"network": "mlp:width=8", "recipe": SHORT, "repeats": 1, "device": "cpu"}
    result = compare(made, train, train, baselines=("random", "kmeans"), whole=False, **options)
    for row, (drawn,) in zip(result.rows[1:], seen[1:], strict=True):
        assert (row.images_per_class, row.nbytes) == (7, made.nbytes)
        assert drawn.inputs.shape == made.inputs.shape and drawn.bits == bits and drawn.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("shape", "factor", "stored"),
    [((1, 28, 28), 16, (1, 1, 1)), ((1, 32, 20), 7, (1, 4, 2)), ((1, 9, 9), 4, (1, 2, 2))],
)
def test_baselines_are_stored_at_the_side_that_the_set_has(
    shape: tuple[int, ...], factor: int, stored: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watch_training(monkeypatch)
    inputs = (255 * torch.rand(30, *shape, generator=rng())).to(torch.uint8)
    train = LabeledData(inputs, torch.arange(30) % 2, 2, Identity(), ("even", "odd"))
    made = distill(train, Random(images_per_class=10), device="cpu").reduced(factor).quantize()
    # a byte for each number and one for the label, and two levels of four bytes
    assert made.nbytes == 20 * (math.prod(stored) + 1) + 8
    options: dict[str, Any] = {"network": "mlp:width=8", "recipe": SHORT, "repeats": 1, "device": "cpu"}
    (own, row) = compare(made, train, train, baselines=("random",), whole=False, **options).rows
    assert (row.images_per_class, row.nbytes, row.fits) == (10, made.nbytes, True)
    (drawn,) = seen[1]
    assert drawn.inputs.shape == (20, *stored) and drawn.shape == shape
    # the same samples by the same seed: what storing does to them is the same too
    assert torch.equal(drawn.inputs, made.inputs) and own.evaluation.accuracies == row.evaluation.accuracies


def test_distillers_are_baselines_too_with_as_many_images_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_training(monkeypatch)
    train = toy_images((30, 30))
    made = distill(train, Random(images_per_class=9), device="cpu").reduced(2).quantize()
    small: dict[str, Any] = {"network": "convnet:width=2,depth=1", "pool_size": 1, "steps": 1}
    baselines = (KMeans(images_per_class=99), DM(**small), DM(**small, factor=4), DM(**small, factor=2), "random")
    options: dict[str, Any] = {"network": "mlp:width=8", "recipe": SHORT, "repeats": 1, "device": "cpu"}
    rows = compare(made, train, train, baselines=baselines, whole=False, **options).rows[1:]
    assert [row.method for row in rows] == ["kmeans", "dm", "dm", "dm", "random"]
    # 314 bytes: 8 for the levels, and of each of 2 classes 9 samples of 4 x 4 pixels and a label, or 30 (all there
    # are) of 2 x 2; where the method itself stores 16 or 4 in the place of an image, a multiple of these
    assert made.nbytes == 314
    assert [row.images_per_class for row in rows] == [9, 9, 16, 8, 9]
    assert [drawn.inputs.shape[-1] for (drawn,) in seen[1:]] == [4, 4, 2, 4, 4]
    assert all(row.fits and row.nbytes <= 314 for row in rows)
    # the options given are used
    assert [drawn.provenance.get("steps") for (drawn,) in seen[1:]] == [0, 1, 1, 1, 0]


def test_a_baseline_whose_soft_labels_take_more_is_said_to() -> None:
    train = toy_images((30, 30))
    made = distill(train, Random(images_per_class=2), device="cpu").quantize()
    teacher = RDED(teacher="convnet:width=2,depth=1", max_samples_per_class=4, train_epochs=1)
    options: dict[str, Any] = {"network": "mlp:width=8", "recipe": SHORT, "repeats": 1, "device": "cpu"}
    row = compare(made, train, train, baselines=(teacher,), whole=False, **options).rows[1]
    # two float16 probabilities where the set has one byte
    assert (row.images_per_class, row.nbytes, row.fits) == (2, made.nbytes + 4 * 3, False)


@dataclass(frozen=True)
class Sizeless:
    """A distiller that makes as many images as it likes."""

    name = "sizeless"
    steps = 0


def test_a_baseline_that_cannot_be_sized_is_refused_before_training() -> None:
    endless = make_set(recipe=Recipe(epochs=10**9))
    given: list[Any] = [Sizeless(), Sizeless]
    for baseline in given:
        with pytest.raises(errors.OptionError, match="baseline sizeless has no images_per_class to fit to the bytes"):
            compare(endless, toy_images(), toy_images(), network=NETWORK, baselines=(baseline,), device="cpu")


def test_a_baseline_is_selected_anew_for_each_network(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_training(monkeypatch)
    train = toy_images((30, 30))
    made = distill(train, Random(images_per_class=2), device="cpu").quantize()
    options: dict[str, Any] = {"network": "mlp:width=8", "recipe": SHORT, "repeats": 2, "device": "cpu"}
    compare(made, train, train, baselines=("random",), whole=False, **options)
    assert torch.equal(seen[0][0].inputs, seen[0][1].inputs)
    assert not torch.equal(seen[1][0].inputs, seen[1][1].inputs)
    assert seen[1][0].levels is not None  # stored as bytes, as they are counted


def test_a_set_smaller_than_one_image_a_class_is_said_to_be() -> None:
    train = toy_images((9, 9))
    tiny = SyntheticSet(torch.randn(1, 1, 8, 8, generator=rng()), torch.tensor([0]), 2, train.preprocess).quantize()
    assert images_within(tiny.nbytes, train) == 0
    result = compare(
        tiny, train, train, network="mlp:width=8", repeats=1, recipe=SHORT, baselines=("random",), whole_steps=3,
        device="cpu",
    )  # fmt: skip
    assert "| random | 1 | 138 (more than the set) |" in result.table()
    assert "| this set | 0.5 | 73 |" in result.table()
    assert "| whole data, 3 steps | 9 | 1,170 |" in result.table()
    assert result.to_json()["rows"][1]["fits"] is False


def test_comparisons_are_json_and_markdown() -> None:
    train = toy_images((9, 9))
    made = distill(train, Random(images_per_class=2), device="cpu").quantize()
    result = compare(made, train, train, network="mlp:width=8", repeats=2, recipe=SHORT, whole=False, device="cpu")
    values = json.loads(json.dumps(result.to_json()))
    assert [row["method"] for row in values["rows"]] == ["random", "random", "class-mean", "kmeans"]
    assert values["recipe"] == SHORT.to_json()
    lines = result.table().splitlines()
    assert len(lines) == 2 + 4
    row = result.rows[1]
    assert lines[3] == f"| random | 2 | 268 | {8 * 268 / 2:,.0f} | {100 * row.mean:.1f} ± {100 * row.std:.1f} | 2 |"


def test_whole_data_are_a_bound_that_training_reaches() -> None:
    train, test = toy_images((30, 30, 30)).split(0.3)
    made = distill(train, Random(images_per_class=1), device="cpu")
    result = compare(
        made, train, test, network=NETWORK, repeats=1, recipe=SHORT, baselines=(), whole_steps=100, device="cpu"
    )
    assert result.rows[-1].mean > 0.98
