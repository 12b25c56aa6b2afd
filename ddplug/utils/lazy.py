"""Public names of a package that are loaded when first used (PEP 562): its face costs nothing to import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from ddplug.errors import MissingExtraError

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str], *, framework: str = "", needs: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its name. That of an adapter ends in the name of the extra that it needs.
        homes: public name -> module of the package that defines it, ``"module:name"`` where it has another name there,
            or ``"module:"`` for the module itself.
        framework: how to call what an adapter needs, for the message where it is missing.
        needs: packages that only the extra brings.

    Returns:
        The two functions.
    """
    extra = package.rpartition(".")[2]

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home, colon, attribute = homes[name].partition(":")
        try:
            module = import_module(f"{package}.{home}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in needs:
                raise
            from ddplug.utils.packages import install_extra  # reading what is installed takes its time

            raise MissingExtraError(
                f"{package}.{name} needs {framework}, which is not installed; run {install_extra(extra)}"
            ) from error
        value = module if colon and not attribute else getattr(module, attribute or name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, names
