"""Labeled data: what they promise, where they come from, and every way in which they can be unfit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from ddplug.data.labeled import LabeledData
from ddplug.data.loaders import from_arrays, from_dataset
from ddplug.data.preprocess import fit
from ddplug.errors import DataError, OptionError
from ddplug.utils.notes import Note


class Items(Dataset[tuple[Any, Any]]):
    """A dataset of whatever it is given; an exception among the items is raised."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return self.items[index]


def random_images(count: int, shape: tuple[int, ...] = (3, 4, 5), seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


@st.composite
def labels(draw: st.DrawFn, least: int = 1) -> list[int]:
    """Labels with every class present at least a number of times, in any order."""
    counts = draw(st.lists(st.integers(least, 6), min_size=2, max_size=5))
    flat = [label for label, count in enumerate(counts) for _ in range(count)]
    return draw(st.permutations(flat))


def numbered(targets: list[int]) -> LabeledData:
    """Rows that hold their own position."""
    return from_arrays(torch.arange(float(len(targets)))[:, None], targets, preprocess="identity")


@given(labels())
def test_class_indices_are_the_positions_of_each_class(targets: list[int]) -> None:
    data = numbered(targets)
    expected = [[i for i, t in enumerate(targets) if t == label] for label in range(data.num_classes)]
    assert [members.tolist() for members in data.class_indices] == expected


@settings(deadline=None)
@given(labels(), st.integers(1, 20), st.integers(0, 2**31))
def test_draw_goes_round_the_class_evenly(targets: list[int], n: int, seed: int) -> None:
    data = numbered(targets)
    for label in range(data.num_classes):
        drawn = data.draw(label, n, torch.Generator().manual_seed(seed)).tolist()
        assert len(drawn) == n
        assert {targets[i] for i in drawn} == {label}
        times = [drawn.count(i) for i in data.class_indices[label].tolist()]
        assert max(times) - min(times) <= 1
        assert drawn == data.draw(label, n, torch.Generator().manual_seed(seed)).tolist()


def test_draw_favors_no_sample() -> None:
    data = numbered([0, 0, 0, 0, 1])
    rng = torch.Generator().manual_seed(0)
    counts = torch.bincount(torch.cat([data.draw(0, 1, rng) for _ in range(4000)]))
    # four equally likely outcomes: standard deviation 27
    assert (counts - 1000).abs().max() < 5 * 27.4


@settings(deadline=None)
@given(labels(least=2), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_split_is_stratified_disjoint_complete_and_repeatable(targets: list[int], fraction: float, seed: int) -> None:
    data = numbered(targets)
    train, held = data.split(fraction, seed)
    rows = [part.inputs[:, 0].int().tolist() for part in (train, held)]
    assert sorted(rows[0] + rows[1]) == list(range(len(targets)))
    assert all(part == sorted(part) for part in rows)
    for part, positions in zip((train, held), rows, strict=True):
        assert part.targets.tolist() == [targets[i] for i in positions]
    for label, members in enumerate(data.class_indices):
        share = (held.targets == label).sum().item()
        assert 1 <= share <= len(members) - 1
        assert abs(share - fraction * len(members)) <= 1
    again = data.split(fraction, seed)
    assert [part.fingerprint for part in again] == [train.fingerprint, held.fingerprint]


def test_split_differs_between_seeds(digits: LabeledData) -> None:
    assert digits.split(0.3, 0)[1].fingerprint != digits.split(0.3, 1)[1].fingerprint


def test_split_refuses() -> None:
    with pytest.raises(OptionError, match=r"fraction is 1\.0; it must lie between"):
        numbered([0, 0, 1, 1]).split(1.0)
    with pytest.raises(DataError, match=r"class '1' has 1 sample\(s\); a split needs at least 2"):
        numbered([0, 0, 1]).split(0.5)


@pytest.mark.parametrize(
    "index",
    [[2, 0], (2, 0), range(2, -1, -2), np.array([2, 0]), np.array([2, 0], dtype=np.uint8), torch.tensor([2, 0])],
    ids=lambda index: type(index).__name__,
)
def test_a_subset_is_told_by_positions_of_any_kind(index: Any) -> None:
    part = numbered([0, 0, 1]).subset(index)
    assert part.targets.tolist() == [1, 0]
    assert torch.equal(part.inputs, numbered([0, 0, 1]).inputs[[2, 0]])


def test_a_subset_is_told_by_truths() -> None:
    data = numbered([0, 2, 1, 2])
    kinds: list[Any] = [data.targets == 2, [False, True, False, True], np.array([False, True, False, True])]
    for truths in kinds:
        assert torch.equal(data.subset(truths).inputs, data.inputs[[1, 3]])
    assert len(data.subset([])) == 0


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([0, 3], r"position 3 is outside 0\.\.2"),
        ([-1], r"position -1 is outside 0\.\.2"),
        (1, "the shape \\(\\) and the type torch.int64; give positions"),
        ([0.5], "the type torch.float32; give positions"),
        ([True, False], "or a truth for each of the 3"),
        ([[0, 1]], "the shape \\(1, 2\\)"),
        ("first", "index is 'first'; give positions of samples"),
        (None, "index is None; give positions"),
    ],
)
def test_what_tells_no_subset_is_refused(index: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        numbered([0, 0, 1]).subset(index)


def test_drawing_from_a_class_that_a_subset_lost_is_refused() -> None:
    part = numbered([0, 0, 1]).subset(torch.tensor([0, 1]))
    with pytest.raises(DataError, match="class '1' has no sample to draw"):
        part.draw(1, 1, torch.Generator())


def test_fingerprint_sees_every_part_and_nothing_else() -> None:
    images, targets = random_images(6), torch.tensor([0, 1, 2, 0, 1, 2])
    variants = [from_arrays(images, targets, preprocess=kind) for kind in ("identity", "standardize", "zca")]
    for position in (0, 5):
        changed = images.clone()
        changed[position, 0, 0, 0] ^= 1
        variants.append(from_arrays(changed, targets, preprocess="identity"))
    variants.append(from_arrays(images, targets.flip(0), preprocess="identity"))
    variants.append(from_arrays(images.view(6, 3, 5, 4), targets, preprocess="identity"))
    variants.append(from_arrays(images.float(), targets, preprocess="identity"))
    prints = [data.fingerprint for data in variants]
    assert len(set(prints)) == len(prints)
    same = from_arrays(images.numpy().copy(), targets.tolist(), preprocess="identity", name="other")
    assert same.fingerprint == prints[0]


def test_uint8_and_float_data_give_the_same_batches() -> None:
    images, targets = random_images(40), torch.arange(40) % 4
    as_bytes = from_arrays(images, targets)
    as_floats = from_arrays(images.float() / 255, targets, preprocess=as_bytes.preprocess)
    rng = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert as_bytes.inputs.dtype == torch.uint8
    assert as_floats.inputs.dtype == torch.float32
    assert torch.equal(as_bytes.sample(2, 8, rng[0]), as_floats.sample(2, 8, rng[1]))


def test_batch_is_standardised_pixels() -> None:
    images, targets = random_images(20), torch.arange(20) % 2
    pixels = images.numpy().astype(np.float64) / 255
    expected = (pixels - pixels.mean((0, 2, 3), keepdims=True)) / pixels.std((0, 2, 3), keepdims=True)
    index = torch.tensor([7, 0, 7])
    np.testing.assert_allclose(from_arrays(images, targets).batch(index).numpy(), expected[[7, 0, 7]], atol=1e-5)


def test_from_arrays_takes_numpy_and_fills_in_the_rest() -> None:
    data = from_arrays(np.asfortranarray(np.eye(4)), np.array([0, 1, 0, 1], dtype=np.uint16))
    assert (data.inputs.dtype, data.targets.dtype) == (torch.float32, torch.int64)
    assert data.inputs.is_contiguous()
    assert (data.class_names, data.augmentation, data.name) == (("0", "1"), "", "arrays")
    read_only = random_images(2).numpy()
    read_only.flags.writeable = False
    image = from_arrays(read_only, [0, 1], class_names=["cat", "dog"])
    assert image.augmentation == "color_crop_cutout_flip_scale_rotate"
    assert image.class_names == ("cat", "dog")
    assert from_arrays(read_only, [0, 1], augmentation="crop").augmentation == "crop"


NAN = torch.ones(5, 2)
NAN[3, 1] = torch.nan

BAD_ARRAYS = {
    "empty": (torch.ones(0, 2), [], None, r"the inputs have the shape \(0, 2\)"),
    "flat": (torch.ones(3), [0, 1, 1], None, r"the inputs have the shape \(3,\)"),
    "lengths": (torch.ones(3, 2), [0, 1], None, "3 inputs but 2 labels"),
    "ragged": ([np.ones((1, 2)), np.ones((1, 3))], [0, 1], None, "the inputs differ in shape"),
    "integers": (torch.ones(2, 2, dtype=torch.int64), [0, 1], None, r"the inputs are torch\.int64; give uint8"),
    "text": (np.array([["a"], ["b"]]), [0, 1], None, "the inputs are <U1"),
    "float labels": (torch.ones(2, 2), [0.0, 1.5], None, "the labels are float64; give integers"),
    "one-hot": (torch.ones(2, 2), torch.eye(2).long(), None, r"the labels have the shape \(2, 2\)"),
    "negative": (torch.ones(2, 2), [0, -1], None, "label -1 is negative"),
    "the last dimension": (
        torch.ones(3, 4, 2),
        [0, 1],
        None,
        r"3 inputs but 2 labels; .*np\.moveaxis\(inputs",
    ),
    "a row of labels": (torch.ones(2, 2), [[0, 1]], None, r"the labels have the shape \(1, 2\); .*give labels\[0\]"),
    "a NaN for a label": (torch.ones(2, 2), [0.0, np.nan], None, "the labels are float64 with NaN; .*drop the samples"),
    "no text": (torch.ones(2, 2), ["a", None], None, ", sample 1: the label is None"),
    "NaN among texts": (torch.ones(2, 2), ["a", np.nan], None, ", sample 1: the label is nan"),
    "texts and numbers": (torch.ones(2, 2), ["a", 1], None, "1 of 2 labels are texts"),
    "an empty text": (torch.ones(2, 2), ["a", " "], None, "1 samples have an empty text for a label"),
    "huge labels": (torch.ones(2, 2), np.array([2**63, 0], np.uint64), None, "the labels do not fit 64 bits"),
    "sparse of scipy": (csr_matrix(np.eye(2)), [0, 1], None, r".*not one csr_matrix \(inputs.toarray\(\)\)"),
    "masked": (np.ma.masked_equal(np.eye(2), 0), [0, 1], None, "the inputs hold 2 masked values"),
    "masked labels": (np.eye(2), np.ma.masked_equal([0, 1], 1), None, "the labels hold 1 masked values"),
    "meta": (torch.ones(2, 2, device="meta"), [0, 1], None, "the inputs are on the device 'meta'"),
    "meta labels": (np.eye(2), torch.ones(2, device="meta"), None, "the labels are on the device 'meta'"),
    "a set of names": (torch.ones(2, 2), [0, 1], {"a", "b"}, "class_names is a set, which has no order"),
    "no name": (torch.ones(2, 2), [0, 1], ["a", None], "a class name is None; give each class a name"),
    "one class": (torch.ones(2, 2), [0, 0], None, "every sample has label 0; at least 2"),
    "mixed labels": (torch.ones(2, 2), np.array(["a", 1], dtype=object), None, "1 of 2 labels are texts"),
    "no label": (torch.ones(2, 2), np.array(["a", None], dtype=object), None, ", sample 1: the label is None"),
    "a text for names": (torch.ones(2, 2), [0, 1], "ab", "class_names is 'ab'; give one name per class"),
    "unknown text": (torch.ones(2, 2), ["a", "c"], ["a", "b"], "label c is beyond the 2 class names; name"),
    "int64 pixels": (torch.ones(2, 2).long().numpy(), [0, 1], None, r"the inputs are int64; give uint8 .* \(\.astype"),
    "named": (torch.ones(2, 2), [0, 2], ["a", "b", "c"], r"no sample has label 1 \(b\)"),
    "beyond": (torch.ones(2, 2), [0, 2], ["a", "b"], r"label 2 is beyond the 2 class names \(0\.\.1\)"),
    "nan": (NAN, [0, 1, 0, 1, 0], None, "sample 3 holds NaN or infinity"),
    "overflow": (np.array([[1.0], [1e300]]), [0, 1], None, "sample 1 holds NaN or infinity"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_one_clear_line(case: str) -> None:
    inputs, targets, names, message = BAD_ARRAYS[case]
    with pytest.raises(DataError, match=f"^mine:? ?{message}|^mine{message}") as caught:
        from_arrays(inputs, targets, class_names=names, name="mine")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused_as_lists_of_several_shapes_are() -> None:
    rows = [torch.zeros(3), torch.ones(4)]
    for inputs in (rows, torch.nested.nested_tensor(rows)):
        with pytest.raises(DataError, match="arrays: the inputs differ in shape; give all of them one shape"):
            from_arrays(inputs, [0, 1])


def test_series_with_the_channels_last_are_noted() -> None:
    series = np.random.default_rng(0).random((4, 64, 3))
    with pytest.warns(Note, match=r"as series of 64 channels and 3 steps; .* give inputs\.transpose\(0, 2, 1\)"):
        assert from_arrays(series, [0, 1, 0, 1]).shape == (64, 3)
    assert from_arrays(series.transpose(0, 2, 1), [0, 1, 0, 1]).shape == (3, 64)


@pytest.mark.parametrize("first", [2**24, 1_700_000_000, -(2**31)])
def test_numbers_beyond_the_digits_of_float32_are_told_of(first: int) -> None:
    table = np.stack([first + np.arange(4.0) * np.sign(first), np.arange(4.0)], 1)
    with pytest.warns(Note, match=r"arrays: there are numbers up to .*; subtract a first value, as of times"):
        from_arrays(table, [0, 1, 0, 1])
    told = table - [first, 0]
    assert torch.equal(from_arrays(told, [0, 1, 0, 1]).inputs, torch.tensor(told, dtype=torch.float32))


def test_bytes_that_are_0_or_1_are_told_of() -> None:
    pixels = np.random.default_rng(0).integers(0, 2, (4, 6, 6), dtype=np.uint8)
    with pytest.warns(Note, match="the brightest byte is 1, .* multiply them by 255"):
        from_arrays(pixels, [0, 1, 0, 1])
    assert int(from_arrays(pixels * 255, [0, 1, 0, 1]).inputs.max()) == 255


def test_whole_numbers_of_a_table_are_never_to_become_bytes() -> None:
    rows = np.arange(8).reshape(4, 2)
    for values, advice in ((rows, r"\(\.astype\('float32'\)\)"), (torch.from_numpy(rows), r"\(\.float\(\)\)")):
        with pytest.raises(DataError, match=advice):
            from_arrays(values, [0, 1, 0, 1])
    assert from_arrays(rows.astype("float32"), [0, 1, 0, 1]).shape == (2,)


@pytest.mark.parametrize("make", [from_arrays, lambda x, y: from_dataset(list(zip(x, y, strict=True)))])
def test_squares_that_are_read_as_series_are_noted(make: Callable[[Any, Any], LabeledData]) -> None:
    squares = np.random.default_rng(0).random((4, 28, 28))
    with pytest.warns(Note, match=r"shape \(28, 28\) are read as series of 28 channels; .* as by inputs\[:, None\]"):
        assert make(squares, [0, 1, 0, 1]).shape == (28, 28)
    assert make(squares[:, None], [0, 1, 0, 1]).shape == (1, 28, 28)
    assert make(squares[:, :3], [0, 1, 0, 1]).shape == (3, 28)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 255], [3, 4]]),
        np.array([[0, 256], [3, 4]]),
        np.array([[-1, 5], [3, 4]], np.int8),
        np.eye(2) > 0,
        np.array([[0.5, 1], [2, 3]], dtype=object),
        torch.tensor([[0, 255], [3, 4]]),
        torch.tensor([[0, 256], [3, 4]]),
        torch.eye(2) > 0,
    ],
)
def test_what_a_refused_array_becomes_as_it_is_told_keeps_its_numbers(values: Any) -> None:
    with pytest.raises(DataError, match=r"\(\.\w+\(.*\)\)$") as caught:
        from_arrays(values, [0, 1])
    advice = str(caught.value).rsplit("numbers (", 1)[1][:-1]
    found = from_arrays(eval(f"values{advice}", {"values": values, "torch": torch}), [0, 1])
    assert found.inputs.tolist() == values.tolist()


