"""What must hold of the fields of a synthetic set, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddplug.functional.packing import BITS
from ddplug.functional.resize import can_enlarge
from ddplug.synthetic.stored import Stored

__all__ = ["no_tensor", "problem"]


def no_tensor(fields: Mapping[str, Any]) -> str | None:
    """Say which of the fields that must be tensors is none, if any; see :func:`problem`."""
    for name in ("inputs", "targets"):
        if not isinstance(fields[name], Tensor):
            return f"{name} are a {type(fields[name]).__name__}, not a tensor; give torch.as_tensor({name})"
    return None


def problem(fields: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the fields of a set, if anything.

    Args:
        fields: all of :class:`ddplug.synthetic.SyntheticSet`, by name, each of the type it has there.

    Returns:
        One line, or ``None`` where they fit together.
    """
    inputs, targets, names = fields["inputs"], fields["targets"], fields["class_names"]
    num_classes, levels = fields["num_classes"], fields["levels"]
    soft = targets.ndim == 2
    have, labeled = (len(tensor) if tensor.ndim else 0 for tensor in (inputs, targets))
    checks = (
        (inputs.ndim >= 2 and inputs.numel() > 0, f"inputs have the shape {tuple(inputs.shape)}"),
        (inputs.dtype == torch.float32, f"inputs are {inputs.dtype}, not torch.float32"),
        (have == labeled, f"{have} inputs but {labeled} targets"),
        (fields["bits"] in BITS, f"bits is {fields['bits']!r}, not one of {BITS}"),
        (len(names) == num_classes, f"{len(names)} names, {num_classes} classes"),
        (targets.dtype == (torch.float32 if soft else torch.int64), f"targets are {targets.dtype}"),
        (soft or targets.ndim == 1, f"targets have the shape {tuple(targets.shape)}"),
    )
    for fine, complaint in checks:
        if not fine:
            return complaint
    return (
        _shape_problem(tuple(inputs.shape[1:]), fields["network_shape"], fields["preprocess"].kind)
        or _values_problem(inputs, targets, num_classes, fields["half_labels"])
        or (None if levels is None else _levels_problem(levels, inputs.shape[1]))
        or (None if fields["stored"] is None else _stored_problem(fields["stored"], fields))
    )


def _shape_problem(stored: tuple[int, ...], seen: tuple[int, ...], preprocess: str) -> str | None:
    """Say what is wrong with the shape that networks see."""
    seen = seen or stored
    if not can_enlarge(stored, seen):
        return f"inputs of the shape {stored} cannot be enlarged to {seen}"
    if stored != seen and preprocess == "zca":
        return "zca mixes all pixels of whole images, so small ones in their place cannot be stored; use standardize"
    return None


def _stored_problem(stored: Stored, fields: Mapping[str, Any]) -> str | None:
    """Say what is wrong with what a codec holds, given that the rest is right."""
    targets = fields["targets"]
    if fields["levels"] is not None:
        return "its images are held by a codec and have levels too"
    if sum(stored.groups) != len(targets):
        return f"its codec holds {sum(stored.groups)} samples, not {len(targets)}"
    classes = targets.argmax(1) if stored.labels else targets
    if classes.ndim == 1 and not bool((classes.diff() >= 0).all()):
        return "its labels are not sorted, as those of a set held by a codec are"
    return None


def _values_problem(inputs: Tensor, targets: Tensor, num_classes: int, half_labels: bool) -> str | None:
    """Say what is wrong with labels and values, given that the shapes fit."""
    soft = targets.ndim == 2
    if soft and targets.shape[1] != num_classes:
        return f"soft labels have {targets.shape[1]} columns for {num_classes} classes"
    if not soft and not bool(((targets >= 0) & (targets < num_classes)).all()):
        return f"a label is outside 0..{num_classes - 1}"
    if not bool(inputs.isfinite().all()) or not bool(targets.isfinite().all()):
        return "it holds NaN or infinity"
    if half_labels and not (soft and torch.equal(targets.half().float(), targets)):
        return "its labels are to be stored as float16, but are not soft labels of that precision"
    return None


def _levels_problem(levels: Tensor, channels: int) -> str | None:
    """Say what is wrong with the levels, given that the inputs are right."""
    if levels.dtype != torch.float32 or tuple(levels.shape) != (2, channels):
        return f"levels are {levels.dtype} {tuple(levels.shape)}, not torch.float32 {(2, channels)}"
    if not bool(levels.isfinite().all()) or bool((levels[0] > levels[1]).any()):
        return "levels are not finite, or the lowest is above the highest"
    return None
