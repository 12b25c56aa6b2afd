"""What belongs to the same space, and what is said of what does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from ddplug import distill
from ddplug.data.labeled import LabeledData
from ddplug.data.loaders import from_arrays
from ddplug.data.preprocess import Identity, Standardize
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import DataError
from ddplug.synthetic.compat import Space, difference, places, same_preprocess, same_space
from ddplug.testing import toy_images

DATA = toy_images((5, 4))
MOVED = Standardize(DATA.preprocess.tensors()["mean"] + 1e-6, DATA.preprocess.tensors()["std"])


def named(*names: str) -> LabeledData:
    return replace(DATA, class_names=names)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (toy_images((5, 4), size=9), "shape: (1, 8, 8) and (1, 9, 9)"),
        (toy_images((5, 4, 3)), "classes: only the second has 'class2'"),
        (replace(toy_images((5, 4, 3)), class_names=("0", "1", "2")), "number of classes: 2 and 3"),
        (named("a", "class1"), "classes: only the first has 'class0'; only the second has 'a'"),
        (named("class0", "class0"), "classes: only the first has 'class1'"),
        (replace(DATA, preprocess=Identity()), "preprocessing: standardize and identity"),
        (replace(DATA, preprocess=MOVED), "the mean of their preprocessing"),
    ],
)
def test_the_first_difference_is_said(other: Space, says: str) -> None:
    assert difference(DATA, other) == says
    assert (difference(other, DATA) or "").partition(":")[0] == says.partition(":")[0]


def test_a_set_and_the_data_it_was_made_from_differ_in_nothing() -> None:
    assert difference(distill(DATA, Random(images_per_class=2), device="cpu"), DATA) is None


def test_preprocessing_is_the_same_number_by_number() -> None:
    again = Standardize(*(tensor.clone() for tensor in DATA.preprocess.tensors().values()))
    assert same_preprocess(DATA.preprocess, again)
    assert not same_preprocess(DATA.preprocess, MOVED)
    assert not same_preprocess(Identity(), DATA.preprocess)
    assert not same_preprocess(MOVED, Standardize(torch.zeros(3), torch.ones(3)))


@pytest.mark.parametrize("names", [("class1", "class0"), ("0", "1"), ("class0", "class1")])
def test_names_in_another_order_and_no_names_are_no_difference(names: tuple[str, ...]) -> None:
    assert difference(DATA, named(*names)) is None
    assert difference(named(*names), DATA) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        ("abc", "cab", [2, 0, 1]),
        ("abc", "abc", None),
        ("abc", "012", None),
        (["caf\u00e9", "x"], ["x", "cafe\u0301"], [1, 0]),  # the same, as another file system writes it
        (["0", "1", "10", "2"], ["0", "1", "2", "10"], [0, 1, 3, 2]),  # numbers as folders sort them
        ("aab", "aba", None),
    ],
)
def test_places_of_classes(mine: Sequence[str], theirs: Sequence[str], found: list[int] | None) -> None:
    assert places(mine, theirs) == found


def test_numbers_that_are_not_the_same_are_names() -> None:
    from_one, from_zero = named("1", "2"), named("0", "1")
    assert difference(from_one, from_zero) == "classes: only the first has '2'; only the second has '0'"
    assert difference(from_zero, from_one) == "classes: only the first has '0'; only the second has '2'"
    assert difference(from_zero, named("1", "0")) is None


def test_classes_of_one_name_in_another_order_are_refused() -> None:
    twice, again = (replace(toy_images((4, 4, 4)), class_names=tuple(names)) for names in ("aab", "aba"))
    assert difference(twice, twice) is None
    assert difference(twice, again) == "classes: 'a', 'a', 'b', and 'a', 'b', 'a'"


def test_data_take_the_numbers_that_the_set_has() -> None:
    made = distill(DATA, Random(images_per_class=2), device="cpu")
    other = replace(DATA, targets=1 - DATA.targets, class_names=DATA.class_names[::-1])
    found = same_space(made, other, "test", torch.device("cpu"))
    assert torch.equal(found.targets, DATA.targets)
    assert found.class_names == DATA.class_names
    with pytest.raises(DataError, match=r"differ in classes: only the set has 'class0'; only the data have 'ant'"):
        same_space(made, named("ant", "class1"), "test", torch.device("cpu"))


@pytest.mark.parametrize("soft", [False, True])
def test_sets_are_merged_class_by_class(soft: bool) -> None:
    made = distill(DATA, Random(images_per_class=2), device="cpu")
    if soft:
        made = replace(made, targets=torch.eye(2)[made.targets] * 0.8 + 0.1)
    swapped = made.targets.flip(1) if soft else 1 - made.targets
    other = replace(made, targets=swapped, class_names=made.class_names[::-1])
    merged = made.merge(other)
    assert torch.equal(merged.targets, torch.cat([made.targets] * 2))
    assert merged.class_names == made.class_names
    assert replace(made, class_names=()).merge(made).class_names == made.class_names


def test_data_without_names_are_taken_in_the_order_of_the_set_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made, cpu = distill(DATA, Random(images_per_class=2), device="cpu"), torch.device("cpu")
    assert torch.equal(same_space(made, named("0", "1"), "test", cpu).targets, DATA.targets)
    assert len(caplog.messages) == 1
    assert "have no names of classes, so they are taken in the order of the set's (0 is class0, 1 is" in caplog.text
    for names in (("class0", "class1"), ("class1", "class0")):
        same_space(made, named(*names), "test", cpu)
    same_space(replace(made, class_names=("0", "1")), DATA, "test", cpu)
    assert len(caplog.messages) == 1


def test_a_thousand_names_are_said_in_a_line() -> None:
    many = [replace(toy_images([2] * 60), class_names=tuple(f"{who}{k}" for k in range(60))) for who in "ab"]
    assert (difference(*many) or "").count("and 55 more") == 2


UNIT = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(0))
UNIT[0], UNIT[1] = 0, 1
RANGES = {
    "bytes": (UNIT * 255).round().to(torch.uint8),
    "0..1": UNIT,
    "0..255": UNIT * 255,
    "-1..1": 2 * UNIT - 1,
    "normalized": (UNIT - 0.4) / 0.25,
    "16 levels": UNIT * 16,
}


MAY_BE_ONE = {("normalized", name) for name in RANGES} | {("16 levels", name) for name in RANGES}
"""The values of a normalization are not known: only bytes are not of one."""


@pytest.mark.parametrize("mine", RANGES)
@pytest.mark.parametrize("theirs", RANGES)
def test_real_images_in_another_range_are_refused(mine: str, theirs: str) -> None:
    train, test = (from_arrays(RANGES[name], torch.arange(12) % 2) for name in (mine, theirs))
    made = distill(train, Random(images_per_class=1), device="cpu")
    same = mine == theirs or {mine, theirs} == {"bytes", "0..1"}
    unsure = ((mine, theirs) in MAY_BE_ONE and theirs != "bytes") or (
        (theirs, mine) in MAY_BE_ONE and mine not in ("bytes", "0..1")
    )
    if same or unsure:
        assert same_space(made, test, "test", torch.device("cpu")).shape == made.shape
        return
    with pytest.raises(DataError, match=r"differ in the range of their values: .* and .*; use the data"):
        same_space(made, test, "test", torch.device("cpu"))
