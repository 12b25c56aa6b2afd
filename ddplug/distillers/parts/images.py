"""What every distiller needs of images: checks, initial images, labels, and the finished set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ddplug import registry
from ddplug.data.labeled import LabeledData
from ddplug.distillation.settling import settled
from ddplug.distillers.parts.features import cluster_means, pixels
from ddplug.errors import DataError, OptionError
from ddplug.functional.clustering import draw_seed
from ddplug.functional.resize import reduce, reduced_shape
from ddplug.functional.types import Tensors
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils import specs
from ddplug.utils.checks import one_of
from ddplug.utils.notes import note
from ddplug.utils.preparation import kept_each
from ddplug.utils.randomness import twins

__all__ = [
    "INITIAL_IMAGES",
    "available",
    "balanced_labels",
    "check_images_per_class",
    "initial_images",
    "pick_augmentation",
    "selected_labels",
    "small_images",
    "to_set",
]


def available(data: LabeledData, images_per_class: int) -> list[int]:
    """Return how many samples of each class there are to take, and say where a class has fewer than are wanted.

    Args:
        data: real data.
        images_per_class: the number that is wanted of each class.

    Returns:
        That number, or all that a class has.

    Raises:
        OptionError: the number is below one.
        DataError: a class has no sample.
    """
    counts = _counted(data, images_per_class)
    _say_few(data, counts, images_per_class, "all of theirs are taken")
    return [min(images_per_class, count) for count in counts]


def check_images_per_class(data: LabeledData, images_per_class: int, factor: int = 1) -> None:
    """Refuse a number of learned images per class that no class has samples for, and say which classes have fewer.

    Args:
        data: real data.
        images_per_class: the number; of small images where the factor is above 1.
        factor: by which images are stored smaller, for the message.

    Raises:
        OptionError: it is below one, or above the largest class.
        DataError: a class has no sample.
    """
    counts = _counted(data, images_per_class)
    most, whole = max(counts), images_per_class // factor**2
    if images_per_class > most:
        small = "" if factor == 1 else f" ({factor**2} small ones for each, with factor {factor})"
        fitting = f"ask for at most {most // factor**2}"
        if most < factor**2:
            fitting = "use factor=1" if whole <= most else f"use factor=1 and ask for at most {most}"
        raise OptionError(f"images per class is {whole}{small}, but no class has more than {most} samples; {fitting}")
    _say_few(data, counts, images_per_class, "some serve more than once to start from")


def _counted(data: LabeledData, images_per_class: int) -> list[int]:
    """Count the samples of each class, of which there must be one."""
    if images_per_class < 1:
        raise OptionError(f"images per class is {images_per_class}; it must be at least 1")
    counts = [len(members) for members in data.class_indices]
    if 0 in counts:
        raise DataError(f"class {data.class_names[counts.index(0)]!r} has no sample; keep at least one of each class")
    return counts


def _say_few(data: LabeledData, counts: list[int], wanted: int, what: str) -> None:
    """Say that classes have fewer samples than images are wanted."""
    few = sum(count < wanted for count in counts)
    if few:
        least = min(range(len(counts)), key=counts.__getitem__)
        note(
            f"{data.name}: {few} of {len(counts)} classes have fewer than {wanted} samples, without those held out for "
            f"tests ({data.class_names[least]!r} has {counts[least]}): {what}"
        )


def balanced_labels(data: LabeledData, images_per_class: int, classes: Sequence[int] | None = None) -> Tensor:
    """Return the labels ``[0, .., 0, 1, .., 1, ..]`` of a balanced set, ``(C * images_per_class,)`` int64.

    Args:
        data: real data.
        images_per_class: of each class.
        classes: that the set has; all if not given.
    """
    own = torch.tensor(range(data.num_classes) if classes is None else classes, device=data.device)
    return own.repeat_interleave(images_per_class)


def selected_labels(data: LabeledData, images_per_class: int, classes: Sequence[int]) -> Tensor:
    """Return the labels ``[0, .., 0, 1, ..]`` of a selection from classes that takes what each has, ``(M,)`` int64."""
    counts = [min(images_per_class, len(data.class_indices[label])) for label in classes]
    return torch.tensor(classes).repeat_interleave(torch.tensor(counts)).to(data.device)


def pick_augmentation(augment: str, data: LabeledData) -> str:
    """Return the augmentation to use: the data's own for ``"auto"``, else what was asked for."""
    return data.augmentation if augment == "auto" else augment


