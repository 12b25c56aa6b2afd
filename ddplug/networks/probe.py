"""In which precision to compute: as asked, or the faster one here, for which a network is tried for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import torch

from ddplug.networks.factory import Network, build
from ddplug.networks.functional import loss_gradient
from ddplug.networks.precision import AUTO, PRECISIONS, computing
from ddplug.utils.checks import one_of
from ddplug.utils.teams import spread

__all__ = ["faster", "precision_for"]

_BATCH, _ROUNDS = 64, 4

_GAIN = 1.2
"""How many times faster bfloat16 must be: rounding is not taken for nothing, nor for a clock's mistakes."""


def precision_for(asked: str, find: Callable[[], str]) -> str:
    """Return the precision to compute in, the same one in processes that work together.

    Args:
        asked: one of :data:`ddplug.networks.precision.PRECISIONS`, or ``"auto"``.
        find: gives what ``"auto"`` means here; called by the first process, which decides for all.

    Raises:
        OptionError: it is something else.

    Example:
        >>> precision_for("auto", lambda: "float32")
        'float32'
    """
    one_of("precision", str(asked), (AUTO, *PRECISIONS))
    if asked != AUTO:
        return asked
    found = spread(1, lambda _: {"number": torch.tensor(PRECISIONS.index(find()))})
    return PRECISIONS[int(found[0]["number"])]


def faster(network: Network, shape: tuple[int, ...], num_classes: int, device: torch.device) -> str:
    """Return in which of :data:`ddplug.networks.precision.PRECISIONS` a network is faster on a device.

    Forward and backward of a few batches, once a process for a network that is given by its name.

    Args:
        network: name or function.
        shape: of one input.
        num_classes: number of outputs.
        device: to compute on.

    Returns:
        ``"bfloat16"`` where it saves a sixth of the time or more, else ``"float32"``.

    Example:
        >>> faster("mlp:width=8", (1, 8, 8), 10, torch.device("cpu")) in PRECISIONS
        True
    """
    trial = _named if isinstance(network, str) else _tried
    return trial(network, tuple(shape), num_classes, device)


def _tried(network: Network, shape: tuple[int, ...], num_classes: int, device: torch.device) -> str:
    # no dropout, which would draw
    module = build(network, shape, num_classes, torch.Generator().manual_seed(0)).to(device).eval()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    x = torch.linspace(-1, 1, _BATCH * torch.Size(shape).numel(), device=device).view(_BATCH, *shape)
    labels = torch.arange(_BATCH, device=device) % num_classes
    # what else runs on the machine does not count; an accelerator's time is not the processor's
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def seconds(precision: str) -> float:
        began = clock()
        with computing(precision):
            gradients, _ = loss_gradient(module, tensors, x, labels)
        for gradient in gradients.values():
            gradient.cpu()  # waits for it
        return clock() - began

    for precision in PRECISIONS:  # what is compiled or looked up at first
        seconds(precision)
    exact, rounded = [], []
    for _ in range(_ROUNDS):
        exact.append(seconds("float32"))
        rounded.append(seconds("bfloat16"))
        if min(rounded) > 2 * min(exact):  # as on processors without units for it, where it is ten times slower
            break
    return "bfloat16" if min(exact) > _GAIN * min(rounded) else "float32"


_named = lru_cache(maxsize=32)(_tried)
