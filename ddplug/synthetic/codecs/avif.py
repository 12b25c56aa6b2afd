"""Photographs as AVIF: many tiles in one picture, so that its container and its statistics are paid for once."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor

from ddplug.data.preprocess import to_pixels
from ddplug.errors import FormatError, MissingExtraError, OptionError
from ddplug.synthetic.codecs.protocol import Payload
from ddplug.synthetic.codecs.streams import of_bytes
from ddplug.utils.text import one_line

__all__ = ["Avif"]

_BLOCK = 8
"""Tiles are filled up to a multiple of this many pixels a side, so that neighbors hardly mix."""

_MOST_PIXELS = 1 << 24
"""Of one picture, 67 MB decoded: more tiles than fit go into the next."""

_FEW, _MOST_UNUSUAL = 1 << 22, 1024
"""Numbers that may be packed as tightly as can be; more a byte than this fills the memory from a few bytes."""

_SPOILT = (OSError, SyntaxError, ValueError, RuntimeError)
"""What Pillow and its library raise where a picture is not whole."""

_MOSAICS = ("all", "class")


@dataclass(frozen=True)
class Avif:
    """Tiles of a mosaic, coded by AV1.

    At equal bytes thousands of real CIFAR-10 images in such a mosaic are worth more than any set of whole images.
    Pillow brings the coder. Decoding is exact up to the conversion from YUV to RGB, which another build of Pillow's
    library may round otherwise by a level.

    Args:
        quality: 0 to 100; 5 takes about 20 bytes for an image of CIFAR-10, 15 takes 38, and 25 takes 55.
        mosaic: ``"all"`` for all images in one picture, which takes the fewest bytes, or ``"class"`` for a picture a
            class, about 300 bytes more each, so that a class can be kept or dropped by itself.
        speed: of the coder, 0 (slow) to 10. At equal error 4 saves 7 to 10 % of the bytes that 6 takes, in three to
            five times its seconds; 3 saves two to four more, in twice those of 4.

    Raises:
        OptionError: an option is unknown or outside its range.
        MissingExtraError: Pillow was built without AVIF.

    Example:
        >>> smooth = torch.linspace(0, 1, 32).expand(4, 3, 32, 32)
        >>> streams = Avif(quality=50).encode(smooth, [2, 2])
        >>> back = Avif(quality=50).decode(streams, [2, 2], (3, 32, 32))
        >>> sum(map(len, streams.values())) < 1000, bool((back - smooth).abs().max() < 0.1)
        (True, True)
    """

    name: ClassVar[str] = "avif"
    # coding 1,500 photographs takes as long as a step of distribution matching on them
    every: ClassVar[int] = 5
    quality: int = 25
    mosaic: str = "all"
    speed: int = 4

    def __post_init__(self) -> None:
        for what, value, most in (("quality", self.quality, 100), ("speed", self.speed, 10)):
            if not 0 <= value <= most:
                raise OptionError(f"codec avif: {what} is {value}; it must lie between 0 and {most}")
        if self.mosaic not in _MOSAICS:
            raise OptionError(f"codec avif: mosaic is {self.mosaic!r}; it must be one of {', '.join(_MOSAICS)}")
        if not features.check("avif"):
            raise MissingExtraError('codec avif needs Pillow with AVIF; run pip install "pillow>=11.3"')

    def check(self, shape: tuple[int, ...], preprocess: str) -> None:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise OptionError(f"codec avif holds gray and RGB images (C, H, W), not shape {shape}; use pixels")
        if preprocess == "zca":
            raise OptionError("codec avif cannot hold images whitened by zca; load the data with 'standardize'")

    def encode(self, pixels: Tensor, groups: Sequence[int]) -> dict[str, Tensor]:
        images = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        streams = {}
        for number, rows in enumerate(self._pictures(groups, images.shape[1:3])):
            picture = _mosaic(images[rows])
            with io.BytesIO() as file:
                Image.fromarray(picture).save(
                    file,
                    "AVIF",
                    quality=self.quality,
                    speed=self.speed,
                    subsampling="4:2:0" if images.shape[3] == 3 else "4:0:0",
                    # what other numbers of threads would make of it may differ
                    max_threads=1,
                )
                streams[str(number)] = of_bytes(file.getvalue())
        return streams

    def decode(self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        channels, height, width = shape
        numbers, nbytes = sum(groups) * math.prod(shape), sum(stream.numel() for stream in payload.values())
        if numbers > max(_FEW, _MOST_UNUSUAL * nbytes):
            raise FormatError(f"codec avif: {numbers} numbers are more than {nbytes} bytes hold of any pictures")
        runs = list(self._pictures(groups, (height, width)))
        if set(payload) != {str(number) for number in range(len(runs))}:
            raise FormatError(f"codec avif: it has {len(payload)} streams for {len(runs)} pictures")
        parts = []
        for number, rows in enumerate(runs):
            picture = _opened(bytes(payload[str(number)].numpy()), _grid(rows.stop - rows.start, height, width))
            parts.append(_cut(picture, rows.stop - rows.start, height, width)[..., :channels])
        return to_pixels(torch.from_numpy(np.concatenate(parts)).permute(0, 3, 1, 2).contiguous())

    def through(self, pixels: Tensor, groups: Sequence[int]) -> Tensor:
        return self.decode(self.encode(pixels, groups), groups, tuple(pixels.shape[1:]))

    def keep(
        self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...], kept: Sequence[int]
    ) -> dict[str, Tensor] | None:
        if self.mosaic == "all":
            return None
        owners = [label for label, number in enumerate(groups) for _ in self._pictures([number], shape[1:])]
        streams = [payload[str(k)] for k, label in enumerate(owners) if label in kept]
        return {str(number): stream for number, stream in enumerate(streams)}

    def _pictures(self, groups: Sequence[int], sides: tuple[int, ...]) -> Iterator[slice]:
        """Cut the rows into those of each picture."""
        least = max(1, _MOST_PIXELS // math.prod(map(_filled, sides)))
        runs = [sum(groups)] if self.mosaic == "all" else [number for number in groups if number]
        for first, last in pairwise(accumulate(runs, initial=0)):
            yield from (slice(k, min(k + least, last)) for k in range(first, last, least))


def _filled(side: int) -> int:
    return -(-side // _BLOCK) * _BLOCK


def _grid(number: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Return rows and columns of a mosaic, and height and width of it in pixels."""
    columns = math.ceil(math.sqrt(number))
    rows = -(-number // columns)
    return rows, columns, rows * _filled(height), columns * _filled(width)


def _mosaic(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay ``(n, H, W, C)`` images out in one RGB picture; what is left of it is gray."""
    number, height, width, _ = images.shape
    rows, columns, *_ = _grid(number, height, width)
    tall, wide = _filled(height), _filled(width)
    tiles = np.pad(images, ((0, 0), (0, tall - height), (0, wide - width), (0, 0)), mode="edge")
    tiles = np.concatenate([tiles, np.full((rows * columns - number, *tiles.shape[1:]), 128, np.uint8)])
    tiles = np.broadcast_to(tiles, (*tiles.shape[:3], 3))
    picture: NDArray[np.uint8] = tiles.reshape(rows, columns, tall, wide, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(picture.reshape(rows * tall, columns * wide, 3))


def _cut(picture: NDArray[np.uint8], number: int, height: int, width: int) -> NDArray[np.uint8]:
    """Take the images out of a mosaic again, ``(n, H, W, 3)``."""
    rows, columns, *_ = _grid(number, height, width)
    tall, wide = _filled(height), _filled(width)
    tiles: NDArray[np.uint8] = picture.reshape(rows, tall, columns, wide, 3).transpose(0, 2, 1, 3, 4)
    cut: NDArray[np.uint8] = tiles.reshape(-1, tall, wide, 3)[:number, :height, :width]
    return cut


def _opened(stream: bytes, grid: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Decode a picture, whose size is looked at before anything is decoded.

    Raises:
        FormatError: it is no AVIF, is not whole, or has another size than its tiles need.
    """
    *_, tall, wide = grid
    try:
        with Image.open(io.BytesIO(stream), formats=("AVIF",)) as picture:
            if picture.size != (wide, tall) or getattr(picture, "n_frames", 1) != 1:
                raise FormatError(f"codec avif: a picture is {picture.size[0]}x{picture.size[1]}, not {wide}x{tall}")
            pixels: NDArray[np.uint8] = np.array(picture.convert("RGB"), dtype=np.uint8)
            return pixels
    except FormatError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, *_SPOILT) as error:
        raise FormatError(f"codec avif: a picture cannot be decoded: {one_line(error)}") from None
