"""In which precision the networks of a run compute."""

from __future__ import annotations

import os

from torch import nn

from ddplug.data.labeled import LabeledData
from ddplug.distillation import checkpoint as checkpoints
from ddplug.distillation.protocol import Distiller
from ddplug.errors import OptionError
from ddplug.networks.precision import PRECISIONS
from ddplug.networks.probe import faster, precision_for
from ddplug.utils.files import read_tensors

__all__ = ["precision_of"]

_TRIED = ("network", "teacher")
"""Fields of a method, the first of which that names a network says what is tried for the precision ``"auto"``."""


def precision_of(asked: str, method: Distiller, data: LabeledData, checkpoint: str | None) -> str:
    """Return the precision to compute in; for ``"auto"`` that of the run that goes on, or the faster one here.

    Args:
        asked: one of :data:`ddplug.networks.precision.PRECISIONS`, or ``"auto"``.
        method: with all its options settled.
        data: real data on the device.
        checkpoint: file that the run may go on from.

    Raises:
        OptionError: it is something else, or the method computes in float32 only.
    """
    able = bool(getattr(method, "bfloat16", False))
    if asked == "bfloat16" and not able:
        raise OptionError(f"{method.name} computes in float32 only; leave precision out")

    def find() -> str:
        if not able:
            return PRECISIONS[0]
        if checkpoint is not None and os.path.exists(checkpoint):
            header = read_tensors(checkpoint, checkpoints.KIND, mapped=True, whole=False)[1]
            return "bfloat16" if header.get("precision") == "bfloat16" else PRECISIONS[0]
        known = [getattr(method, name) for name in _TRIED if hasattr(method, name)]
        network = next((own for own in known if not isinstance(own, nn.Module)), None)
        return PRECISIONS[0] if network is None else faster(network, data.shape, data.num_classes, data.device)

    return precision_for(asked, find)
