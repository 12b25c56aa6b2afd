"""Dataset distillation as a library: make, keep, use and judge small synthetic training sets.

The names below are loaded when they are first used, so that ``import ddplug`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddplug._version import __version__

if TYPE_CHECKING:
    from ddplug import errors
    from ddplug.data.datasets import load as load_dataset
    from ddplug.data.labeled import LabeledData
    from ddplug.data.loaders import from_arrays, from_dataset, from_image_folder
    from ddplug.distillation.loop import distill
    from ddplug.distillation.protocol import Distiller
    from ddplug.evaluation.comparison import compare
    from ddplug.evaluation.results import cross_architecture, evaluate
    from ddplug.registry import names as names
    from ddplug.registry import resolve as resolve
    from ddplug.synthetic.dataset import SyntheticSet
    from ddplug.synthetic.held_out import holdout
    from ddplug.synthetic.recipe import Recipe

__all__ = [
    "Distiller",
    "LabeledData",
    "Recipe",
    "SyntheticSet",
    "__version__",
    "compare",
    "cross_architecture",
    "distill",
    "errors",
    "evaluate",
    "from_arrays",
    "from_dataset",
    "from_image_folder",
    "holdout",
    "load_dataset",
    "names",
    "resolve",
]

_HOMES = {
    "Distiller": "ddplug.distillation.protocol:Distiller",
    "LabeledData": "ddplug.data.labeled:LabeledData",
    "Recipe": "ddplug.synthetic.recipe:Recipe",
    "SyntheticSet": "ddplug.synthetic.dataset:SyntheticSet",
    "compare": "ddplug.evaluation.comparison:compare",
    "cross_architecture": "ddplug.evaluation.results:cross_architecture",
    "distill": "ddplug.distillation.loop:distill",
    "errors": "ddplug.errors:",
    "evaluate": "ddplug.evaluation.results:evaluate",
    "from_arrays": "ddplug.data.loaders:from_arrays",
    "from_dataset": "ddplug.data.loaders:from_dataset",
    "from_image_folder": "ddplug.data.loaders:from_image_folder",
    "holdout": "ddplug.synthetic.held_out:holdout",
    "load_dataset": "ddplug.data.datasets:load",
    "names": "ddplug.registry:names",
    "resolve": "ddplug.registry:resolve",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, _, attribute = _HOMES[name].partition(":")
    module = import_module(home)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
