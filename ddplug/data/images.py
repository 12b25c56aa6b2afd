"""Image files and PIL images as uint8 tensors."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ddplug.errors import DataError
from ddplug.utils.text import one_line

__all__ = ["Folder", "from_pil"]

_GREY = {"1", "L", "LA", "La"}
_COLOR = {"RGB", "RGBA", "RGBa", "RGBX", "P", "PA", "CMYK", "YCbCr", "HSV"}


def from_pil(image: Image.Image, mode: str | None = None) -> Tensor:
    """Turn a PIL image into a ``(C, H, W)`` uint8 tensor; transparency is dropped.

    Args:
        image: of 8 bits a channel, or 1 bit.
        mode: ``"L"`` (one channel) or ``"RGB"`` (three); ``None`` for what the image has.

    Returns:
        The pixels.

    Raises:
        DataError: the image has more than 8 bits a channel.
    """
    mode = mode or mode_of(image)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    pixels = np.array(image.convert(mode))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def mode_of(image: Image.Image) -> str:
    """Return ``"L"`` for a grey image and ``"RGB"`` for one in color.

    Raises:
        DataError: it is neither in 8 bits.
    """
    if image.mode not in _GREY | _COLOR:
        wanted = "RGB" if image.mode == "LAB" else "8 bits a channel"
        raise DataError(f"an image of the mode {image.mode} is neither grey nor RGB in bytes; convert it to {wanted}")
    return "L" if image.mode in _GREY else "RGB"


class Folder:
    """Images in a folder that has one folder a class.

    Args:
        path: the folder.
        size: ``(height, width)`` to resize to, or ``None`` where all have one size already.
        progress: show a progress bar while the images' headers are looked at.

    Raises:
        DataError: not a folder, no class folders or one, or a class without an image.
    """

    def __init__(self, path: Path, size: tuple[int, int] | None = None, progress: bool = False) -> None:
        # not at the top: every other use of the library does without torchvision
        from torchvision.datasets import ImageFolder

        if not path.is_dir():
            raise DataError(f"{path} is not a folder; give one that holds one folder of images a class")
        try:
            found = ImageFolder(str(path), allow_empty=True)
        except OSError:
            raise DataError(f"{path} has no class folders; put the images of each class into a folder") from None
        self.path, self.size, self.progress = path, size, progress
        self.classes: tuple[str, ...] = tuple(found.classes)
        self._samples: list[tuple[str, int]] = found.samples
        empty = sorted(set(range(len(self.classes))) - set(found.targets))
        if empty:
            raise DataError(f"{path / self.classes[empty[0]]} has no image; add some or remove the folder")
        if len(self.classes) < 2:
            raise DataError(f"{path} has one class, {self.classes[0]!r}; at least 2 class folders are needed")

    def __len__(self) -> int:
        return len(self._samples)

    def source(self) -> str:
        """Describe the files by name, size and time of change, and the decoder by its version."""
        parts = [PIL.__version__, repr(self.size)]
        for path, _ in self._samples:
            status = os.stat(path)
            parts.append(f"{os.path.relpath(path, self.path)}|{status.st_size}|{status.st_mtime_ns}")
        return "\n".join(parts)

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
        """Mode of all images: grey if every one is. Reads the headers only, so that misfits show at once."""
        first: tuple[str, tuple[int, int]] | None = None
        modes = set()
        bar: Iterable[Any] = tqdm(self._samples, desc=f"checking {self.path.name}", disable=not self.progress)
        for path, _ in bar:
            mode, (width, height) = _header(path)
            modes.add(mode)
            first = first or (path, (height, width))
            if self.size is None and (height, width) != first[1]:
                raise DataError(
                    f"{first[0]} is {first[1][0]} x {first[1][1]} but {path} is {height} x {width} (height x width); "
                    "give size=(height, width) (--size) to resize all images"
                )
        return "L" if modes == {"L"} else "RGB"


def _unreadable(path: str, error: Exception) -> DataError:
    return DataError(f"cannot read the image {path} ({one_line(error)}); replace or remove it")


def _header(path: str) -> tuple[str, tuple[int, int]]:
    try:
        with Image.open(path) as image:
            return mode_of(image), image.size
    except Exception as error:  # decoders raise anything on broken files
        raise _unreadable(path, error) from None


def _decode(path: str, mode: str, size: tuple[int, int] | None) -> Tensor:
    try:
        with Image.open(path) as image:
            if size is None:
                return from_pil(image, mode)
            # palettes and transparency cannot be interpolated: to the final mode first
            pixels = from_pil(image, mode).permute(1, 2, 0).squeeze(2).numpy()
            return from_pil(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    except Exception as error:  # decoders raise anything on broken files
        raise _unreadable(path, error) from None
