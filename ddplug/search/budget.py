"""Comparisons on one footing: the steps that a cost allows, and controls of as many bytes as a set takes.

Cost is counted in images, ``3 x images trained on + images scored``, because a training step is a forward and a
backward pass of about twice the cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ddplug import registry
from ddplug.data.anything import Data, as_labeled
from ddplug.data.labeled import LabeledData
from ddplug.distillation.loop import distill
from ddplug.errors import OptionError
from ddplug.evaluation.comparison import sized_like
from ddplug.search.sets import load_set
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.held_out import METHOD, holdout

__all__ = ["control_file", "data_file", "selection_file", "steps_within"]


def steps_within(budget: float, batch_size: int, scored: int) -> int:
    """Return the steps of training that a cost allows.

    Args:
        budget: as :attr:`ddplug.search.Judge.cost` counts, for one seed.
        batch_size: images a step; those of the set if it has fewer.
        scored: images of the validation file.

    Raises:
        OptionError: not even one step is allowed.

    Example:
        >>> steps_within(10_000, batch_size=100, scored=1000)
        30
    """
    steps = int((budget - scored) // (3 * batch_size))
    if steps < 1:
        raise OptionError(
            f"a cost of {budget:.0f} image passes does not allow one step of {batch_size} images, scored on {scored}; "
            "allow a larger share, or take a smaller batch or validation file"
        )
    return steps


def data_file(data: Data, path: str | Path) -> Path:
    """Write real data as they are, unless the file holds them already.

    Args:
        data: all of it.
        path: of the file.

    Returns:
        The path.

    Raises:
        OptionError: the file holds something else.
    """
    data = as_labeled(data)
    return _kept(Path(path), data, METHOD, None, lambda: holdout(data))


def selection_file(data: Data, method: str, images_per_class: int, folder: str | Path, seed: int = 0) -> Path:
    """Write a selection of real samples, one byte a number, unless it is there already.

    Args:
        data: to select from.
        method: ``"random"``, ``"kmeans"`` or another name of a distiller that needs no steps.
        images_per_class: samples of each class.
        folder: for the file, which is named after all of these but the data.
        seed: of the selection.

    Returns:
        The file's path.

    Raises:
        OptionError: the file holds something else.
    """
    data = as_labeled(data)
    chosen = registry.resolve("distiller", method)(images_per_class=images_per_class)
    place = Path(folder) / f"{method}-{images_per_class}-seed-{seed}.safetensors"
    return _kept(place, data, method, seed, lambda: distill(data, chosen, seed=seed, device="cpu").quantize())


def control_file(data: Data, method: str, like: SyntheticSet, folder: str | Path, seed: int = 0) -> Path:
    """Write a control of a set, unless it is there already: real samples in its bytes, stored as it is.

    Where a codec holds the set, the same codec holds the control, as many samples as it really fits.

    Args:
        data: what the set was made of.
        method: ``"random"``, ``"kmeans"`` or another name of a distiller that needs no steps.
        like: the set.
        folder: for the file, which is named after the method, its samples a class and the storage.
        seed: of the selection.

    Returns:
        The file's path.

    Raises:
        OptionError: the file holds something else.
    """
    data = as_labeled(data)
    sized, store = sized_like(like, registry.resolve("distiller", method)(), data, seed)
    bits = 8 if like.levels is None else like.bits
    stored = f"{bits}-bit" if like.stored is None else re.sub(r"[^\w.]+", "-", like.stored.codec)
    shape = "x".join(map(str, like.inputs.shape[1:]))
    each = sized.images_per_class
    place = Path(folder) / f"{method}-{each}-{stored}-{shape}-seed-{seed}.safetensors"
    return _kept(place, data, method, seed, lambda: store([distill(data, sized, seed=seed, device="cpu")])[0])


def _kept(place: Path, data: LabeledData, method: str, seed: int | None, make: Callable[[], SyntheticSet]) -> Path:
    """Write a set of some data unless the file holds it; overwrite nothing else."""
    if not place.exists():
        make().save(place)
        return place
    made = load_set(place)
    known = made.provenance
    if (known.get("method"), known.get("seed"), made.data_fingerprint) != (method, seed, data.fingerprint):
        raise OptionError(f"{place} holds another set, of other data perhaps; choose another folder, or remove it")
    return place
