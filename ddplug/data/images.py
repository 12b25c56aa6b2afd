"""Image files and PIL images as uint8 tensors."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ddplug.data.scan import formats, scan
from ddplug.errors import DataError
from ddplug.utils.notes import note
from ddplug.utils.room import Room
from ddplug.utils.text import one_line

__all__ = ["MAX_PIXELS", "Folder", "from_pil", "mode_of"]

MAX_PIXELS = 1 << 26
"""More pixels than a picture may have: small files can unfold to gigabytes."""

_DECODING = Room(MAX_PIXELS)
"""Pixels that threads may decode at once: together no more than one picture may have."""

_READING = "upright"
"""Changes where files are read differently, so that caches are made again."""

_TURNS: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation that cameras write (EXIF) -> what puts the picture upright."""

_SIDEWAYS = {_TURNS[number] for number in (5, 6, 7, 8)}
"""Turns that exchange height and width."""

_ONE_PICTURE = {"MPO", "PSD"}
"""Formats in which the first picture is the whole: others behind it are previews or layers."""

_GREY = {"1", "L", "LA", "La"}
_COLOR = {"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV"}


def from_pil(image: Image.Image, mode: str | None = None) -> Tensor:
    """Turn a PIL image into a ``(C, H, W)`` uint8 tensor, upright as its EXIF says; transparency is dropped.

    Args:
        image: of 8 bits a channel, or 1 bit.
        mode: ``"L"`` (one channel) or ``"RGB"`` (three); ``None`` for what the image has.

    Returns:
        The pixels.

    Raises:
        DataError: the image has more than 8 bits a channel.
    """
    return _pixels(_plain(image, mode or mode_of(image)))


def _pixels(image: Image.Image) -> Tensor:
    pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """Turn an image upright and into a mode; it is not copied where it is so already."""
    image.load()  # turns a TIFF by itself
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        image = image.transpose(turn)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation as far as the head of the file has it, 1 for upright."""
    try:
        # not image.getexif(): that of PNG decodes the whole picture to look behind it
        return int(Image.Image.getexif(image).get(0x0112, 1))
    except Exception:  # broken metadata do not spoil a picture
        return 1


def mode_of(image: Image.Image) -> str:
    """Return ``"L"`` for a gray image and ``"RGB"`` for one in color.

    Raises:
        DataError: it is neither in 8 bits.
    """
    if image.mode not in _GREY | _COLOR:
        lab = image.mode == "LAB"  # whose channels have 8 bits already
        problem = (
            "is neither gray nor RGB; convert it to RGB" if lab else "has not 8 bits a channel; convert it to that"
        )
        raise DataError(f"an image of the mode {image.mode} {problem}")
    return "L" if image.mode in _GREY else "RGB"


class Folder:
    """Images in a folder that has one folder a class.

    Args:
        path: the folder.
        size: ``(height, width)`` to resize to, or ``None`` where all have one size already.
        progress: show a progress bar while the images' headers are looked at.
        mode: ``"L"`` or ``"RGB"`` to read all images as such; ``None`` for gray if every one is, and color otherwise.

    Raises:
        DataError: not a folder, no class folders or one, or a class without an image.
    """

    def __init__(
        self, path: Path, size: tuple[int, int] | None = None, progress: bool = False, mode: str | None = None
    ) -> None:
        found = scan(path)
        self.path, self.size, self.progress, self._wanted = path, size, progress, mode
        self.classes: tuple[str, ...] = found.classes
        self._samples: list[tuple[str, int]] = found.samples
        left_out = found.said(path)
        if left_out is not None:
            note(left_out)

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def paths(self) -> list[str]:
        """Paths of the images, in their order."""
        return [path for path, _ in self._samples]

    @property
    def key(self) -> str:
        """What stays the same when files change: where they are and how they are read."""
        wanted = () if self._wanted is None else (self._wanted,)
        return repr((str(self.path.resolve()), self.size, *wanted))

    def smallest(self) -> tuple[str, int]:
        """Return the class with the fewest images, and their number."""
        counts = [0] * len(self.classes)
        for _, label in self._samples:
            counts[label] += 1
        least = min(range(len(counts)), key=counts.__getitem__)
        return self.classes[least], counts[least]

    def source(self) -> Iterator[str]:
        """Describe the files by name, size and time of change, and the decoder by its version; line by line."""
        yield from (_READING, PIL.__version__, repr(self.size))
        for path, _ in self._samples:
            status = os.stat(path)
            yield f"{os.path.relpath(path, self.path)}|{status.st_size}|{status.st_mtime_ns}"

    def read(self, index: int) -> tuple[Tensor, int]:
        """Read one image and its label.

        Raises:
            DataError: the file cannot be decoded, or the images do not fit together.
        """
        mode = self._mode
        path, label = self._samples[index]
        return _decode(path, mode, self.size), label

    @cached_property
    def _mode(self) -> str:
        """Mode to read all images in. Looks at every header, so that misfits show at once."""
        first: tuple[str, tuple[int, int]] | None = None
        modes, moving = set(), list[str]()
        bar: Iterable[Any] = tqdm(self._samples, desc=f"checking {self.path.name}", disable=not self.progress)
        for path, _ in bar:
            mode, (width, height), more = _header(path)
            modes.add(mode)
            moving += [path] * more
            first = first or (path, (height, width))
            if self.size is None and (height, width) != first[1]:
                raise DataError(
                    f"{first[0]} is {first[1][0]} x {first[1][1]} but {path} is {height} x {width} (height x width); "
                    "give size=(height, width) (--size) to resize all images"
                )
        if moving:
            count = f"{len(moving)} of {len(self)} pictures have several frames or pages"
            note(f"{self.path}: {count} ({moving[0]}), the first of which is read")
        return self._wanted or ("L" if modes == {"L"} else "RGB")


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(f"cannot read the image {path} ({one_line(error)}); replace or remove it")


def _opened(path: str) -> Image.Image:
    """Open a picture that Pillow reads by itself, and of a size that can be decoded without harm."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise DataError("it is not a file but a pipe or a device")  # which would be waited for
    image = Image.open(path, formats=formats())
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise DataError(f"it has {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million")
    return image


def _header(path: str) -> tuple[str, tuple[int, int], bool]:
    """Return the mode that suits a picture, its height and width, and whether it has more pictures behind the first."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is the lower limit
            image = _opened(path)
        with image:
            turned = image.format != "TIFF" and _TURNS.get(_orientation(image)) in _SIDEWAYS
            # frames last: looking for them turns to the next
            mode, size = mode_of(image), (image.size[1], image.size[0]) if turned else image.size
            return mode, size, image.format not in _ONE_PICTURE and bool(getattr(image, "is_animated", False))
    except Exception as error:  # decoders raise anything on broken files
        raise _unreadable(path, error) from None


def _decode(path: str, mode: str, size: tuple[int, int] | None) -> Tensor:
    try:
        with _opened(path) as image, _DECODING.taken(image.width * image.height):
            if size is None:
                return from_pil(image, mode)
            # palettes and transparency cannot be interpolated: to the final mode first
            return _pixels(_plain(image, mode).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    except Exception as error:  # decoders raise anything on broken files
        raise _unreadable(path, error) from None
