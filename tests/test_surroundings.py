"""What the caller has set for the process neither breaks nor changes any method or public function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from ddplug import registry
from ddplug.distillation.loop import distill
from ddplug.testing import made_small, toy_images

Surroundings = Callable[[], AbstractContextManager[object]]


@contextmanager
def dtype(name: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(name)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def without_gradients() -> Iterator[None]:
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


@contextmanager
def everything() -> Iterator[None]:
    with ExitStack() as stack:
        for one in (
            dtype(torch.float64),
            device("meta"),
            deterministic(),
            torch.inference_mode(),
            torch.autocast("cpu"),
            np.errstate(all="raise"),
        ):
            stack.enter_context(one)
        yield


SURROUNDINGS: Mapping[str, Surroundings] = {
    "float64": lambda: dtype(torch.float64),
    "float16": lambda: dtype(torch.float16),
    "bfloat16": lambda: dtype(torch.bfloat16),
    "device meta": lambda: device("meta"),
    "device cpu": lambda: device("cpu"),
    "inside a device": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "gradients off": without_gradients,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "deterministic": deterministic,
    "numpy raises": lambda: np.errstate(all="raise"),
    "everything": everything,
}


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal, tensors and what holds them number by number."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.device == other.device and torch.equal(one, other)
    if isinstance(one, torch.nn.Module):
        return same(one.state_dict(), other.state_dict())
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "inputs"):
        return same((one.inputs, one.targets), (other.inputs, other.targets))
    return bool(one == other)


@pytest.mark.parametrize("name", registry.names("distiller"))
def test_no_method_asks_what_the_caller_has_set(name: str) -> None:
    method, data = made_small(registry.resolve("distiller", name)()), toy_images((9, 10), size=6)
    options: dict[str, Any] = {"steps": 2 if method.steps else 0, "device": "cpu"}
    plain = distill(data, method, **options)
    with everything():
        found = distill(data, method, **options)
    assert same(plain, found)
