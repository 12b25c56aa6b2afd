"""Proxy evaluation for architecture search with NNI: an evaluator, an experiment, trials, spaces and agreement.

Needs the extra ``nni``: ``pip install "ddplug[nni]"``. Importing this package alone imports nothing of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddplug.errors import MissingExtraError

if TYPE_CHECKING:
    from ddplug.nni.evaluator import ProxyEvaluator as ProxyEvaluator
    from ddplug.nni.experiment import ProxyExperiment as ProxyExperiment
    from ddplug.nni.oneshot import OneShotEvaluator as OneShotEvaluator
    from ddplug.nni.spaces import ConvNetSpace as ConvNetSpace
    from ddplug.nni.spaces import architectures as architectures

_HOMES = {
    "ConvNetSpace": "spaces",
    "OneShotEvaluator": "oneshot",
    "ProxyEvaluator": "evaluator",
    "ProxyExperiment": "experiment",
    "architectures": "spaces",
}

__all__ = ["ConvNetSpace", "OneShotEvaluator", "ProxyEvaluator", "ProxyExperiment", "architectures"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("nni", "psutil", "pytorch_lightning"):
            raise
        raise MissingExtraError(
            f'{__name__}.{name} needs NNI, which is not installed; run pip install "ddplug[nni]"'
        ) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
