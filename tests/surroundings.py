"""What a caller may have set for the whole process or thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

Surroundings = Callable[[], AbstractContextManager[object]]


@contextmanager
def _set(to: Callable[[Any], object], value: object, usual: object) -> Iterator[None]:
    to(value)
    try:
        yield
    finally:
        to(usual)


def dtype(name: torch.dtype) -> AbstractContextManager[None]:
    return _set(torch.set_default_dtype, name, torch.float32)


def device(name: str) -> AbstractContextManager[None]:
    return _set(torch.set_default_device, name, None)


def deterministic() -> AbstractContextManager[None]:
    # use_deterministic_algorithms would first import a compiler
    return _set(torch.set_deterministic_debug_mode, "error", "default")


def without_gradients() -> AbstractContextManager[None]:
    return _set(torch.set_grad_enabled, False, True)


def medium() -> AbstractContextManager[None]:
    return _set(torch.set_float32_matmul_precision, "medium", "highest")


@contextmanager
def rounded_on_cpu() -> Iterator[None]:
    kind: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if not hasattr(kind, "fp32_precision"):  # versions before 2.9 have no such setting
        yield
        return
    before, kind.fp32_precision = kind.fp32_precision, "bf16"
    try:
        yield
    finally:
        kind.fp32_precision = before
        torch.set_float32_matmul_precision("highest")


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
            torch.autograd.graph.disable_saved_tensors_hooks("the caller allows none"),
            medium(),
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
    "no hooks": lambda: torch.autograd.graph.disable_saved_tensors_hooks("the caller allows none"),
    "rounded products": medium,
    "rounded products on the CPU": rounded_on_cpu,
    "numpy raises": lambda: np.errstate(all="raise"),
    "everything": everything,
}