def test_a_nan_in_a_later_piece_is_found_at_its_position() -> None:
    inputs = torch.zeros(40, 1 << 16)
    inputs[37, 5] = torch.inf
    with pytest.raises(DataError, match="sample 37 holds"):
        from_arrays(inputs, torch.arange(40) % 2)


def test_a_preprocessing_of_another_shape_is_refused() -> None:
    other = fit("standardize", torch.rand(4, 2, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(DataError, match=r"fitted on inputs of another shape than \(3, 4, 5\)"):
        from_arrays(random_images(2), [0, 1], preprocess=other)


def test_from_dataset_keeps_tensors_and_takes_any_integer_label() -> None:
    images = random_images(4)
    kinds: list[Any] = [1, np.int64(0), torch.tensor(1), torch.tensor(0, dtype=torch.uint8)]
    data = from_dataset(Items(list(zip(images, kinds, strict=True))), name="mine")
    assert torch.equal(data.inputs, images)
    assert data.targets.tolist() == [1, 0, 1, 0]
    assert data.fingerprint == from_arrays(images, [1, 0, 1, 0]).fingerprint
    doubles = from_dataset(TensorDataset(images.double(), torch.tensor([0, 1, 0, 1])))
    assert torch.equal(doubles.inputs, images.float())
    assert len(from_dataset(Subset(Items(list(zip(images, kinds, strict=True))), [3, 0]))) == 2


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3)]
)
def test_pil_images_become_bytes(mode: str, channels: int) -> None:
    pixels = random_images(2, (6, 7, 3)).numpy()
    images = [Image.fromarray(p).convert(mode) for p in pixels]
    data = from_dataset(Items([(image, label) for label, image in enumerate(images)]))
    assert data.shape == (channels, 6, 7)
    expected = np.array(images[1].convert("L" if channels == 1 else "RGB")).reshape(6, 7, channels)
    assert np.array_equal(data.inputs[1].permute(1, 2, 0).numpy(), expected)


