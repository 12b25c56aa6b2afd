"""What plug-ins are and which options they take, told without importing them: that would load torch.

Of what comes with the package a table tells it, ``described.json``. ``python -m ddplug.cli.described`` writes it from
the classes themselves, and a test holds it equal to them. Any other plug-in is imported and asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ddplug import registry
from ddplug.errors import OptionError
from ddplug.utils.arguments import Option, options_of, plain

__all__ = ["TRAINING", "Described", "about", "method", "options_at", "sources", "table", "written"]

TRAINING = "ddplug.distillers.parts.training:ExpertTraining"
"""What else has fields that become options: those of ``ddplug experts``."""

_FILE = Path(__file__).parent / "described.json"


@dataclass(frozen=True)
class Described:
    """A method, as far as the command line shows it.

    Attributes:
        about: the first line of its documentation.
        presets: their names.
        options: that its fields become.
        private: whether it promises privacy.
    """

    about: str
    presets: tuple[str, ...]
    options: tuple[Option, ...]
    private: bool = False


@cache
def _table() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(_FILE.read_bytes())
    return found


def _known(part: str, kind: str, name: str) -> Any:
    """Look a plug-in up; ``None`` where another package declares it, or nobody but the program."""
    return _table()[part].get(registry.home(kind, name))


def about(kind: str, name: str) -> str:
    """Return the first line of a plug-in's documentation; ``""`` where it has none.

    Args:
        kind: see :func:`ddplug.registry.resolve`.
        name: of the plug-in.

    Raises:
        OptionError: see :func:`ddplug.registry.resolve`.
        MissingExtraError: see :func:`ddplug.registry.resolve`.
    """
    known = _known("about", kind, name)
    return _about(registry.resolve(kind, name)) if known is None else str(known)


def method(name: str) -> Described:
    """Return what the command line shows of a method.

    Args:
        name: see :func:`ddplug.registry.resolve`.

    Raises:
        OptionError: see :func:`ddplug.registry.resolve`; or its fields cannot become options.
        MissingExtraError: see :func:`ddplug.registry.resolve`.
    """
    known = _known("methods", "distiller", name)
    if known is None:
        return _described(name, registry.resolve("distiller", name))
    return Described(about("distiller", name), tuple(known["presets"]), _options(known["options"]), known["private"])


def options_at(home: str) -> tuple[Option, ...]:
    """Return the options that the fields of one of our dataclasses become.

    Args:
        home: of the class, ``"module:name"``.
    """
    return _options(_table()["methods"][home]["options"])


def sources() -> Mapping[str, str]:
    """Return how a data set of one's own is written -> what that is."""
    found: Mapping[str, str] = _table()["sources"]
    return found


def _options(rows: Sequence[Mapping[str, Any]]) -> tuple[Option, ...]:
    return tuple(Option(**row) for row in rows)


def _about(plugin: Any) -> str:
    lines = (getattr(plugin, "__doc__", None) or "").strip().splitlines()
    return plain(lines[0]) if lines else ""


def _described(name: str, cls: Any) -> Described:
    """Ask a method itself."""
    from ddplug.distillers import presets

    try:
        options = options_of(cls)
    except TypeError as error:
        raise OptionError(f"the fields of method {name!r} cannot be made options: {error}; rename them") from None
    return Described(_about(cls), tuple(presets.of(cls)), options, bool(getattr(cls, "private", False)))


def table() -> dict[str, Any]:
    """Ask all that comes with the package; what the file is to hold."""
    from ddplug.data.sources import SCHEMES

    homes = {(kind, name): registry.home(kind, name) or "" for kind in registry.GROUPS for name in registry.names(kind)}
    ours = {key: home for key, home in homes.items() if home.startswith("ddplug.")}
    module, _, training = TRAINING.partition(":")
    methods = {
        home: _described(name, registry.resolve(kind, name))
        for (kind, name), home in ours.items()
        if kind == "distiller"
    }
    methods[TRAINING] = _described("", getattr(import_module(module), training))
    return {
        "about": {home: _about(registry.resolve(*key)) for key, home in ours.items()},
        "methods": {
            home: {
                "private": each.private,
                "presets": list(each.presets),
                "options": [asdict(option) for option in each.options],
            }
            for home, each in methods.items()
        },
        "sources": {scheme.usage: scheme.about for scheme in SCHEMES.values()},
    }


def written(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Write the table, a line an entry."""
    parts = []
    for part, entries in found.items():
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
        parts.append(f"{json.dumps(part)}: {{\n{lines}\n}}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    _FILE.write_text(written(table()), encoding="utf-8")
