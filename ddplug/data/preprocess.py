"""Invertible maps between pixel space and the space that networks see; they travel with every set.

*Pixel space* is ``[0, 1]`` for data stored as uint8 and whatever the data hold otherwise (a table's own units).
*Model space* is what :meth:`Preprocess.forward` returns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddplug.errors import DataError, FormatError, OptionError, unknown
from ddplug.utils.surroundings import own_surroundings

__all__ = [
    "KINDS",
    "Identity",
    "Preprocess",
    "Standardize",
    "Zca",
    "fit",
    "from_tensors",
    "per_channel",
    "pieces",
    "to_pixels",
]


def _brief(tensor: Tensor) -> str:
    """Write the numbers of a few channels, or the shape of more."""
    if tensor.ndim == 1 and len(tensor) <= 4:
        return f"[{', '.join(f'{value:.4g}' for value in tensor.tolist())}]"
    return f"<{' x '.join(map(str, tensor.shape))}>"


@dataclass(frozen=True, eq=False)
class Preprocess:
    """A map from pixel space to model space and back.

    Subclasses are frozen dataclasses whose fields are all float32 tensors, so that every one of them is stored in the
    same way (see :func:`from_tensors`).

    Attributes:
        fitted: whether the fields were computed from data by :func:`fit`, and so tell of them; a map that was given or
            read from a file is taken as it is.
    """

    kind: ClassVar[str]
    fitted: ClassVar[bool] = False

    @property
    def shown(self) -> str:
        """The kind as options spell it; files keep an older spelling."""
        return next((given for given, stored in _SPELLINGS.items() if stored == self.kind), self.kind)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={_brief(v)}' for k, v in self.tensors().items())})"

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(N, *shape)`` pixels to model space."""
        raise NotImplementedError

    def inverse(self, inputs: Tensor) -> Tensor:
        """Map ``(N, *shape)`` model-space inputs back to pixels; nothing is clipped."""
        raise NotImplementedError

    def decode(self, codes: Tensor, levels: Tensor) -> Tensor:
        """Map uint8 codes to model space, each sample by itself, bit for bit the same on every machine.

        Args:
            codes: ``(N, *shape)`` uint8.
            levels: ``(2, C)`` float32 pixel values of the codes 0 and 255 in each channel.

        Returns:
            ``(N, *shape)`` float32 inputs; with the levels 0 and 1, exactly what real uint8 data become.
        """
        return self.forward(on_levels(codes, levels))

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields by name, as they are stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def to(self, device: torch.device | str) -> Preprocess:
        """Move the fields to a device."""
        moved = type(self)(**{name: tensor.to(device) for name, tensor in self.tensors().items()})
        return _marked(moved) if self.fitted else moved


@dataclass(frozen=True, eq=False, repr=False)
class Identity(Preprocess):
    """Model space is pixel space."""

    kind: ClassVar[str] = "identity"

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels

    def inverse(self, inputs: Tensor) -> Tensor:
        return inputs


