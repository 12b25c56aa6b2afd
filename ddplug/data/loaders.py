"""Real data from arrays, from any map-style torch ``Dataset`` and from a folder of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils.data import IterableDataset

from ddplug.data.checks import channels_first, check, check_order, to_inputs
from ddplug.data.decoding import MAX_MEMORY, Samples, gather
from ddplug.data.images import MAX_PIXELS, Folder
from ddplug.data.items import Items, MixedModesError, unwrapped
from ddplug.data.labeled import LabeledData
from ddplug.data.labels import Names, to_labels
from ddplug.data.preprocess import Preprocess, fit, to_pixels
from ddplug.errors import DataError, OptionError
from ddplug.functional.augmentation import ALL_OPERATIONS
from ddplug.utils.checks import whole
from ddplug.utils.notes import note
from ddplug.utils.paths import local
from ddplug.utils.surroundings import own_surroundings

__all__ = ["LabeledData", "from_arrays", "from_dataset", "from_image_folder"]

ClassNames: TypeAlias = Sequence[str] | Mapping[Any, Any] | Any
"""One name a class: a sequence, an array or a pandas index, or a dictionary in either direction."""

_WHOLE: Mapping[str, Callable[[Any], tuple[Any, Any]]] = {
    "torchvision.datasets.mnist.MNIST.__getitem__": lambda dataset: (dataset.data[:, None], dataset.targets),
    "torchvision.datasets.cifar.CIFAR10.__getitem__": lambda d: (d.data.transpose(0, 3, 1, 2), d.targets),
    "torchvision.datasets.svhn.SVHN.__getitem__": lambda dataset: (dataset.data, dataset.labels),
}
"""Data sets that hold all their images: the method that gives one of them -> how to have all at once."""

_LEAST_SIDE = 8
"""Pixels of a square that is more likely to be a gray image than a series."""

_FAR_MORE = 4
"""Times as many channels as steps that a series rather has the other way round."""

_COLORS = 4
"""Channels that images have at the most, unless they are maps of features or come from satellites."""

_READING = 3
"""Changes where items are read differently, so that caches are made again."""


@own_surroundings()
def from_arrays(
    inputs: Any,
    targets: Any,
    *,
    preprocess: str | Preprocess = "standardize",
    class_names: ClassNames = None,
    name: str = "arrays",
    augmentation: str | None = None,
) -> LabeledData:
    """Make labeled data from NumPy arrays or tensors; memory is shared where it can be.

    Args:
        inputs: ``(N, *shape)``: uint8 images ``(N, C, H, W)``, or floating-point numbers of any shape. Images whose
            shape can only be ``(N, H, W, C)``, and uint8 ones ``(N, H, W)``, are laid out as ``(N, C, H, W)``.
        targets: ``(N,)`` integers or texts, one class for each that there is.
        preprocess: a kind to fit on these data (``"identity"``, ``"standardize"``, ``"zca"``), or a fitted
            preprocessing: test data must have that of the training data.
        class_names: one name a class, in their order: a sequence or an array; or label -> name; or name -> label.
            ``None`` for the labels themselves. Every name needs a sample.
        name: short name, for provenance.
        augmentation: operations of :mod:`ddplug.functional.augmentation` that keep the label; ``None`` for all of them
            on ``(C, H, W)`` inputs and none on others.

    Returns:
        The data, on the device of the inputs.

    Raises:
        DataError: empty data, one class, a class without a sample or a name, labels that are neither integers nor
            texts, negative ones without a name, NaN, lengths that differ.
        OptionError: the preprocessing is not known.

    Example:
        >>> data = from_arrays([[0.0, 1.0], [2.0, 3.0]], [0, 1])
        >>> data.num_classes, data.shape
        (2, (2,))
    """
    return _from_arrays(inputs, targets, preprocess, Names.given(class_names, name), name, augmentation)


def _from_arrays(
    inputs: Any, targets: Any, preprocess: str | Preprocess, names: Names, name: str, augmentation: str | None
) -> LabeledData:
    check_order(inputs, targets, name)
    stored, labels = channels_first(to_inputs(inputs, name)), to_labels(targets, name)
    check(stored, len(labels), name)
    return _assemble(stored, *names.encode(labels, name), preprocess, name, augmentation)


@own_surroundings()
def from_dataset(
    dataset: Any,
    *,
    preprocess: str | Preprocess = "standardize",
    class_names: ClassNames = None,
    name: str = "dataset",
    augmentation: str | None = None,
    cache: str | Path | None = None,
    max_memory: int = MAX_MEMORY,
    progress: bool = False,
) -> LabeledData:
    """Read a map-style torch ``Dataset``, or the one behind a ``DataLoader``, each item once.

    Items are ``(input, label)`` pairs, or dictionaries whose ``image`` and ``label`` go by these or similar names, or
    by the features of a Hugging Face data set.

    PIL images become uint8 ``(C, H, W)``, in color if one of them is; uint8 tensors stay; floating-point tensors become
    float32. Items are kept as they are at this one reading, so leave random augmentation to ``augmentation``.

    Args:
        dataset: anything with ``__len__`` and ``__getitem__``; labels are integers or texts, or arrays of one.
        preprocess: see :func:`from_arrays`.
        class_names: see :func:`from_arrays`; ``None`` for the dataset's own ``classes``, of which those without a
            sample are left out, or the labels themselves.
        name: short name, for provenance and the cache.
        augmentation: see :func:`from_arrays`.
        cache: folder for a file that holds the decoded items and is memory-mapped; the next call with the same data
            opens it without decoding. The same data means the same name, type, length and 16 items spread over the
            dataset; remove the file after a change that these do not show.
        max_memory: bytes that the decoded items may take without a cache.
        progress: show a progress bar while decoding.

    Returns:
        The data, on the CPU.

    Raises:
        DataError: an item cannot be read or differs in shape, or as for :func:`from_arrays`.

    Example:
        >>> import torch
        >>> data = from_dataset([(torch.zeros(1, 4, 4), 0), (torch.ones(1, 4, 4), 1)])
        >>> len(data), data.shape
        (2, (1, 4, 4))
    """
    dataset = unwrapped(dataset, name)
    if isinstance(dataset, IterableDataset):
        raise DataError(
            f"{name}: {type(dataset).__name__} has no items by number; give a map-style dataset, as list(...) of it is"
        )
    try:
        count = len(dataset)
    except Exception:  # of somebody else's code
        raise DataError(f"{name}: {type(dataset).__name__} has no length; give a map-style dataset") from None
    items = Items(dataset, name)
    names = items.names() if class_names is None else Names.given(class_names, name)
    whole = _whole(dataset)
    if whole is not None:
        return _from_arrays(*whole, preprocess, names, name, augmentation)

    def gathered(items: Items) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        def source() -> list[str]:
            probes = sorted({round(i * (count - 1) / 15) for i in range(16)})
            found = [(label, str(item.dtype), item.numpy().tobytes()) for item, label in map(items.read, probes)]
            return [repr((_READING, found))]

        return gather(Samples(items.read, count, name, names, key, source), cache, max_memory, progress)

    key = repr((name, f"{type(dataset).__module__}.{type(dataset).__qualname__}", count))
    try:
        found = gathered(items)
    except MixedModesError:
        found = gathered(items.in_color())
    return _assemble(*found, preprocess, name, augmentation, cache)


@own_surroundings()
def from_image_folder(
    path: str | Path,
    *,
    preprocess: str | Preprocess = "standardize",
    size: int | tuple[int, int] | None = None,
    name: str | None = None,
    augmentation: str | None = None,
    cache: str | Path | None = None,
    max_memory: int = MAX_MEMORY,
    progress: bool = False,
) -> LabeledData:
    """Read a folder that holds one folder of images a class; classes are numbered in the order of their names.

    Images are gray, ``(1, H, W)``, if every one of them is, and ``(3, H, W)`` otherwise. They are turned upright as
    their EXIF says. Hidden folders and files are skipped; of others that are not read a note says what they are.

    Args:
        path: the folder.
        preprocess: see :func:`from_arrays`.
        size: ``(height, width)`` that every image is resized to (bilinear, antialiased), or one number for both;
            ``None`` if they have one size already.
        name: short name, for provenance; ``None`` for that of the folder.
        augmentation: see :func:`from_arrays`.
        cache: folder for a file that holds the decoded images and is memory-mapped; the next call opens it without
            decoding. It is made again when a file was added, removed, renamed, touched or changed in size.
        max_memory: bytes that the decoded images may take without a cache.
        progress: show progress bars while looking at the files and decoding.

    Returns:
        The data, on the CPU.

    Raises:
        DataError: no folder, no image, one class, an unreadable image, images of several sizes and no ``size``; or the
            folder holds the parts of a data set.
        OptionError: the size is not two positive numbers.
    """
    folder = Folder(Path(local(path)), sides(size), progress)
    name = name or folder.path.resolve().name
    return read_folder(folder, preprocess, name, augmentation=augmentation, cache=cache, max_memory=max_memory)


def sides(size: Any) -> tuple[int, int] | None:
    """Return the height and width that a size means: two positive numbers, or one for both.

    Raises:
        OptionError: it is something else.
    """
    if size is None:
        return None
    given = list(size) if isinstance(size, Iterable) and not isinstance(size, str) else [size] * 2
    try:
        both = [whole("size", side) for side in given]
    except OptionError:
        both = []
    if len(both) != 2 or min(both) < 1 or both[0] * both[1] > MAX_PIXELS:
        raise OptionError(
            f"size is {size!r}; it must be (height, width), both at least 1 pixel, or one number for both, and of "
            f"{MAX_PIXELS / 1e6:.0f} million pixels at most"
        )
    return both[0], both[1]


def read_folder(
    folder: Folder,
    preprocess: str | Preprocess,
    name: str,
    *,
    augmentation: str | None = None,
    cache: str | Path | None = None,
    max_memory: int = MAX_MEMORY,
) -> LabeledData:
    """Read a folder whose files are known; see :func:`from_image_folder`."""
    threads = min(8, os.cpu_count() or 1)
    names = Names.given(folder.classes, name)
    samples = Samples(folder.read, len(folder), name, names, folder.key, folder.source, threads)
    return _assemble(*gather(samples, cache, max_memory, folder.progress), preprocess, name, augmentation, cache)


def _assemble(
    inputs: Tensor,
    targets: Tensor,
    names: tuple[str, ...],
    preprocess: str | Preprocess,
    name: str,
    augmentation: str | None,
    cache: str | Path | None = None,
) -> LabeledData:
    """Put checked data together."""
    if inputs.ndim == 3 and inputs.shape[1] == inputs.shape[2] >= _LEAST_SIDE:
        note(
            f"{name}: inputs of the shape {tuple(inputs.shape[1:])} are read as series of {inputs.shape[1]} channels; "
            "of gray images give each its channel, as by inputs[:, None]"
        )
    elif inputs.ndim == 3 and 1 < inputs.shape[2] <= inputs.shape[1] // _FAR_MORE:
        note(
            f"{name}: inputs of the shape {tuple(inputs.shape[1:])} are read as series of {inputs.shape[1]} channels "
            f"and {inputs.shape[2]} steps; if it is the other way round, give inputs.transpose(0, 2, 1)"
        )
    elif inputs.ndim == 4 and inputs.shape[1] > _COLORS and _wide_last(tuple(inputs.shape[1:])):
        note(
            f"{name}: inputs of the shape {tuple(inputs.shape[1:])} are read as images of {inputs.shape[1]} channels; "
            "if the channels are last, give inputs.transpose(0, 3, 1, 2)"
        )
    if augmentation is None:
        augmentation = ALL_OPERATIONS if inputs.ndim == 4 else ""
    fitted = fit(preprocess, inputs) if isinstance(preprocess, str) else preprocess
    try:  # the shapes alone: numbers take memory
        fitted.to("meta").forward(to_pixels(inputs[:1].to("meta")))
    except RuntimeError:
        raise DataError(
            f"{name}: the preprocessing was fitted on inputs of another shape than {tuple(inputs.shape[1:])}"
        ) from None
    device = inputs.device
    scratch = None if cache is None else str(cache)
    return LabeledData(inputs, targets.to(device), len(names), fitted.to(device), names, name, augmentation, scratch)


def _wide_last(shape: tuple[int, ...]) -> bool:
    """Tell whether the last of three sides is by far the least, and no side of a map of features, which is a square."""
    first, second, last = shape
    return second != last and last <= min(first, second) // _FAR_MORE


def _whole(dataset: Any) -> tuple[Any, Any] | None:
    """Return all inputs and labels at once, where the dataset has them and no transform stands before them."""
    if getattr(dataset, "transform", None) is not None or getattr(dataset, "target_transform", None) is not None:
        return None
    method = getattr(type(dataset), "__getitem__", None)
    whole = _WHOLE.get(f"{getattr(method, '__module__', '')}.{getattr(method, '__qualname__', '')}")
    return None if whole is None else whole(dataset)
