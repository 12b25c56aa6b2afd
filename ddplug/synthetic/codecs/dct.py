"""Photographs as few coefficients of a cosine transform, rounded where that saves most bits, and coded by contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddplug.data.preprocess import to_pixels
from ddplug.errors import FormatError, OptionError
from ddplug.functional import coefficients, cosine
from ddplug.synthetic.codecs.protocol import Payload
from ddplug.synthetic.codecs.streams import of_bytes

__all__ = ["Dct"]

Levels = NDArray[np.floating[Any]]

_CHROMA = 1.4
"""Steps of chroma, in those of luma."""

_TURNS = 3
"""Of rounding and counting what that makes each size cost."""

_CHUNK = 1000
"""Blocks that are rounded together, to bound the memory."""

_MOST_STEP, _MOST_RATE = 1000, 10


@dataclass(frozen=True)
class Dct:
    """Small images, or blocks of up to 32x32 pixels of larger ones, transformed and rounded to multiples of a step.

    What is rounded is chosen for the squared error and a price for each bit together. At equal error it takes up to
    7 % less than :class:`ddplug.synthetic.codecs.avif.Avif`, decodes to the same bits on every machine, and a class
    can be dropped without a loss. It is made for images of 32 to 64 pixels a side; of large ones AVIF foresees more.

    Args:
        step: of luma, in levels of 255, 1 to 1000; 160 takes about 17 bytes for an image of CIFAR-10, 105 takes 30.
        rate: weight of a bit, in squared steps of error that are accepted to save it, 0 to 10; what is learned through
            the codec is seen with it.

    Raises:
        OptionError: an option is outside its range.

    Example:
        >>> smooth = torch.linspace(0, 1, 32).expand(4, 3, 32, 32)
        >>> streams = Dct(step=20).encode(smooth, [2, 2])
        >>> back = Dct(step=20).decode(streams, [2, 2], (3, 32, 32))
        >>> sum(map(len, streams.values())) < 200, bool((back - smooth).abs().max() < 0.1)
        (True, True)
    """

    name: ClassVar[str] = "dct"
    every: ClassVar[int] = 1
    step: int = 64
    rate: float = 0.1

    def __post_init__(self) -> None:
        if not 1 <= self.step <= _MOST_STEP:
            raise OptionError(f"codec dct: step is {self.step}; it must lie between 1 and {_MOST_STEP}")
        if not 0 <= self.rate <= _MOST_RATE:
            raise OptionError(f"codec dct: rate is {self.rate}; it must lie between 0 and {_MOST_RATE}")

    def check(self, shape: tuple[int, ...], preprocess: str) -> None:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise OptionError(f"codec dct holds gray and RGB images (C, H, W), not shape {shape}; use pixels")
        if preprocess == "zca":
            raise OptionError("codec dct cannot hold images whitened by zca; load the data with 'standardize'")

    def encode(self, pixels: Tensor, groups: Sequence[int]) -> dict[str, Tensor]:
        sizes, points = self._rounded(pixels)
        return {"coefficients": of_bytes(coefficients.encode(sizes)), "points": of_bytes(points.tobytes())}

    def decode(self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        if set(payload) != {"coefficients", "points"} or payload["points"].numel() != 4:
            raise FormatError(f"codec dct: its streams are {sorted(payload)}, not coefficients and 4 bytes of points")
        points = np.frombuffer(bytes(payload["points"].numpy()), np.int8).reshape(2, 2)
        return self._images(self._decoded(payload, groups, shape), points, shape)

    def through(self, pixels: Tensor, groups: Sequence[int]) -> Tensor:
        return self._images(*self._rounded(pixels), tuple(pixels.shape[1:]))

    def keep(
        self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...], kept: Sequence[int]
    ) -> dict[str, Tensor] | None:
        sizes = self._decoded(payload, groups, shape)
        each = len(sizes) // max(1, sum(groups))
        owners = np.repeat(np.arange(len(groups)), [number * each for number in groups])
        return {**payload, "coefficients": of_bytes(coefficients.encode(sizes[np.isin(owners, kept)]))}

    @property
    def _steps(self) -> NDArray[np.int64]:
        return np.array([self.step, round(_CHROMA * self.step), round(_CHROMA * self.step)])

    def _decoded(self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...]) -> NDArray[np.int64]:
        (down, tall), (across, wide) = cosine.blocks(shape[1]), cosine.blocks(shape[2])
        layout = (sum(groups) * down * across, shape[0], tall, wide)
        return coefficients.decode(bytes(payload["coefficients"].numpy()), layout)

    def _rounded(self, pixels: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
        """Return ``(M * blocks, C, h, w)`` multiples of the steps, and where sizes are best put back."""
        coefficient = cosine.forward((pixels.detach().double().clamp(0, 1) * 255).numpy())
        negative = coefficient < 0
        # half the memory, and no decoder needs it the same to the last bit
        exact = (np.abs(coefficient) / self._steps[: coefficient.shape[1], None, None]).astype(np.float32)
        sizes = np.floor(exact + 0.4)
        for _ in range(_TURNS):
            prices = _prices(sizes)
            for first in range(0, len(sizes), _CHUNK):
                part = slice(first, first + _CHUNK)
                sizes[part] = _cheapest(exact[part], prices, self.rate)
        np.minimum(sizes, coefficients.MOST_SIZE, out=sizes)
        points = np.zeros((2, 2), np.int8)
        for plane, channels in enumerate((slice(0, 1), slice(1, 3))):
            for large, which in enumerate((sizes[:, channels] == 1, sizes[:, channels] > 1)):
                if which.any():
                    mean = (exact[:, channels][which] - sizes[:, channels][which]).mean(dtype=np.float64)
                    points[plane, large] = np.clip(np.rint(mean * cosine.FINE), -128, 127)
        return np.where(negative, -sizes, sizes).astype(np.int64), points

    def _images(self, sizes: NDArray[np.int64], points: NDArray[np.int8], shape: tuple[int, ...]) -> Tensor:
        """Turn multiples of the steps into ``(M, *shape)`` pixels, in whole numbers."""
        by_size = np.concatenate([np.zeros((2, 1), np.int64), points.astype(np.int64)], 1)
        parts = []
        channels, height, width = shape
        each = cosine.blocks(height)[0] * cosine.blocks(width)[0]
        for first in range(0, len(sizes), _CHUNK * each):
            own = sizes[first : first + _CHUNK * each]
            amounts = np.abs(own)
            shifts = np.empty_like(amounts)
            for channel in range(channels):
                shifts[:, channel] = by_size[min(channel, 1)][np.minimum(amounts[:, channel], 2)]
            exact = np.sign(own) * (amounts * cosine.FINE + shifts) * self._steps[:channels, None, None]
            parts.append(torch.from_numpy(cosine.backward(exact, (channels, height, width))))
        return to_pixels(torch.cat(parts) if parts else torch.zeros(0, *shape, dtype=torch.uint8))


def _prices(sizes: Levels) -> tuple[Levels, Levels, Levels]:
    """Return the bits that a zero, a one, and each further step cost at every frequency, by how often they occur."""
    some = (sizes > 0).sum(0)
    share = np.clip(some / len(sizes), 1e-4, 0.999)
    larger = np.clip((sizes > 1).sum(0) / np.maximum(some, 1), 0.02, 0.98)
    return -np.log2(1 - share), 1 - np.log2(share) - np.log2(1 - larger), -np.log2(larger)


def _cheapest(exact: Levels, prices: tuple[Levels, Levels, Levels], rate: float) -> Levels:
    """Choose for each coefficient the nearest size, one less, or zero, whichever has the least error and price."""
    zero, one, more = prices
    nearest = np.floor(exact + 0.5)
    found = np.zeros_like(exact)
    least = exact**2 + rate * zero
    for size in (np.maximum(nearest - 1, 0), nearest):
        cost = np.where(size > 0, (exact - size) ** 2 + rate * (one + (size - 1) * more), np.inf)
        found = np.where(cost < least, size, found)
        least = np.minimum(cost, least)
    return found