def per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Shape ``(C,)`` values so that they broadcast along dimension 1 of ``like``."""
    return values.view(1, -1, *[1] * (like.ndim - 2))


@dataclass(frozen=True, eq=False, repr=False)
class Standardize(Preprocess):
    """Subtract the mean and divide by the standard deviation of each channel (dimension 1).

    Attributes:
        mean: ``(C,)`` channel means in pixel space; for rows of a table, one a column.
        std: ``(C,)`` channel standard deviations, all positive.
    """

    mean: Tensor
    std: Tensor
    kind: ClassVar[str] = "standardise"

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - per_channel(self.mean, pixels)) / per_channel(self.std, pixels)

    def inverse(self, inputs: Tensor) -> Tensor:
        return inputs * per_channel(self.std, inputs) + per_channel(self.mean, inputs)


@dataclass(frozen=True, eq=False, repr=False)
class Zca(Preprocess):
    """ZCA whitening over all ``D`` values of an input: ``(x - mean) @ matrix``.

    Attributes:
        mean: ``(D,)`` mean of the flattened pixels.
        matrix: ``(D, D)`` symmetric whitening matrix ``U (S + eps)^(-1/2) U^T``.
        unmatrix: ``(D, D)`` its inverse ``U (S + eps)^(1/2) U^T``.

    Reference: used by KIP, MTT and FRePo, with ``eps = 0.1`` for pixels in ``[0, 1]``.
    """

    mean: Tensor
    matrix: Tensor
    unmatrix: Tensor
    kind: ClassVar[str] = "zca"

    @own_surroundings(gradients=False)  # autocast would take the product in half precision
    def forward(self, pixels: Tensor) -> Tensor:
        return ((pixels.flatten(1) - self.mean) @ self.matrix).view_as(pixels)

    @own_surroundings(gradients=False)
    def inverse(self, inputs: Tensor) -> Tensor:
        return (inputs.flatten(1) @ self.unmatrix + self.mean).view_as(inputs)

    def decode(self, codes: Tensor, levels: Tensor) -> Tensor:
        # The order of a matrix product's sums depends on the batch and the machine. Codes are integers of 8 bits, so
        # once the matrix is rounded to a grid of about 32 bits every sum fits float64 and no order can change it.
        low, high = (per_channel(level.double(), codes).expand_as(codes[:1]).reshape(-1, 1) for level in levels)
        bits = 52 - len(self.mean).bit_length()
        steps = _to_grid((high - low) / 255 * self.matrix.double(), bits - 8)
        origin = _to_grid((low - self.mean.double().unsqueeze(1)) * self.matrix.double(), bits).sum(0)
        return (codes.flatten(1).double() @ steps + origin).float().view_as(codes)


KINDS: Mapping[str, type[Preprocess]] = {cls.kind: cls for cls in (Identity, Standardize, Zca)}
"""Every stored kind of preprocessing, by name."""

_SPELLINGS = {"standardize": "standardise"}
"""Spelling of a kind in options and in what is shown -> its name in files, which fingerprints of data use too."""

_MAX_ZCA = 4096
"""A wider input would need a whitening matrix of more than 64 MiB and minutes of eigenvalues."""


def to_pixels(stored: Tensor) -> Tensor:
    """Convert stored data to float32 pixels: uint8 is divided by 255, floating point is taken as it is."""
    return stored.float().div_(255) if stored.dtype == torch.uint8 else stored.float()


def on_levels(codes: Tensor, levels: Tensor) -> Tensor:
    """Turn uint8 codes into float32 pixels between the levels ``(2, C)`` of each channel, sample by sample."""
    low, high = (per_channel(level, codes) for level in levels)
    return to_pixels(codes) * (high - low) + low


def _to_grid(values: Tensor, bits: int) -> Tensor:
    """Round float64 values to multiples of a power of two, ``bits`` bits below the largest."""
    unit = math.ldexp(1.0, math.frexp(float(values.abs().max()))[1] - bits)
    return (values / unit).round_() * unit


def _marked(preprocess: Preprocess) -> Preprocess:
    """Note that a map was fitted; no field, since a file has nothing to say about it."""
    object.__setattr__(preprocess, "fitted", True)
    return preprocess


def pieces(stored: Tensor) -> Iterator[Tensor]:
    """Cut ``(N, *shape)`` data into runs of about a million values, so that memory-mapped data stay bounded."""
    return iter(torch.split(stored, max(1, (1 << 20) // max(1, math.prod(stored.shape[1:])))))


def _standardize(stored: Tensor) -> Standardize:
    """Fit each channel in two passes in float64: a large mean does not eat the digits of a small deviation."""
    mean = _mean(stored)
    square = torch.zeros_like(mean)
    for part in pieces(stored):
        square += (_channels(part) - mean[:, None]).square().sum(1)
    std = (square / (stored.numel() // stored.shape[1])).sqrt()
    # a channel that is constant in float32 carries nothing: leave it at zero rather than divide by zero
    std = torch.where(std > 1e-7 * mean.abs() + torch.finfo(torch.float32).tiny, std, 1.0)
    return Standardize(mean.float(), std.float())


def _channels(part: Tensor) -> Tensor:
    """Lay out stored data as ``(C, values of that channel)`` float64 pixels on the CPU."""
    return to_pixels(part.cpu()).double().transpose(0, 1).flatten(1)


def _mean(stored: Tensor) -> Tensor:
    """Return the ``(C,)`` mean of each channel, in float64."""
    # in place: a list of small results between large temporaries keeps the allocator from using their space again
    total = torch.zeros(stored.shape[1], dtype=torch.float64)
    for part in pieces(stored):
        total += _channels(part).sum(1)
    return total / (stored.numel() // stored.shape[1])


def _zca(stored: Tensor, eps: float) -> Zca:
    """Fit the whitening of all values of an input, ``D`` at most :data:`_MAX_ZCA`."""
    width = math.prod(stored.shape[1:])
    if width > _MAX_ZCA:
        raise OptionError(f"zca needs a {width} x {width} matrix; the limit is {_MAX_ZCA}: use 'standardize'")
    rows = stored.flatten(1)
    mean = _mean(rows)
    covariance = torch.zeros(width, width, dtype=torch.float64)
    for part in pieces(rows):
        centered = _channels(part) - mean[:, None]
        covariance.addmm_(centered, centered.T)
    values, vectors = torch.linalg.eigh(covariance / max(len(stored) - 1, 1))
    scale = (values.clamp_min(0) + eps).sqrt()
    return Zca(mean.float(), ((vectors / scale) @ vectors.T).float(), ((vectors * scale) @ vectors.T).float())


@own_surroundings()
def fit(kind: str, stored: Tensor, eps: float = 0.1) -> Preprocess:
    """Fit a preprocessing on real training data.

    Args:
        kind: ``"identity"``, ``"standardize"`` or ``"zca"``.
        stored: ``(N, *shape)`` uint8 or floating-point data, as stored.
        eps: regularization of the eigenvalues, for ZCA only.

    Returns:
        The fitted map, on the CPU.

    Raises:
        OptionError: the kind is not known, or the input is too wide for ZCA.
        DataError: the data are empty.

    Example:
        >>> fit("standardize", torch.tensor([[0.0, 2.0], [2.0, 2.0]])).mean
        tensor([1., 2.])
    """
    kind = _SPELLINGS.get(kind, kind)
    if kind not in KINDS:
        raise unknown("preprocessing", kind, ("identity", "standardize", "zca"))
    if len(stored) == 0:
        raise DataError("cannot fit a preprocessing on 0 samples; give data with at least one")
    if kind == "zca":
        return _marked(_zca(stored, eps))
    return _marked(_standardize(stored)) if kind == Standardize.kind else Identity()


def from_tensors(kind: str, tensors: Mapping[str, Tensor]) -> Preprocess:
    """Build a preprocessing from its stored fields.

    Args:
        kind: a key of :data:`KINDS`.
        tensors: the fields, as :meth:`Preprocess.tensors` gave them.

    Returns:
        The map.

    Raises:
        FormatError: the kind is not known, or the fields are not the ones it has.
    """
    if kind not in KINDS:
        raise FormatError(f"unknown preprocessing {kind!r}; this version reads {', '.join(KINDS)}: update ddplug")
    arguments: dict[str, Any] = dict(tensors)
    try:
        return KINDS[kind](**arguments)
    except TypeError:
        raise FormatError(f"preprocessing {kind!r} is stored with the fields {sorted(tensors)}, not its own") from None
