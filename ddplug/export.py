"""Ways out: pictures, folders of images, plain arrays, a data set card, and an account of what a set holds."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddplug.errors import OptionError
from ddplug.plots import grid, image_bytes
from ddplug.storage import load, write_file
from ddplug.synthetic import SyntheticSet

__all__ = ["card", "inspect", "to_image_folder", "to_npz", "to_png"]


def to_png(synthetic: SyntheticSet, path: str | Path, per_row: int = 10) -> None:
    """Write the images as a grid, a class a row; see :func:`ddplug.plots.grid`.

    Args:
        synthetic: a set of grey or RGB images.
        path: the picture; an existing one is replaced.
        per_row: images of a class to show.

    Raises:
        DataError: the inputs are not images with one or three channels.
        OptionError: the path cannot be written.
    """
    picture = io.BytesIO()
    grid(synthetic, per_row).savefig(picture, format="png", metadata={"Software": None})
    write_file(path, picture.getvalue())


def to_npz(synthetic: SyntheticSet, path: str | Path) -> None:
    """Write plain arrays that ``numpy.load(path, allow_pickle=False)`` reads.

    The arrays are ``pixels`` (float32, pixel space), or ``codes`` (uint8) and ``levels`` where the set is quantised;
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


def to_image_folder(synthetic: SyntheticSet, directory: str | Path) -> None:
    """Write one PNG an image, ``CLASS/0000.png``, as ``torchvision.datasets.ImageFolder`` reads them.

    ``ImageFolder`` numbers classes by the order of their folders' names. Characters that do not suit a file name become
    ``_``. Values outside ``[0, 1]`` are clipped, the rest is rounded to bytes; soft labels become the likeliest class.

    Args:
        synthetic: a set of grey or RGB images.
        directory: a folder that does not exist or is empty; it appears whole or not at all.

    Raises:
        DataError: the inputs are not images with one or three channels.
        OptionError: the folder holds something, or cannot be written.
    """
    images = image_bytes(synthetic).numpy()
    target = Path(os.path.realpath(directory))
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
            f"cannot write {directory}: {error.strerror or error}; nothing was changed: choose another path"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def folder_names(class_names: tuple[str, ...]) -> list[str]:
    """Turn class names, which may come from a hostile file, into different names that any file system takes."""
    result: list[str] = []
    taken: set[str] = set()
    for name in class_names:
        safe = re.sub(r"[^\w .+-]", "_", name).encode()[:100].decode(errors="ignore").strip(" .") or "class"
        unique, number = safe, 2
        while unique.casefold() in taken:
            unique, number = f"{safe}-{number}", number + 1
        taken.add(unique.casefold())
        result.append(unique)
    return result


def inspect(synthetic: SyntheticSet | str | Path) -> dict[str, Any]:
    """Say what a set holds, in JSON-ready values.

    Args:
        synthetic: a set, or the file of one.

    Returns:
        Shapes, labels, bytes, pixel range, share of the numbers outside ``[0, 1]``, preprocessing, recipe, provenance.

    Raises:
        OptionError: the file cannot be read.
        FormatError: the file holds no valid set.

    Example:
        >>> import torch
        >>> from ddplug.preprocess import Identity
        >>> inspect(SyntheticSet(torch.zeros(2, 3), torch.tensor([0, 1]), 2, Identity()))["nbytes"]
        26
    """
    own = synthetic if isinstance(synthetic, SyntheticSet) else load(synthetic)
    pixels = own.pixels()
    return {
        "samples": len(own),
        "shape": list(own.shape),
        "stored_shape": list(own.inputs.shape[1:]),
        "num_classes": own.num_classes,
        "class_names": list(own.class_names),
        "samples_per_class": own.hard_targets.bincount(minlength=own.num_classes).tolist(),
        "labels": "hard" if own.targets.ndim == 1 else "soft",
        "storage": "float32" if own.levels is None else "uint8",
        "bits": 32 if own.levels is None else own.bits,
        "nbytes": own.nbytes,
        "pixel_range": [float(pixels.min()), float(pixels.max())],
        "outside_unit_range": float(((pixels < 0) | (pixels > 1)).double().mean()),
        "preprocess": own.preprocess.kind,
        "recipe": own.recipe.to_json(),
        "provenance": dict(own.provenance),
    }


