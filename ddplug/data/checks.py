"""What real data must be; everything else is one clear line that says what to do."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddplug.data.preprocess import pieces
from ddplug.errors import DataError

__all__ = ["check", "check_labels", "to_inputs", "to_label", "to_labels"]


def to_inputs(values: Any, what: str) -> Tensor:
    """Turn arrays or tensors into inputs as stored: uint8 stays, floating point becomes float32.

    Memory is shared where it can be; a read-only array is copied.

    Args:
        values: a tensor, or what :func:`numpy.asarray` takes.
        what: how to call it in an error.

    Returns:
        Contiguous uint8 or float32.

    Raises:
        DataError: another data type.
    """
    if isinstance(values, Tensor):
        if values.dtype == torch.uint8 or values.is_floating_point():
            dtype = torch.uint8 if values.dtype == torch.uint8 else torch.float32
            return values.detach().to(dtype).contiguous()
    else:
        try:
            values = np.asarray(values)
        except ValueError:
            raise DataError(f"{what}: the inputs differ in shape; make them equal") from None
        if values.dtype == np.uint8 or values.dtype.kind == "f":
            # writeable, because torch warns about arrays that are not; what overflows is refused as infinite
            with np.errstate(over="ignore"):
                return torch.from_numpy(
                    np.require(values, np.uint8 if values.dtype == np.uint8 else np.float32, ("C", "W"))
                )
    raise DataError(f"{what}: the inputs are {values.dtype}; give uint8 pixels (0..255) or floating-point numbers")


def to_labels(values: Any, what: str) -> Tensor:
    """Turn labels into ``(N,)`` int64.

    Raises:
        DataError: they are not integers, or not one a sample.
    """
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.size and array.dtype.kind not in "iu":
        raise DataError(f"{what}: the labels are {array.dtype}; give integers 0, 1, 2, ...")
    if array.ndim != 1:
        raise DataError(f"{what}: the labels have the shape {array.shape}; give one integer a sample, shape (N,)")
    return torch.from_numpy(array.astype(np.int64))


def to_label(value: Any, what: str) -> int:
    """Turn one label, an integer or a 0-d tensor, into an ``int``.

    Raises:
        DataError: it is something else.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise DataError(f"{what}: the label is {value!r}; it must be an integer 0, 1, 2, ...") from None


def check(inputs: Tensor, targets: Tensor, class_names: Sequence[str] | None, what: str) -> None:
    """Refuse data that nothing can be learned from.

    Args:
        inputs: ``(N, *shape)`` uint8 or float32.
        targets: ``(N,)`` int64.
        class_names: one name a class, or ``None`` for classes ``0..max``.
        what: how to call the data in an error.

    Raises:
        DataError: empty, lengths differ, NaN or infinity, or labels that :func:`check_labels` refuses.
    """
    if inputs.ndim < 2 or inputs.numel() == 0:
        raise DataError(f"{what}: the inputs have the shape {tuple(inputs.shape)}; give (N, *shape) with N at least 2")
    if len(inputs) != len(targets):
        raise DataError(f"{what}: {len(inputs)} inputs but {len(targets)} labels; give one label an input")
    check_labels(targets, class_names, what)
    if inputs.is_floating_point():
        start = 0
        for part in pieces(inputs):
            bad = ~part.flatten(1).isfinite().all(1)
            if bool(bad.any()):
                raise DataError(
                    f"{what}: sample {start + int(bad.int().argmax())} holds NaN or infinity; mend or drop it"
                )
            start += len(part)


def check_labels(targets: Tensor, class_names: Sequence[str] | None, what: str) -> None:
    """Refuse labels that are not ``0..C-1`` with every class present and at least two classes.

    Raises:
        DataError: they are not; the message names the labels.
    """
    present = torch.unique(targets).tolist()
    low, high = present[0], present[-1]
    count = len(class_names) if class_names else high + 1
    if low < 0:
        raise DataError(f"{what}: label {low} is negative; number the classes 0, 1, 2, ...")
    if high >= count:
        raise DataError(f"{what}: label {high} is beyond the {count} class names (0..{count - 1}); name every class")
    if len(present) < 2:
        raise DataError(f"{what}: every sample has label {low}; at least 2 classes are needed")
    if len(present) < count:
        known = set(present)
        missing = list(islice((label for label in range(count) if label not in known), 5))
        names = ", ".join(f"{label} ({class_names[label]})" if class_names else str(label) for label in missing)
        more = f" and {count - len(present) - len(missing)} more" if count - len(present) > len(missing) else ""
        raise DataError(
            f"{what}: no sample has label {names}{more}; number the classes 0..{len(present) - 1} or add some"
        )
