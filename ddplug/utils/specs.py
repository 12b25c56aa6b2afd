"""Names with options, as people write them: ``"avif:quality=15,mosaic=class"``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeAlias, TypeVar

from ddplug.errors import OptionError
from ddplug.utils.checks import one_of

__all__ = ["Options", "build", "check", "parse", "spec"]

T = TypeVar("T")

Options: TypeAlias = dict[str, int | float | str]
"""Values by the names of options."""


def _value(text: str) -> int | float | str:
    """Read an option's value: a whole number, else a number, else the text itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse(kind: str, text: str) -> tuple[str, Options]:
    """Split a name from its options.

    Args:
        kind: of thing, for messages.
        text: a name, or a name and options as ``name:option=value,option=value``.

    Returns:
        The name and the options.

    Raises:
        OptionError: an option is not written so, or is given twice.

    Example:
        >>> parse("codec", "avif:quality=15")
        ('avif', {'quality': 15})
    """
    name, _, rest = text.partition(":")
    options: Options = {}
    for part in rest.split(",") if rest else ():
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not option or not equals or not value:
            raise OptionError(f"{kind} {text!r}: {part!r} is not an option; write {name}:option=value,option=value")
        if option in options:
            raise OptionError(f"{kind} {text!r} gives the option {option!r} twice; give it once")
        options[option] = _value(value)
    return name.strip(), options


def check(kind: str, options: Options, defaults: Mapping[str, object]) -> None:
    """Refuse options that something does not have, and values of another type than the option's default.

    Args:
        kind: of thing and its name, for messages.
        options: from :func:`parse`.
        defaults: of every option that there is; one that is neither a number nor a string says nothing of the type.

    Raises:
        OptionError: an option is unknown, or its value of another type.
    """
    for option, value in options.items():
        one_of(f"option of {kind},", option, defaults)
        wanted = type(defaults[option])
        allowed = (int, float) if wanted is float else (wanted,)
        if wanted in (int, float, str) and not isinstance(value, allowed):
            raise OptionError(f"{kind}: option {option}={value} is not of type {wanted.__name__}")


def build(kind: str, cls: type[T], options: Options) -> T:
    """Make a frozen dataclass of numbers and strings from parsed options.

    Args:
        kind: of thing and its name, for messages.
        cls: the dataclass; every field has a default.
        options: from :func:`parse`.

    Returns:
        The object.

    Raises:
        OptionError: an option is not a field, or its value is of another type than the field's default.
    """
    defaults: dict[str, Any] = {f.name: f.default for f in fields(cls) if f.default is not MISSING}  # type: ignore[arg-type]
    check(kind, options, defaults)
    return cls(**options)


def spec(name: str, thing: Any) -> str:
    """Write a dataclass as a name with the options that differ from the defaults; the inverse of the above."""
    own = [f"{f.name}={getattr(thing, f.name)}" for f in fields(thing) if getattr(thing, f.name) != f.default]
    return ":".join([name, ",".join(own)]) if own else name
