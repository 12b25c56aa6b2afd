"""Command-line options: a parser whose complaints are one line, and options generated from a dataclass."""

from __future__ import annotations

import argparse
import ast
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import partial
from textwrap import wrap
from typing import Any, Literal, NoReturn, TypeAlias, Union, get_args, get_origin, get_type_hints

from ddplug.errors import OptionError, unknown
from ddplug.utils.checks import one_of
from ddplug.utils.former import FORMER_SPELLINGS
from ddplug.utils.paths import local
from ddplug.utils.streams import columns

__all__ = [
    "Option",
    "Parser",
    "add_fields",
    "add_options",
    "field_help",
    "given_fields",
    "known_name",
    "number",
    "options_of",
    "path",
    "plain",
    "quantity",
]

SEED_LIMIT = 2**63 - 1

_FIELD = "field_"
"""What sets the options of a dataclass's fields apart from others of the same name."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises :class:`ddplug.errors.OptionError` and names the nearest known option."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise the complaint instead of printing the usage and leaving."""
        raise OptionError(f"{message.replace(': is ', ' is ')} (see `{self.prog} --help`)")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Take the words of an option; ``--option=--`` had none before Python 3.13, and no default either."""
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            self.error(f"argument {'/'.join(action.option_strings)}: '--' is no value; give one")
        return super()._get_values(action, arg_strings)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as :mod:`argparse` does, and suggest the nearest option for one that is not known."""
        arguments, extra = self.parse_known_args(args, namespace)
        if not extra:
            return arguments
        if extra[0].startswith("-"):
            raise unknown("option", extra[0].partition("=")[0], self._option_string_actions)
        raise OptionError(f"unexpected argument {extra[0]!r} (see `{self.prog} --help`)")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=min(columns(), 110))

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Wrap what an option does, and keep the word ``default`` with its value."""
        lines = super()._split_lines(text.replace("(default: ", "(default:\xa0"), width)
        return [line.replace("\xa0", " ") for line in lines]

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap each line by itself, below where it begins or, if it has two columns, below the second."""
        lines = []
        for line in text.splitlines():
            begins = re.match(r" {2}\S+ {2,}| *", line)
            lines += wrap(
                line,
                width - len(indent),
                subsequent_indent=" " * (begins.end() if begins else 0),
                break_long_words=False,
                break_on_hyphens=False,
            ) or [""]
        return "\n".join(f"{indent}{line}".rstrip() for line in lines)


def number(kind: type[int] | type[float], least: float, most: float = math.inf) -> Callable[[str], Any]:
    """Return an argument type that takes finite numbers from ``least`` to ``most`` only.

    Example:
        >>> number(int, 1)("3")
        3
    """
    limits = f"at least {least}" if most == math.inf else f"between {least} and {most}"

    def convert(text: str) -> Any:
        value = _plain_number(kind, text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"is {text}; it must be {limits}")
        return value

    return convert


def _plain_number(kind: type[int] | type[float], text: str) -> Any:
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        what = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"is {text!r}; it must be {what}") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"is {text}; it must be finite")
    return value


def path(text: str) -> str:
    """Take a path, an argument type; ``~`` is the home folder, see :func:`ddplug.utils.paths.local`."""
    try:
        return local(text)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def quantity(what: str, units: Mapping[str, float], *, least: float | None = None) -> Callable[[str], float]:
    """Return an argument type that takes positive numbers with or without a unit.

    Args:
        what: it measures, for complaints.
        units: name -> what it is worth; a number without a unit counts as it is.
        least: the smallest that is taken; all above 0 if not given.

    Example:
        >>> quantity("a time", {"s": 1, "m": 60})("1.5m")
        90.0
    """

    def convert(text: str) -> float:
        parts = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+) ?([A-Za-z]*)", text)
        value = -1.0 if parts is None else float(parts[1]) * {**units, "": 1}.get(parts[2], -1)
        if not (value > 0 if least is None else least <= value) or value == math.inf:
            known, limit = ", ".join(units), "above 0" if least is None else f"of at least {least:g}"
            raise argparse.ArgumentTypeError(
                f"is {text!r}; it must be {what} {limit}, as a number with {known} or none"
            )
        return value

    return convert


def known_name(kind: str, known: Sequence[str]) -> Callable[[str], str]:
    """Return an argument type that takes some names only, and suggests the nearest."""

    def convert(text: str) -> str:
        try:
            one_of(kind, text, known)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return convert


