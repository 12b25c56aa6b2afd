"""Numbers side by side in the same bits each: what a set is stored as that nothing else is said of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddplug.data.preprocess import on_levels
from ddplug.errors import FormatError, OptionError
from ddplug.functional.packing import BITS, check_bits, pack, packed_bytes, unpack
from ddplug.functional.resize import MAX_FACTOR, reduce, reduced_shape
from ddplug.synthetic import quantize
from ddplug.synthetic.codecs import streams
from ddplug.synthetic.codecs.protocol import Payload

__all__ = ["FLOAT", "Plain"]

FLOAT = 32
"""Bits of a number that is not rounded."""


@dataclass(frozen=True)
class Plain:
    """Numbers on equal levels of each channel, a fixed number of bits each, without prediction.

    It takes more bytes than :class:`ddplug.synthetic.codecs.pixels.Pixels` and is read at once, sample by sample, in
    any order, whitened images too. What is learned is rounded when it is finished, and not seen rounded before.

    Args:
        bits: of a number, 1, 2, 4 or 8, below 8 for images only; or 32 for float32.
        factor: that images are made smaller by, averaged; networks see them enlarged
            (:mod:`ddplug.functional.resize`).

    Raises:
        OptionError: an option is outside its range.

    Example:
        >>> dots = (torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.9).float()
        >>> streams = Plain(bits=1).encode(dots, [60])
        >>> {name: len(stream) for name, stream in streams.items()}
        {'codes': 480, 'levels': 8}
        >>> torch.equal(Plain(bits=1).decode(streams, [60], (1, 8, 8)), dots)
        True
    """

    name: ClassVar[str] = "plain"
    every: ClassVar[int] = 0
    bits: int = 8
    factor: int = 1

    def __post_init__(self) -> None:
        if self.bits not in (*BITS, FLOAT):
            known = ", ".join(map(str, BITS))
            raise OptionError(f"codec plain: bits is {self.bits}; it must be one of {known}, or {FLOAT} for float32")
        if not 1 <= self.factor <= MAX_FACTOR:
            raise OptionError(f"codec plain: factor is {self.factor}; it must lie between 1 and {MAX_FACTOR}")

    def check(self, shape: tuple[int, ...], preprocess: str) -> None:
        check_bits(min(self.bits, 8), shape, preprocess)
        reduced_shape(shape, self.factor)
        if self.factor > 1 and preprocess == "zca":
            raise OptionError(
                f"codec plain: factor is {self.factor}, but zca mixes all pixels of whole images; use factor=1, or "
                "load the data with 'standardize'"
            )

    def encode(self, pixels: Tensor, groups: Sequence[int]) -> dict[str, Tensor]:
        small = reduce(pixels, self.factor)
        if self.bits == FLOAT:
            return {"codes": streams.of_floats(small)}
        codes, levels = quantize.rounded(small.double(), self.bits)
        return {"codes": pack(codes.flatten(1), self.bits).flatten(), "levels": streams.of_floats(levels)}

    def through(self, pixels: Tensor, groups: Sequence[int]) -> Tensor:
        return self.decode(self.encode(pixels, groups), groups, tuple(pixels.shape[1:]))

    def keep(
        self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...], kept: Sequence[int]
    ) -> dict[str, Tensor] | None:
        owners = torch.arange(len(groups)).repeat_interleave(torch.tensor(list(groups)))
        rows = payload["codes"].view(sum(groups), self._width(shape))
        return {**payload, "codes": rows[torch.isin(owners, torch.tensor(list(kept)))].flatten()}

    def _width(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of a sample."""
        return packed_bytes(math.prod(reduced_shape(shape, self.factor)), self.bits)

    def decode(self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        stored, rows, width = reduced_shape(shape, self.factor), sum(groups), self._width(shape)
        wanted = {"codes": rows * width}
        wanted |= {} if self.bits == FLOAT else {"levels": 8 * stored[0]}
        found = {name: stream.numel() for name, stream in payload.items()}
        if found != wanted:
            raise FormatError(f"codec plain: its streams take {found} bytes, not {wanted}")
        if self.bits == FLOAT:
            return streams.floats_in(payload["codes"]).view(rows, *stored)
        levels = streams.levels_in(payload["levels"], self.name)
        codes = unpack(payload["codes"].view(rows, width), math.prod(stored), self.bits)
        return on_levels(codes.view(rows, *stored), levels)
