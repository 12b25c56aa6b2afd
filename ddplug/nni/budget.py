"""What judging a candidate costs, and how to spend no more than a given cost: on a set, or on the whole data.

Cost is counted in images, ``3 x images trained on + images scored``, because a training step is a forward and a
backward pass of about twice the cost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ddplug import registry
from ddplug.data.anything import Data, as_labeled
from ddplug.data.labeled import LabeledData
from ddplug.distillation.loop import distill
from ddplug.errors import OptionError
from ddplug.nni.evaluator import ProxyEvaluator
from ddplug.nni.sets import load_set
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.held_out import METHOD, holdout

__all__ = ["cost", "data_file", "early_stopping", "epochs_within", "selection_file"]


def cost(evaluator: ProxyEvaluator) -> float:
    """Return what judging one candidate costs, in forward passes of one image.

    Args:
        evaluator: with nothing left to choose.

    Example:
        A set of 100 images for 30 epochs, scored on 1,000, costs ``3 * 100 * 30 + 1000``.
    """
    train, validation = evaluator.sets()
    protocol = evaluator.protocol
    return float(protocol.seeds * (3 * len(train) * protocol.recipe(train.recipe).epochs + len(validation)))


def epochs_within(budget: float, images: int, scored: int) -> int:
    """Return the epochs of training on a set that a cost allows.

    Args:
        budget: as :func:`cost` counts, for one seed.
        images: in the set.
        scored: images of the validation file.

    Raises:
        OptionError: not even one epoch is allowed.

    Example:
        >>> epochs_within(10_000, images=100, scored=1000)
        30
    """
    epochs = int((budget - scored) // (3 * images))
    if epochs < 1:
        raise OptionError(
            f"a cost of {budget:.0f} image passes does not allow one epoch of {images} images scored on {scored}; "
            "allow a larger share, or take fewer images or a smaller validation file"
        )
    return epochs


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


def early_stopping(
    data: Data, folder: str | Path, validation: str | Path, budget: float, **options: Any
) -> ProxyEvaluator:
    """Make the evaluator that trains on the whole data, but stops at a cost.

    One pass over as many random samples as the cost allows is how training on all data begins. Where it allows more
    than all of one class, as many passes as needed are over as many samples each.

    Args:
        data: what full training is on.
        folder: where :func:`selection_file` writes these samples.
        validation: file of real validation data.
        budget: as :func:`cost` counts, for one seed.
        options: of :class:`ddplug.nni.evaluator.ProxyEvaluator`, those of full training but for the epochs.

    Raises:
        OptionError: the cost allows not a single image a class.
    """
    data = as_labeled(data)
    number = int((budget - len(load_set(validation))) // 3)
    if number < data.num_classes:
        raise OptionError(f"a cost of {budget:.0f} image passes allows {number} images, less than one a class")
    each = number // data.num_classes
    epochs = -(-each // min(map(len, data.class_indices)))
    path = selection_file(data, "random", each // epochs, folder, options.get("seed", 0))
    return ProxyEvaluator(path, validation, **{"augment": "", **options, "epochs": epochs})
