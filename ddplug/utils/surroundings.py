"""What a caller has set for the whole process or thread, put aside while the library computes.

Scientific code sets a default data type, validation hooks run without gradients, training loops under autocast. None of
it may break a method or change a number that it gives. So every public function that computes does so inside
:func:`own_surroundings`; what it calls need not ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

__all__ = ["own_surroundings"]

_autograd: Any = torch._C._autograd
"""Where torch has the ban on hooks; what sets it for a while needs a reason of its own, and cannot lift it."""


@contextmanager
def _set(read: Callable[[], Any], write: Callable[[Any], object], value: object) -> Iterator[None]:
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


@contextmanager
def _hooks() -> Iterator[None]:
    """Let saved tensors have hooks, as recomputing a network's activations needs."""
    before = _autograd._saved_tensors_hooks_get_disabled_error_message()
    _autograd._saved_tensors_hooks_enable()
    try:
        yield
    finally:
        _autograd._saved_tensors_hooks_disable(before)


_REDUCED = ("bf16", "tf32")
_KINDS = ("matmul", "conv", "rnn")


def _matmul() -> str:
    """Return how exact matrix products are; of who sets it for each backend the question is refused."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"


def _inexact() -> list[Any]:
    """Return the kinds of operations that the CPU was told to round; versions before 2.9 have no such setting."""
    kinds = (getattr(torch.backends.mkldnn, kind, None) for kind in _KINDS)
    return [kind for kind in kinds if getattr(kind, "fp32_precision", None) in _REDUCED]


@contextmanager
def _exact_cpu() -> Iterator[None]:
    before = [(kind, kind.fp32_precision) for kind in _inexact()]
    try:
        for kind, _ in before:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, precision in before:
            kind.fp32_precision = precision


_OWN: tuple[tuple[Callable[[], bool], Callable[[], AbstractContextManager[object]]], ...] = (
    (
        lambda: torch.get_default_dtype() != torch.float32,
        lambda: _set(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    ),
    (lambda: torch.empty(0).device.type != "cpu", lambda: torch.device("cpu")),
    (lambda: torch.is_autocast_enabled("cpu"), lambda: torch.autocast("cpu", enabled=False)),
    (lambda: torch.is_autocast_enabled("cuda"), lambda: torch.autocast("cuda", enabled=False)),
    (lambda: not _autograd._saved_tensors_hooks_is_enabled(), _hooks),
    (lambda: _matmul() != "highest", lambda: _set(_matmul, torch.set_float32_matmul_precision, "highest")),
    (lambda: bool(_inexact()), _exact_cpu),
    (lambda: "raise" in np.geterr().values(), lambda: np.errstate(all="ignore")),
)
"""Whether a caller has set something, and what puts it aside."""


@contextmanager
def own_surroundings(*, gradients: bool = True) -> Iterator[None]:
    """Compute as in a fresh process, whatever the caller has set; it is put back at the end.

    Covered are torch's default data type and default device, the grad mode, inference mode and autocast, a ban on hooks
    of saved tensors, float32 products that are rounded to fewer bits, and numpy's errors. Deterministic algorithms stay
    as they are: on the CPU they change no number, and on CUDA whoever asks for them wants to hear of what has none.

    As a decorator, ``@own_surroundings()``, it is for functions that return, not for generators.

    Args:
        gradients: whether they are turned on. Not in a function that the caller differentiates, or does not; inference
            mode, whose tensors nothing may be learned from, becomes ``no_grad`` there.

    Example:
        >>> with torch.inference_mode(), own_surroundings():
        ...     torch.ones(1, requires_grad=True).requires_grad
        True
    """
    with ExitStack() as put_back:
        for is_set, aside in _OWN:
            if is_set():
                put_back.enter_context(aside())
        wanted = gradients or torch.is_grad_enabled()
        if torch.is_inference_mode_enabled():
            put_back.enter_context(torch.inference_mode(False))
        if wanted != torch.is_grad_enabled():
            put_back.enter_context(torch.set_grad_enabled(wanted))
        yield
