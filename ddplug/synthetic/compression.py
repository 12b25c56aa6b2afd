"""How the images and labels of a set come to take few bytes: on few levels one by one, or held by a codec.

Functions of the fields of a :class:`ddplug.synthetic.SyntheticSet`, by name, which give back those of the smaller set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ddplug.data.preprocess import Preprocess
from ddplug.errors import OptionError
from ddplug.functional import top_labels
from ddplug.functional.resize import enlarge, reduce
from ddplug.synthetic import quantize
from ddplug.synthetic.codecs.plain import FLOAT, Plain
from ddplug.synthetic.codecs.protocol import Codec
from ddplug.synthetic.stored import store

__all__ = ["compressed", "reduced"]


def compressed(fields: Mapping[str, Any], codec: Codec, labels: str = "float16") -> Mapping[str, Any]:
    """Let a codec hold the images of a set; see :meth:`ddplug.synthetic.SyntheticSet.compress`.

    Args:
        fields: of the set.
        codec: that holds the images.
        labels: how soft labels are stored, ``"float16"`` or ``"top3"``.

    Raises:
        OptionError: the codec cannot hold such samples, or the labels cannot be stored so.
    """
    if isinstance(codec, Plain):
        return _one_by_one(fields, codec, labels)
    inputs, targets, preprocess = fields["inputs"], fields["targets"], fields["preprocess"]
    soft = targets.ndim == 2
    if soft and labels == "top3":
        return compressed({**fields, "targets": _few_named(targets), "half_labels": False}, codec)
    classes = (targets.argmax(1) if soft else targets).cpu()
    order = classes.argsort(stable=True)
    held = top_labels.encode(targets.cpu()[order]) if soft else {}
    if held is None and not fields["half_labels"]:
        return compressed(_round_labels(fields), codec)
    groups = classes.bincount(minlength=fields["num_classes"]).tolist()
    if held is None:
        order, groups = torch.arange(len(inputs)), [len(inputs)]
    before = inputs.cpu()[order]
    stored = replace(store(codec, before, groups, preprocess), labels=held or {})
    found, shape = stored.decode(preprocess), _shape(fields)
    return {
        **fields,
        "inputs": found.to(inputs.device),
        "targets": targets.cpu()[order].to(inputs.device),
        "provenance": {**fields["provenance"], "codec": stored.codec, **_nearness(before, found, preprocess, shape)},
        "levels": None,
        "network_shape": shape,
        "half_labels": held is None,
        "stored": stored,
    }


def reduced(fields: Mapping[str, Any], factor: int) -> Mapping[str, Any]:
    """Store images smaller by a factor, averaged; networks go on seeing the shape they saw.

    Args:
        fields: of the set.
        factor: of height and width, at least 1.

    Raises:
        OptionError: see :func:`ddplug.functional.reduced_shape`.
    """
    if factor == 1:
        return fields
    small = reduce(fields["inputs"], factor)
    return {**fields, "inputs": small, "levels": None, "stored": None, "network_shape": _shape(fields)}


def _shape(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape that networks see."""
    return fields["network_shape"] or tuple(fields["inputs"].shape[1:])


def _one_by_one(fields: Mapping[str, Any], codec: Plain, labels: str) -> Mapping[str, Any]:
    """Store samples one by one."""
    if labels != "float16":
        raise OptionError(
            f"labels={labels!r} needs a codec that holds whole classes, and plain holds samples one by one; use "
            "labels='float16', or codec pixels"
        )
    codec.check(_shape(fields), fields["preprocess"].kind)
    small = reduced(fields, codec.factor)
    if codec.bits == FLOAT:
        return {**small, "levels": None, "half_labels": False, "stored": None}
    return _round_labels(_round_inputs(small, codec.bits))


def _round_inputs(fields: Mapping[str, Any], bits: int) -> Mapping[str, Any]:
    """Round inputs to ``2**bits`` levels; those on as few stay as they are."""
    if fields["levels"] is not None and fields["bits"] <= bits:
        return fields
    inputs, preprocess = fields["inputs"], fields["preprocess"]
    codes, levels = quantize.rounded(quantize.exact_pixels(preprocess, inputs), bits)
    found = quantize.decode(preprocess, codes, levels)
    again = quantize.codes(quantize.exact_pixels(preprocess, found), levels, bits)
    if not torch.equal(quantize.decode(preprocess, again, levels), found):
        raise OptionError("the preprocessing is too ill-conditioned for uint8 storage; keep float32")
    error = float((found - inputs.cpu()).square().mean().sqrt())
    nearness = _nearness(inputs.cpu(), found, preprocess, _shape(fields))
    return {
        **fields,
        "inputs": found.to(inputs.device),
        "levels": levels.to(inputs.device),
        "bits": bits,
        "stored": None,
        "provenance": {**fields["provenance"], "quantisation_rmse": error, **nearness},
    }


def _round_labels(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Round soft labels to float16; others, and such, stay as they are."""
    targets = fields["targets"]
    if fields["half_labels"] or targets.ndim == 1:
        return fields
    found = targets.half().float()
    error = float((found - targets).abs().max())
    return {
        **fields,
        "targets": found,
        "half_labels": True,
        "provenance": {**fields["provenance"], "label_error": error},
    }


def _nearness(before: Tensor, after: Tensor, preprocess: Preprocess, shape: tuple[int, ...]) -> dict[str, float]:
    """Say how near stored images, on the CPU, are to what they were; nothing of what is no image."""
    if before.ndim != 4:
        return {}
    one, other = (preprocess.to("cpu").inverse(enlarge(x, shape)) for x in (before, after))
    error = float((one - other).double().square().mean())
    return {"psnr": round(-10 * math.log10(max(error, 1e-10)), 2)}


def _few_named(labels: Tensor) -> Tensor:
    """Round soft labels to few classes in fifteenths.

    Raises:
        OptionError: they are no probabilities.
    """
    total = labels.sum(1)
    if bool((labels < 0).any()) or not torch.allclose(total, torch.ones_like(total), atol=1e-2):
        raise OptionError(
            f"labels='top3' is for probabilities, and the labels of this set add up to {float(total.min()):.3g} to "
            f"{float(total.max()):.3g}, the least being {float(labels.min()):.3g}; use labels='float16'"
        )
    return top_labels.rounded(labels).to(labels.device)
