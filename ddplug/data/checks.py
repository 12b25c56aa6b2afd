"""What real inputs must be; everything else is one clear line that says what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddplug.data.preprocess import pieces
from ddplug.errors import DataError
from ddplug.utils.notes import note

__all__ = ["channels_first", "check", "check_order", "refuse_masked", "refuse_meta", "to_inputs"]

_WHOLE = 2.0**24
"""The first number beyond which float32 has not every whole one."""


def to_inputs(values: Any, what: str) -> Tensor:
    """Turn arrays or tensors into inputs as stored: uint8 stays, floating point becomes float32.

    Memory is shared where it can be; a read-only array is copied.

    Args:
        values: a tensor, or what :func:`numpy.asarray` takes.
        what: how to call it in an error.

    Returns:
        Contiguous uint8 or float32.

    Raises:
        DataError: another data type, masked values, or a tensor that holds no numbers.
    """
    given = values
    if isinstance(values, Tensor):
        refuse_meta(values, f"{what}: the inputs")
        if values.is_nested:
            raise DataError(
                f"{what}: the inputs differ in shape; give all of them one shape (torch.nested.to_padded_tensor)"
            )
        if values.dtype == torch.uint8 or values.is_floating_point():
            dtype = torch.uint8 if values.dtype == torch.uint8 else torch.float32
            return values.detach().to_dense().to(dtype).contiguous()
    else:
        if _are_tensors(values) and len({value.shape for value in values}) == 1:
            # numpy takes them only from the CPU, without gradients, and of its own types
            return to_inputs(torch.stack([value.detach() for value in values]), what)
        try:
            values = np.asanyarray(values)
        except (ValueError, RuntimeError, TypeError):
            raise DataError(f"{what}: the inputs differ in shape; give all of them one shape") from None
        refuse_masked(values, f"{what}: the inputs")
        if values.dtype == np.uint8 or values.dtype.kind == "f":
            # writeable, because torch warns about arrays that are not; what overflows is refused as infinite
            with np.errstate(over="ignore"):
                return torch.from_numpy(
                    np.require(values, np.uint8 if values.dtype == np.uint8 else np.float32, ("C", "W"))
                )
    raise DataError(
        f"{what}: the inputs are {values.dtype}; give uint8 pixels (0..255) or floating-point numbers"
        f"{_instead(values, given)}"
    )


def _are_tensors(values: Any) -> bool:
    """Tell whether values are a list of tensors as they are commonly stored."""
    if not isinstance(values, (list, tuple)) or not values:
        return False
    return all(isinstance(value, Tensor) and not value.is_nested for value in values)


def refuse_meta(values: Tensor, what: str) -> None:
    """Refuse a tensor that has a shape and no numbers."""
    if values.is_meta:
        raise DataError(f"{what} are on the device 'meta', which holds no numbers; create them on the CPU")


def refuse_masked(values: Any, what: str) -> None:
    """Refuse an array some of whose values are masked; what lies under a mask is no value."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise DataError(
            f"{what} hold {int(np.ma.getmaskarray(values).sum())} masked values; fill them in or drop the samples"
        )


def _instead(values: Tensor | NDArray[Any], given: Any) -> str:
    """Say how values of another type become inputs: bytes only where that changes no number."""
    kind = str(values.dtype).removeprefix("torch.")
    if kind == "object" or (not isinstance(values, Tensor) and values.dtype.kind in "US"):
        return _instead_of_objects(values, given)
    if not kind.startswith(("int", "uint", "bool")):
        return ""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    # rows of a table are no pixels, whatever numbers they hold
    pixels = kind != "bool" and array.ndim > 2 and array.size > 0 and bool(array.min() >= 0 and array.max() <= 255)
    if isinstance(values, Tensor):
        return " (.to(torch.uint8))" if pixels else " (.float())"
    dtype = "uint8" if pixels else "float32"
    return f" (.astype({dtype!r}))" if hasattr(given, "astype") else f" (np.asarray(inputs, {dtype!r}))"


def _instead_of_objects(values: Any, given: Any) -> str:
    """Say how texts, and objects of any kind, become inputs."""
    flat = values.reshape(-1)
    if values.ndim == 0:
        return f", not one {type(given).__name__}{' (inputs.toarray())' if hasattr(given, 'toarray') else ''}"
    if any(isinstance(value, (str, bytes)) for value in flat):
        if hasattr(given, "columns"):
            return " (of texts in a table: pandas.get_dummies(frame, dtype=float))"
        return " (of paths of pictures: open each, as by PIL.Image.open)"
    if len(flat) and hasattr(flat[0], "shape"):
        return " (np.stack(list(inputs)))"
    return " (.astype('float32'))"


