"""What a caller may have set for the whole process or thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

import numpy as np
import torch

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
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms would first import a compiler
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode("default")


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
