"""Hyper-parameters of a method as JSON-ready values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch

from ddplug.distillation.protocol import Distiller
from ddplug.errors import OptionError
from ddplug.utils.checks import scalar
from ddplug.utils.fingerprints import fingerprint

__all__ = ["config_of"]


def _plain(value: Any, where: str) -> Any:
    """Turn a hyper-parameter into JSON-ready values; anything callable becomes its qualified name.

    A network is its weights as much as its class: they are told by their fingerprint.
    """
    value = scalar(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item, where) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
    if isinstance(value, partial):
        return [_plain(part, where) for part in (value.func, value.args, value.keywords)]
    if callable(value):
        named = value if hasattr(value, "__qualname__") else type(value)
        name = f"{named.__module__}.{named.__qualname__}"
        return {"module": name, "weights": _weights(value)} if isinstance(value, torch.nn.Module) else name
    raise OptionError(
        f"hyper-parameter {where!r} is a {type(value).__name__}, which cannot be written down; use numbers, strings, "
        "tuples, dataclasses or callables"
    )


def _weights(module: torch.nn.Module) -> str:
    return fingerprint({**dict(module.named_parameters()), **dict(module.named_buffers())})


def config_of(distiller: Distiller) -> dict[str, Any]:
    """Return a distiller's hyper-parameters as JSON-ready values: callables by name, networks by their weights too.

    Raises:
        OptionError: it is not an instance of a dataclass, or a field cannot be written down.
    """
    if isinstance(distiller, type) or not is_dataclass(distiller):
        what = getattr(distiller, "__name__", type(distiller).__name__)
        such = what if isinstance(distiller, type) and is_dataclass(distiller) else "DM"
        raise OptionError(f"{what} is not an instance of a dataclass; pass a distiller such as {such}(...), or a name")
    config: dict[str, Any] = {f.name: _plain(getattr(distiller, f.name), f.name) for f in fields(distiller)}
    return config
