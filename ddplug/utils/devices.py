"""Find the device to work on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import torch

from ddplug.errors import OptionError
from ddplug.utils.teams import team

__all__ = ["named_device", "pick_device", "visible_gpus"]

_COUNTS: Mapping[str, Callable[[], int]] = {
    "cuda": lambda: torch.cuda.device_count(),
    "mps": lambda: int(torch.backends.mps.is_available()),
    "cpu": lambda: 1,
}
"""Kind of device, the best first -> how many there are. Looking for GPUs takes milliseconds where there are none."""


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Find the device to work on.

    Args:
        name: ``"auto"`` (CUDA, else MPS, else the CPU), or ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. Of processes
            that work together each takes a GPU of its own, as long as there are any, where none is numbered.

    Returns:
        A device that is present.

    Raises:
        OptionError: the name is not known, or the device is not present.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = next(kind for kind, count in _COUNTS.items() if count())
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise OptionError(f"unknown device {str(name)!r}; use auto, cpu, cuda, cuda:N or mps") from None
    present = _COUNTS.get(device.type, int)()
    if (device.index or 0) >= present:
        raise OptionError(f"device {str(device)!r} is not available: {present} of its kind found here; use auto or cpu")
    own = team().local % present
    return torch.device(device.type, own) if own and device.index is None else device


def named_device(name: str | torch.device) -> torch.device:
    """Find the device that a name means, of whatever kind.

    Raises:
        OptionError: see :func:`pick_device`; devices of other kinds, as ``"xpu"``, are taken as they are.
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        return pick_device(name)
    return pick_device(device) if device.type in _COUNTS else device


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that torch sees here, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    number = torch.cuda.device_count()
    return (given or [str(n) for n in range(number)])[:number]
