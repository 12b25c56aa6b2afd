"""Coded soft labels: what is rounded, what it costs, and that nothing but such labels is taken."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from ddplug.errors import FormatError
from ddplug.functional.top_labels import NAMED, UNITS, decode, encode, rounded


def probabilities(classes: int, rows: int = 200, spread: float = 2.0) -> Tensor:
    rng = torch.Generator().manual_seed(classes)
    made = (torch.randn(rows, classes, generator=rng) * spread).softmax(1)
    return made[made.argmax(1).argsort(stable=True)]


def plainly(row: list[float]) -> list[Fraction]:
    """Deal out fifteen units one row at a time, with exact fractions."""
    order = sorted(range(len(row)), key=lambda c: -row[c])[: min(NAMED, len(row) - 1)]
    units = {c: round(Fraction(row[c]) * UNITS) for c in order}
    units[order[0]] -= max(0, sum(units.values()) - UNITS)
    for c in reversed(order):
        left = UNITS - sum(units.values())
        if units[c] * (len(row) - len(units)) <= left:
            del units[c]
    rest = Fraction(UNITS - sum(units.values()), max(1, len(row) - len(units)))
    return [Fraction(units.get(c, rest)) / UNITS for c in range(len(row))]


@pytest.mark.parametrize("spread", [0.3, 2.0, 10.0])
@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_labels_are_rounded_as_a_plain_count_does(classes: int, spread: float) -> None:
    soft = probabilities(classes, spread=spread)
    wanted = torch.tensor([[float(share) for share in plainly(row)] for row in soft.double().tolist()])
    assert torch.equal(rounded(soft), wanted)
    assert torch.allclose(wanted.sum(1), torch.ones(len(soft)))


@pytest.mark.parametrize("classes", [2, 3, 10, 16, 17, 256, 300, 1000])
def test_rounded_labels_come_back(classes: int) -> None:
    soft = rounded(probabilities(classes, spread=4.0))
    first = soft.argmax(1)
    order = first.argsort(stable=True)
    streams = encode(soft[order])
    assert streams is not None
    assert torch.equal(decode(streams, first[order], classes), soft[order])


def test_labels_of_ten_classes_take_less_than_two_bytes() -> None:
    streams = encode(rounded(probabilities(10, rows=3000)))
    assert streams is not None
    raw = (3 * 4 + 2 * 4) / 8
    assert sum(map(len, streams.values())) / 3000 < min(2.0, raw)
    hard = encode(torch.eye(10).repeat_interleave(300, 0))
    assert hard is not None
    assert sum(map(len, hard.values())) < 60


def test_labels_that_are_not_rounded_are_not_coded() -> None:
    assert encode(probabilities(10)) is None
    assert encode(torch.tensor([[0.5, 0.25, 0.25]])) is None  # a quarter is no fifteenth
    uniform = torch.full((3, 10), 0.1)
    streams = encode(uniform)
    assert streams is not None
    assert torch.equal(decode(streams, torch.zeros(3, dtype=torch.int64), 10), uniform)


def test_streams_of_other_labels_are_refused() -> None:
    soft = rounded(probabilities(10))
    streams = encode(soft)
    assert streams is not None
    first = soft.argmax(1)
    with pytest.raises(FormatError, match="streams"):
        decode({"shares": streams["shares"]}, first, 10)
    with pytest.raises(FormatError, match=r"altered|stream"):
        decode(streams, (first + 1) % 10, 10)  # a class that is named twice, or in the wrong order
    with pytest.raises(FormatError):
        decode({**streams, "shares": streams["classes"]}, first, 10)
    few = encode(rounded(probabilities(16)))
    assert few is not None
    with pytest.raises(FormatError, match="classes that do not exist"):
        decode(few, rounded(probabilities(16)).argmax(1).clamp_max(4), 5)


def test_no_probability_moves_far() -> None:
    soft = probabilities(10, rows=2000)
    moved = (rounded(soft) - soft).abs()
    assert math.isclose(float(moved.sum(1).mean()), 0.1, abs_tol=0.1)
