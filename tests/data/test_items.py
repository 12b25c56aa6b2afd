"""Items, arrays and loaders as other libraries have them: the right reading, or one line."""

from __future__ import annotations

import warnings
from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from ddplug.data.anything import as_labeled
from ddplug.data.loaders import from_arrays, from_dataset
from ddplug.errors import DataError, DdplugError, OptionError
from ddplug.testing import toy_images
from ddplug.utils.notes import Note

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (6, 12, 10, 3), dtype=np.uint8)
"""Images as PIL, OpenCV and Keras lay them out."""
FIRST = COLOR.transpose(0, 3, 1, 2)
LABELS = [0, 1, 2] * 2


@pytest.mark.parametrize("kind", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_that_come_last_are_put_first(kind: str, channels: int) -> None:
    images = RNG.integers(0, 256, (6, 12, 10, channels)).astype(kind)
    whole = from_arrays(images, LABELS)
    assert whole.shape == (channels, 12, 10)
    assert np.array_equal(whole.inputs.permute(0, 2, 3, 1).numpy(), images)
    assert from_arrays(torch.from_numpy(images), LABELS).fingerprint == whole.fingerprint
    assert from_dataset(list(zip(images, LABELS, strict=True))).fingerprint == whole.fingerprint


@pytest.mark.parametrize("shape", [(3, 12, 10), (1, 12, 3), (3, 32, 3), (512, 1, 1), (64, 3, 3), (12, 4, 4), (5, 4)])
def test_channels_that_come_first_stay(shape: tuple[int, ...]) -> None:
    assert from_arrays(RNG.random((6, *shape)), LABELS).shape == shape


def test_grey_bytes_without_a_channel_get_one_and_many_bands_are_told() -> None:
    assert from_arrays(COLOR[..., 0], LABELS).shape == (1, 12, 10)
    assert from_arrays(RNG.integers(0, 256, (6, 16, 16, 13), dtype=np.uint8), LABELS).shape == (13, 16, 16)
    assert from_arrays(RNG.integers(0, 256, (6, 16, 18, 13), dtype=np.uint8), LABELS).shape == (13, 16, 18)
    assert from_arrays(RNG.random((6, 16, 16, 13)), LABELS).shape == (13, 16, 16)
    assert from_arrays(RNG.integers(0, 256, (6, 40), dtype=np.uint8), LABELS).shape == (40,)


Pair = namedtuple("Pair", "image label")


class Image_:  # noqa: N801
    """A feature of the kind that Hugging Face calls Image."""


class ClassLabel:
    """A feature of the kind that Hugging Face calls so."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)


Image_.__name__ = "Image"


class HuggingFace:
    """What is used of a Hugging Face data set."""

    def __init__(self, features: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        self.features, self.rows = features, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def hugging_face(**more: Any) -> HuggingFace:
    rows = [
        {"id": i, "photo": Image.fromarray(pixels), "species": label}
        for i, (pixels, label) in enumerate(zip(COLOR, LABELS, strict=True))
    ]
    return HuggingFace({"id": object(), "photo": Image_(), "species": ClassLabel("x", "y", "z"), **more}, rows)


class List:
    """A feature of a column that has lists of another."""

    def __init__(self, feature: Any) -> None:
        self.feature = feature


def lists_of_one() -> HuggingFace:
    rows = [{"images": [row["photo"]], "species": [row["species"]]} for row in hugging_face().rows]
    return HuggingFace({"images": List(Image_()), "species": List(ClassLabel("x", "y", "z"))}, rows)


ITEMS: dict[str, Any] = {
    "pairs": list(zip(FIRST, LABELS, strict=True)),
    "lists": [[image, label] for image, label in zip(FIRST, LABELS, strict=True)],
    "named": [Pair(image, label) for image, label in zip(FIRST, LABELS, strict=True)],
    "pictures": [(Image.fromarray(image), label) for image, label in zip(COLOR, LABELS, strict=True)],
    "MedMNIST": [(Image.fromarray(image), np.array([label])) for image, label in zip(COLOR, LABELS, strict=True)],
    "dictionaries": [{"image": image, "label": label, "id": 3} for image, label in zip(COLOR, LABELS, strict=True)],
    "img and labels": [{"img": image, "labels": label} for image, label in zip(COLOR, LABELS, strict=True)],
    "features": hugging_face(),
    "features of lists": lists_of_one(),
    "tensors": TensorDataset(torch.from_numpy(FIRST.copy()), torch.tensor(LABELS)),
    "loader": DataLoader(TensorDataset(torch.from_numpy(FIRST.copy()), torch.tensor(LABELS)), 2, shuffle=True),
    "union": ConcatDataset([Subset(list(zip(FIRST, LABELS, strict=True)), [0, 1, 2]), list(zip(FIRST, LABELS))[3:]]),  # type: ignore[list-item,arg-type] # noqa: B905
    "arrays": (FIRST, LABELS),
}


@pytest.mark.parametrize("kind", ITEMS)
def test_every_kind_of_item_gives_the_same_data(kind: str) -> None:
    data = as_labeled(ITEMS[kind])
    assert data.fingerprint == from_arrays(FIRST, LABELS).fingerprint
    assert data.class_names == (("x", "y", "z") if kind.startswith("features") else ("0", "1", "2"))


def test_two_columns_of_labels_are_refused_with_both_named() -> None:
    with pytest.raises(DataError, match="species and genus are all of the kind ClassLabel; keep one"):
        as_labeled(hugging_face(genus=ClassLabel("u", "v")))


def test_a_loader_of_a_subset_gives_the_subset() -> None:
    whole: Any = TensorDataset(torch.from_numpy(FIRST.copy()), torch.tensor(LABELS))
    state = torch.get_rng_state()
    part = as_labeled(DataLoader(whole, 2, sampler=SubsetRandomSampler([5, 0, 4])))
    assert part.fingerprint == from_dataset(Subset(whole, [0, 4, 5])).fingerprint
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(DataError, match="draws by a WeightedRandomSampler; give the data set itself"):
        as_labeled(DataLoader(whole, 2, sampler=WeightedRandomSampler([1.0] * 6, 6)))


def test_labeled_data_and_names_and_folders_go_through(tmp_path: Any) -> None:
    data = toy_images((3, 2))
    assert as_labeled(data) is data
    assert (len(as_labeled("digits")), len(as_labeled("digits", "test"))) == (1438, 359)
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i, image in enumerate(COLOR):
            Image.fromarray(image).save(tmp_path / name / f"{i}.png")
    assert len(as_labeled(tmp_path)) == len(as_labeled(str(tmp_path))) == len(as_labeled(f"imagefolder:{tmp_path}"))


class Stream(IterableDataset[int]):
    """Without a length."""

    def __iter__(self) -> Iterator[int]:
        return iter(())


NO_DATA: dict[str, tuple[Any, str]] = {
    "nothing": (None, "data: a NoneType holds no labeled data; give a torch Dataset"),
    "inputs alone": (FIRST, r"a ndarray holds no labeled data; give ddplug\.from_arrays\(inputs, labels\)"),
    "a stream": (DataLoader(Stream()), r"Stream has no items by number; give a map-style dataset, as list\(\.\.\.\)"),
    "not decoded": (
        [{"image": {"bytes": b"", "path": ""}, "label": 0}],
        "item 0: the input is a dictionary of",
    ),
    "upper case": ("CIFAR10", "unknown dataset 'CIFAR10'; did you mean 'cifar10'"),
    "a long name": ("x" * 5000, r"the path with x{40}\.\.\.: File name too long"),
    "a long folder": ("imagefolder:" + "x" * 5000, r"the path with x{40}\.\.\.: File name too long"),
    "a NUL in a folder": ("imagefolder:a\0b", "the path 'a.x00b' holds a NUL"),
    "a NUL in a file": ("csv:a\0b", "the path 'a.x00b' holds a NUL"),
    "a home of nobody": ("npz:~no-such-user/x", "the home of a user that does not exist"),
    "standard input": ("imagefolder:-", "the path is '-'"),
    "bytes": (b"digits", "a bytes holds no labeled data; give the name as a text"),
    "arrays by name": ({"image": FIRST, "y": LABELS}, r"give ddplug\.from_arrays\(data\['image'\], data\['y'\]\)"),
    "what is gone through once": (zip(FIRST, LABELS, strict=True), r"a zip is not a data set; give list\("),
    "another order": (
        list(zip(LABELS, FIRST, strict=True)),
        "its first part is a single int; give",
    ),
    "splits": ({"train": 1, "test": 2}, "a dict of 'train', 'test' is not a data set; give one of its values"),
    "a number": (3, "a int is not a data set; give a torch Dataset"),
    "misspelt": ("digitz", "unknown dataset 'digitz'; did you mean 'digits'"),
    "elsewhere": ("no/such/folder", "there is no file or folder no/such/folder, nor a data set of that name"),
    "needs a root": ("mnist", "give root=FOLDER to load_dataset"),
}


@pytest.mark.parametrize("case", NO_DATA)
def test_what_holds_no_labeled_data_is_one_line_that_says_what_to_call(case: str) -> None:
    data, message = NO_DATA[case]
    with pytest.raises(DdplugError, match=message) as caught:
        as_labeled(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.npy", "from_arrays"),
        ("a.zip", "unpack"),
        ("a.csv.gz", "unpack it and give that"),
        ("a.tgz", "unpack"),
        ("a.data", "if it is a table with a header row, give csv:FILE"),
        ("a.safetensors", "SyntheticSet.load"),
    ],
)
def test_a_file_says_what_to_do_with_it(name: str, hint: str, tmp_path: Any) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(OptionError, match=f"is a file, not a data set; .*{hint}"):
        as_labeled(tmp_path / name)


FLAT = np.zeros((4, 2))
UNFIT: dict[str, tuple[Any, str]] = {
    "once": ((FLAT, (k % 2 for k in range(4))), "the labels are one generator; give a list or an array"),
    "a dictionary": ((FLAT, {0: 1}), "the labels are one dict"),
    "a text": ((FLAT, "0101"), "the labels are one str"),
    "sparse": ((FLAT, torch.eye(4)[:, :2].to_sparse()), "of several columns give one"),
    "bfloat16": ((FLAT, torch.zeros(4, dtype=torch.bfloat16)), "the labels are torch.bfloat16; give one whole number"),
    "one-hot": ((FLAT, np.eye(4)), r"of one-hot labels give labels.argmax\(1\)"),
    "one-hot lists": ((FLAT, np.eye(4).tolist()), r"of one-hot labels give np.argmax\(labels, 1\)"),
    "several classes": ((FLAT, np.ones((4, 2), int)), "of several columns give one: each sample has one class$"),
    "whole floats": ((FLAT, torch.tensor([0.0, 1, 0, 1])), r"\(labels.long\(\)\)$"),
    "whole floats of numpy": ((FLAT, np.array([0.0, 1, 0, 1])), r"\(labels.astype\(int\)\)$"),
    "whole floats in a list": ((FLAT, [0.0, 1.0, 0.0, 1.0]), r"\(np.asarray\(labels, int\)\)$"),
    "whole floats in items": ([(FLAT, 1.0)], r"the label is 1.0; .* or a text \(int\(1.0\)\)$"),
    "inputs once": (((k for k in FLAT), [0, 1, 0, 1]), "not one generator$"),
    "whole lists": (([[1, 2], [3, 4]], [0, 1]), r"\(np.asarray\(inputs, 'float32'\)\)$"),
    "paths": ((["a.png", "b.png"], [0, 1]), r"\(of paths of pictures: open each, as by PIL.Image.open\)$"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_holds_other_things_says_what_makes_it_fit(case: str) -> None:
    data, message = UNFIT[case]
    with pytest.raises(DataError, match=message):
        as_labeled(data)


def test_tables_of_pandas_say_what_makes_them_fit() -> None:
    pandas = pytest.importorskip("pandas")
    frame, labels = pandas.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), pandas.DataFrame({"p": [1, 0], "q": [0, 1]})
    with pytest.raises(DataError, match=r"pandas\.get_dummies\(frame, dtype=float\)\)$"):
        as_labeled((frame, [0, 1]))
    with pytest.raises(DataError, match=r"of one-hot labels give labels\.idxmax\(axis=1\)$"):
        as_labeled((FLAT[:2], labels))
    made = as_labeled((pandas.get_dummies(frame, dtype=float), labels.idxmax(axis=1)))  # as they say
    assert (made.shape, made.class_names) == ((3,), ("p", "q"))


class Classes(list[Any]):
    """Items of a data set that says something of its classes."""

    classes: Any = None
    class_to_idx: Any = None


def test_names_are_those_of_the_numbers() -> None:
    items = Classes((torch.full((2,), float(k)), k % 2) for k in range(4))
    items.class_to_idx = {"dog": 0, "cat": 1}
    assert as_labeled(items).class_names == ("dog", "cat")
    items.classes = ["cat", "dog"]  # as where find_classes of an ImageFolder is one's own
    assert as_labeled(items).class_names == ("dog", "cat")
    items.classes, items.class_to_idx = [("tench", "Tinca"), ("goldfish",)], {"tench": 0, "Tinca": 0, "goldfish": 1}
    assert as_labeled(items).class_names == ("tench, Tinca", "goldfish")
    assert from_dataset(list(items), class_names=items.class_to_idx).class_names == ("tench, Tinca", "goldfish")


def test_items_that_change_are_told_of() -> None:
    drawn = np.random.default_rng(0)

    class Changing(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            x, label = super().__getitem__(index)
            return x + drawn.random(), label

    with pytest.warns(Note, match="items differ from one reading to the next, as random transforms make them"):
        as_labeled(Changing((torch.zeros(2), k % 2) for k in range(4)))


def test_a_loader_that_changes_what_it_collates_is_told_of() -> None:
    pairs = [(torch.zeros(2), 0), (torch.ones(2), 1)]

    def halved(items: list[Any]) -> list[Any]:
        return [(inputs / 2, label) for inputs, label in items]

    with pytest.warns(Note, match=r"the DataLoader's collate_fn \(.*halved\) is not called"):
        data = as_labeled(DataLoader(pairs, collate_fn=halved))  # type: ignore[arg-type]
    assert data.inputs.max() == 1


def test_two_data_sets_are_not_taken_for_inputs_and_labels() -> None:
    one = TensorDataset(torch.zeros(4, 1, 8, 8), torch.arange(4) % 2)
    arrays = (np.zeros((4, 1, 8, 8), np.uint8), np.arange(4) % 2)
    pairs: list[Any] = [(one, one), (arrays, arrays), (DataLoader(one), DataLoader(one))]
    for pair in pairs:
        with pytest.raises(DataError, match=r"these are two data sets, .*; give one of them, data\[0\]"):
            as_labeled(pair)
        assert len(as_labeled(pair[0])) == 4
    assert len(as_labeled(((torch.zeros(1, 8, 8), 0), (torch.ones(1, 8, 8), 1)))) == 2  # two items


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.uint8])
def test_a_list_of_tensors_is_a_tensor(kind: torch.dtype) -> None:
    values = [torch.full((3, 4, 4), float(k)).to(kind) for k in range(4)]
    if kind.is_floating_point:
        values = [value.requires_grad_() for value in values]
    found = from_arrays(values, [torch.tensor(k % 2) for k in range(4)])
    assert found.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert found.targets.tolist() == [0, 1, 0, 1]


def test_pictures_of_which_one_is_in_color_are_all_read_in_color(tmp_path: Any) -> None:
    gray, red = Image.new("L", (4, 4), 7), Image.new("RGB", (4, 4), (255, 0, 0))
    ways: list[dict[str, Any]] = [{}, {"cache": tmp_path / "cache"}, {"cache": tmp_path / "cache"}]
    for pictures in ([gray, red, gray, red], [red, gray, red, gray], [gray, gray, gray, red]):
        for options in ways:
            found = from_dataset([(picture, k % 2) for k, picture in enumerate(pictures)], **options)
            wanted = [[7, 7, 7] if picture is gray else [255, 0, 0] for picture in pictures]
            assert found.inputs[:, :, 0, 0].tolist() == wanted
    assert from_dataset([(gray, 0), (gray, 1)]).shape == (1, 4, 4)


def test_names_that_cannot_be_read_are_one_line() -> None:
    class Broken(TensorDataset):
        @property
        def classes(self) -> list[str]:
            raise RuntimeError("no\nindex file")

    data = Broken(torch.zeros(4, 1, 8, 8), torch.arange(4) % 2)
    with pytest.raises(DataError, match="the classes of Broken cannot be read: RuntimeError: no index file; give cl"):
        as_labeled(data)
    assert from_dataset(data, class_names=["off", "on"]).class_names == ("off", "on")


def test_many_channels_that_may_be_last_are_told_of() -> None:
    labels = [0, 1] * 2
    with pytest.warns(
        Note, match=r"\(64, 48, 5\) are read as images of 64 channels; .* inputs.transpose\(0, 3, 1, 2\)"
    ):
        from_arrays(np.zeros((4, 64, 48, 5)), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in ((5, 64, 48), (64, 7, 7), (512, 1, 1), (16, 20, 10)):
            from_arrays(np.zeros((4, *shape)), labels)
