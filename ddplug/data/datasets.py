"""Data sets by name: ours, a third party's, and files and folders by a scheme (:mod:`ddplug.data.sources`).

A loader is any callable that an entry point of the group ``ddplug.datasets`` names and that takes the keywords of
:class:`Loader`. The test split always goes through the preprocessing of the training split.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ddplug import registry
from ddplug.data.decoding import MAX_MEMORY
from ddplug.data.labeled import LabeledData
from ddplug.data.loaders import from_arrays, from_dataset, sides
from ddplug.data.persons import Whose, owned, whose
from ddplug.data.preprocess import Preprocess, Standardize
from ddplug.data.sources import Wanted, held_out, read, source_of
from ddplug.errors import DataError, OptionError
from ddplug.functional.augmentation import ALL_OPERATIONS
from ddplug.utils.checks import one_of
from ddplug.utils.paths import local
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.text import one_line

__all__ = [
    "Loader",
    "TorchvisionLoader",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "kmnist",
    "load",
    "mnist",
    "svhn",
]

_NO_FLIP = ALL_OPERATIONS.replace("_flip", "")
"""A mirrored digit is another one."""


class Loader(Protocol):
    """What a data set's entry point names."""

    def __call__(
        self,
        *,
        root: str | Path | None,
        split: str,
        download: bool,
        cache: str | Path | None,
        max_memory: int,
        progress: bool,
    ) -> LabeledData:
        """Load one split; the arguments are those of :func:`load`, and a loader may ignore what it has no use for."""


@own_surroundings()
def load(
    name: str | os.PathLike[str],
    *,
    root: str | Path | None = None,
    split: str = "train",
    download: bool = False,
    size: int | tuple[int, int] | None = None,
    target: str | None = None,
    ignore: str | Sequence[str] = (),
    labels: str | Path | None = None,
    persons: Whose | None = None,
    cache: str | Path | None = None,
    max_memory: int = MAX_MEMORY,
    progress: bool = False,
) -> LabeledData:
    """Load a data set by its name, or from a file or a folder.

    ``digits`` (8x8, comes with scikit-learn) needs nothing. ``mnist``, ``fashion-mnist``, ``kmnist``, ``svhn``,
    ``cifar10`` and ``cifar100`` lie in ``root`` as torchvision puts them there.

    =================== ==========================================================================================
    ``imagefolder:DIR`` ``DIR/train`` and ``DIR/test`` or ``DIR/val``, in any case, or else a folder a class
    ``images:DIR``      pictures anywhere in ``DIR``, named with their classes by the CSV file ``labels``
    ``csv:FILE``        a table with a head; the column ``target`` holds the labels, all others numbers
    ``parquet:FILE``    the same; needs pyarrow
    ``npz:FILE``        arrays, as ``x`` and ``y``, ``x_train`` and ``x_test``, or the names that MedMNIST has
    ``hf:NAME``         a data set of the Hugging Face hub, or ``hf:DIR`` one saved to a folder; needs datasets
    =================== ==========================================================================================

    ``csv:`` and ``parquet:`` take a folder too, with the files ``train`` and ``test``. Where there is no test part, a
    fixed fifth of each class is one.

    Args:
        name: one of ``registry.names("dataset")``, or one of these, or a file or folder of such a kind that is there.
        root: folder of the data, where the data set needs one.
        split: ``"train"`` or ``"test"``.
        download: fetch what is missing into ``root``.
        size: ``(height, width)`` to resize to, or one number for both, for images in folders only.
        target: name of the column that holds the labels, for tables and for ``labels``.
        ignore: names of columns to leave out, or one name, for tables only.
        labels: CSV file with a column of file names and one of classes, for ``images:DIR`` only.
        persons: whose each record is, to be asked about by :func:`ddplug.privacy.audit`; nothing is learned from it. A
            column of a table or of ``labels``; or, where a file of that name is there, a text file with a name a line,
            or a CSV file with a head and names alone, in the order of the records (of a table, before a fifth is held
            out; of a data set by name, and where there is a test part, those to train on); or a list in that order.
            Of pictures in folders it is a CSV file with a column of file names, as in ``labels``, and one of persons.
        cache: folder for memory-mapped decoded images; see :func:`ddplug.data.from_dataset`. Data sets that come
            decoded have no use for it.
        max_memory: bytes that decoded data may take without a cache.
        progress: show a progress bar while decoding.

    Returns:
        The split, on the CPU.

    Raises:
        OptionError: an unknown name or split, or a root that is missing.
        DataError: the data are missing, damaged or unfit.

    Example:
        >>> data = load("digits")
        >>> len(data), data.shape, data.num_classes
        (1438, (1, 8, 8), 10)
    """
    one_of("split", split, ("train", "test"))
    options: dict[str, Any] = {
        "split": split,
        "download": download,
        "cache": cache,
        "max_memory": max_memory,
        "progress": progress,
    }
    ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    theirs = None if persons is None else whose(persons)
    own = Wanted(size=sides(size), target=target, ignore=ignore, labels=labels, persons=theirs, **options)
    source = source_of(name, registry.names("dataset"))
    if source is not None:
        return read(source, own)
    own.check(os.fspath(name), ())
    loader: Loader = registry.resolve("dataset", os.fspath(name))
    found = loader(root=root, **options)
    return owned(found, own.persons) if split == "train" else found


