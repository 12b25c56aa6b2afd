"""What the caller has set for the process neither breaks nor changes any method or public function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddplug
from ddplug import data, distillation, distillers, evaluation, functional, networks, registry, synthetic
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import made_small, toy_images, toy_table
from ddplug.utils.randomness import known_secrets
from tests.surroundings import SURROUNDINGS, everything


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal, tensors and what holds them number by number."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
    if isinstance(one, torch.nn.Module):
        return same(one.state_dict(), other.state_dict())
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "inputs"):
        return same((one.inputs, one.targets), (other.inputs, other.targets))
    return bool(one == other)


@pytest.mark.parametrize("name", registry.names("distiller"))
def test_no_method_asks_what_the_caller_has_set(name: str) -> None:
    method, real = made_small(registry.resolve("distiller", name)()), toy_images((9, 10), size=6)
    options: dict[str, Any] = {"steps": 2 if method.steps else 0, "device": "cpu"}
    with known_secrets():
        plain = ddplug.distill(real, method, **options)
        with everything():
            found = ddplug.distill(real, method, **options)
    assert same(plain, found)


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_each_of_what_may_be_set(name: str) -> None:
    method = made_small(registry.resolve("distiller", "dm")())
    plain = ddplug.distill(IMAGES, method, steps=1, device="cpu")
    with SURROUNDINGS[name]():
        found = ddplug.distill(IMAGES, method, steps=1, device="cpu")
        accuracies = ddplug.evaluate(found, IMAGES, **OPTIONS).accuracies
    assert same(plain, found)
    assert accuracies == ddplug.evaluate(plain, IMAGES, **OPTIONS).accuracies


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_what_the_caller_has_set_is_put_back(name: str) -> None:
    def found() -> tuple[Any, ...]:
        modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
        return (*modes, torch.get_default_dtype(), torch.empty(0).device, np.geterr())

    with SURROUNDINGS[name]():
        before = found()
        with pytest.raises(ddplug.errors.OptionError):
            ddplug.distill(IMAGES, "no such method")
        assert found() == before


# -- every public function, on arguments made before --

NETWORK = "convnet:width=4,depth=1"
IMAGES = toy_images((6, 7), size=6)
WHITENED = data.from_arrays(IMAGES.inputs, IMAGES.targets, preprocess="zca")
OPTIONS: dict[str, Any] = {"network": NETWORK, "repeats": 1, "recipe": Recipe(epochs=1), "device": "cpu"}
FIVE = distillers.KMeans(images_per_class=5)
MADE = ddplug.distill(IMAGES, distillers.Random(images_per_class=2), device="cpu")
ZCA = ddplug.distill(WHITENED, distillers.Random(images_per_class=2), device="cpu")
LEARNED = ddplug.distill(IMAGES, distillers.DD(images_per_class=1, network=NETWORK, steps=1), device="cpu")


def rng() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(3)


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=rng())


FEATURES, OTHERS, GOALS = drawn(6, 3), drawn(5, 3), drawn(6, 2)
LABELS, X, SOFT = torch.arange(6) % 2, drawn(4, 1, 6, 6), drawn(4, 2).softmax(1)
WEIGHTS = networks.initial_parameters(NETWORK, IMAGES, rng())
MODULE = networks.stateless(NETWORK, (1, 6, 6), 2)
NET = networks.build(NETWORK, (1, 6, 6), 2, rng())
STATE = functional.adam_start({"x": X})
BOXES, RATES = torch.tensor([[0, 0, 4, 4]]).repeat(4, 1), torch.tensor([0.1, 0.2])


def loss(weights: Any, learned: Any, step: int) -> Any:
    return torch.nn.functional.cross_entropy(networks.forward(MODULE, weights, learned[0]), LABELS[:4])


CALLS: Mapping[str, Callable[[], Any]] = {
    "data.as_labeled": lambda: data.as_labeled(([X[0].tolist(), X[1].tolist()], ["a", "b"])),
    "data.fit_preprocess": lambda: data.fit_preprocess("zca", IMAGES.inputs).tensors(),
    "data.from_arrays": lambda: data.from_arrays(IMAGES.inputs, IMAGES.targets, preprocess="zca"),
    "data.from_dataset": lambda: data.from_dataset([(X[0], 0), (X[1], 1)]),
    "data.load_dataset": lambda: data.load_dataset("digits"),
    "data.LabeledData.batch": lambda: WHITENED.batch(LABELS),
    "data.LabeledData.draw": lambda: IMAGES.draw(0, 9, rng()),
    "data.LabeledData.split": lambda: IMAGES.split(0.5),
    "data.LabeledData.class_indices": lambda: LabeledData(**vars(fresh())).class_indices,
    "data.LabeledData.value_range": lambda: data.as_labeled((X, LABELS[:4])).value_range,
    "data.LabeledData.fingerprint": lambda: fresh().fingerprint,
    "distillation.distill": lambda: distillation.distill(WHITENED, FIVE, device="cpu"),
    "distillation.distill with bytes": lambda: distillation.distill(IMAGES, "random", nbytes=300, device="cpu"),
    "distillers.soft_labels": lambda: distillers.soft_labels(MADE, NET, device="cpu"),
    "distillers.solve_labels": lambda: distillers.solve_labels(MADE, IMAGES, network=NETWORK, networks=1, rng=rng()),
    "distillers.train_teacher": lambda: distillers.train_teacher(NETWORK, IMAGES, epochs=1, rng=rng()),
    "evaluation.accuracy": lambda: evaluation.accuracy(NET, IMAGES),
    "evaluation.compare": lambda: [
        row.evaluation.accuracies
        for row in evaluation.compare(MADE, IMAGES, IMAGES, baselines=["kmeans"], whole_steps=2, **OPTIONS).rows
    ],
    "evaluation.cross_architecture": lambda: [
        one.accuracies for one in evaluation.cross_architecture(MADE, IMAGES, [NETWORK], **without("network"))
    ],
    "evaluation.evaluate": lambda: evaluation.evaluate(ZCA, IMAGES, **OPTIONS).accuracies,
    "evaluation.evaluate_as_learned": lambda: evaluation.evaluate_as_learned(LEARNED, IMAGES, device="cpu").accuracies,
    "evaluation.train_as_learned": lambda: evaluation.train_as_learned(LEARNED, rng=rng(), device="cpu"),
    "evaluation.train_on": lambda: evaluation.train_on(MADE, rng=rng(), **OPTIONS),
    "functional.adam_start": lambda: functional.adam_start({"x": X}),
    "functional.adam_step": lambda: functional.adam_step(STATE, {"x": X}, 0.1),
    "functional.augment": lambda: functional.augment(X, "color_crop_cutout_flip_scale_rotate", rng()),
    "functional.best_labels": lambda: functional.best_labels([(OTHERS, GOALS[:5], FEATURES)]),
    "functional.best_span": lambda: functional.best_span(FEATURES.T.double(), 2),
    "functional.centered": lambda: functional.centered(LABELS, 2),
    "functional.centroids": lambda: functional.centroids(FEATURES, LABELS),
    "functional.characteristic_function": lambda: functional.characteristic_function(FEATURES, OTHERS),
    "functional.characteristic_matching": lambda: functional.characteristic_matching(GOALS, GOALS[:1] + GOALS),
    "functional.clusters": lambda: functional.clusters(FEATURES, 2, rng()),
    "functional.cutmix": lambda: functional.cutmix(X, SOFT, rng()),
    "functional.draw_boxes": lambda: functional.draw_boxes(3, (1, 6, 6), 0.2, rng()),
    "functional.enlarge": lambda: functional.enlarge(X, (1, 12, 12)),
    "functional.gaussian_delta": lambda: functional.gaussian_delta(1, 3),
    "functional.gaussian_sigma": lambda: functional.gaussian_sigma(1, 1e-3),
    "functional.gradient_matching": lambda: functional.gradient_matching({"a": FEATURES}, {"a": OTHERS[:1] + FEATURES}),
    "functional.mean_matching": lambda: functional.mean_matching(FEATURES, OTHERS[:1] + FEATURES),
    "functional.momentum_step": lambda: functional.momentum_step({"inputs": X, "velocity": X}, X, 0.1, 0.5),
    "functional.nearest_distribution": lambda: functional.nearest_distribution(FEATURES),
    "functional.nearest_rows": lambda: functional.nearest_rows(FEATURES, OTHERS),
    "functional.pack": lambda: functional.pack(IMAGES.inputs.flatten(1), 2),
    "functional.packed_bytes": lambda: functional.packed_bytes(9, 2),
    "functional.reduce": lambda: functional.reduce(X, 2),
    "functional.reduced_shape": lambda: functional.reduced_shape((1, 6, 6), 2),
    "functional.resample": lambda: functional.resample(X, BOXES, (3, 3)),
    "functional.ridge_predict": lambda: functional.ridge_predict(OTHERS, FEATURES, GOALS),
    "functional.unpack": lambda: functional.unpack(functional.pack(IMAGES.inputs.flatten(1), 2), 36, 2),
    "functional.unroll": lambda: functional.unroll(loss, WEIGHTS, [X], RATES),
    "networks.build": lambda: networks.build(NETWORK, (1, 6, 6), 2, rng()),
    "networks.embed": lambda: networks.embed(NET, X),
    "networks.forward": lambda: networks.forward(MODULE, WEIGHTS, X),
    "networks.has_batch_norm": lambda: networks.has_batch_norm(NET),
    "networks.initial_parameters": lambda: networks.initial_parameters(NETWORK, IMAGES, rng()),
    "networks.loss_gradient": lambda: networks.loss_gradient(MODULE, WEIGHTS, X, LABELS[:4]),
    "networks.minibatch_loss": lambda: networks.minibatch_loss(MODULE, {}, [LABELS])(WEIGHTS, [X, LABELS[:4]], 0),
    "networks.name_of": lambda: networks.name_of(NETWORK),
    "networks.sgd_step": lambda: networks.sgd_step(MODULE, WEIGHTS, X, LABELS[:4], 0.1),
    "networks.stateless": lambda: networks.stateless("mlp:width=3", (1, 6, 6), 2),
    "testing.toy_images": lambda: toy_images((3, 4), channels=3),
    "testing.toy_table": lambda: toy_table((3, 4)),
    "synthetic.SyntheticSet.codes": lambda: MADE.codes(),
    "synthetic.SyntheticSet.compress": lambda: MADE.compress("pixels:bits=2"),
    "synthetic.SyntheticSet.merge": lambda: MADE.merge(MADE),
    "synthetic.SyntheticSet.pixels": lambda: ZCA.pixels(),
    "synthetic.SyntheticSet.quantize": lambda: ZCA.quantize(),
    "synthetic.SyntheticSet.quantize to bits": lambda: MADE.reduced(2).quantize(bits=2),
    "synthetic.SyntheticSet.reduced": lambda: MADE.reduced(2).enlarged(),
    "synthetic.SyntheticSet.select": lambda: MADE.select([1]),
    "synthetic.holdout": lambda: synthetic.holdout(IMAGES),
    "synthetic.bytes_of": lambda: synthetic.bytes_of(3, IMAGES),
    "synthetic.difference": lambda: synthetic.difference(MADE, ZCA),
    "synthetic.images_within": lambda: synthetic.images_within(900, IMAGES),
    "synthetic.rows_within": lambda: synthetic.rows_within(900, IMAGES),
    "synthetic.same_space": lambda: synthetic.same_space(MADE, WHITENED, "test", torch.device("cpu")),
}

ELSEWHERE = {
    "data.from_image_folder",  # needs files, as do
    "distillers.train_experts",
    "distillation.config_of",  # no tensors, nor here
    "synthetic.privacy_statement",
    "synthetic.merge",  # joins shards, which are made without numbers
}


def fresh() -> LabeledData:
    """The data without what they remember."""
    return IMAGES.subset(torch.arange(len(IMAGES), device="cpu"))


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in OPTIONS.items() if key != name}


def test_every_public_function_is_called() -> None:
    faces = {
        "data": data,
        "distillation": distillation,
        "distillers": distillers,
        "evaluation": evaluation,
        "functional": functional,
        "networks": networks,
        "synthetic": synthetic,
    }
    public = {
        f"{face}.{name}"
        for face, module in faces.items()
        for name in module.__all__
        if isinstance(getattr(module, name), FunctionType)
    }
    assert public <= {*CALLS, *ELSEWHERE}


@pytest.mark.parametrize("name", CALLS)
def test_no_public_function_asks_what_the_caller_has_set(name: str) -> None:
    plain = CALLS[name]()
    with everything():
        found = CALLS[name]()
    assert same(plain, found)


def test_files_are_read_and_written(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        Image.fromarray(IMAGES.inputs[ord(folder) % 2, 0].numpy()).save(tmp_path / "images" / folder / "0.png")
    training = distillers.ExpertTraining(epochs=1, epoch_steps=1)
    with everything():
        ZCA.save(tmp_path / "made.safetensors")
        back = SyntheticSet.load(tmp_path / "made.safetensors")
        read = data.from_image_folder(tmp_path / "images")
        distillers.train_experts(IMAGES, tmp_path / "experts", NETWORK, training, number=1, device="cpu")
    assert same(back, ZCA)
    assert same(read, data.from_image_folder(tmp_path / "images"))


def test_tensors_of_inference_mode_are_learned_from() -> None:
    with torch.inference_mode():
        inputs = IMAGES.inputs.float() / 255
        real = data.from_arrays(inputs, IMAGES.targets + 0, preprocess="identity")
        made = SyntheticSet(inputs[:4] + 0, torch.arange(4) % 2, 2, Identity())
    ddplug.distill(real, distillers.DM(images_per_class=1, network=NETWORK, pool_size=1, batch_real=2, steps=1))
    assert ddplug.evaluate(made, real, **OPTIONS).n == 1
