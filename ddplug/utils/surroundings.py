"""What a caller has set for the whole process or thread, put aside while the library computes.

Scientific code sets a default data type, validation hooks run without gradients, training loops under autocast. None of
it may break a method or change a number that it gives. So every public function that computes does so inside
:func:`own_surroundings`; what it calls need not ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

__all__ = ["own_surroundings"]


@contextmanager
def own_surroundings() -> Iterator[None]:
    """Compute as in a fresh process, whatever the caller has set; put it back at the end.

    Covered are torch's default data type and default device, the grad mode, inference mode and autocast, and what numpy
    does about overflows and the like. Deterministic algorithms stay as they are: on the CPU they change no number, and
    on CUDA a user who asks for them wants to know what has none.

    As a decorator, ``@own_surroundings()``, it is for functions that return, not for generators.

    Example:
        >>> with torch.inference_mode(), own_surroundings():
        ...     torch.ones(1, requires_grad=True).requires_grad
        True
    """
    with ExitStack() as put_back:
        put_back.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        put_back.enter_context(torch.inference_mode(False))  # which turns gradients on as well
        put_back.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                put_back.enter_context(torch.autocast(kind, enabled=False))
        if torch.empty(0).device.type != "cpu":  # only where it is needed: every later call would go through it
            put_back.enter_context(torch.device("cpu"))
        yield
