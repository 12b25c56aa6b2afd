"""The few lines that every distiller shares: check the request, start from images, hand over a set."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ddplug.data import LabelledData
from ddplug.errors import OptionError, unknown
from ddplug.formation import reduce, reduced_shape
from ddplug.synthetic import Recipe, SyntheticSet

__all__ = [
    "STARTS",
    "adam_start",
    "adam_step",
    "at_least",
    "balanced_labels",
    "check_images_per_class",
    "initial_images",
    "momentum_step",
    "pick_augmentation",
    "small_images",
    "to_set",
]


def check_images_per_class(data: LabelledData, images_per_class: int, factor: int = 1) -> None:
    """Refuse a number of images per class below one or above the smallest class.

    Args:
        data: real data.
        images_per_class: the number; of small images where the factor is above 1.
        factor: by which images are stored smaller, for the message.

    Raises:
        OptionError: it is; the message names the class.
    """
    if images_per_class < 1:
        raise OptionError(f"images per class is {images_per_class}; it must be at least 1")
    counts = [len(members) for members in data.class_indices]
    least = min(range(data.num_classes), key=counts.__getitem__)
    if images_per_class > counts[least]:
        small = "" if factor == 1 else f" ({factor**2} small ones in the room of each, with factor {factor})"
        raise OptionError(
            f"images per class is {images_per_class // factor**2}{small}, but class {data.class_names[least]!r} has "
            f"only {counts[least]} samples; ask for at most {counts[least] // factor**2}"
        )


def balanced_labels(data: LabelledData, images_per_class: int) -> Tensor:
    """Give the labels ``[0, .., 0, 1, .., 1, ..]`` of a balanced set, ``(C * images_per_class,)`` int64."""
    return torch.arange(data.num_classes, device=data.device).repeat_interleave(images_per_class)


def pick_augmentation(augment: str, data: LabelledData) -> str:
    """Resolve ``"auto"`` to what suits the data."""
    return data.augmentation if augment == "auto" else augment


def to_set(data: LabelledData, inputs: Tensor, targets: Tensor, recipe: Recipe) -> SyntheticSet:
    """Wrap ``(M, *stored)`` model-space inputs and their labels with the data's preprocessing and names.

    Images smaller than the data's are enlarged to their size for whatever network sees them.
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


def at_least(options: object, **limits: float) -> None:
    """Refuse hyper-parameters below their limits.

    Args:
        options: the object that has them.
        limits: least value of each.

    Raises:
        OptionError: one is below; the message names it.
    """
    for name, least in limits.items():
        if not getattr(options, name) >= least:
            raise OptionError(f"{name} is {getattr(options, name)}; it must be at least {least}")


def _noise(data: LabelledData, images_per_class: int, rng: torch.Generator, factor: int) -> Tensor:
    shape = reduced_shape(data.shape, factor)
    return torch.randn(data.num_classes * images_per_class, *shape, generator=rng).to(data.device)


def _real(data: LabelledData, images_per_class: int, rng: torch.Generator, factor: int) -> Tensor:
    classes = [data.sample(label, images_per_class, rng) for label in range(data.num_classes)]
    return torch.cat([reduce(images, factor) for images in classes])


def _kmeans(data: LabelledData, images_per_class: int, rng: torch.Generator, factor: int) -> Tensor:
    from ddplug.distillers.kmeans import KMeansCentroid

    return reduce(KMeansCentroid(images_per_class).init(data, rng)["inputs"], factor)


STARTS: Mapping[str, Callable[[LabelledData, int, torch.Generator, int], Tensor]] = {
    "noise": _noise,
    "real": _real,
    "kmeans": _kmeans,
}
"""What synthetic images can start from: normal noise, real images, or the centroids of each class."""


def initial_images(
    start: str, data: LabelledData, images_per_class: int, rng: torch.Generator, factor: int = 1
) -> Tensor:
    """Give the images to start from, ``(C * images_per_class, *stored)`` in model space, sorted by class.

    Args:
        start: a key of :data:`STARTS`.
        data: real data.
        images_per_class: of each class.
        rng: generator on the CPU.
        factor: by which the images are stored smaller, at least 1; see :mod:`ddplug.formation`.

    Returns:
        The images, on the data's device.

    Raises:
        OptionError: the start is not known, ``images_per_class`` is out of range, or the data cannot be reduced by the
            factor, because they are no images or are whitened by ZCA, which mixes all pixels of whole ones.
    """
    reduced_shape(data.shape, factor)
    check_images_per_class(data, images_per_class, factor)
    if factor > 1 and data.preprocess.kind == "zca":
        raise OptionError(
            f"factor is {factor}, which does not go with zca; load the data with preprocess='standardise'"
        )
    if start not in STARTS:
        raise unknown("start", start, STARTS)
    return STARTS[start](data, images_per_class, rng, factor)


def small_images(images_per_class: int, factor: int) -> int:
    """Give the number of images stored small by a factor that take the room of ``images_per_class`` whole ones.

    Where the factor does not divide an image's sides, they take a little less.
    """
    return images_per_class * factor**2


def momentum_step(state: Mapping[str, Tensor], gradient: Tensor, rate: float, momentum: float) -> dict[str, Tensor]:
    """Move ``state["inputs"]`` by SGD with momentum, keeping the old tensors.

    Args:
        state: holds ``inputs`` and ``velocity``, of the gradient's shape.
        gradient: of the loss in the inputs.
        rate: learning rate.
        momentum: share of the old velocity that is kept.

    Returns:
        The new ``inputs`` and ``velocity``.
    """
    velocity = momentum * state["velocity"] + gradient
    return {"inputs": state["inputs"] - rate * velocity, "velocity": velocity}


def adam_start(learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the part of a state that :func:`adam_step` needs: what is learned, its moments and a count of steps."""
    moments = {f"{which}.{name}": torch.zeros_like(t) for which in ("first", "second") for name, t in learned.items()}
    return {**learned, **moments, "done": torch.tensor(0)}


def adam_step(
    state: Mapping[str, Tensor], gradients: Mapping[str, Tensor], rate: float, betas: tuple[float, float] = (0.9, 0.999)
) -> dict[str, Tensor]:
    """Move tensors of a state by Adam, keeping the old ones.

    Args:
        state: what :func:`adam_start` gave, among others.
        gradients: of the loss in each learned tensor, by its name.
        rate: learning rate.
        betas: shares of the old first and second moments that are kept.

    Returns:
        The new tensors and moments, and the count ``done`` of the steps taken.

    Reference: Kingma & Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.
    """
    done = int(state["done"]) + 1
    after = {"done": torch.tensor(done)}
    for name, gradient in gradients.items():
        first = torch.lerp(gradient, state[f"first.{name}"], betas[0])
        second = torch.lerp(gradient.square(), state[f"second.{name}"], betas[1])
        slope = first / (1 - betas[0] ** done) / ((second / (1 - betas[1] ** done)).sqrt() + 1e-8)
        after |= {name: state[name] - rate * slope, f"first.{name}": first, f"second.{name}": second}
    return after
