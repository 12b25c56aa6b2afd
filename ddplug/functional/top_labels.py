"""Soft labels in a byte or two each: the three most probable classes in fifteenths, the rest shared out.

A teacher's label of an image says little beyond the few classes that it may be: on CIFAR-10 such labels teach as well
as floats do, which take forty bytes. Shares and classes are coded as numbers of few bits
(:mod:`ddplug.functional.entropy`); the most probable class costs nothing where rows are sorted by it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ddplug.errors import FormatError
from ddplug.functional import entropy

__all__ = ["NAMED", "UNITS", "decode", "encode", "rounded"]

NAMED = 3
"""Classes that a label names."""

UNITS = 15
"""Parts that a label is dealt out in: a share takes four bits."""

_STREAMS = {"shares", "classes"}


def rounded(probabilities: Tensor) -> Tensor:
    """Round class probabilities to what is stored.

    The three largest of a row become multiples of 1/15, and what is left is shared out equally among the other classes.
    A class whose share would be no larger than theirs is one of them.

    Args:
        probabilities: ``(M, C)`` rows that add up to 1, none below 0.

    Returns:
        The same shape, float32.

    Example:
        >>> rounded(torch.tensor([[0.7, 0.2, 0.06, 0.04], [0.99, 0.01, 0.0, 0.0]])) * 15
        tensor([[10.,  3.,  1.,  1.],
                [15.,  0.,  0.,  0.]])
    """
    number = probabilities.shape[1]
    values, classes = _largest(probabilities)
    shares = (values * UNITS).round().long()
    shares[:, 0] -= (shares.sum(1) - UNITS).clamp_min(0)
    for place in reversed(range(shares.shape[1])):
        left = UNITS - shares[:, : place + 1].sum(1)
        shares[:, place] *= shares[:, place] * (number - place - 1) > left
    return _labels(shares, classes, number)


def _largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row, of which one at least is left over, and their classes."""
    # of equal ones the first class comes first, wherever this runs
    found, classes = values.double().cpu().sort(dim=1, descending=True, stable=True)
    number = min(NAMED, values.shape[1] - 1)
    return found[:, :number], classes[:, :number]


def _named(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``(M, NAMED)`` shares of rounded labels, the largest first, 0 where there is none, and their classes."""
    values, classes = _largest(labels)
    named = values > labels.double().cpu().amin(1, keepdim=True)
    missing = (0, NAMED - values.shape[1])
    return pad((values * UNITS).round().long() * named, missing), pad(classes * named, missing)


def _labels(shares: Tensor, classes: Tensor, number: int) -> Tensor:
    """Return the ``(M, C)`` labels of shares and classes."""
    named = shares > 0
    left = UNITS - shares.sum(1, keepdim=True)
    others = (number - named.sum(1, keepdim=True)).clamp_min(1)
    labels = (left.double() / others / UNITS).expand(-1, number).clone()
    for place in range(shares.shape[1]):
        at = named[:, place]
        labels[at, classes[at, place]] = shares[at, place].double() / UNITS
    return labels.float()


def encode(targets: Tensor) -> dict[str, Tensor] | None:
    """Code labels.

    Args:
        targets: ``(M, C)`` float32, in the order of their most probable class.

    Returns:
        Streams by name, each ``(n,)`` uint8; ``None`` where the labels are no rounded ones (:func:`rounded`).
    """
    shares, classes = _named(targets)
    if not torch.equal(_labels(shares, classes, targets.shape[1]), targets.cpu()):
        return None
    bits, digits = _digits(targets.shape[1])
    others = torch.cat([classes[:, 1:] >> bits * place & (1 << bits) - 1 for place in range(digits)], 1)
    return {"shares": _stream(shares, 4), "classes": _stream(others, bits)}


def decode(streams: Mapping[str, Tensor], first: Tensor, num_classes: int) -> Tensor:
    """Decode labels; the streams are not trusted.

    Args:
        streams: what :func:`encode` gave.
        first: ``(M,)`` int64, the most probable class of each row.
        num_classes: number of classes ``C``.

    Returns:
        ``(M, C)`` float32 labels.

    Raises:
        FormatError: the streams are not whole, or do not fit.
    """
    if set(streams) != _STREAMS:
        raise FormatError(f"its labels have the streams {sorted(streams)}, not {sorted(_STREAMS)}")
    bits, digits = _digits(num_classes)
    shares = _numbers(streams["shares"], len(first), NAMED, 4)
    parts = _numbers(streams["classes"], len(first), digits * (NAMED - 1), bits).view(len(first), digits, NAMED - 1)
    others = (parts << bits * torch.arange(digits)[:, None]).sum(1)
    classes = torch.cat([first[:, None], others], 1)
    if bool((classes >= num_classes).any()) or bool((shares.sum(1) > UNITS).any()):
        raise FormatError("its labels name classes that do not exist, or shares above 1: they were altered")
    labels = _labels(shares, classes, num_classes)
    found = _named(labels)
    if not (torch.equal(found[0], shares) and torch.equal(found[1], classes * (shares > 0))):
        raise FormatError("its labels are not of the kind that ddplug stores: they were altered")
    return labels


def _digits(num_classes: int) -> tuple[int, int]:
    """Return the bits of a digit that classes are written in, and the digits."""
    return (4, 1) if num_classes <= 16 else (8, 1 if num_classes <= 256 else 2 if num_classes <= 1 << 16 else 4)


def _stream(numbers: Tensor, bits: int) -> Tensor:
    layout = numbers.to(torch.uint8).view(len(numbers), 1, 1, -1).numpy()
    return torch.from_numpy(np.frombuffer(entropy.encode(layout, bits), np.uint8).copy())


def _numbers(stream: Tensor, rows: int, columns: int, bits: int) -> Tensor:
    found = entropy.decode(bytes(stream.numpy()), (rows, 1, 1, columns), bits)
    return torch.from_numpy(found).long().view(rows, columns)