def card(synthetic: SyntheticSet, file: str = "set.safetensors") -> str:
    """Write a data set card: what the set is, how it was made, how to use it, what it is not for.

    Args:
        synthetic: any set.
        file: name of the set's file, for the example.

    Returns:
        Markdown.

    Example:
        >>> import torch
        >>> from ddplug.preprocess import Identity
        >>> card(SyntheticSet(torch.zeros(2, 3), torch.tensor([0, 1]), 2, Identity())).splitlines()[0]
        '# Synthetic training set'
    """
    facts = inspect(synthetic)
    made = synthetic.provenance
    method, data = made.get("method"), made.get("data")
    data = data.get("name") if isinstance(data, dict) else data
    origin = [f"made by {_code(method)}" if method else "", f"from {_code(data)}" if data else ""]
    shape = " x ".join(map(str, synthetic.shape))
    soft = f"soft labels over {synthetic.num_classes} classes{' as float16' if synthetic.half_labels else ''}"
    labels = soft if facts["labels"] == "soft" else "class indices"
    storage = f"{facts['bits']}-bit" if facts["bits"] < 8 else facts["storage"]
    stored = " x ".join(map(str, facts["stored_shape"]))
    small = f" images of {stored}, enlarged when read" if synthetic.network_shape else ""
    fields = {
        name: tensor.tolist() if tensor.numel() <= 64 else f"{tensor.numel()} numbers, in the file"
        for name, tensor in synthetic.preprocess.tensors().items()
    }
    return "\n".join(
        [
            "# Synthetic training set",
            "",
            f"{len(synthetic)} samples of shape {shape} {' '.join(filter(None, origin))}".rstrip() + ".",
            "",
            "| | |",
            "|---|---|",
            f"| stored bytes, labels counted | {synthetic.nbytes:,} |",
            f"| stored as | {storage}{small}, {labels} |",
            f"| values before preprocessing | {facts['pixel_range'][0]:.4g} to {facts['pixel_range'][1]:.4g} |",
            f"| share of them outside [0, 1] | {facts['outside_unit_range']:.1%} |",
            "",
            "## Classes",
            "",
            *_classes(synthetic, facts["samples_per_class"]),
            "",
            "## Use",
            "",
            "```python",
            "from ddplug import SyntheticSet",
            f"synthetic = SyntheticSet.load({file!r})  # a torch Dataset, in model space",
            "real = synthetic.preprocess.forward(pixels)  # real data must go through the same preprocessing",
            "```",
            "",
            "## Preprocessing",
            "",
            f"{_code(synthetic.preprocess.kind)}, from pixels ([0, 1] for data stored as bytes) to model space:",
            "",
            *_block(fields),
            "",
            "## Training recipe",
            "",
            *_block(facts["recipe"]),
            "",
            "## Provenance",
            "",
            *_block(facts["provenance"]),
            "",
            "## Limits",
            "",
            "- It stands in for the real data in training a classifier on them, not as a sample of them.",
            "- Accuracy depends on the network and the recipe; judge it on real test data, beside real samples of the",
            "  same bytes.",
            "- It may show traits of single real samples; it is not anonymous, and the licence of the real data holds.",
            "",
        ]
    )


def _classes(synthetic: SyntheticSet, counts: list[int], most: int = 100) -> list[str]:
    """Give the rows of the table of classes."""
    rows = [f"| {_code(name)} | {count} |" for name, count in zip(synthetic.class_names, counts, strict=True)]
    more = [f"| and {len(rows) - most} more | |"] if len(rows) > most else []
    return ["| class | samples |", "|---|---|", *rows[:most], *more]


def _code(text: object) -> str:
    """Quote text that may be hostile as Markdown code inside a table."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text)[:200])
    return "`" + (shown.replace("`", "'").replace("|", "/") or " ") + "`"


def _block(values: dict[str, Any]) -> list[str]:
    """Give a fenced block of JSON; no string in JSON can close the fence, for it cannot hold a line break."""
    return ["```json", json.dumps(values, indent=2, ensure_ascii=False), "```"]
