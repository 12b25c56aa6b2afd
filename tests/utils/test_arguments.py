"""Options are generated from the methods' own dataclasses, and a wrong value is one line that names the limit."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest

from ddplug import registry
from ddplug.errors import OptionError
from ddplug.utils.arguments import Parser, add_fields, field_help, given_fields, known_name, number


@dataclass(frozen=True)
class Base:
    """A base.

    Attributes:
        count: how many, of :class:`Base`
            or ``100%`` of them.
        rate: a rate.
    """

    count: int = 3
    rate: float = 0.5


@dataclass(frozen=True)
class Sample(Base):
    """A sample.

    Args:
        rate: a better rate.
        flag: a switch.
        start: where from.
        sizes: several.
        limit: most, or none.

    Raises:
        OptionError: never.
    """

    flag: bool = True
    start: Literal["real", "noise"] = "real"
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None
    tag: str = field(default="", metadata={"help": "from the metadata"})


def parse(*argv: str) -> dict[str, Any]:
    parser = Parser(prog="x")
    add_fields(parser, Sample)
    return given_fields(parser.parse_args(argv))


def test_help_is_read_from_docstrings_of_the_class_and_its_bases() -> None:
    assert field_help(Sample) == {
        "count": "how many, of Base or 100% of them.",
        "rate": "a better rate.",
        "flag": "a switch.",
        "start": "where from.",
        "sizes": "several.",
        "limit": "most, or none.",
    }


def test_help_text_shows_every_field_with_its_default() -> None:
    parser = Parser(prog="x")
    add_fields(parser, Sample)
    text = " ".join(parser.format_help().split())
    assert "--count N how many, of Base or 100% of them. (default: 3)" in text
    assert "--flag, --no-flag a switch. (default: True)" in text
    assert "--start {real,noise} where from. (default: real)" in text
    assert "--sizes N,... several. (default: 1,2)" in text
    assert "from the metadata (default: '')" in text


@pytest.mark.parametrize("name", registry.names("distiller"))
def test_every_field_of_every_method_is_documented(name: str) -> None:
    cls = registry.resolve("distiller", name)
    assert {f.name for f in fields(cls)} <= {*field_help(cls)}


def test_only_given_fields_are_returned_and_have_the_annotated_type() -> None:
    assert parse() == {}
    given = parse("--count", "7", "--rate=2", "--no-flag", "--start", "noise", "--sizes", "4,5", "--limit", "9")
    assert given == {"count": 7, "rate": 2.0, "flag": False, "start": "noise", "sizes": (4, 5), "limit": 9}
    assert isinstance(given["rate"], float)
    assert parse("--limit", "none") == {"limit": None}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--count", "2.5"), "--count is '2.5'; it must be a whole number"),
        (("--rate", "fast"), "--rate is 'fast'; it must be a number"),
        (("--rate", "nan"), "--rate is nan; it must be finite"),
        (("--rate", "1e999"), "--rate is 1e999; it must be finite"),
        (("--start", "reel"), "unknown value 'reel'; did you mean 'real'?"),
        (("--sizes", "1,x"), "--sizes is 'x'; it must be a whole number"),
        (("--cont", "3"), "unknown option '--cont'; did you mean '--count'?"),
        (("extra",), "unexpected argument 'extra'"),
        (("--count",), "--count: expected one argument"),
        (("--count=--",), "--count: '--' is no value; give one"),
    ],
)
def test_wrong_value_is_named(argv: tuple[str, ...], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(*argv)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_number_refuses_what_is_outside_its_limits() -> None:
    assert number(int, 1)("1") == 1
    assert number(float, 0, 1)("0.25") == 0.25
    with pytest.raises(argparse.ArgumentTypeError, match=r"is 0; it must be at least 1"):
        number(int, 1)("0")
    with pytest.raises(argparse.ArgumentTypeError, match=r"is 1.5; it must be between 0 and 1"):
        number(float, 0, 1)("1.5")


def test_one_of_suggests_the_nearest() -> None:
    assert known_name("protocol", ["set", "paper"])("set") == "set"
    with pytest.raises(argparse.ArgumentTypeError, match=r"unknown protocol 'papr'; did you mean 'paper'"):
        known_name("protocol", ["set", "paper"])("papr")
