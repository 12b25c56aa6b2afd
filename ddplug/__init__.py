"""Dataset distillation as a library: make, keep, use and judge small synthetic training sets.

The names below are loaded when they are first used, so that ``import ddplug`` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug._version import __version__
from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug import errors as errors
    from ddplug.data.datasets import load as load_dataset
    from ddplug.data.labeled import LabeledData as LabeledData
    from ddplug.data.labeled import LabeledData as LabelledData
    from ddplug.data.loaders import from_arrays as from_arrays
    from ddplug.data.loaders import from_dataset as from_dataset
    from ddplug.data.loaders import from_image_folder as from_image_folder
    from ddplug.distillation.loop import distill as distill
    from ddplug.distillation.protocol import Distiller as Distiller
    from ddplug.evaluation.comparison import compare as compare
    from ddplug.evaluation.results import cross_architecture as cross_architecture
    from ddplug.evaluation.results import evaluate as evaluate
    from ddplug.registry import names as names
    from ddplug.registry import resolve as resolve
    from ddplug.synthetic import hub as hub
    from ddplug.synthetic.dataset import SyntheticSet as SyntheticSet
    from ddplug.synthetic.dataset import load as load
    from ddplug.synthetic.held_out import holdout as holdout
    from ddplug.synthetic.recipe import Recipe as Recipe
    from ddplug.utils.allocator import keep_memory as keep_memory

_HOMES = {
    "Distiller": "distillation.protocol",
    "LabeledData": "data.labeled",
    "LabelledData": "data.labeled:LabeledData",
    "Recipe": "synthetic.recipe",
    "SyntheticSet": "synthetic.dataset",
    "compare": "evaluation.comparison",
    "cross_architecture": "evaluation.results",
    "distill": "distillation.loop",
    "errors": "errors:",
    "evaluate": "evaluation.results",
    "from_arrays": "data.loaders",
    "from_dataset": "data.loaders",
    "from_image_folder": "data.loaders",
    "holdout": "synthetic.held_out",
    "hub": "synthetic.hub:",
    "keep_memory": "utils.allocator",
    "load": "synthetic.dataset",
    "load_dataset": "data.datasets:load",
    "names": "registry",
    "resolve": "registry",
}

__all__ = [
    "Distiller",
    "LabeledData",
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
    "hub",
    "keep_memory",
    "load",
    "load_dataset",
    "names",
    "resolve",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
