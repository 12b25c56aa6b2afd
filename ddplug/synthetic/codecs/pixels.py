"""Pixels in few bits a number, whole or smaller, with all that can be foreseen taken out by a context model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ddplug.data.preprocess import on_levels
from ddplug.errors import FormatError, OptionError
from ddplug.functional import entropy
from ddplug.functional.packing import BITS
from ddplug.functional.resize import MAX_FACTOR, can_enlarge, reduce_to
from ddplug.synthetic import quantize
from ddplug.synthetic.codecs import streams
from ddplug.synthetic.codecs.protocol import Payload

__all__ = ["Pixels"]


@dataclass(frozen=True)
class Pixels:
    """Numbers on few equal levels a channel, coded without further loss (:mod:`ddplug.functional.entropy`).

    Suits line drawings above all: a digit of MNIST takes 7 bytes at ``bits=1,side=14`` and 14 whole, where the bare
    bits take 25 and 98. For photographs see :class:`ddplug.synthetic.codecs.avif.Avif`. Series and rows of a table work
    too, with levels of each channel or column.

    Args:
        bits: of a number, 1, 2, 4 or 8.
        side: height that images are averaged to, with the width in proportion; 0 to store them whole.

    Raises:
        OptionError: an option is outside its range.

    Example:
        >>> dots = (torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.9).float()
        >>> streams = Pixels(bits=1).encode(dots, [60])
        >>> {name: len(stream) for name, stream in streams.items()}
        {'codes': 248, 'levels': 8}
        >>> torch.equal(Pixels(bits=1).decode(streams, [60], (1, 8, 8)), dots)
        True
    """

    name: ClassVar[str] = "pixels"
    every: ClassVar[int] = 1
    bits: int = 8
    side: int = 0

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise OptionError(f"codec pixels: bits is {self.bits}; it must be one of {', '.join(map(str, BITS))}")
        if self.side < 0:
            raise OptionError(f"codec pixels: side is {self.side}; it must be at least 1, or 0 for whole images")

    def check(self, shape: tuple[int, ...], preprocess: str) -> None:
        if preprocess == "zca":
            raise OptionError("codec pixels cannot hold images whitened by zca; load the data with 'standardize'")
        self._stored(shape)

    def _stored(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape that samples of a shape are stored in."""
        if not 1 <= len(shape) <= 3:
            raise OptionError(f"codec pixels holds rows (D,), series (C, L) and images (C, H, W), not shape {shape}")
        if not self.side:
            return shape
        if len(shape) != 3 or self.side > min(shape[1:]):
            raise OptionError(f"codec pixels: side={self.side} is for images at least as large, not shape {shape}")
        channels, height, width = shape
        stored = (channels, self.side, max(1, round(width * self.side / height)))
        if not can_enlarge(stored, shape):
            raise OptionError(
                f"codec pixels: side={self.side} is too small for shape {shape}: networks see images at most "
                f"{2 * MAX_FACTOR} times as large as they are stored; take a larger side"
            )
        return stored

    def encode(self, pixels: Tensor, groups: Sequence[int]) -> dict[str, Tensor]:
        codes, levels = self._rounded(pixels)
        numbers = codes // (255 // ((1 << self.bits) - 1))
        stream = entropy.encode(numbers.reshape(_laid_out(len(codes), tuple(codes.shape[1:]))).numpy(), self.bits)
        return {
            "codes": streams.of_bytes(stream),
            "levels": streams.of_floats(levels),
        }

    def through(self, pixels: Tensor, groups: Sequence[int]) -> Tensor:
        return on_levels(*self._rounded(pixels))

    def _rounded(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Round to ``(M, *stored)`` codes in 0..255, and ``(2, C)`` levels of these two."""
        return quantize.rounded(reduce_to(pixels.double(), self._stored(tuple(pixels.shape[1:]))), self.bits)

    def keep(
        self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...], kept: Sequence[int]
    ) -> dict[str, Tensor] | None:
        layout = _laid_out(sum(groups), self._stored(shape))
        codes = entropy.decode(bytes(payload["codes"].numpy()), layout, self.bits)
        owners = np.repeat(np.arange(len(groups)), groups)
        stream = entropy.encode(codes[np.isin(owners, kept)], self.bits)
        return {**payload, "codes": streams.of_bytes(stream)}

    def decode(self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        if set(payload) != {"codes", "levels"}:
            raise FormatError(f"codec pixels: its streams are {sorted(payload)}, not codes and levels")
        stored, rows = self._stored(shape), sum(groups)
        if payload["levels"].numel() != 8 * stored[0]:
            raise FormatError(f"codec pixels: levels take {payload['levels'].numel()} bytes, not {8 * stored[0]}")
        levels = streams.levels_in(payload["levels"], self.name)
        found = entropy.decode(bytes(payload["codes"].numpy()), _laid_out(rows, stored), self.bits)
        codes = torch.from_numpy(found).reshape(rows, *stored) * (255 // ((1 << self.bits) - 1))
        return on_levels(codes, levels)


def _laid_out(rows: int, stored: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return the shape that the context model sees: a series, or a row of a table, is an image of one line."""
    channels = stored[0] if len(stored) > 1 else 1
    height = stored[1] if len(stored) == 3 else 1
    return (rows, channels, height, stored[-1])
