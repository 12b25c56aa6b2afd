"""Earlier names of hyper-parameters are taken, and never in the place of a name that is given or known."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

import pytest

from ddplug.distillers import DD, DM, IDM, El2n, FRePo, SRe2L


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda cls: cls(bank=3, start="real"), DM(pool_size=3, init_from="real")),
        (lambda cls: cls(pool=4), FRePo(pool_size=4)),
        (lambda cls: cls(queue=5), IDM(pool_size=5)),
        (lambda cls: cls(pool=6), El2n(max_samples_per_class=6)),
        (lambda cls: cls(pool=7, start="real"), SRe2L(max_samples_per_class=7, init_from="real")),
        (lambda cls: cls(initialisation="fixed", start="real"), DD(initialization="fixed", init_from="real")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_earlier_names_are_taken(made: Any, expected: Any) -> None:
    assert made(type(expected)) == expected


def test_two_names_of_one_option_are_refused_and_so_are_unknown_ones() -> None:
    make: Any = DM
    with pytest.raises(TypeError, match="unexpected keyword argument 'bank'"):
        make(bank=3, pool_size=4)
    with pytest.raises(TypeError, match="unexpected keyword argument 'pond'"):
        make(pond=3)


@pytest.mark.parametrize("cls", [DM, El2n, SRe2L])
def test_the_signature_is_that_of_the_fields(cls: Any) -> None:
    assert list(inspect.signature(cls).parameters) == [field.name for field in fields(cls) if field.init]
