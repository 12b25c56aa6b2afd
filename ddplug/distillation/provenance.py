"""What is told of how a set was made, and what makes a run the run it is."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from ddplug._version import __version__
from ddplug.data.labeled import LabeledData
from ddplug.distillation.config import config_of
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.shards import WHOLE
from ddplug.distillation.storage import Storage
from ddplug.networks.precision import PRECISIONS
from ddplug.synthetic.merging import SHARD
from ddplug.utils.text import storable

__all__ = ["identity_of", "is_private", "versions"]


def versions() -> dict[str, str]:
    """Return the versions of all that decides the numbers of a run."""
    return {
        "ddplug": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def is_private(method: Distiller) -> bool:
    """Tell whether nothing may be told of the data but by the set itself."""
    return bool(getattr(method, "private", False))


def identity_of(
    data: LabeledData,
    method: Distiller,
    seed: int,
    storage: Storage | None = None,
    shard: tuple[int, ...] = WHOLE,
    precision: str = PRECISIONS[0],
) -> dict[str, Any]:
    """Say what makes a run the run it is; of data that are private no more than their name."""
    columns = {"columns": list(data.columns), "target": data.target} if data.columns else {}
    told = {} if is_private(method) else {"fingerprint": data.fingerprint, "size": len(data)}
    return {
        "method": method.name,
        "config": config_of(method),
        "seed": seed,
        "data": {"name": storable(data.name), **told, **columns},
        **({} if storage is None else storage.to_json()),
        **({} if shard == WHOLE else {SHARD: list(shard)}),
        **({} if precision == PRECISIONS[0] else {"precision": precision}),
        **({"real_images": method.real_images} if hasattr(method, "real_images") else {}),
    }
