"""What belongs to the same space, and what is said of what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ddplug import distill
from ddplug.data.preprocess import Identity, Standardize
from ddplug.distillers.selection.random_ import Random
from ddplug.synthetic.compat import Space, difference, same_preprocess
from ddplug.testing import toy_images

DATA = toy_images((5, 4))
MOVED = Standardize(DATA.preprocess.tensors()["mean"] + 1e-6, DATA.preprocess.tensors()["std"])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (toy_images((5, 4), size=9), "shape: (1, 8, 8) and (1, 9, 9)"),
        (toy_images((5, 4, 3)), "number of classes: 2 and 3"),
        (replace(DATA, class_names=("a", "b")), "class names: ('class0', 'class1') and ('a', 'b')"),
        (replace(DATA, preprocess=Identity()), "preprocessing: standardise and identity"),
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
