"""Public names of an adapter: loaded when first used, and where the framework is missing, the extra is named."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from ddplug.errors import MissingExtraError

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str], *, framework: str, needs: Collection[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of an adapter's package (PEP 562).

    Args:
        package: its name, whose last part is also that of the extra.
        homes: public name -> module of the package that holds it.
        framework: how to call what the adapter needs.
        needs: packages that only the extra brings.

    Returns:
        The two functions.
    """
    extra = package.rpartition(".")[2]

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(f"{package}.{homes[name]}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in needs:
                raise
            raise MissingExtraError(
                f'{package}.{name} needs {framework}, which is not installed; run pip install "ddplug[{extra}]"'
            ) from error
        value = getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
