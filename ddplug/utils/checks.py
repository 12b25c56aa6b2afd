"""Checks of options and shapes."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

from ddplug.errors import OptionError, unknown

__all__ = [
    "as_python",
    "at_least",
    "image_shape",
    "one_of",
    "out_of_memory",
    "real",
    "scalar",
    "values_at_least",
    "whole",
]


def at_least(options: object, **limits: float) -> None:
    """Refuse hyper-parameters below their limits.

    Args:
        options: the object that has them.
        limits: least value of each.

    Raises:
        OptionError: one is below; the message names it.
    """
    for name, least in limits.items():
        values_at_least(least, **{name: getattr(options, name)})


def out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed; one of torch has a class of its own on a GPU only.

    Example:
        >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("shapes do not fit"))
        (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, ImportError):  # a library for which the limit of the process leaves no room
        return "failed to map segment" in str(error) or "allocate memory" in str(error)
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def values_at_least(least: float, **values: float | None) -> None:
    """Refuse values below a limit.

    Args:
        least: the limit.
        values: name -> value; ``None`` is for what is not given, and passes.

    Raises:
        OptionError: one is below, or not a number; the message names it.

    Example:
        >>> values_at_least(1, repeats=0)
        Traceback (most recent call last):
        ...
        ddplug.errors.OptionError: repeats is 0; it must be at least 1
    """
    for name, value in values.items():
        if value is not None and not real(name, value) >= least:
            raise OptionError(f"{name} is {value}; it must be at least {least}")


def one_of(kind: str, value: str, known: Iterable[str]) -> None:
    """Refuse a name that is not known, and suggest the nearest.

    Args:
        kind: what the name should be, such as ``"split"``.
        value: the name.
        known: every name that is accepted.

    Raises:
        OptionError: it is none of them.
    """
    known = tuple(known)
    if value not in known:
        raise unknown(kind, value, known)


def image_shape(shape: tuple[int, ...], what: str, instead: str) -> tuple[int, int, int]:
    """Return channels, height and width of inputs that must be images.

    Args:
        shape: of one input.
        what: who needs images, for the message.
        instead: what to do otherwise, for the message.

    Raises:
        OptionError: the shape is not ``(C, H, W)``.

    Example:
        >>> image_shape((5,), "lenet", "use mlp")
        Traceback (most recent call last):
        ...
        ddplug.errors.OptionError: lenet needs (C, H, W) images, not inputs of shape (5,); use mlp
    """
    if len(shape) != 3:
        raise OptionError(f"{what} needs (C, H, W) images, not inputs of shape {tuple(shape)}; {instead}")
    return shape[0], shape[1], shape[2]


def scalar(value: Any) -> Any:
    """Return a number, a truth or a text of numpy or torch as Python's own; anything else as it is.

    Example:
        >>> import numpy as np
        >>> scalar(np.arange(3)[2]), scalar(np.float64(0.5)), scalar("kmeans")
        (2, 0.5, 'kmeans')
    """
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def as_python(value: Any) -> Any:
    """Return numbers of numpy or torch as Python's own, in lists where there are many; anything else as it is.

    Example:
        >>> import numpy as np
        >>> as_python(np.float32(0.5)), as_python(np.arange(3)), as_python("kmeans")
        (0.5, [0, 1, 2], 'kmeans')
    """
    return value.tolist() if hasattr(value, "tolist") else value


def whole(name: str, value: Any) -> int:
    """Return a whole number as an ``int``, whatever it came as: Python's, numpy's, a 0-d tensor, or ``2.0``.

    Args:
        name: of the option, for the message.
        value: the number.

    Raises:
        OptionError: it is none.

    Example:
        >>> whole("steps", 3.0)
        3
        >>> whole("steps", 2.5)
        Traceback (most recent call last):
        ...
        ddplug.errors.OptionError: steps is 2.5; it must be a whole number
    """
    value = scalar(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool):  # Python takes it for 0 or 1
        raise OptionError(f"{name} is {value}; it must be a whole number")
    try:
        return int(operator.index(value))
    except (TypeError, ValueError, RuntimeError):  # of a text, of an array, of a tensor
        raise OptionError(f"{name} is {value!r}; it must be a whole number") from None


def real(name: str, value: Any) -> Any:
    """Return a number as Python's own.

    Args:
        name: of the option, for the message.
        value: the number.

    Raises:
        OptionError: it is none.
    """
    value = scalar(value)
    if not isinstance(value, Real):
        raise OptionError(f"{name} is {value!r}; it must be a number")
    return value
