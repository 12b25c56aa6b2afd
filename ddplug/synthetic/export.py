"""Ways out: pictures, folders of images, plain arrays, a data set card, and an account of what a set holds."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddplug.errors import OptionError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.given import AnySet, as_set
from ddplug.synthetic.pictures import grid, image_bytes
from ddplug.synthetic.ranges import in_units, range_of
from ddplug.synthetic.statement import privacy_statement
from ddplug.utils.files import write_file
from ddplug.utils.notes import note
from ddplug.utils.paths import local, unfit_for_windows
from ddplug.utils.pictures import file_of
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.text import os_reason

__all__ = ["holds_real_images", "inspect", "to_image_folder", "to_npz", "to_png"]


@own_surroundings()
def to_png(synthetic: SyntheticSet, path: str | Path, per_row: int = 10) -> None:
    """Write the images as a grid, a class a row; see :func:`ddplug.synthetic.pictures.grid`.

    A note says where values are scaled or clipped, as in :func:`to_image_folder`.

    Args:
        synthetic: a set of gray or RGB images.
        path: the picture; an existing one is replaced.
        per_row: images of a class to show.

    Raises:
        DataError: the inputs are not images with one or three channels.
        OptionError: the path cannot be written.
    """
    write_file(path, file_of(grid(synthetic, per_row)))
    _say_range(synthetic)


@own_surroundings()
def to_npz(synthetic: SyntheticSet, path: str | Path) -> None:
    """Write plain arrays that ``numpy.load(path, allow_pickle=False)`` reads.

    The arrays are ``pixels`` (float32, pixel space), or ``codes`` (uint8) and ``levels`` where the set is quantized;
    ``targets``; ``class_names``; ``preprocess`` (its kind) and its fields as ``preprocess_NAME``. Images stored
    smaller than networks see them are written enlarged, as ``pixels``.

    Args:
        synthetic: any set.
        path: the file; an existing one is replaced.

    Raises:
        OptionError: the path cannot be written.
    """
    own = synthetic.enlarged().to("cpu")
    arrays: dict[str, Any] = {f"preprocess_{name}": tensor.numpy() for name, tensor in own.preprocess.tensors().items()}
    if own.levels is None:
        arrays["pixels"] = own.pixels().numpy()
    else:
        arrays |= {"codes": own.codes().numpy(), "levels": own.levels.numpy()}
    arrays |= {"targets": own.targets.numpy(), "preprocess": np.array(own.preprocess.kind)}
    content = io.BytesIO()
    np.savez_compressed(content, class_names=np.array(own.class_names), **arrays)
    write_file(path, content.getvalue())


@own_surroundings()
def to_image_folder(synthetic: SyntheticSet, directory: str | Path) -> None:
    """Write one PNG an image, ``CLASS/0000.png``, as ``torchvision.datasets.ImageFolder`` reads them.

    ``ImageFolder`` numbers classes by the order of their folders' names. Characters that do not suit a file name become
    ``_``. Values are rounded to bytes, from black to white in the range of the real images, which a set remembers, and
    clipped outside it; a note says so. Soft labels become the likeliest class.

    Args:
        synthetic: a set of gray or RGB images.
        directory: a folder that does not exist or is empty; it appears whole or not at all.

    Raises:
        DataError: the inputs are not images with one or three channels.
        OptionError: the folder holds something, or cannot be written.
    """
    images = image_bytes(synthetic).numpy()
    target = Path(os.path.realpath(local(directory)))
    temporary = target.with_name(f".ddplug-{secrets.token_hex(8)}.tmp")
    folders = folder_names(synthetic.class_names)
    counts = dict.fromkeys(folders, 0)
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise OptionError(f"cannot write {directory}: it is not an empty folder; choose another path")
        temporary.mkdir()
        for image, label in zip(images, synthetic.hard_targets.tolist(), strict=True):
            folder = folders[label]
            (temporary / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(temporary / folder / f"{counts[folder]:04d}.png")
            counts[folder] += 1
        if target.exists():
            # fails where something was written into it meanwhile
            target.rmdir()
        os.replace(temporary, target)
    except OSError as error:
        raise OptionError(
            f"cannot write {directory}: {os_reason(error)}; nothing was changed: choose another path"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _say_range(synthetic)


def _say_range(synthetic: SyntheticSet) -> None:
    """Say what pictures of a set cannot show as it is."""
    black, white = range_of(synthetic)
    said = []
    if bool((black != 0).any() or (white != 1).any()):
        said.append(f"values from {float(black.min()):.4g} to {float(white.max()):.4g} became black to white")
    units, rounding = in_units(synthetic), 0.5 / 255
    outside = float(((units < -rounding) | (units > 1 + rounding)).double().mean())
    if outside > 0:
        said.append(f"{100 * outside:.2g} % of the values lie outside black and white and were clipped")
    if said:
        note(f"pictures hold 8 bits a value: {'; '.join(said)} (npz keeps all)")


def folder_names(class_names: tuple[str, ...]) -> list[str]:
    """Turn class names, which may come from a hostile file, into different names that any file system takes."""
    result: list[str] = []
    taken: set[str] = set()
    for name in class_names:
        safe = re.sub(r"[^\w .+-]", "_", name).encode()[:100].decode(errors="ignore").strip(" .") or "class"
        safe += "_" * unfit_for_windows(safe)
        unique, number = safe, 2
        while unique.casefold() in taken:
            unique, number = f"{safe}-{number}", number + 1
        taken.add(unique.casefold())
        result.append(unique)
    return result


def holds_real_images(provenance: Mapping[str, Any]) -> bool | None:
    """Tell whether a set holds real images or parts of them; ``None`` where its provenance does not say."""
    parts = provenance.get("merged", [provenance])
    parts = parts if isinstance(parts, list) else []
    found = [part.get("real_images") if isinstance(part, Mapping) else None for part in parts]
    return True if True in found else False if found and all(each is False for each in found) else None


def _storage(own: SyntheticSet) -> dict[str, Any]:
    """Say how the images are stored: by a codec, or in how many bits a number."""
    bits = None if own.stored is not None else 32 if own.levels is None else own.bits
    storage = "codec" if bits is None else "float32" if bits == 32 else "uint8"
    return {"storage": storage, "codec": own.codec, "bits": bits}


@own_surroundings()
def inspect(synthetic: AnySet) -> dict[str, Any]:
    """Return what a set holds, in JSON-ready values.

    Args:
        synthetic: a set, or the file of one.

    Returns:
        Shapes, labels, bytes, statement of differential privacy if there is one, pixel range, share of the numbers
        outside ``[0, 1]``, preprocessing, recipe, provenance.

    Raises:
        OptionError: the file cannot be read.
        FormatError: the file holds no valid set.

    Example:
        >>> import torch
        >>> from ddplug.data.preprocess import Identity
        >>> inspect(SyntheticSet(torch.zeros(2, 3), torch.tensor([0, 1]), 2, Identity()))["nbytes"]
        26
    """
    own = as_set(synthetic)
    pixels = own.pixels()
    return {
        "samples": len(own),
        "shape": list(own.shape),
        "stored_shape": list(own.inputs.shape[1:]),
        "num_classes": own.num_classes,
        "class_names": list(own.class_names),
        "samples_per_class": own.hard_targets.bincount(minlength=own.num_classes).tolist(),
        "labels": "hard" if own.targets.ndim == 1 else "soft",
        **_storage(own),
        "nbytes": own.nbytes,
        "bits_per_class": own.bits_per_class,
        "psnr": own.provenance.get("psnr"),
        "real_images": holds_real_images(own.provenance),
        "privacy": privacy_statement(own.provenance),
        "pixel_range": [float(pixels.min()), float(pixels.max())],
        "outside_unit_range": float(((pixels < 0) | (pixels > 1)).double().mean()),
        "preprocess": own.preprocess.shown,
        "recipe": own.recipe.to_json(),
        "provenance": dict(own.provenance),
    }
