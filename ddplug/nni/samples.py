"""Candidates and model spaces as JSON: the same text in the process that searches and in the one that trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from nni.common.serializer import is_traceable
from nni.mutable import Mutable

from ddplug.utils.checks import as_python
from ddplug.utils.text import lasting

__all__ = ["describe_space", "plain"]


def _name(symbol: Any) -> str:
    return f"{symbol.__module__}.{symbol.__qualname__}"


def plain(value: Any) -> Any:
    """Turn a sample, or the arguments of a space, into JSON-ready values; equal things give equal values.

    Tuples become lists, as they do on NNI's way to a trial, and so do arrays. What JSON does not know is described by
    its name and arguments, or as it describes itself, never by an address or a pickle, which differ from process to
    process.

    Args:
        value: anything.

    Example:
        >>> import numpy as np
        >>> plain({"width": np.int64(8), "kernel": (3, 3)})
        {'width': 8, 'kernel': [3, 3]}
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    own = as_python(value)
    if own is not value:
        return own
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, Set):
        return sorted(map(plain, value), key=repr)
    if isinstance(value, Sequence):
        return list(map(plain, value))
    return _described(value)


def _described(value: Any) -> Any:
    """Describe what is none of JSON's types."""
    if isinstance(value, Mutable) and not is_traceable(value, must_be_instance=True):
        return repr(value)
    if is_traceable(value, must_be_instance=True):
        return {"class": _name(value.trace_symbol), "arguments": plain([value.trace_args, value.trace_kwargs])}
    if hasattr(value, "__qualname__"):
        return _name(value)
    text = lasting(value)
    return _name(type(value)) if text is None else text


def describe_space(model: Any) -> Any:
    """Return of which space a frozen model is: class and arguments.

    Args:
        model: a frozen :class:`nni.nas.space.ExecutableModelSpace`.
    """
    return plain(getattr(model, "model", getattr(model, "model_space", type(model))))
