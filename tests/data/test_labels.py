"""Labels of every kind keep their names, and a name is never that of another label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch.utils.data import ConcatDataset, Subset, TensorDataset

from ddplug.data.anything import as_labeled
from ddplug.data.loaders import from_arrays, from_dataset
from ddplug.errors import DataError
from ddplug.utils.notes import Note

ANIMALS = ["cat", "dog", "cat", "ant"]

LABELS: dict[str, tuple[Any, list[str]]] = {
    "texts": (ANIMALS, ANIMALS),
    "numpy texts": (np.array(ANIMALS), ANIMALS),
    "bytes": (np.array(ANIMALS, dtype="S"), ANIMALS),
    "bytes that are no text": (np.array([b"\xe9", b"\xe8"] * 2), ["\\xe9", "\\xe8"] * 2),
    "objects": (np.array(ANIMALS, dtype=object), ANIMALS),
    "from 1": ([3, 1, 3, 2], ["3", "1", "3", "2"]),
    "gaps": (torch.tensor([7, 1, 7, 40], dtype=torch.uint8), ["7", "1", "7", "40"]),
    "huge": ([10**15, 0, 0, 0], [str(10**15), "0", "0", "0"]),
    "a column": (np.array([[1], [0], [1], [2]]), ["1", "0", "1", "2"]),
    "truths": ([True, False, True, True], ["1", "0", "1", "1"]),
    "a column of a matrix": (np.array([[1], [0], [1], [2]]).view(np.matrix), ["1", "0", "1", "2"]),
    "tensors": ([torch.tensor(1), torch.tensor(0)] * 2, ["1", "0"] * 2),
}


@pytest.mark.parametrize("kind", LABELS)
def test_each_sample_keeps_the_name_of_its_label(kind: str) -> None:
    labels, expected = LABELS[kind]
    data = from_arrays(np.zeros((4, 2)), labels)
    assert [data.class_names[target] for target in data.targets.tolist()] == expected
    assert data.targets.unique().tolist() == list(range(data.num_classes))


NAMED: dict[str, tuple[Any, list[Any]]] = {
    "tuple": (("cat", "dog", "ant"), [0, 1, 0, 2]),
    "array": (np.array(["cat", "dog", "ant"]), [0, 1, 0, 2]),
    "from 1": (["cat", "dog", "ant"], [1, 2, 1, 3]),
    "id2label": ({0: "cat", 1: "dog", 2: "ant"}, [0, 1, 0, 2]),
    "of JSON": ({"2": "ant", "0": "cat", "1": "dog"}, [0, 1, 0, 2]),
    "gaps": ({4: "cat", 9: "dog", -1: "ant"}, [4, 9, 4, -1]),
    "class_to_idx": ({"cat": 0, "dog": 1, "ant": 2}, [0, 1, 0, 2]),
    "order of texts": (["dog", "cat", "ant"], ANIMALS),
    "texts and numbers": ({"cat": 2, "dog": 0, "ant": 1}, ANIMALS),
    "bytes": ([b"cat", b"dog", b"ant"], [0, 1, 0, 2]),
    "a column": (np.array([["cat"], ["dog"], ["ant"]]), [0, 1, 0, 2]),
    "synsets": ({"n2": "cat", "n1": "dog", "n3": "ant"}, ["n2", "n1", "n2", "n3"]),
}


@pytest.mark.parametrize("kind", NAMED)
def test_class_names_come_in_many_forms(kind: str) -> None:
    names, labels = NAMED[kind]
    data = from_arrays(np.zeros((4, 2)), labels, class_names=names)
    assert [data.class_names[target] for target in data.targets.tolist()] == ANIMALS


def test_columns_of_pandas_are_labels_and_names() -> None:
    pandas = pytest.importorskip("pandas")
    for labels in (pandas.Series(ANIMALS), pandas.Series(ANIMALS, dtype="category")):
        assert from_arrays(np.zeros((4, 2)), labels).class_names == ("ant", "cat", "dog")
    numbers = pandas.Series([3, 1, 3, 2], dtype="Int64")
    assert from_arrays(np.zeros((4, 2)), numbers).targets.tolist() == [2, 0, 2, 1]
    names = pandas.Index(["cat", "dog", "ant"])
    assert from_arrays(np.zeros((4, 2)), numbers, class_names=names).class_names == ("cat", "dog", "ant")
    shuffled = pandas.Series(["ant", "cat", "dog"], index=[2, 3, 1])
    assert from_arrays(np.zeros((4, 2)), numbers, class_names=shuffled).class_names == ("dog", "ant", "cat")
    with pytest.raises(DataError, match=r"ddplug\.from_arrays\(frame\[columns\]"):
        as_labeled(pandas.DataFrame({"x": [1.0], "label": [0]}))


def test_rows_of_pandas_in_another_order_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})
    labels = pandas.Series(ANIMALS)
    shuffled = frame.iloc[[2, 0, 1, 3]]
    with pytest.raises(DataError, match=r"the same index in another order; give labels\.loc\[inputs\.index\], or both"):
        as_labeled((shuffled, labels))
    for inputs, targets in ((shuffled, labels.loc[shuffled.index]), (shuffled.to_numpy(), labels.to_numpy())):
        assert len(as_labeled((inputs, targets))) == 4
    matched = from_arrays(shuffled, labels.loc[shuffled.index])
    names = [matched.class_names[target] for target in matched.targets]
    assert names == [ANIMALS[int(row)] for row in matched.inputs[:, 0]]
    # rows of different tables, or of one that was put together of several, belong together as they stand
    for index in ([5, 6, 7, 8], [0, 0, 1, 1]):
        assert len(as_labeled((frame.set_axis(index), labels))) == 4


def test_the_order_of_given_names_is_kept() -> None:
    assert from_arrays(np.zeros((4, 2)), ANIMALS).class_names == ("ant", "cat", "dog")
    assert from_arrays(np.zeros((4, 2)), ANIMALS, class_names=["dog", "cat", "ant"]).class_names == (
        "dog",
        "cat",
        "ant",
    )


def test_names_of_several_words_are_one_text() -> None:
    names = [("tench", "Tinca tinca"), ("goldfish",)]
    assert from_arrays(np.zeros((2, 2)), [0, 1], class_names=names).class_names == ("tench, Tinca tinca", "goldfish")
    assert from_arrays(np.zeros((2, 2)), [0, 1], class_names=torch.tensor([7, 9])).class_names == ("7", "9")
    assert from_arrays(np.zeros((2, 2)), [0, 1], class_names={}).class_names == ("0", "1")


def test_negative_labels_are_refused_unless_they_have_a_name() -> None:
    with pytest.raises(DataError, match="label -1 is negative; drop samples without a label"):
        from_arrays(np.zeros((2, 2)), [-1, 1], class_names=["a", "b"])
    assert from_arrays(np.zeros((2, 2)), [-1, 1], class_names={-1: "no", 1: "yes"}).class_names == ("no", "yes")


def emnist(change: Any) -> Any:
    """Letters as torchvision has them: labels from 1, and a name for 0 that no sample has."""
    dataset: Any = torchvision.datasets.EMNIST.__new__(torchvision.datasets.EMNIST)
    dataset.data = torch.arange(12, dtype=torch.uint8).view(12, 1, 1).expand(12, 4, 4)
    dataset.targets = torch.arange(12) % 3 + 1
    dataset.classes, dataset.transform, dataset.target_transform = ["N/A", "a", "b", "c"], None, change
    return dataset


@pytest.mark.parametrize("change", [None, lambda y: y - 1, lambda y: torch.tensor(y - 1), lambda y: 3 - y, str])
def test_letters_keep_their_names_whatever_is_done_to_the_labels(change: Any) -> None:
    dataset = emnist(change)
    with pytest.warns(Note, match="'?N/A'?"):
        data = from_dataset(dataset)
    names = [data.class_names[target] for target in data.targets.tolist()]
    # str makes texts of the labels, for which the data set has no names
    assert names == (["a", "b", "c"] * 4)


def test_a_change_that_joins_labels_leaves_numbers() -> None:
    assert from_dataset(emnist(lambda y: y % 2)).class_names == ("0", "1")


class Named(TensorDataset):
    """Images of some labels, with names."""

    def __init__(self, labels: list[int], classes: Any) -> None:
        super().__init__(torch.zeros(len(labels), 1, 4, 4), torch.tensor(labels))
        self.classes = classes


def test_parts_and_unions_keep_the_names_of_what_they_are_made_of() -> None:
    whole = Named([0, 1, 2, 3], ["ant", "bee", "cat", "dog"])
    with pytest.warns(Note, match=r"no sample has label 0 \(ant\), 2 \(cat\), of 4 classes; the data are of 2"):
        part = from_dataset(Subset(whole, [3, 1]), name="part")
    assert (part.class_names, part.targets.tolist()) == (("bee", "dog"), [1, 0])
    union = from_dataset(ConcatDataset([whole, Subset(whole, [0])]))
    assert (union.class_names, len(union)) == (("ant", "bee", "cat", "dog"), 5)
    with pytest.raises(DataError, match="the parts of the ConcatDataset have other classes or number them differently"):
        from_dataset(ConcatDataset([whole, Named([0, 1], ["bee", "ant"])]))
