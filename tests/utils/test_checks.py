"""What is refused, and in what words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ddplug.errors import OptionError, unknown
from ddplug.utils.checks import at_least, image_shape, one_of, out_of_memory, values_at_least, whole


@dataclass
class Options:
    """Hyper-parameters."""

    steps: float
    rate: float = 0.5


@pytest.mark.parametrize("steps", [-1, -0.1, math.nan])
def test_hyper_parameters_below_their_limit_are_named(steps: float) -> None:
    at_least(Options(0), steps=0, rate=0.5)
    with pytest.raises(OptionError, match=rf"^steps is {steps}; it must be at least 0$"):
        at_least(Options(steps), rate=0, steps=0)


@pytest.mark.parametrize("value", [True, np.bool_(False), "3", 2.5, None])
def test_what_is_no_whole_number_is_named(value: object) -> None:
    assert whole("steps", np.int8(3)) == whole("steps", 3.0) == whole("steps", torch.tensor(3)) == 3
    with pytest.raises(OptionError, match=r"^steps is .*; it must be a whole number$"):
        whole("steps", value)


def test_what_is_not_given_is_not_below() -> None:
    values_at_least(1, repeats=1, limit=None)
    with pytest.raises(OptionError, match=r"^limit is 0; it must be at least 1$"):
        values_at_least(1, repeats=1, limit=0)


@pytest.mark.parametrize("value", ["10", [1], (), {}, 1j])
def test_what_is_no_number_is_one_line(value: object) -> None:
    with pytest.raises(OptionError, match=rf"^mem_size is {re.escape(repr(value))}; it must be a number$"):
        values_at_least(1, mem_size=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--ipc", "--images-per-class"),
        ("ipc", "images_per_class"),
        ("lr", "learning_rate"),
        ("--IPC", "--images-per-class"),
    ],
)
def test_short_names_of_papers_are_understood(given: str, meant: str) -> None:
    known = [meant, "--device", "clip", "l"]
    assert f"{given!r}; did you mean {meant!r}?" in str(unknown("option", given, known))
    assert "images" not in str(unknown("option", given, ["--device", "clip"]))  # what is not there is not named


def test_an_unknown_name_comes_with_the_nearest() -> None:
    one_of("split", "test", ("train", "test"))
    with pytest.raises(OptionError, match=r"^unknown split 'tset'; did you mean 'test'\? Known: test, train$"):
        one_of("split", "tset", iter(("train", "test")))


@pytest.mark.parametrize("shape", [(), (8,), (8, 8), (1, 1, 8, 8)])
def test_what_is_no_image_is_refused(shape: tuple[int, ...]) -> None:
    assert image_shape((3, 5, 7), "x", "y") == (3, 5, 7)
    with pytest.raises(OptionError) as caught:
        image_shape(shape, "lenet", "use mlp")
    assert str(caught.value) == f"lenet needs (C, H, W) images, not inputs of shape {shape}; use mlp"


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (ImportError("No module named 'torch'"), False),
        (RuntimeError("shapes do not fit"), False),
        (KeyError("allocate memory"), False),
    ],
)
def test_what_is_a_want_of_memory(error: Exception, is_it: bool) -> None:
    assert out_of_memory(error) is is_it
