"""The core type: what it refuses, what it counts, how it is cut, merged and rounded to bytes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader

import ddplug
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity, Preprocess, Standardize, Zca, fit
from ddplug.errors import DataError, FormatError, OptionError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images


def make(**changes: Any) -> SyntheticSet:
    fields: dict[str, Any] = {
        "inputs": torch.rand(6, 2, 4, 4, generator=torch.Generator().manual_seed(0)),
        "targets": torch.tensor([0, 0, 1, 1, 2, 2]),
        "num_classes": 3,
        "preprocess": Standardize(torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.125])),
        "provenance": {"method": "made"},
    }
    return SyntheticSet(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": torch.zeros(6)}, r"inputs have the shape \(6,\)"),
        ({"inputs": torch.zeros(6, 0)}, r"inputs have the shape \(6, 0\)"),
        ({"inputs": torch.zeros(0, 2), "targets": torch.zeros(0, dtype=torch.int64)}, r"shape \(0, 2\)"),
        ({"inputs": torch.zeros(6, 2).double()}, "inputs are torch.float64, not torch.float32"),
        ({"inputs": torch.zeros(5, 2)}, "5 inputs but 6 targets"),
        ({"inputs": torch.zeros(())}, r"inputs have the shape \(\)"),
        ({"targets": torch.tensor(0)}, "6 inputs but 0 targets"),
        ({"inputs": torch.full((6, 2), torch.inf)}, "it holds NaN or infinity"),
        ({"class_names": ("a", "b")}, "2 names, 3 classes"),
        ({"targets": torch.tensor([0, 0, 1, 1, 2, 3])}, r"a label is outside 0\.\.2"),
        ({"targets": torch.tensor([0, 0, 1, 1, 2, -1])}, r"a label is outside 0\.\.2"),
        ({"targets": torch.zeros(6, dtype=torch.int32)}, "targets are torch.int32"),
        ({"targets": torch.zeros(6, 2)}, "soft labels have 2 columns for 3 classes"),
        ({"targets": torch.full((6, 3), torch.nan)}, "it holds NaN or infinity"),
        ({"targets": torch.zeros(6, 3, 1)}, r"targets are torch.float32|targets have the shape \(6, 3, 1\)"),
        ({"levels": torch.zeros(2, 3)}, r"levels are torch.float32 \(2, 3\), not torch.float32 \(2, 2\)"),
        ({"levels": torch.zeros(2, 2).double()}, "levels are torch.float64"),
        ({"levels": torch.tensor([[0.0, 1.0], [1.0, 0.5]])}, "the lowest is above the highest"),
        ({"levels": torch.full((2, 2), torch.nan)}, "levels are not finite"),
        ({"network_shape": (2, 4, 3)}, r"inputs of the shape \(2, 4, 4\) cannot be enlarged to \(2, 4, 3\)"),
        ({"network_shape": (1, 8, 8)}, "cannot be enlarged"),
        ({"network_shape": (2, 4, 1000)}, "cannot be enlarged"),
        ({"network_shape": (32,)}, "cannot be enlarged"),
    ],
)
def test_refuses_fields_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("provenance", "fingerprint"),
    [
        ({"data": {"fingerprint": "ab"}}, "ab"),
        ({"data": "mnist"}, None),
        ({"data": {"fingerprint": 3}}, None),
        ({}, None),
    ],
)
def test_names_the_data_it_was_made_from(provenance: dict[str, Any], fingerprint: str | None) -> None:
    assert make(provenance=provenance).data_fingerprint == fingerprint


def test_is_a_torch_dataset() -> None:
    batches = list(DataLoader(make(), batch_size=4, generator=torch.Generator()))
    assert [tuple(inputs.shape) for inputs, _ in batches] == [(4, 2, 4, 4), (2, 2, 4, 4)]
    assert torch.equal(torch.cat([targets for _, targets in batches]), make().targets)
    assert make().class_names == ("0", "1", "2")
    assert make().shape == (2, 4, 4)


def test_hard_targets_of_soft_labels() -> None:
    soft = make(targets=torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]).repeat(3, 1))
    assert soft.hard_targets.tolist() == [1, 0, 1, 0, 1, 0]


def test_pixels_undo_the_preprocessing() -> None:
    made = make()
    expected = made.inputs.double() * torch.tensor([0.5, 0.125]).view(1, 2, 1, 1) + torch.tensor([0.25, 0.5]).view(
        1, 2, 1, 1
    )
    torch.testing.assert_close(made.pixels().double(), expected, rtol=0, atol=1e-7)


def test_select_keeps_labels_and_names() -> None:
    part = make(class_names=("a", "b", "c")).select([2, 0])
    assert part.targets.tolist() == [0, 0, 2, 2]
    assert part.class_names == ("a", "b", "c")
    with pytest.raises(OptionError, match=r"label 3 is outside 0\.\.2"):
        make().select([3])
    with pytest.raises(OptionError, match=r"no sample of the classes \[1\]"):
        make().select([0]).select([1])


def test_merge_appends_and_stays_flat() -> None:
    merged = make()
    for number in range(200):
        merged = merged.merge(make(provenance={"number": number}))
    assert len(merged) == 201 * 6
    assert torch.equal(merged.inputs[:6], merged.inputs[-6:])
    assert merged.provenance["merged"][:2] == [{"method": "made"}, {"number": 0}]
    assert len(merged.provenance["merged"]) == 201


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"inputs": torch.zeros(6, 2, 3, 3)}, r"differ in shape: \(2, 4, 4\) and \(2, 3, 3\)"),
        ({"num_classes": 4}, "differ in number of classes: 3 and 4"),
        ({"targets": torch.full((6, 3), 1 / 3)}, "differ in labels: hard and soft"),
        ({"preprocess": Identity()}, "differ in preprocessing: standardize and identity"),
        ({"preprocess": Standardize(torch.zeros(2), torch.ones(2))}, "differ in the mean of their preprocessing"),
    ],
)
def test_merge_refuses_what_does_not_fit(other: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make().merge(make(**other))


def test_merge_of_quantized_sets_keeps_equal_levels_only() -> None:
    a = make().quantize()
    assert a.merge(a).levels is not None
    b = make(inputs=make().inputs * 30).quantize()
    merged = a.merge(b)
    assert merged.levels is None
    assert torch.equal(merged.inputs, torch.cat([a.inputs, b.inputs]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must lie between 1 and 1000000000"),
        ({"epochs": 10**12}, "epochs is 1000000000000"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1; it must lie between 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"momentum": float("inf")}, "momentum is inf"),
        ({"schedule": "linear"}, "schedule is 'linear'; it must be step, cosine, cycle or constant"),
    ],
)
def test_recipe_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Recipe(**values)
    with pytest.raises(FormatError, match=message):
        Recipe.from_json(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"teacher": 1}, "unknown recipe field 'teacher'; this version reads epochs"),
        ({"epochs": 1.5}, "recipe field 'epochs' is 1.5, not a short int"),
        ({"epochs": True}, "recipe field 'epochs' is True"),
        ({"augment": None}, "recipe field 'augment' is None, not a short str"),
        ({"augment": "crop_" * 100}, r"recipe field 'augment' is 'crop_.*\.\.\.'?.*, not a short str"),
        ({"learning_rate": "0.1"}, "recipe field 'learning_rate' is '0.1'"),
    ],
)
def test_recipe_fields_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Recipe.from_json(values)


def test_recipe_round_trip() -> None:
    recipe = Recipe(7, 1e-3, 0.5, 0.0, 3, "cosine", "flip")
    assert Recipe.from_json(recipe.to_json()) == recipe


def stored_bytes(made: SyntheticSet) -> int:
    """Count what the file format keeps, by hand: 1 byte a code or hard label of few classes, 2 a rounded soft label and
    class, 4 for anything else."""
    soft = (2 if made.half_labels else 4) * made.num_classes
    label = soft if made.targets.ndim == 2 else (1 if made.num_classes <= 256 else 4)
    numbers = int(np.prod(made.inputs.shape))
    return numbers * (4 if made.levels is None else 1) + 6 * label + (0 if made.levels is None else 8 * made.shape[0])


@pytest.mark.parametrize(("classes", "soft"), [(3, False), (256, False), (257, False), (300, True)])
def test_nbytes(classes: int, soft: bool) -> None:
    targets = torch.full((6, classes), 1 / classes) if soft else make().targets
    made = make(num_classes=classes, targets=targets)
    for each in (made, made.quantize()):
        assert each.nbytes == stored_bytes(each)


def quantized(codes: torch.Tensor, levels: torch.Tensor, preprocess: Preprocess) -> SyntheticSet:
    blank = SyntheticSet(torch.zeros(codes.shape), torch.zeros(len(codes), dtype=torch.int64), 1, preprocess)
    coded = dataclasses.replace(blank, levels=levels)
    return dataclasses.replace(coded, inputs=coded.decode(codes))


LEVELS = [(0.0, 1.0), (-1.7, 3.3), (0.3, 0.3), (-1e-4, 1e-4), (1000.0, 1001.0), (-0.1, 1.0)]


@pytest.mark.parametrize("mean_std", [(0.0, 1.0), (0.1307, 0.3081), (0.4914, 0.2023), (-0.5, 1e-3), (0.5, 300.0)])
def test_every_code_is_stable(mean_std: tuple[float, float]) -> None:
    levels = torch.tensor(LEVELS).T.contiguous()
    codes = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, len(LEVELS), 1, 1).clone()
    codes[:, LEVELS.index((0.3, 0.3))] = 0
    preprocess = Standardize(*(torch.full((len(LEVELS),), value) for value in mean_std))
    made = quantized(codes, levels, preprocess)
    assert torch.equal(made.codes(), codes)
    assert torch.equal(made.decode(made.codes()), made.inputs)
    expected = levels[0].double() + codes.flatten(1).double() / 255 * (levels[1].double() - levels[0].double())
    mean, std = mean_std
    bound = 4e-7 * float(expected.abs().max() + abs(mean)) / std
    torch.testing.assert_close(made.inputs.flatten(1).double(), (expected - mean) / std, rtol=1e-6, atol=bound)


floats = st.floats(-3, 4, width=32)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(floats, min_size=12, max_size=12),
    mean=st.floats(-1, 1),
    std=st.floats(0.01, 10),
    image=st.booleans(),
)
def test_quantize_moves_no_pixel_by_more_than_half_a_level(
    values: list[float], mean: float, std: float, image: bool
) -> None:
    shape = (2, 2, 1, 3) if image else (6, 2)
    preprocess = Standardize(torch.full((2,), mean), torch.full((2,), std))
    pixels = torch.tensor(values).view(shape)
    made = SyntheticSet(preprocess.forward(pixels), torch.zeros(shape[0], dtype=torch.int64), 1, preprocess)
    rounded = made.quantize()
    exact = [
        (each.inputs.double() * preprocess.std[0].double() + preprocess.mean[0].double()).numpy()
        for each in (made, rounded)
    ]
    axes = (0, 2, 3) if image else (0,)
    low, high = exact[0].min(axes), exact[0].max(axes)
    if image:
        low, high = np.minimum(low, 0), np.maximum(high, 1)
    half = ((high - low) / 255 / 2).reshape(1, 2, *[1] * (len(shape) - 2))
    assert (np.abs(exact[1] - exact[0]) <= half * (1 + 1e-4) + 1e-5 * max(std, 1) * 0.2).all()
    rmse = float((rounded.inputs - made.inputs).double().square().mean().sqrt())
    assert rounded.provenance["quantisation_rmse"] == pytest.approx(rmse, rel=1e-4, abs=1e-12)
    assert torch.equal(rounded.decode(rounded.codes()), rounded.inputs)
    twice = rounded.quantize()
    assert torch.equal(twice.inputs, rounded.inputs)
    assert twice.levels is not None and rounded.levels is not None and torch.equal(twice.levels, rounded.levels)


def digits(kind: str) -> LabeledData:
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16 * 255).round().to(torch.uint8).view(-1, 1, 8, 8)
    names = tuple(map(str, range(10)))
    return LabeledData(inputs, torch.tensor(labels), 10, fit(kind, inputs), names, "digits")


@pytest.mark.parametrize("kind", ["identity", "standardize"])
def test_real_bytes_come_back_bit_for_bit(kind: str) -> None:
    data = digits(kind)
    index = torch.arange(0, 1797, 7)
    made = SyntheticSet(data.batch(index), data.targets[index], 10, data.preprocess).quantize()
    assert torch.equal(made.inputs, data.batch(index))
    assert torch.equal(made.codes(), data.inputs[index])
    assert made.levels is not None and made.levels.tolist() == [[0.0], [1.0]]
    assert made.provenance["quantisation_rmse"] == 0


def test_zca_codes_are_stable_whatever_is_decoded_together() -> None:
    data = digits("zca")
    index = torch.arange(0, 1797, 9)
    made = SyntheticSet(data.batch(index), data.targets[index], 10, data.preprocess).quantize()
    assert torch.equal(made.codes(), data.inputs[index])
    assert isinstance(data.preprocess, Zca)
    centered = data.inputs[index].flatten(1).double() / 255 - data.preprocess.mean.double()
    expected = (centered @ data.preprocess.matrix.double()).view_as(made.inputs)
    torch.testing.assert_close(made.inputs.double(), expected, rtol=0, atol=2e-6)
    for part in (made.select([3]), made.select([0, 9]), made.merge(made)):
        assert torch.equal(part.decode(part.codes()), part.inputs)
    codes = made.codes()
    assert torch.equal(torch.cat([made.decode(one) for one in codes.split(1)]), made.inputs)


def test_preprocessing_that_cannot_be_undone_is_refused_rather_than_stored_wrongly() -> None:
    broken = Zca(torch.zeros(8), torch.eye(8), 2 * torch.eye(8))
    made = SyntheticSet(torch.rand(3, 2, 2, 2, generator=torch.Generator()), torch.tensor([0, 0, 0]), 1, broken)
    with pytest.raises(OptionError, match="too ill-conditioned for uint8 storage; keep float32"):
        made.quantize()


def test_quantize_rounds_soft_labels_to_float16() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)) * 6
    made = make(targets=logits.softmax(1))
    rounded = made.quantize()
    exact = np.float16(made.targets.numpy()).astype(np.float64)
    assert rounded.half_labels and np.array_equal(rounded.targets.double().numpy(), exact)
    error = np.abs(exact - made.targets.double().numpy())
    assert rounded.provenance["label_error"] == pytest.approx(error.max(), rel=1e-6) and 0 < error.max() <= 1 / 4096
    assert (error <= np.maximum(exact * 2.0**-11, 2.0**-25)).all()
    assert made.nbytes - made.targets.numel() * 4 == 4 * (rounded.nbytes - rounded.targets.numel() * 2 - 16)
    again = rounded.quantize()
    assert torch.equal(again.targets, rounded.targets) and again.provenance == rounded.provenance
    assert not rounded.quantize("float32").half_labels
    # inputs that are bytes already do not keep the labels from being rounded
    stored = dataclasses.replace(make().quantize(), targets=made.targets).quantize()
    assert stored.half_labels and torch.equal(stored.targets, rounded.targets)
    assert not make().quantize().half_labels


def test_half_labels_must_be_soft_and_of_that_precision() -> None:
    soft = torch.full((6, 3), 1 / 3)
    for targets in (soft, torch.tensor([0, 0, 1, 1, 2, 2])):
        with pytest.raises(DataError, match="stored as float16, but are not soft labels of that precision"):
            make(targets=targets, half_labels=True)


def test_merge_keeps_float16_labels_only_where_both_have_them() -> None:
    soft = make(targets=torch.full((6, 3), 1 / 3))
    assert soft.quantize().merge(soft.quantize()).half_labels
    mixed = soft.quantize().merge(soft)
    assert not mixed.half_labels and torch.equal(mixed.targets[6:], soft.targets)
    assert soft.quantize().select([0]).half_labels


def test_quantize_to_float32_and_wrong_types() -> None:
    rounded = make().quantize()
    assert rounded.quantize("float32").levels is None
    assert torch.equal(rounded.quantize("float32").inputs, rounded.inputs)
    with pytest.raises(OptionError, match="dtype is 'int4'; it must be uint8 or float32"):
        make().quantize("int4")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"stored as float32; call quantize\(\) first"):
        make().codes()


def test_a_notebook_shows_a_line() -> None:
    real = toy_images((500, 500))
    made = ddplug.distill(real, "random", images_per_class=3, device="cpu")
    soft = dataclasses.replace(made, targets=torch.eye(2)[made.targets], provenance={})
    assert repr(real) == "LabeledData('toy-images': 1000 x (1, 8, 8) uint8, 2 classes, standardize)"
    assert repr(made) == "SyntheticSet(6 x (1, 8, 8), 2 classes, hard labels, 398 bytes, by 'random')"
    assert repr(soft).startswith("SyntheticSet(6 x (1, 8, 8), 2 classes, soft labels, ")


def test_what_is_no_set_no_label_or_no_device_is_one_line() -> None:
    made = make()
    for labels, message in (
        (0, r"labels is 0; give a list of labels"),
        ("ant", r"labels is 'ant'; give a list"),
        (["ant"], r"a label is 'ant'; it must be a whole number"),
        ([True, False], r"a label is True; it must be a whole number"),  # no mask
    ):
        with pytest.raises(OptionError, match=message):
            made.select(labels)  # type: ignore[arg-type]
    for other in ([made], "made.safetensors", toy_images()):
        with pytest.raises(DataError, match=rf"a {type(other).__name__} is no set to merge with; give one, as of"):
            made.merge(other)  # type: ignore[arg-type]
    things: list[Any] = [made, toy_images()]
    for thing in things:
        with pytest.raises(OptionError, match="unknown device 'cudaa'; use auto, cpu, cuda, cuda:N or mps"):
            thing.to("cudaa")
        with pytest.raises(OptionError, match=r"device 'cuda:99' is not available: .*; use auto or cpu"):
            thing.to("cuda:99")
        assert thing.to("auto").to("cpu").shape == thing.shape  # as it says
    fields: dict[str, Any] = {"inputs": made.inputs.numpy(), "targets": made.targets.tolist()}
    for name, value in fields.items():
        with pytest.raises(DataError, match=rf"{name} are a \w+, not a tensor; give torch.as_tensor\({name}\)"):
            dataclasses.replace(made, **{name: value})
        changed: dict[str, Any] = {name: torch.as_tensor(value)}
        assert len(dataclasses.replace(made, **changed)) == len(made)
