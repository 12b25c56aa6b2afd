"""Options that are ``"auto"``, settled once it is known what the data are.

A method says by its class attribute ``suits`` what ``"auto"`` means: option -> form of the data -> value. The forms are
those of :func:`ddplug.networks.forms.form_of`. What is settled is what the account of a run names, so a set can be made
again from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from ddplug.networks.forms import AUTO, form_of

__all__ = ["Suits", "settled"]

Suits: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Option -> form of the data -> what ``"auto"`` means for it, or a function that tells it by the shape of one input."""

T = TypeVar("T")


def settled(method: T, shape: tuple[int, ...]) -> T:
    """Return a method with a value that suits the data in the place of each ``"auto"``.

    Args:
        method: a distiller; one without ``suits`` comes back as it is.
        shape: of one input.

    Example:
        >>> from ddplug.distillers.idc import IDC
        >>> [settled(IDC(), shape).network for shape in ((1, 28, 28), (3, 100), (30,))]
        ['convnet:width=32', 'conv1d', 'mlp']
        >>> [settled(IDC(), shape).factor for shape in ((1, 28, 28), (3, 100), (30,))]
        [2, 1, 1]
    """
    own: Any = method
    suits: Suits = getattr(own, "suits", {})
    form = form_of(shape)
    found = {option: values[form] for option, values in suits.items() if getattr(own, option) == AUTO}
    found = {option: value(shape) if callable(value) else value for option, value in found.items()}
    return replace(own, **found) if found else method