GOOD = (torch.zeros(1, 2, 2), 0)
OTHER = (torch.zeros(1, 2, 2), 1)

BAD_ITEMS: dict[str, tuple[list[Any], str]] = {
    "empty": ([], "it has 0 samples"),
    "raises": ([GOOD, OTHER, KeyError("gone")], "item 2 cannot be read: KeyError: 'gone'"),
    "runs out": ([GOOD, IndexError("list index")], "item 1 cannot be read: IndexError: list index"),
    "no pair": ([GOOD, (torch.zeros(1),)], "item 1 has 1 parts; give \\(input, label\\) pairs"),
    "shape": ([GOOD, (torch.zeros(1, 2, 3), 1)], r"item 1 is torch\.float32 of the shape \(1, 2, 3\), but item 0"),
    "dtype": ([GOOD, (torch.zeros(1, 2, 2).byte(), 1)], r"item 1 is torch\.uint8 of the shape"),
    "text": ([GOOD, ("text", 1)], "item 1: the inputs are <U4"),
    "depth": ([(Image.new("I;16", (2, 2)), 0)], "item 0 cannot be read: DataError: an image of the mode I;16"),
    "float label": ([GOOD, (torch.zeros(1, 2, 2), 0.5)], r"item 1: the label is 0\.5; it must be an integer"),
    "text label": ([GOOD, (torch.zeros(1, 2, 2), "cat")], "1 of 2 labels are texts and the others integers"),
    "nan": ([GOOD, (torch.full((1, 2, 2), torch.nan), 1)], "item 1 holds NaN or infinity"),
    "one class": ([GOOD, GOOD], "every sample has label 0"),
    "a set of labels": ([GOOD, (torch.zeros(1, 2, 2), [1, 0])], r"item 1: the label has the shape \(2,\)"),
    "no item": ([GOOD, 3], "item 1 is a int; give"),
    "dictionary": (
        [{"picture": 1, "label": 0}],
        r"item 0 is a dictionary \(dict\) of 'picture', 'label', with none",
    ),
    "two labels": ([{"image": 1, "label": 0, "target": 0}], "item 0 is a dictionary .*, with label and target; give"),
}


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("case", BAD_ITEMS)
def test_bad_items_are_one_clear_line_and_leave_no_cache(case: str, cached: bool, tmp_path: Path) -> None:
    items, message = BAD_ITEMS[case]
    with pytest.raises(DataError, match=f"^mine[:,] {message}") as caught:
        from_dataset(Items(items), name="mine", cache=tmp_path / "cache" if cached else None)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.*"))