def to_set(data: LabeledData, inputs: Tensor, targets: Tensor, recipe: Recipe) -> SyntheticSet:
    """Build the synthetic set from images and labels, with the data's preprocessing, class names and shape.

    Args:
        data: real data.
        inputs: ``(M, *stored)`` in model space; images stored smaller than the data's are enlarged whenever a network
            is to see them.
        targets: ``(M,)`` classes, or ``(M, C)`` probabilities.
        recipe: how to train on the set.
    """
    return SyntheticSet(
        inputs=inputs.detach().clone(),
        targets=targets,
        num_classes=data.num_classes,
        preprocess=data.preprocess,
        recipe=recipe,
        class_names=data.class_names,
        network_shape=data.shape,
    )


def _noise(data: LabeledData, images_per_class: int, rng: torch.Generator, factor: int) -> Tensor:
    shape = reduced_shape(data.shape, factor)
    return torch.randn(data.num_classes * images_per_class, *shape, generator=rng).to(data.device)


def _real(data: LabeledData, images_per_class: int, rng: torch.Generator, factor: int) -> Tensor:
    classes = [data.sample(label, images_per_class, rng) for label in range(data.num_classes)]
    return torch.cat([reduce(images, factor) for images in classes])


def _kmeans(data: LabeledData, images_per_class: int, rng: torch.Generator, factor: int) -> Tensor:
    extract = pixels(data)

    def means(members: Tensor, rng: torch.Generator) -> Tensors:
        return {"means": cluster_means(data, members, extract, min(images_per_class, len(members)), rng)}

    starts = twins(rng, [draw_seed] * data.num_classes)
    makes = [partial(means, *start) for start in zip(data.class_indices, starts, strict=True)]
    found = kept_each(rng, makes, "classes", data.device)
    classes = [part["means"][torch.arange(images_per_class) % len(part["means"])] for part in found]
    return reduce(torch.cat(classes).to(data.device), factor)


INITIAL_IMAGES: Mapping[str, Callable[[LabeledData, int, torch.Generator, int], Tensor]] = {
    "noise": _noise,
    "real": _real,
    "kmeans": _kmeans,
}
"""What images can start from without a method that selects: noise, real images, or the centroids of each class."""


def _chosen(init_from: str, data: LabeledData, images_per_class: int, rng: torch.Generator) -> Tensor:
    """Return the images that a method chooses, such as ``"difficulty"`` or ``"rded:candidates=50"``."""
    name, options = specs.parse("init_from", init_from)
    one_of("init_from", name, (*INITIAL_IMAGES, *registry.names("distiller")))
    made = {**options, "images_per_class": images_per_class}
    method = specs.build(f"init_from {name!r}", registry.resolve("distiller", name), made)
    if method.steps:
        raise OptionError(f"init_from is {name!r}, which learns; give a method that selects, such as difficulty")
    method = settled(method, data.shape)
    found: Tensor = method.result(method.init(data, rng), data).inputs.to(data.device)
    return found


def initial_images(
    init_from: str, data: LabeledData, images_per_class: int, rng: torch.Generator, factor: int = 1
) -> Tensor:
    """Return the images to start from, ``(C * images_per_class, *stored)`` in model space, sorted by class.

    Args:
        init_from: a key of :data:`INITIAL_IMAGES`, or a method that selects, by name with options.
        data: real data.
        images_per_class: of each class.
        rng: generator on the CPU.
        factor: by which the images are stored smaller, at least 1; see :mod:`ddplug.functional.resize`.

    Returns:
        The images, on the data's device.

    Raises:
        OptionError: ``init_from`` is not known, ``images_per_class`` is out of range, or the data cannot be reduced by
            the factor, because they are no images or are whitened by ZCA, which mixes all pixels of whole ones.
    """
    reduced_shape(data.shape, factor)
    check_images_per_class(data, images_per_class, factor)
    if factor > 1 and data.preprocess.kind == "zca":
        raise OptionError(
            f"factor is {factor}, which cannot be combined with zca; load the data with preprocess='standardize'"
        )
    if init_from not in INITIAL_IMAGES:
        return reduce(_chosen(init_from, data, images_per_class, rng), factor)
    return INITIAL_IMAGES[init_from](data, images_per_class, rng, factor)


def small_images(images_per_class: int, factor: int) -> int:
    """Return how many images, each stored ``factor`` times smaller on a side, have the pixels of that many whole ones.

    Args:
        images_per_class: number of whole images.
        factor: by which height and width are divided. Where it does not divide them, a few pixels are left over.

    Example:
        >>> small_images(10, 2)
        40
    """
    return images_per_class * factor**2
