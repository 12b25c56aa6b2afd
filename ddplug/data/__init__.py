"""Real data in: labeled data from arrays, torch data sets, image folders and names, and their preprocessing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.data.anything import as_labeled as as_labeled
    from ddplug.data.datasets import load as load_dataset
    from ddplug.data.labeled import LabeledData as LabeledData
    from ddplug.data.labeled import LabeledData as LabelledData
    from ddplug.data.loaders import from_arrays as from_arrays
    from ddplug.data.loaders import from_dataset as from_dataset
    from ddplug.data.loaders import from_image_folder as from_image_folder
    from ddplug.data.preprocess import Identity as Identity
    from ddplug.data.preprocess import Preprocess as Preprocess
    from ddplug.data.preprocess import Standardize as Standardize
    from ddplug.data.preprocess import Zca as Zca
    from ddplug.data.preprocess import fit as fit_preprocess

_HOMES = {
    "Identity": "preprocess",
    "LabeledData": "labeled",
    "LabelledData": "labeled:LabeledData",
    "Preprocess": "preprocess",
    "Standardize": "preprocess",
    "Zca": "preprocess",
    "as_labeled": "anything",
    "fit_preprocess": "preprocess:fit",
    "from_arrays": "loaders",
    "from_dataset": "loaders",
    "from_image_folder": "loaders",
    "load_dataset": "datasets:load",
}

__all__ = [
    "Identity",
    "LabeledData",
    "LabelledData",
    "Preprocess",
    "Standardize",
    "Zca",
    "as_labeled",
    "fit_preprocess",
    "from_arrays",
    "from_dataset",
    "from_image_folder",
    "load_dataset",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
