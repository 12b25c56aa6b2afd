"""A synthetic set in one file.

The file is that of :mod:`ddplug.utils.files`, of the kind ``synthetic-set``. It has the tensors

* ``inputs``: ``(M, *stored)`` float32 in model space, or uint8 codes where ``levels`` is present; codes of fewer
  bits as :func:`ddplug.functional.pack` lays them out;
* ``levels``: ``(2, C)`` float32, the pixel values of the codes 0 and 255 in each channel;
* ``targets``: ``(M,)`` uint8 class indices (int32 above 256 classes), or ``(M, classes)`` float32 or float16 soft
  labels;
* ``preprocess.NAME``: the float32 fields of the preprocessing

or, where a codec holds the images, in the place of ``inputs``

* ``stream.NAME``: ``(n,)`` uint8, the streams of the codec;
* ``counts``: ``(classes,)`` uint8 or int32, the numbers of successive samples of each class, in the place of hard
  ``targets``, or of soft ones of which the most probable class is meant and
* ``label.NAME``: ``(n,)`` uint8, the streams of the rest (:mod:`ddplug.functional.top_labels`),

and the header fields ``num_classes``, ``class_names``, ``preprocess`` (its kind), ``recipe`` and ``provenance``,
``network_shape`` where networks see the inputs enlarged to another shape than the stored one, and ``bits`` and
``stored_shape`` where codes have fewer bits than 8. Where there is a codec, ``codec`` is its name with options,
``stored_shape`` the shape of the samples that it was given, and ``groups`` the numbers of samples that it was told
belong together, if these are not the ``counts``.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ddplug.data.preprocess import Preprocess, from_tensors
from ddplug.errors import DataError, FormatError, MissingExtraError, OptionError
from ddplug.functional import top_labels
from ddplug.functional.packing import BITS, pack, packed_bytes, unpack
from ddplug.functional.resize import can_enlarge
from ddplug.synthetic import checks, quantize
from ddplug.synthetic.recipe import Recipe
from ddplug.synthetic.stored import Stored
from ddplug.utils.text import storable

__all__ = ["KIND", "check_names", "decode", "encode", "label_bytes"]

KIND = "synthetic-set"
"""What the header of the file calls it."""


def encode(fields: Mapping[str, Any], codes: Tensor | None) -> tuple[dict[str, Tensor], dict[str, Any], int]:
    """Turn the fields of a set into what a file holds.

    Args:
        fields: of :class:`ddplug.synthetic.SyntheticSet`, by name; tensors on the CPU.
        codes: ``(M, *stored)`` uint8 codes of a quantized set.

    Returns:
        The tensors, the header, and the version of the format that they need.
    """
    targets, num_classes, bits = fields["targets"], fields["num_classes"], fields["bits"]
    soft_type = torch.float16 if fields["half_labels"] else torch.float32
    tensors = {f"preprocess.{name}": tensor for name, tensor in fields["preprocess"].tensors().items()}
    held: Stored | None = fields["stored"]
    packed = codes is not None and bits < 8
    stored = fields["inputs"] if codes is None else codes
    if held is None:
        tensors["inputs"] = pack(stored.flatten(1), bits) if packed else stored
    else:
        tensors |= {f"{_STREAM}{name}": stream for name, stream in held.streams.items()}
        tensors |= {f"{_LABEL}{name}": stream for name, stream in held.labels.items()}
    if held is not None and (targets.ndim == 1 or held.labels):
        tensors["counts"] = _counts(targets if targets.ndim == 1 else targets.argmax(1), num_classes)
    else:
        tensors["targets"] = targets.to(_label_type(num_classes) if targets.ndim == 1 else soft_type)
    if codes is not None:
        tensors["levels"] = fields["levels"]
    header = {
        "num_classes": num_classes,
        "class_names": list(fields["class_names"]),
        "preprocess": fields["preprocess"].kind,
        "recipe": fields["recipe"].to_json(),
        "provenance": dict(fields["provenance"]),
    }
    if fields["network_shape"]:
        header["network_shape"] = list(fields["network_shape"])
    if packed:
        header |= {"bits": bits, "stored_shape": list(stored.shape[1:])}
    if held is not None:
        header |= {"codec": held.codec, "stored_shape": list(held.shape)}
        if "counts" not in tensors or tensors["counts"].tolist() != list(held.groups):
            header["groups"] = list(held.groups)
    version = 1 + 2 * packed if held is None else 4 + bool(held.labels)
    return tensors, header, version


def label_bytes(targets: Tensor, num_classes: int, half_labels: bool) -> int:
    """Count the bytes of the labels of a set that a codec holds.

    Args:
        targets: ``(M,)`` sorted hard labels or ``(M, num_classes)`` soft ones.
        num_classes: number of classes.
        half_labels: whether soft labels are stored as float16.
    """
    if targets.ndim == 1:
        return _counts(targets, num_classes).nbytes
    return targets.numel() * (2 if half_labels else 4)


def _counts(targets: Tensor, num_classes: int) -> Tensor:
    """Count the samples of each class, ``(classes,)`` in the smallest type that holds them."""
    counts = targets.bincount(minlength=num_classes)
    return counts.to(torch.uint8 if int(counts.max()) < 256 else torch.int32).cpu()


def _label_type(num_classes: int) -> torch.dtype:
    """Smallest stored type that holds the labels."""
    return torch.uint8 if num_classes <= 256 else torch.int32


def decode(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> dict[str, Any]:
    """Check everything that was read and turn it into the fields of a set; the inverse of :func:`encode`.

    Args:
        tensors: of the file.
        header: of the file.

    Returns:
        The fields of :class:`ddplug.synthetic.SyntheticSet`, by name.

    Raises:
        FormatError: something is missing, unknown, or does not fit the rest.
        DataError: labels or values are not those of a set.
    """
    _check_header(header)
    fields = {name.removeprefix("preprocess."): t for name, t in tensors.items() if name.startswith("preprocess.")}
    plain = {name for name in tensors if not name.startswith("preprocess.")}
    if "codec" in header:
        return _decode_held({name: tensors[name] for name in plain}, header, fields)
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
    preprocess = _preprocess(header["preprocess"], fields, tuple(stored.shape[1:]))
    found: dict[str, Any] = {
        **_described(header, targets, preprocess, shape),
        # the codes are decoded below, once the levels are known to be right
        "inputs": stored if levels is None else torch.zeros(stored.shape),
        "levels": levels,
        "bits": header.get("bits", 8),
        "stored": None,
    }
    _check(found)
    if levels is not None:
        found["inputs"] = quantize.decode(preprocess, stored, levels)
        _check(found)
    if not bool(preprocess.inverse(found["inputs"]).isfinite().all()):
        raise FormatError("its pixels are not finite")
    return found


def _decode_held(
    tensors: Mapping[str, Tensor], header: Mapping[str, Any], fields: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Read a set whose images a codec holds.

    Raises:
        FormatError: something is missing, unknown, or does not fit the rest.
        DataError: labels or values are not those of a set.
    """
    streams, coded = (
        {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        for prefix in (_STREAM, _LABEL)
    )
    labels = {name for name in tensors if not name.startswith((_STREAM, _LABEL))}
    if labels not in ({"counts"}, {"targets"}) or not streams or (coded and "counts" not in labels):
        raise FormatError(f"its tensors are {reprlib.repr(sorted(tensors))}, not streams, and counts or targets")
    if any(stream.dtype != torch.uint8 or stream.ndim != 1 for stream in (*streams.values(), *coded.values())):
        raise FormatError("a stream is not made of bytes")
    shape: Any = header.get("stored_shape")
    if not _sizes(shape, 1) or not 1 <= len(shape) <= 3:
        raise FormatError(f"stored_shape is {reprlib.repr(shape)}, not the sizes of a sample")
    num_classes = header["num_classes"]
    targets = _targets(tensors, num_classes, math.prod(shape))
    groups = header.get("groups", tensors["counts"].tolist() if "counts" in tensors else None)
    if not _sizes(groups, 0) or sum(groups) != len(targets):
        raise FormatError(f"groups is {reprlib.repr(groups)}, not the numbers of samples that make {len(targets)}")
    if not isinstance(header["codec"], str) or len(header["codec"]) > _MAX_NAME:
        raise FormatError(f"codec is {reprlib.repr(header['codec'])}, not a short name with options")
    preprocess = _preprocess(header["preprocess"], fields, tuple(shape))
    if coded:
        _check_numbers(len(targets) * num_classes)
        targets = top_labels.decode(coded, targets, num_classes)
    stored = Stored(header["codec"], tuple(shape), tuple(groups), streams, coded)
    try:
        inputs = stored.decode(preprocess)
    except (OptionError, MissingExtraError) as error:
        raise FormatError(f"its images cannot be decoded: {error}") from None
    if not bool(inputs.isfinite().all()):
        raise FormatError("its pixels are not finite")
    seen = _network_shape(header.get("network_shape", shape), tuple(inputs.shape[1:]))
    found = _described(header, targets, preprocess, seen)
    found |= {"inputs": inputs, "levels": None, "bits": 8, "stored": stored}
    _check(found)
    return found


def _described(
    header: Mapping[str, Any], targets: Tensor, preprocess: Preprocess, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return the fields that a set has however its images are stored; ``shape`` is what networks see.

    Raises:
        FormatError: the recipe is none.
    """
    half_labels = targets.ndim == 2 and targets.dtype == torch.float16
    return {
        "targets": targets.float() if half_labels else targets.long() if targets.ndim == 1 else targets,
        "num_classes": header["num_classes"],
        "preprocess": preprocess,
        "recipe": _recipe(header["recipe"], shape),
        "class_names": tuple(header["class_names"]),
        "provenance": header["provenance"],
        "network_shape": shape,
        "half_labels": half_labels,
    }


def _sizes(values: Any, least: int) -> bool:
    """Tell whether something that was read is a list of whole numbers from ``least`` on."""
    fine = isinstance(values, list) and bool(values)
    return fine and all(type(value) is int and least <= value <= _MOST_NUMBERS for value in values)


def _targets(tensors: Mapping[str, Tensor], num_classes: int, numbers: int) -> Tensor:
    """Read the labels of a set that a codec holds: int64, or soft ones as they are stored.

    Args:
        tensors: of the file.
        num_classes: number of classes.
        numbers: in a sample.

    Raises:
        FormatError: they are of the wrong type or shape, or too many.
    """
    if "targets" in tensors:
        targets = tensors["targets"]
        if targets.ndim != 2 or targets.dtype not in (torch.float16, torch.float32) or len(targets) == 0:
            raise FormatError(f"targets are {targets.dtype} {tuple(targets.shape)}, not soft labels")
        _check_numbers(len(targets) * numbers)
        return targets
    counts = tensors["counts"]
    if counts.dtype not in (torch.uint8, torch.int32) or tuple(counts.shape) != (num_classes,):
        raise FormatError(f"counts are {counts.dtype} {tuple(counts.shape)}, not one for each of {num_classes} classes")
    counts = counts.long()
    if int(counts.min()) < 0 or int(counts.sum()) < 1:
        raise FormatError("counts are negative, or not those of any samples")
    _check_numbers(int(counts.sum()) * numbers)
    return torch.arange(num_classes).repeat_interleave(counts)


def _check_numbers(numbers: int) -> None:
    """Refuse more numbers than a computer is likely to hold, before room is made for any."""
    if numbers > _MOST_NUMBERS:
        raise FormatError(f"its images are {numbers} numbers; the limit is {_MOST_NUMBERS}")


def _check(fields: Mapping[str, Any]) -> None:
    wrong = checks.problem(fields)
    if wrong:
        raise DataError(f"not a synthetic set: {wrong}")


def check_names(class_names: Sequence[str]) -> None:
    """Refuse class names that a file cannot hold, before the work of making a set.

    Raises:
        OptionError: one is too long, or not Unicode; the message shows it.

    Example:
        >>> check_names(["ant", "bee"])
    """
    for name in class_names:
        if len(name) > _MAX_NAME or name != storable(name):
            fault = (
                f"has {len(name)} characters; the limit is {_MAX_NAME}" if name == storable(name) else "is not Unicode"
            )
            raise OptionError(f"class name {reprlib.repr(name)} {fault}, and cannot be stored; rename the class")


_MAX_NAME = 255
_HEADER = {"num_classes": int, "class_names": list, "preprocess": str, "recipe": dict, "provenance": dict}
_OPTIONAL = {"network_shape", "bits", "stored_shape", "codec", "groups"}
_STREAM, _LABEL = "stream.", "label."
_MOST_NUMBERS = 1 << 30
"""Of all images that a codec holds: 4 GB once they are decoded."""


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
        recipe.check(shape)
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
