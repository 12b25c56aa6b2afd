"""``--config FILE``: the options of a run from a TOML file, or from the account that a set gives of itself.

Either becomes words of a command line that stand before those that were typed, so what was typed wins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddplug.errors import FormatError, OptionError, unknown
from ddplug.utils.arguments import Parser, path
from ddplug.utils.text import one_line, os_reason

if TYPE_CHECKING:
    from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["CONFIG", "Config", "check_known", "other_data", "read_config", "with_config"]

CONFIG = "--config"

_MAX_BYTES = 1 << 20

_NOT_WITH: Mapping[str, tuple[str, ...]] = {
    "images-per-class": ("bytes",),
    "bytes": ("images-per-class",),
    "codec": ("bits", "quantize", "reduced"),
    "bits": ("codec",),
    "quantize": ("codec",),
    "reduced": ("codec",),
}
"""Option that was typed -> those of the file that it stands in the place of."""


@dataclass(frozen=True)
class Config:
    """What a file says of a run; it is read once.

    Attributes:
        place: what ``--config`` names.
        options: by name without dashes, the method among them.
        fingerprint: of the data that a set was made from, empty where it does not say; ``None`` for a file of options.
    """

    place: str
    options: Mapping[str, Any]
    fingerprint: str | None = None


def read_config(argv: Sequence[str]) -> Config | None:
    """Read the file that was typed after ``--config``, if there is one.

    Args:
        argv: words after ``ddplug distill``.

    Raises:
        OptionError: the file cannot be read, or says too little.
        FormatError: it is neither a set nor TOML.
    """
    place = _given(argv)
    if place is None:
        return None
    return _from_toml(place) if place.casefold().endswith(".toml") else _from_set(place)


def with_config(argv: list[str], config: Config | None) -> list[str]:
    """Put the options of a file before those that were typed, the method first; without a file change nothing.

    Args:
        argv: words after ``ddplug distill``.
        config: what the file says.

    Returns:
        Words that give the same options without the file.

    Raises:
        OptionError: the file does not fit what was typed.
    """
    if config is None:
        return argv
    place, options = config.place, dict(config.options)
    method = str(options.pop("method", ""))
    typed = [] if not argv or argv[0].startswith("-") else [argv[0]]
    if typed and method and typed != [method]:
        raise OptionError(f"{place} is for method {method}, not {typed[0]}; leave the method out, or {CONFIG}")
    if not typed and not method:
        raise OptionError(f'{place} names no method; add method = "dm", or type it: ddplug distill METHOD')
    rest = argv[len(typed) :]
    given = {word.partition("=")[0].removeprefix("--") for word in rest if word.startswith("--")}
    dropped = {name for option in given for name in _NOT_WITH.get(option, ())}
    kept = {name: value for name, value in options.items() if name not in dropped}
    words = [word for name, value in kept.items() for word in _words(place, name, value)]
    return [*(typed or [method]), *words, *rest]


def check_known(parser: Parser, config: Config | None) -> None:
    """Refuse keys of the file that are no options; those of a set are what its version had.

    Args:
        parser: with all options.
        config: what the file says.

    Raises:
        OptionError: a key is unknown.
    """
    if config is None or config.fingerprint is not None:
        return
    known = {name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")} | {"method"}
    for name in config.options:
        if name not in known:
            raise unknown(f"option in {config.place}", name, known)


def _given(argv: Sequence[str]) -> str | None:
    """Return the file that was typed after ``--config``."""
    for k, word in enumerate(argv):
        if word == CONFIG:
            if k + 1 == len(argv) or argv[k + 1].startswith("-"):
                raise OptionError(f"{CONFIG} names no file; give a set or a .toml file")
            return path(argv[k + 1])
        if word.startswith(f"{CONFIG}="):
            return path(word.partition("=")[2])
    return None


def _words(place: str, name: str, value: Any) -> list[str]:
    """Write an option as words of a command line."""
    if isinstance(value, bool):
        return [f"--{name}"] if value else ([] if name in ("quantize", "download", "no-resume") else [f"--no-{name}"])
    if name == "ignore" and isinstance(value, list):
        return [f"--{name}={item}" for item in value]
    if isinstance(value, list):
        return [f"--{name}={','.join(map(str, value))}"]
    if value is None or isinstance(value, str | int | float):
        return [f"--{name}={'none' if value is None else value}"]
    raise OptionError(
        f"{place}: option {name} is neither a number nor text ({one_line(value, most=60)}); give it with --{name}, "
        "or make the set in Python"
    )


def _from_toml(place: str) -> Config:
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        content = Path(place).read_bytes()
    except OSError as error:
        raise OptionError(f"cannot read {place}: {os_reason(error)}; check the path") from None
    if len(content) > _MAX_BYTES:
        raise OptionError(f"{place} has {len(content)} bytes, too many for a file of options; check the name")
    try:
        values = toml.loads(content.decode("utf-8-sig"))  # editors of Windows put a mark before it
    except ValueError as error:  # of TOML and of UTF-8
        raise FormatError(f"{place} is not valid TOML: {one_line(error, most=200)}") from None
    return Config(place, {name.replace("_", "-"): value for name, value in values.items()})


def _from_set(place: str) -> Config:
    from ddplug import registry
    from ddplug.synthetic.dataset import SyntheticSet

    made = SyntheticSet.load(place)
    account = made.provenance
    config, data = account.get("config"), account.get("data")
    if not isinstance(account.get("method"), str) or not isinstance(config, Mapping) or not isinstance(data, Mapping):
        what = "was merged from several" if "merged" in account else "does not say how it was made"
        raise OptionError(f"{place} {what}, so it cannot be made again; give a set as `ddplug distill` wrote it")
    options = {name.replace("_", "-"): value for name, value in config.items()}
    if "nbytes" in account:
        del options["images-per-class"]
    options |= {
        "method": account["method"],
        "seed": account.get("seed", 0),
        **({"data": data["name"]} if data.get("name") in registry.names("dataset") else {}),
        **{name: account[name] for name in ("codec", "precision") if name in account},
        **({"bytes": f"{account['nbytes']}B"} if "nbytes" in account else {}),
        **_storage(made, config),
    }
    return Config(place, options, made.data_fingerprint or "")


def _storage(made: SyntheticSet, config: Mapping[str, Any]) -> dict[str, Any]:
    """Tell how a set was stored smaller after it was made, if its account names no codec."""
    from ddplug.functional.resize import MAX_FACTOR, reduced_shape

    if made.stored is not None or "codec" in made.provenance:
        return {}
    found: dict[str, Any] = {"bits": made.bits} if "quantisation_rmse" in made.provenance else {}
    small = tuple(made.inputs.shape[1:])
    if small != made.shape and config.get("factor", 1) == 1:
        most = min(MAX_FACTOR, *made.shape[1:])
        factors: Iterable[int] = (n for n in range(2, most + 1) if reduced_shape(made.shape, n) == small)
        found["reduced"] = next(iter(factors), 1)
    return found


def other_data(config: Config | None, fingerprint: str) -> str | None:
    """Say that data are not those that a set was made from; ``None`` where they are, or nobody knows.

    Args:
        config: what ``--config`` says.
        fingerprint: of the data.
    """
    if config is None or config.fingerprint in (None, fingerprint):
        return None
    return (
        f"the data differ from those of {config.place}, so another set comes out; check --data, --size and --validation"
    )