def channels_first(inputs: Tensor) -> Tensor:
    """Lay out images ``(N, C, H, W)``, which other libraries have as ``(N, H, W, C)`` or, in gray, ``(N, H, W)``.

    Args:
        inputs: ``(N, *shape)``, as stored.

    Returns:
        The same numbers: as they are, unless their shape can only be that of images with the channels last.

    Example:
        >>> channels_first(torch.zeros(2, 32, 24, 3)).shape, channels_first(torch.zeros(2, 3, 32, 24)).shape
        (torch.Size([2, 3, 32, 24]), torch.Size([2, 3, 32, 24]))
    """
    image = inputs.dtype == torch.uint8
    if inputs.ndim == 3 and image:
        return inputs.unsqueeze(1)
    if inputs.ndim == 4 and _channels_last(tuple(inputs.shape[1:]), image):
        return inputs.permute(0, 3, 1, 2).contiguous()
    return inputs


def _channels_last(shape: tuple[int, ...], image: bool) -> bool:
    """Return whether a shape is ``(H, W, C)``: few channels, and more rows and columns than that.

    Maps of features have few rows and columns too, ``(512, 1, 1)`` or ``(64, 3, 3)``, and are told apart by it. More
    than four channels, as satellites have them, can be told by a square before them, and in bytes, which are pixels.
    """
    height, width, channels = shape
    if height in (1, 3) or min(height, width) <= channels:
        return False
    return channels <= 4 or image or height == width


def check(inputs: Tensor, labels: int, what: str) -> None:
    """Refuse inputs that nothing can be learned from, and tell of numbers that may not be what was meant.

    Args:
        inputs: ``(N, *shape)`` uint8 or float32.
        labels: number of labels.
        what: how to call the data in an error.

    Raises:
        DataError: empty, lengths differ, NaN or infinity.
    """
    if inputs.ndim < 2 or inputs.numel() == 0:
        raise DataError(f"{what}: the inputs have the shape {tuple(inputs.shape)}; give (N, *shape) with N at least 2")
    if len(inputs) != labels:
        last = labels > 1 and inputs.shape[-1] == labels
        hint = " (their last dimension has as many: np.moveaxis(inputs, -1, 0))" if last else ""
        raise DataError(f"{what}: {len(inputs)} inputs but {labels} labels; give one label per input{hint}")
    if inputs.is_floating_point():
        start, largest = 0, 0.0
        for part in pieces(inputs):
            largest = max(largest, float(part.abs().amax()))
            bad = ~part.flatten(1).isfinite().all(1)
            if bool(bad.any()):
                raise DataError(
                    f"{what}: sample {start + int(bad.int().argmax())} holds NaN or infinity; fix or drop it"
                )
            start += len(part)
        if largest >= _WHOLE:
            note(
                f"{what}: there are numbers up to {largest:.3g}, of which float32 keeps about seven digits (to the "
                f"nearest {np.spacing(np.float32(largest)):g}); subtract a first value, as of times, if others matter"
            )
    elif inputs.ndim > 2 and _zeros_and_ones(inputs):
        note(f"{what}: the brightest byte is 1, and bytes are read as 0 to 255; multiply them by 255 if it is white")


def _zeros_and_ones(inputs: Tensor) -> bool:
    """Tell whether bytes are 0 and 1, and some 1; the first piece tells of nearly all others, and no more are read."""
    brightest = 0
    for part in pieces(inputs):
        brightest = max(brightest, int(part.amax()))
        if brightest > 1:
            return False
    return brightest == 1


def check_order(inputs: Any, labels: Any, what: str) -> None:
    """Refuse a table and labels of pandas that name the same rows in another order: they are taken as they stand.

    Args:
        inputs: as they were given.
        labels: as they were given.
        what: how to call the data in an error.

    Raises:
        DataError: they do.
    """
    rows: Any = getattr(inputs, "index", None)
    others: Any = getattr(labels, "index", None)
    if not (hasattr(rows, "equals") and hasattr(others, "equals")) or rows.equals(others) or len(rows) != len(others):
        return
    if rows.is_unique and others.is_unique and rows.isin(others).all():
        raise DataError(
            f"{what}: inputs and labels have the same index in another order; give labels.loc[inputs.index], or "
            "both as arrays, by .to_numpy(), if they belong together as they stand"
        )
