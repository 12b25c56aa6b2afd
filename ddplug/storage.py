"""A synthetic set in one file.

The file is that of :mod:`ddplug.files`, of the kind ``synthetic-set``. It has the tensors

* ``inputs``: ``(M, *stored)`` float32 in model space, or uint8 codes where ``levels`` is present; codes of fewer
  bits as :func:`ddplug.packing.pack` lays them out;
* ``levels``: ``(2, C)`` float32, the pixel values of the codes 0 and 255 in each channel;
* ``targets``: ``(M,)`` uint8 class indices (int32 above 256 classes), or ``(M, classes)`` float32 or float16 soft
  labels;
* ``preprocess.NAME``: the float32 fields of the preprocessing

and the header fields ``num_classes``, ``class_names``, ``preprocess`` (its kind), ``recipe`` and ``provenance``,
``network_shape`` where networks see the inputs enlarged to another shape than the stored one, and ``bits`` and
``stored_shape`` where codes have fewer bits than 8.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddplug.augment import check
from ddplug.errors import DataError, FormatError, OptionError
from ddplug.files import check_writable, read_tensors, write_file, write_tensors
from ddplug.formation import can_enlarge
from ddplug.packing import BITS, pack, packed_bytes, unpack
from ddplug.preprocess import Preprocess, from_tensors
from ddplug.synthetic import Recipe, SyntheticSet

__all__ = ["check_writable", "load", "read_tensors", "save", "write_file", "write_tensors"]


def save(synthetic: SyntheticSet, path: str | Path) -> None:
    """Write a synthetic set to one file; what is written is first read back in memory.

    Args:
        synthetic: the set, on any device.
        path: the file, ``.safetensors`` by convention; an existing one is replaced.

    Raises:
        OptionError: the path cannot be written.
        DataError: the set would not come back as it is.

    Example:
        >>> import tempfile
        >>> from ddplug.preprocess import Identity
        >>> made = SyntheticSet(torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 2, Identity())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(made, folder + "/made.safetensors")
        ...     back = load(folder + "/made.safetensors")
        >>> torch.equal(made.inputs, back.inputs)
        True
    """
    own = synthetic.to("cpu")
    tensors = {f"preprocess.{name}": tensor for name, tensor in own.preprocess.tensors().items()}
    packed = own.levels is not None and own.bits < 8
    codes = own.inputs if own.levels is None else own.codes()
    tensors["inputs"] = pack(codes.flatten(1), own.bits) if packed else codes
    tensors["targets"] = own.targets.to(_label_type(own.num_classes) if own.targets.ndim == 1 else own.soft_type)
    if own.levels is not None:
        tensors["levels"] = own.levels
    header = {
        "num_classes": own.num_classes,
        "class_names": list(own.class_names),
        "preprocess": own.preprocess.kind,
        "recipe": own.recipe.to_json(),
        "provenance": dict(own.provenance),
    }
    if own.network_shape:
        header["network_shape"] = list(own.network_shape)
    if packed:
        header |= {"bits": own.bits, "stored_shape": list(own.inputs.shape[1:])}
    try:
        back = _build(tensors, header)
    except FormatError as error:
        raise DataError(f"cannot save the set: {error}") from None
    if not torch.equal(back.inputs, own.inputs):
        raise DataError("cannot save the set: its inputs do not lie on its levels; set levels=None and quantise again")
    write_tensors(path, "synthetic-set", tensors, header, 3 if packed else 1)


def load(path: str | Path) -> SyntheticSet:
    """Read a synthetic set; the file is not trusted.

    Args:
        path: the file.

    Returns:
        The set, on the CPU, bit for bit what was saved.

    Raises:
        OptionError: the file does not exist or cannot be read.
        FormatError: it is not a whole and valid synthetic set, or it is from a newer version.
    """
    tensors, header = read_tensors(path, "synthetic-set")
    try:
        return _build(tensors, header)
    except (FormatError, DataError) as error:
        raise FormatError(f"{path} holds no valid synthetic set: {error}") from None


def _label_type(num_classes: int) -> torch.dtype:
    """Smallest stored type that holds the labels."""
    return torch.uint8 if num_classes <= 256 else torch.int32


def _build(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> SyntheticSet:
    """Check everything that was read and build the set.

    Raises:
        FormatError: something is missing, unknown, or does not fit the rest.
        DataError: labels or values are not those of a set.
    """
    _check_header(header)
    fields = {name.removeprefix("preprocess."): t for name, t in tensors.items() if name.startswith("preprocess.")}
    plain = {name for name in tensors if not name.startswith("preprocess.")}
    if not {"inputs", "targets"} <= plain <= {"inputs", "targets", "levels"}:
        raise FormatError(f"its tensors are {reprlib.repr(sorted(plain))}, not inputs, targets and maybe levels")
    stored, targets, levels = tensors["inputs"], tensors["targets"], tensors.get("levels")
    if header.keys() & {"bits", "stored_shape"}:
        stored = _unpacked(stored, header.get("bits"), header.get("stored_shape"))
    if not 2 <= stored.ndim <= 8 or stored.numel() == 0:
        raise FormatError(f"inputs have the shape {tuple(stored.shape)}")
    if stored.dtype != (torch.float32 if levels is None else torch.uint8):
        raise FormatError(f"inputs are {stored.dtype} {'without' if levels is None else 'with'} levels")
    if targets.ndim == 1 and targets.dtype != _label_type(header["num_classes"]):
        raise FormatError(f"hard labels are {targets.dtype}, not {_label_type(header['num_classes'])}")
    shape = _network_shape(header.get("network_shape", list(stored.shape[1:])), tuple(stored.shape[1:]))
    half_labels = targets.ndim == 2 and targets.dtype == torch.float16
    result = SyntheticSet(
        # the codes are decoded below, once the levels are known to be right
        inputs=stored if levels is None else torch.zeros(stored.shape),
        targets=targets.float() if half_labels else targets.long() if targets.ndim == 1 else targets,
        num_classes=header["num_classes"],
        preprocess=_preprocess(header["preprocess"], fields, tuple(stored.shape[1:])),
        recipe=_recipe(header["recipe"], shape),
        class_names=tuple(header["class_names"]),
        provenance=header["provenance"],
        levels=levels,
        network_shape=shape,
        half_labels=half_labels,
        bits=header.get("bits", 8),
    )
    if levels is not None:
        result = replace(result, inputs=result.decode(stored))
    if not bool(result.preprocess.inverse(result.inputs).isfinite().all()):
        raise FormatError("its pixels are not finite")
    return result


_MAX_NAME = 255
_HEADER = {"num_classes": int, "class_names": list, "preprocess": str, "recipe": dict, "provenance": dict}
_OPTIONAL = {"network_shape", "bits", "stored_shape"}


def _check_header(header: Mapping[str, Any]) -> None:
    """Check the names and types of the header fields.

    Raises:
        FormatError: one is missing, unknown or of the wrong type.
    """
    if set(header) - _OPTIONAL != set(_HEADER):
        raise FormatError(f"its header fields are {reprlib.repr(sorted(header))}, not {', '.join(sorted(_HEADER))}")
    for name, wanted in _HEADER.items():
        if type(header[name]) is not wanted:
            raise FormatError(f"header field {name!r} is {reprlib.repr(header[name])}, not of type {wanted.__name__}")
    names = header["class_names"]
    if not names or not all(isinstance(name, str) and len(name) <= _MAX_NAME for name in names):
        raise FormatError(f"class_names is not a list of names of at most {_MAX_NAME} characters")
    if len(names) != header["num_classes"]:
        raise FormatError(f"num_classes is {reprlib.repr(header['num_classes'])} for {len(names)} class names")


def _unpacked(packed: Tensor, bits: Any, shape: Any) -> Tensor:
    """Take codes of fewer bits than 8 apart.

    Raises:
        FormatError: bits, shape and what is packed do not fit together.
    """
    if type(bits) is not int or bits not in BITS[:-1]:
        raise FormatError(f"bits is {reprlib.repr(bits)}, not one of {', '.join(map(str, BITS[:-1]))}")
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(size) is int and size > 0 for size in shape)):
        raise FormatError(f"stored_shape is {reprlib.repr(shape)}, not three sizes of an image")
    wanted = packed_bytes(math.prod(shape), bits)
    if packed.dtype != torch.uint8 or packed.ndim != 2 or packed.shape[1] != wanted:
        raise FormatError(
            f"inputs are {packed.dtype} {tuple(packed.shape)}, but images of {reprlib.repr(shape)} with {bits} bits a "
            f"number take {reprlib.repr(wanted)} uint8 each"
        )
    return unpack(packed, math.prod(shape), bits).view(len(packed), *shape)


def _network_shape(sizes: Any, stored: tuple[int, ...]) -> tuple[int, ...]:
    """Read the shape that networks see inputs of the stored shape in.

    Raises:
        FormatError: it is no shape that they can be enlarged to.
    """
    whole = isinstance(sizes, list) and all(type(size) is int for size in sizes)
    if not whole or not can_enlarge(stored, tuple(sizes)):
        raise FormatError(f"network_shape is {reprlib.repr(sizes)}, to which inputs of {stored} cannot be enlarged")
    return tuple(sizes)


def _recipe(values: Mapping[str, Any], shape: tuple[int, ...]) -> Recipe:
    """Build the recipe of inputs of a shape.

    Raises:
        FormatError: a field is wrong, or its augmentation does not suit the inputs.
    """
    recipe = Recipe.from_json(values)
    try:
        check(recipe.augment, shape)
    except OptionError as error:
        raise FormatError(f"recipe: {error}") from None
    return recipe


def _preprocess(kind: str, fields: Mapping[str, Tensor], shape: tuple[int, ...]) -> Preprocess:
    """Build the preprocessing of inputs of a shape.

    Raises:
        FormatError: a field is unknown, of the wrong type or shape, not finite, or a deviation that is not positive.
    """
    result = from_tensors(kind, fields)
    width = math.prod(shape) if kind == "zca" else shape[0]
    for name, tensor in fields.items():
        wanted = (width, width) if name.endswith("matrix") else (width,)
        if tensor.dtype != torch.float32 or tuple(tensor.shape) != wanted:
            raise FormatError(f"preprocessing {name} is {tensor.dtype} {tuple(tensor.shape)}, not float32 {wanted}")
        if not bool(tensor.isfinite().all()) or (name == "std" and not bool((tensor > 0).all())):
            raise FormatError(f"preprocessing {name} is not finite, or a standard deviation is not positive")
    return result
