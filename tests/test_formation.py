"""Several small images in the place of one."""

from __future__ import annotations

import pytest
import torch

from ddplug.errors import OptionError
from ddplug.formation import enlarge, reduce, reduced_shape


def test_reduces_by_averaging_blocks() -> None:
    x = torch.rand(3, 2, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = x.reshape(3, 2, 2, 3, 3, 3).mean((3, 5))
    torch.testing.assert_close(reduce(x, 3), expected)


def test_a_linear_ramp_comes_back_inside_the_border() -> None:
    # bilinear interpolation is exact on what is linear, and so are block averages
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    back = enlarge(reduce(ramp, 2), (1, 8, 8))
    torch.testing.assert_close(back[..., 1:-1], ramp[..., 1:-1])


def test_factor_one_changes_nothing() -> None:
    x = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    assert reduce(x, 1) is x
    assert enlarge(x, (5,)) is x


@pytest.mark.parametrize(("shape", "factor", "says"), [((5,), 2, "needs"), ((1, 3, 8), 4, "at most 3")])
def test_refuses_what_cannot_be_reduced(shape: tuple[int, ...], factor: int, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        reduced_shape(shape, factor)