class Endless(IterableDataset[int]):
    def __iter__(self) -> itertools.count[int]:
        return itertools.count()


def test_a_dataset_without_items_by_number_is_refused() -> None:
    with pytest.raises(DataError, match="stream: Endless has no items by number; give a map-style dataset"):
        from_dataset(Endless(), name="stream")


def test_data_above_the_memory_limit_ask_for_a_cache() -> None:
    items = [(torch.zeros(1 << 18, dtype=torch.uint8), label % 2) for label in range(8)]
    with pytest.raises(DataError, match=r"8 samples take 2 MiB, above max_memory = 1 MiB; give cache=FOLDER"):
        from_dataset(Items(items), max_memory=1 << 20)
    assert len(from_dataset(Items(items), max_memory=2 << 20)) == 8


def torchvision_sets() -> list[Any]:
    """Small data sets of torchvision's own classes, without their files."""
    rng = np.random.default_rng(0)
    mnist, cifar, svhn = (
        cls.__new__(cls)
        for cls in (torchvision.datasets.FashionMNIST, torchvision.datasets.CIFAR100, torchvision.datasets.SVHN)
    )
    mnist.data, mnist.targets = random_images(12, (28, 28)), torch.arange(12) % 3
    cifar.data, cifar.targets = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), [i % 3 for i in range(12)]
    svhn.data, svhn.labels = rng.integers(0, 256, (12, 3, 32, 32), dtype=np.uint8), np.arange(12) % 3
    for dataset in (mnist, cifar, svhn):
        dataset.transform = dataset.target_transform = None
        dataset.classes = ["a", "b", "c"]
    return [mnist, cifar, svhn]


@pytest.mark.parametrize("which", range(3))
def test_the_short_way_through_torchvision_equals_the_long_one(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = torchvision_sets()[which]
    long = from_dataset(Subset(dataset, list(range(12))), class_names=["a", "b", "c"])
    with monkeypatch.context() as patch:
        patch.setattr("ddplug.data.items.Items.read", None)
        short = from_dataset(dataset)
    assert short.fingerprint == long.fingerprint
    assert (short.class_names, short.shape) == (long.class_names, long.shape)


@pytest.mark.parametrize("which", range(3))
def test_a_transform_is_never_skipped(which: int) -> None:
    dataset = torchvision_sets()[which]
    dataset.transform = lambda image: torch.full((1, 2, 2), float(image.size[0]))
    assert from_dataset(dataset).shape == (1, 2, 2)
    dataset.transform, dataset.target_transform = None, lambda target: 2 - int(target)
    changed = from_dataset(dataset)
    assert (changed.targets.tolist(), changed.class_names) == ([2, 1, 0] * 4, ("c", "b", "a"))