def digits(*, split: str = "train", **_: Any) -> LabeledData:
    """Load the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn.

    The 17 gray levels ``g`` are stored as the bytes ``round(255 g / 16)``, which keeps them apart. A fixed fifth of
    each class is the test split: 1,438 digits to train on and 359 to test.

    Reference: Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    whole = from_arrays(images, bunch.target, preprocess="identity", name="digits", augmentation=_NO_FLIP)
    return held_out(whole, split)


@dataclass(frozen=True)
class TorchvisionLoader:
    """Load a data set that torchvision knows how to find, fetch and read.

    Attributes:
        name: our name of it.
        cls: torchvision's name of it.
        augmentation: operations that keep its labels.
        mean: published channel means of the training split; ``None`` to fit them.
        std: published channel standard deviations.
    """

    name: str
    cls: str
    augmentation: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        # what `ddplug list` says of a plug-in is the first line of its documentation: each instance has its own
        object.__setattr__(self, "__doc__", f"Read torchvision's {self.cls} from a folder, or fetch it there.")

    def __call__(
        self, *, root: str | Path | None = None, split: str = "train", download: bool = False, **options: Any
    ) -> LabeledData:
        """Load one split; see :func:`load`."""
        if root is None:
            raise OptionError(
                f"{self.name!r} is read from a folder; give root=FOLDER to load_dataset (--data-root FOLDER)"
            )

        def part_of(part: str, preprocess: str | Preprocess) -> LabeledData:
            dataset = self._open(Path(local(root)), part, download)
            return from_dataset(
                dataset, preprocess=preprocess, name=self.name, augmentation=self.augmentation, **options
            )

        if self.mean is not None and self.std is not None:
            return part_of(split, Standardize(torch.tensor(self.mean), torch.tensor(self.std)))
        train = part_of("train", "standardize")
        return train if split == "train" else part_of(split, train.preprocess)

    def _open(self, root: Path, split: str, download: bool) -> Any:
        """Open the data set with torchvision, which checks sums; what it stumbles over is missing or damaged."""
        import torchvision

        which: dict[str, Any] = {"split": split} if self.cls == "SVHN" else {"train": split == "train"}
        try:
            return getattr(torchvision.datasets, self.cls)(str(root), download=download, **which)
        except Exception as error:  # network, disk, archive and parser all have their own
            reason = one_line(error).partition(". You can use")[0]
            raise DataError(
                f"cannot read {self.name!r} in {root}: {reason}; give the folder that holds it (--data-root), or fetch "
                "it with download=True (--download), after removing a damaged copy"
            ) from error


# The constants are those that the papers on gradient and distribution matching use; Kuzushiji-MNIST has none there.
mnist = TorchvisionLoader("mnist", "MNIST", _NO_FLIP, (0.1307,), (0.3081,))
"""28x28 gray handwritten digits; 60,000 to train on and 10,000 to test."""

fashion_mnist = TorchvisionLoader("fashion-mnist", "FashionMNIST", ALL_OPERATIONS, (0.2861,), (0.3530,))
"""28x28 gray clothes; 60,000 and 10,000."""

kmnist = TorchvisionLoader("kmnist", "KMNIST", _NO_FLIP)
"""28x28 gray cursive hiragana; 60,000 and 10,000."""

svhn = TorchvisionLoader("svhn", "SVHN", _NO_FLIP, (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))
"""32x32 color house numbers; 73,257 and 26,032."""

cifar10 = TorchvisionLoader("cifar10", "CIFAR10", ALL_OPERATIONS, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
"""32x32 color photographs of 10 classes; 50,000 and 10,000."""

cifar100 = TorchvisionLoader("cifar100", "CIFAR100", ALL_OPERATIONS, (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762))
"""32x32 color photographs of 100 classes; 50,000 and 10,000."""
