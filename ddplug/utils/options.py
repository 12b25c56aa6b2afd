"""Dataclasses of options, whose numbers may come from numpy or torch as a grid over ``np.logspace`` gives them."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ddplug.errors import OptionError
from ddplug.utils.checks import real, scalar, whole

__all__ = ["TakesNumbers"]


def _whole_or_auto(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if value == "auto":
            return value
        raise OptionError(f"{name} is {value!r}; it must be 'auto' or a whole number")
    return whole(name, value)


_KINDS: Mapping[object, Callable[[str, Any], Any]] = {
    "int": whole,
    int: whole,
    "float": real,
    float: real,
    'int | Literal["auto"]': _whole_or_auto,
}
"""Annotation of a field -> what makes a value of it."""


def _plain(name: str, value: Any) -> Any:
    return scalar(value)


class TakesNumbers(ABCMeta):
    """Class of dataclasses whose fields become Python's own numbers when an object is made, or are refused."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        own = [field for field in fields(cls) if field.init]  # type: ignore[arg-type]
        kinds = {field.name: _KINDS.get(field.type, _plain) for field in own}
        placed = [kinds[field.name](field.name, value) for field, value in zip(own, args, strict=False)]
        named = {name: kinds.get(name, _plain)(name, value) for name, value in options.items()}
        return super().__call__(*placed, *args[len(placed) :], **named)

    @property
    def __signature__(cls) -> inspect.Signature:
        """The constructor's, which ``help`` and the reference would else not see behind the call."""
        own = inspect.signature(cls.__init__)  # type: ignore[misc]
        return own.replace(parameters=list(own.parameters.values())[1:])
