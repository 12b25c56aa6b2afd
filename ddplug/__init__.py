"""Dataset distillation as a library: make, keep, use and judge small synthetic training sets.

The names below are loaded when they are first used, so that ``import ddplug`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddplug._version import __version__

if TYPE_CHECKING:
    from ddplug import errors as errors
    from ddplug.data import LabelledData as LabelledData
    from ddplug.data import from_arrays as from_arrays
    from ddplug.data import from_dataset as from_dataset
    from ddplug.data import from_image_folder as from_image_folder
    from ddplug.datasets import load as load_dataset
    from ddplug.distillation import Distiller as Distiller
    from ddplug.distillation import distill as distill
    from ddplug.evaluation import compare as compare
    from ddplug.evaluation import cross_architecture as cross_architecture
    from ddplug.evaluation import evaluate as evaluate
    from ddplug.registry import names as names
    from ddplug.registry import resolve as resolve
    from ddplug.synthetic import Recipe as Recipe
    from ddplug.synthetic import SyntheticSet as SyntheticSet
    from ddplug.validation import holdout as holdout

__all__ = [
    "Distiller",
    "LabelledData",
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
    "Distiller": "ddplug.distillation:Distiller",
    "LabelledData": "ddplug.data:LabelledData",
    "Recipe": "ddplug.synthetic:Recipe",
    "SyntheticSet": "ddplug.synthetic:SyntheticSet",
    "compare": "ddplug.evaluation:compare",
    "cross_architecture": "ddplug.evaluation:cross_architecture",
    "distill": "ddplug.distillation:distill",
    "errors": "ddplug.errors:",
    "evaluate": "ddplug.evaluation:evaluate",
    "from_arrays": "ddplug.data:from_arrays",
    "from_dataset": "ddplug.data:from_dataset",
    "from_image_folder": "ddplug.data:from_image_folder",
    "holdout": "ddplug.validation:holdout",
    "load_dataset": "ddplug.datasets:load",
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
