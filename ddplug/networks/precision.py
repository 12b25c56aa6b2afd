"""In which precision networks compute: float32, or bfloat16 where the machine has units for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["AUTO", "PRECISIONS", "applied", "call", "computing", "reduced"]

PRECISIONS = ("float32", "bfloat16")

AUTO = "auto"
"""In the place of a precision: the faster one, as :mod:`ddplug.networks.probe` finds it."""

_CHOSEN: ContextVar[str] = ContextVar("precision", default=PRECISIONS[0])


@contextmanager
def computing(precision: str) -> Iterator[None]:
    """Let networks that are called in a block compute in one of :data:`PRECISIONS`."""
    token = _CHOSEN.set(precision)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def reduced() -> bool:
    """Return whether networks compute in less than float32."""
    return _CHOSEN.get() != PRECISIONS[0]


def call(module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Call a network, in the precision that is chosen; weights, and what comes out, are float32 in any case.

    Args:
        module: the structure.
        tensors: parameters and buffers; running statistics in them are moved.
        x: ``(n, *shape)`` in model space.
    """
    return applied(partial(functional_call, module, dict(tensors)), x)


def applied(network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a network that has its own weights, in the precision that is chosen; what comes out is float32 in any case.

    Args:
        network: a module, or a function that passes inputs through one or several.
        x: what it takes, in model space.
    """
    if not reduced():
        return network(x)
    # no cache: what it keeps of a weight would be part of the graph of another pass
    with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
        found = network(x)
    return found.to(x.dtype)