def field_help(cls: type) -> dict[str, str]:
    """Read what the fields of a documented dataclass mean from its docstring and its bases'.

    Args:
        cls: a class with a Google-style section ``Args:`` or ``Attributes:``.

    Returns:
        Field name -> its description on one line, without reStructuredText marks.

    Example:
        >>> from ddplug.synthetic.recipe import Recipe
        >>> field_help(Recipe)["epochs"]
        'passes over the set.'
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= _attributes(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
    return found


def _attributes(doc: str) -> dict[str, str]:
    section = re.search(r"^(?:Args|Attributes):\n((?:[ \t]+\S.*\n?|[ \t]*\n)+)", doc + "\n", re.MULTILINE)
    if not section:
        return {}
    entries = re.split(r"^ {4}(\w+)(?: \([^)]*\))?:", section.group(1), flags=re.MULTILINE)[1:]
    return {name: plain(text) for name, text in zip(entries[::2], entries[1::2], strict=True)}


def plain(text: str) -> str:
    """Take reStructuredText roles and quotes off, and line breaks out.

    Example:
        >>> plain("``3`` or :class:`ddplug.synthetic.Recipe`")
        '3 or ddplug.synthetic.Recipe'
    """
    text = re.sub(r":\w+:`~?([^`<]+?)(?: <[^`]*>)?`", r"\1", text)
    return " ".join(text.replace("``", "").split())


Kind: TypeAlias = Any
"""What values an option takes, in words that JSON can hold: a key of :data:`_CONVERTERS`, or a list of one and more."""


@dataclass(frozen=True)
class Option:
    """A command-line option that stands for a field of a dataclass.

    Attributes:
        name: of the field.
        kind: of its values, as :func:`options_of` tells it from the annotation.
        default: as it is shown; ``None`` where the option has to be given.
        about: what it means.
    """

    name: str
    kind: Kind
    default: str | None
    about: str


def options_of(cls: type) -> tuple[Option, ...]:
    """Return the options that the fields of a dataclass become.

    Args:
        cls: a dataclass whose fields are booleans, numbers, strings, literals, tuples of these, or ``None``.

    Raises:
        TypeError: it is no dataclass.

    Example:
        >>> from ddplug.synthetic.recipe import Recipe
        >>> options_of(Recipe)[1].name, options_of(Recipe)[1].kind
        ('learning_rate', 'float')
    """
    hints, about = get_type_hints(cls), field_help(cls)
    return tuple(
        Option(
            field.name, _kind(hints[field.name]), _default(field), field.metadata.get("help", about.get(field.name, ""))
        )
        for field in fields(cls)
        if field.init
    )


def _default(field: Field[Any]) -> str | None:
    value = field.default_factory() if field.default_factory is not MISSING else field.default
    return None if value is MISSING else _show(value)


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return repr(value) if value == "" else str(value).lower() if value is None else str(value)


def _kind(hint: Any) -> Kind:
    """Tell the kind of an annotated type."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ["literal", *inner]
    if origin is tuple:
        return ["tuple", _kind(inner[0])]
    if type(None) in inner:
        rest = [part for part in inner if part is not type(None)]
        return ["optional", _kind(Union[tuple(rest)])]  # noqa: UP007 - the members are known at run time only
    if int in inner or float in inner:
        return "number or text"
    return {bool: "switch", int: "int", float: "float"}.get(hint, "text")


def add_fields(parser: argparse._ActionsContainer, cls: type) -> None:
    """Add an option for each field of a dataclass, with its type, default and description.

    Args:
        parser: what to add them to.
        cls: see :func:`options_of`.
    """
    add_options(parser, options_of(cls))


def add_options(parser: argparse._ActionsContainer, options: Iterable[Option]) -> None:
    """Add options that stand for fields.

    Args:
        parser: what to add them to.
        options: of :func:`options_of`.
    """
    for option in options:
        shown = "(required)" if option.default is None else f"(default: {option.default})"
        settings: dict[str, Any] = {
            "dest": f"{_FIELD}{option.name}",
            # what is not given stays with the preset, else with the class
            "default": argparse.SUPPRESS,
            "required": option.default is None,
            "help": f"{option.about} {shown}".strip().replace("%", "%%"),
        }
        if option.kind == "switch":
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings |= {"type": _converter(option.kind), "metavar": _metavar(option.kind)}
        names = [option.name, *FORMER_SPELLINGS.get(option.name, ())]
        parser.add_argument(*("--" + name.replace("_", "-") for name in names), **settings)


def _converter(kind: Kind) -> Callable[[str], Any]:
    """Return the function that turns an argument into a value of a kind."""
    name, *inner = [kind] if isinstance(kind, str) else kind
    return _CONVERTERS[name](*inner)


def _literal(*values: Any) -> Callable[[str], Any]:
    named = {str(value): value for value in values}
    check = known_name("value", list(named))
    return lambda text: named[check(text)]


def _tuple(each: Kind) -> Callable[[str], Any]:
    convert = _converter(each)
    return lambda text: tuple(convert(part) for part in text.split(",") if part)


def _optional(other: Kind) -> Callable[[str], Any]:
    convert = _converter(other)
    return lambda text: None if text == "none" else convert(text)


def _number_or_text(text: str) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, (int, float)) else text


_CONVERTERS: Mapping[str, Callable[..., Callable[[str], Any]]] = {
    "int": lambda: partial(_plain_number, int),
    "float": lambda: partial(_plain_number, float),
    "text": lambda: str,
    "number or text": lambda: _number_or_text,
    # one that may be neither on nor off
    "switch": lambda: str,
    "literal": _literal,
    "tuple": _tuple,
    "optional": _optional,
}
"""Name of a kind -> what makes the converter, of what stands behind the name."""


def _metavar(kind: Kind) -> str:
    if isinstance(kind, str):
        return {"int": "N", "float": "X"}.get(kind, "VALUE")
    name, *inner = kind
    if name == "literal":
        return "{" + ",".join(map(str, inner)) + "}"
    return f"{_metavar(inner[0])},..." if name == "tuple" else "VALUE"


def given_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields that :func:`add_fields`' options set on this command line."""
    return {name.removeprefix(_FIELD): value for name, value in vars(arguments).items() if name.startswith(_FIELD)}
