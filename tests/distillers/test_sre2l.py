"""SRe2L: its loss against explicit sums in float64, its gradient against finite differences, range and curriculum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddplug import distill
from ddplug.data.preprocess import fit
from ddplug.distillers import presets
from ddplug.distillers.parts.teachers import frozen, train_teacher
from ddplug.distillers.sre2l import SRe2L, batch_norm_matching, clamped
from ddplug.errors import OptionError
from ddplug.functional.crops import draw_boxes, resample
from ddplug.networks.convnet import ConvNet
from ddplug.testing import check_distiller, toy_images, toy_table
from tests.exact import exact_images, generator, twin

NAME = "convnet:width=8,depth=2,norm=batch"
SMALL = SRe2L(images_per_class=2, teacher=NAME, steps=4, train_epochs=2)
PLAIN: dict[str, Any] = {"least_area": 1.0, "jitter": 0.0, "flip": False}


def smooth_convnet() -> nn.Module:
    return ConvNet((1, 8, 8), 2, width=4, depth=2, norm="batch", act="swish")


def double_teacher() -> nn.Module:
    return train_teacher(smooth_convnet, toy_images((9, 12)), epochs=2, rng=generator(4)).double()


def slow_loss(module: nn.Module, images: Tensor, labels: Tensor, match: float, first: float) -> float:
    """The loss of one batch through a convnet of two blocks: sums of single numbers, in numpy."""
    layers = list(module.features)  # type: ignore[arg-type]
    x, penalty, number = images, 0.0, 0
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            variances, means = 0.0, 0.0
            for channel in range(x.shape[1]):
                values = [float(v) for v in x[:, channel].detach().flatten()]
                mean = sum(values) / len(values)
                variance = sum((v - mean) ** 2 for v in values) / len(values)
                means += (mean - float(layer.running_mean[channel])) ** 2
                variances += (variance - float(layer.running_var[channel])) ** 2
            penalty += (math.sqrt(means) + math.sqrt(variances)) * (1.0 if number else first)
            number += 1
        x = layer(x)
    logits = module.head(x.flatten(1)).detach().numpy()  # type: ignore[operator]
    entropy = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        entropy += math.log(sum(math.exp(float(v)) for v in row)) - float(row[label])
    return entropy / len(labels) + match * penalty


def test_the_loss_is_the_explicit_sum() -> None:
    module = double_teacher()
    images = torch.randn(6, 1, 8, 8, generator=generator(), dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1, 1])
    method = replace(SMALL, teacher=module, match=0.3, first_layer=10.0)
    with frozen(module, {}, torch.device("cpu")) as ready:
        ours = method._loss(ready, images, labels)
    assert float(ours.detach()) == pytest.approx(slow_loss(module, images, labels, 0.3, 10.0), rel=1e-12)


def test_the_gradient_of_the_whole_loss_is_that_of_finite_differences() -> None:
    data = exact_images()
    module = double_teacher()
    method = replace(SMALL, teacher=module, match=0.5, flip=True, jitter=0.25)
    labels = torch.tensor([0, 1])

    def loss(images: Tensor) -> Tensor:
        with frozen(module, {}, torch.device("cpu")) as ready:
            return method._loss(ready, method._drawn(len(images), 0.5, data, generator(9))(images), labels)

    images = torch.randn(2, 1, 8, 8, generator=generator(), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(loss, (images,))


def test_statistics_that_agree_cost_nothing() -> None:
    x = torch.randn(5, 3, 4, 4, generator=generator(), dtype=torch.float64)
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    assert float(batch_norm_matching([(x, mean, variance)], 10.0)) == pytest.approx(0, abs=1e-12)
    # rows of a table: two dimensions; a mean that is off by d costs |d| times the first weight
    rows = x.flatten(1)
    off = torch.zeros(48, dtype=torch.float64)
    off[:2] = torch.tensor([3.0, 4.0])
    args = (rows, rows.mean(0) + off, rows.var(0, unbiased=False))
    assert float(batch_norm_matching([args], 10.0)) == pytest.approx(50)
    assert float(batch_norm_matching([args, args], 2.0)) == pytest.approx(15)


def test_a_step_is_one_update_of_adam_on_batches_that_mix_the_classes() -> None:
    data = exact_images()
    module = double_teacher()
    method = replace(
        SMALL, teacher=module, images_per_class=3, batch_size=4, learning_rate=0.1, steps=10, match=0.2, **PLAIN
    )
    state: Mapping[str, Tensor] = method.init(data, generator(1))
    state = {name: t.double() if t.is_floating_point() else t for name, t in state.items()}
    # a range that nothing leaves
    state = {**state, "range": torch.tensor([[-1e3], [1e3]], dtype=torch.float64)}
    leaf = state["inputs"].clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.1, betas=(0.5, 0.9))
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    batches = [[0, 3, 1, 4], [2, 5]]
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 + math.cos(math.pi * step / 10)) / 2
        optimizer.zero_grad()
        losses = []
        for rows in batches:
            with frozen(module, {}, torch.device("cpu")) as ready:
                loss = method._loss(ready, leaf[rows], labels[rows])
            loss.backward()
            losses.append(float(loss.detach()))
        optimizer.step()
        state, metrics = method.step(state, data, generator())
        torch.testing.assert_close(state["inputs"], leaf.detach(), rtol=1e-5, atol=1e-6)
        assert float(metrics["loss"]) == pytest.approx((4 * losses[0] + 2 * losses[1]) / 6, rel=1e-5)


def test_the_augmentation_is_a_crop_a_flip_and_a_common_shift() -> None:
    data = toy_images(channels=3, size=16)
    images = torch.randn(5, 3, 16, 16, generator=generator())
    method = replace(SMALL, flip=True, jitter=0.25, least_area=0.3)
    rng = generator(2)
    other = twin(rng)
    ours = method._drawn(len(images), 0.7, data, rng)(images)
    boxes = draw_boxes(5, (3, 16, 16), 0.3, other, stretch=4 / 3)
    flip = torch.rand(5, generator=other) < 0.5
    down, right = (int(torch.randint(-4, 5, (), generator=other)) for _ in range(2))
    expected = resample(images, boxes, (16, 16), flip)
    torch.testing.assert_close(ours, torch.cat([expected[:, :, -down:], expected[:, :, :-down]], 2).roll(right, 3))
    assert torch.equal(replace(method, **PLAIN)._drawn(len(images), 0.7, data, rng)(images), images)


def test_the_curriculum_begins_with_whole_images_and_ends_with_the_least_crop() -> None:
    data = toy_images(size=32)
    ramp = torch.arange(32.0).view(1, 1, 1, 32).expand(400, 1, 32, 32).contiguous()
    method = replace(SMALL, curriculum=True, jitter=0.0, flip=False, least_area=0.08)

    def spread(past: float, method: SRe2L = method) -> Tensor:
        crops = method._drawn(len(ramp), past, data, generator())(ramp)
        return (crops.amax((1, 2, 3)) - crops.amin((1, 2, 3))) / 31

    assert float(spread(0.0).min()) == pytest.approx(1)
    # half way the share is (1 + 0.08) / 2; the shortest side of such a crop at a stretch of 4/3
    middle, end = spread(0.5), spread(1.0)
    assert math.sqrt(0.54 * 3 / 4) - 0.06 < float(middle.min()) < 0.8
    assert float(end.min()) < math.sqrt(0.08) + 0.06
    assert torch.equal(end, spread(0.3, replace(method, curriculum=False)))


@pytest.mark.parametrize("kind", ["identity", "standardize", "zca"])
def test_pixels_stay_in_their_range(kind: str) -> None:
    bytes_ = toy_images((12, 11), channels=3)
    bytes_ = replace(bytes_, preprocess=fit(kind, bytes_.inputs))
    made = distill(bytes_, replace(SMALL, learning_rate=5.0), device="cpu")
    pixels = made.pixels()
    assert float(pixels.min()) >= -1e-4 and float(pixels.max()) <= 1 + 1e-4
    assert float(((pixels < 1e-3) | (pixels > 1 - 1e-3)).double().mean()) > 0.3
    # numbers that are no bytes: the range that each channel of the real data has
    numbers = bytes_.inputs.float() * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1) - 7
    data = replace(bytes_, inputs=numbers, preprocess=fit(kind, numbers))
    pixels = distill(data, replace(SMALL, learning_rate=50.0), device="cpu").pixels()
    for channel in range(3):
        low, high = float(numbers[:, channel].min()), float(numbers[:, channel].max())
        slack = 1e-3 * (high - low)
        assert low - slack <= float(pixels[:, channel].min()) and float(pixels[:, channel].max()) <= high + slack


def test_clamping_leaves_what_is_inside() -> None:
    data = toy_images(channels=3)
    limits = torch.tensor([[0.0, 0.0, 0.25], [1.0, 0.5, 1.0]])
    pixels = torch.rand(4, 3, 8, 8, generator=generator()) * 2 - 0.5
    ours = data.preprocess.inverse(clamped(data.preprocess.forward(pixels), data.preprocess, limits))
    expected = np.clip(pixels.numpy(), limits[0].view(3, 1, 1).numpy(), limits[1].view(3, 1, 1).numpy())
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)


def test_recovered_images_are_of_their_class_for_the_teacher() -> None:
    data = toy_images((40, 40, 40))
    module = train_teacher(NAME, data, epochs=10, rng=generator())
    method = replace(SMALL, teacher=module, steps=60, least_area=0.5)
    state: Mapping[str, Tensor] = method.init(data, generator())
    rng, losses = generator(1), []
    for _ in range(60):
        state, metrics = method.step(state, data, rng)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    made = method.result(state, data)
    assert made.hard_targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert replace(method, labels="hard").result(state, data).targets.tolist() == [0, 0, 1, 1, 2, 2]


def test_images_do_not_depend_on_how_many_others_there_are_in_other_batches() -> None:
    # three images of one class and three of the other in batches of two: each pair is recovered by itself
    data = toy_images((9, 12))
    module = train_teacher(NAME, data, epochs=2, rng=generator())
    method = replace(SMALL, teacher=module, images_per_class=3, batch_size=2, **PLAIN)
    state = dict(method.init(data, generator()))
    one = replace(method, images_per_class=1)
    alone = {**one.init(data, generator()), "inputs": state["inputs"][[1, 4]]}
    after, _ = method.step(state, data, generator())
    after_alone, _ = one.step(alone, data, generator())
    torch.testing.assert_close(after["inputs"][[1, 4]], after_alone["inputs"])


@pytest.mark.parametrize("size", [8, 17, 40])
def test_color_and_other_sizes(size: int) -> None:
    data = toy_images((6, 6), channels=3, size=size)
    made = distill(data, replace(SMALL, images_per_class=3, curriculum=True), steps=2, device="cpu")
    assert tuple(made.inputs.shape) == (6, 3, size, size)


def table_network(columns: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(columns, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


def test_tables_go_without_augmentation() -> None:
    method = replace(SMALL, teacher=partial(table_network, 6, 3), **PLAIN)
    check_distiller(method, toy_table())
    refused: tuple[dict[str, Any], ...] = ({"least_area": 0.5}, {"jitter": 0.1}, {"flip": True})
    for changes in refused:
        with pytest.raises(OptionError, match=r"the inputs have the shape \(6,\); use least_area=1, flip=False"):
            distill(toy_table(), replace(method, **changes), device="cpu")


def test_the_contract_with_other_options() -> None:
    check_distiller(replace(SMALL, curriculum=True, flip=True, labels="hard", init_from="real", batch_size=3))


def test_flips_are_for_data_that_have_them() -> None:
    data = toy_images()
    assert not SMALL._flips(data) and SMALL._flips(replace(data, augmentation="crop_flip"))
    assert replace(SMALL, flip=True)._flips(data)


@pytest.mark.parametrize("teacher", ["convnet:width=8,depth=1", nn.BatchNorm2d(1, track_running_stats=False)])
def test_a_teacher_without_running_statistics_is_refused(teacher: str | nn.Module) -> None:
    with pytest.raises(OptionError, match="has no batch normalization with running statistics"):
        distill(toy_images(), replace(SMALL, teacher=teacher), device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"least_area": 0.0}, r"least_area is 0\.0; it must be above 0"),
        ({"least_area": 1.5}, r"least_area is 1\.5; it must be at most 1"),
        ({"jitter": 0.75}, r"jitter is 0\.75; it must be at most 0\.5"),
        ({"flip": "often"}, "flip is 'often'; it must be True, False or 'auto'"),
        ({"labels": "fuzzy"}, "unknown kind of labels 'fuzzy'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(SMALL, **options)  # type: ignore[arg-type]


def test_published_numbers() -> None:
    assert presets.get("sre2l", "imagenet-1k-50")["learning_rate"] == 0.25
    cda = presets.get("sre2l", "tiny-imagenet-50-cda")
    assert cda["curriculum"] and (cda["match"], cda["learning_rate"]) == (0.05, 0.4)
