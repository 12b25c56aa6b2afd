"""Sets that come with the package, and where the data they were made from come from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ddplug.errors import OptionError, unknown
from ddplug.utils.paths import local

__all__ = ["NOT_READY", "READY", "SOURCES", "Ready", "Source", "locate", "ready"]

_FOLDER = Path(__file__).parent / "sets"


@dataclass(frozen=True)
class Source:
    """The real data of a set.

    Attributes:
        title: what they are called.
        authors: who made them.
        url: where they are described.
        license: its SPDX identifier.
        license_url: its text.
    """

    title: str
    authors: str
    url: str
    license: str
    license_url: str


@dataclass(frozen=True)
class Ready:
    """A set that comes with the package.

    Attributes:
        name: that :func:`ddplug.load` takes.
        source: name of the real data, a key of :data:`SOURCES`.
        command: that makes the very set; ``data`` stands for the folder of the data.
        accuracy: what networks that are trained on it reach on test data, and how.
    """

    name: str
    source: str
    command: str
    accuracy: str

    @property
    def path(self) -> Path:
        """The file."""
        return _FOLDER / f"{self.name}.safetensors"


SOURCES: Mapping[str, Source] = {
    "digits": Source(
        "Optical Recognition of Handwritten Digits, the part that ships with scikit-learn",
        "E. Alpaydin and C. Kaynak",
        "https://doi.org/10.24432/C50P49",
        "CC-BY-4.0",
        "https://creativecommons.org/licenses/by/4.0/",
    ),
    "mnist": Source(
        "The MNIST database of handwritten digits",
        "Y. LeCun, C. Cortes and C. J. C. Burges",
        "https://yann.lecun.com/exdb/mnist/",
        "CC-BY-SA-3.0",
        "https://creativecommons.org/licenses/by-sa/3.0/",
    ),
}
"""Name of real data -> where they come from, and what may be done with what is made of them."""

_SETS = (
    Ready(
        "digits-dm",
        "digits",
        "ddplug distill dm --data digits --images-per-class 1 --steps 200 --seed 0 --quantize -o digits-dm.safetensors",
        "87.4 ± 0.9 % (five networks: convnet, the quick protocol); of ten random images 65.5 ± 3.0, of ten means of "
        "the classes 87.7 ± 1.2",
    ),
    Ready(
        "digits-2kB",
        "digits",
        "ddplug distill difficulty --data digits --bytes 2kB --seed 0 -o digits-2kB.safetensors",
        "98.0 ± 0.7 % (five networks: convnet:width=32, the quick protocol)",
    ),
    Ready(
        "digits-8kB",
        "digits",
        "ddplug distill random --data digits --bytes 8kB --seed 0 -o digits-8kB.safetensors",
        "99.3 ± 0.3 % (five networks: convnet:width=32, the quick protocol)",
    ),
    Ready(
        "mnist-10",
        "mnist",
        "ddplug distill random --data mnist --data-root data --download --images-per-class 1 --quantize --seed 0 "
        "-o mnist-10.safetensors",
        "63.2 ± 9.6 % (sets of seeds 0, 1 and 2, a network each: convnet, the paper protocol)",
    ),
    Ready(
        "mnist-2kB",
        "mnist",
        "ddplug distill random --data mnist --data-root data --download --bytes 2kB --seed 0 -o mnist-2kB.safetensors",
        "94.74 ± 1.47 % (sets of seeds 0, 1 and 2, a network each: convnet:width=32, 1,001 steps)",
    ),
    Ready(
        "mnist-8kB",
        "mnist",
        "ddplug distill random --data mnist --data-root data --download --bytes 7840B --seed 0 "
        "-o mnist-8kB.safetensors",
        "98.59 ± 0.08 % (sets of seeds 0, 1 and 2, a network each: convnet:width=32, 1,500 steps)",
    ),
    Ready(
        "mnist-78kB",
        "mnist",
        "ddplug distill random --data mnist --data-root data --download --bytes 78400B --seed 0 "
        "-o mnist-78kB.safetensors",
        "99.27 ± 0.08 % (sets of seeds 0, 1 and 2, a network each: convnet:width=32, 1,500 steps)",
    ),
)

READY: Mapping[str, Ready] = {each.name: each for each in _SETS}
"""Name -> the set of that name, in the order of the gallery."""


NOT_READY: Mapping[str, str] = {
    f"cifar10-{size}": "ddplug distill difficulty --data cifar10 --data-root data --download "
    f"--bytes {nbytes}B --codec avif:quality={quality} --seed 0 -o cifar10-{size}.safetensors"
    for size, nbytes, quality in (("31kB", 30_720, 5), ("123kB", 122_880, 15), ("307kB", 307_200, 25))
}
"""Name -> the command that makes a set which cannot come along: nobody says what may be done with the images."""


def ready(name: str | os.PathLike[str]) -> Ready | None:
    """Return the set of a name; ``None`` for a path, or where a file of that name stands in the way.

    Args:
        name: what somebody asks for.

    Example:
        >>> ready("mnist-8kB").source, ready("sets/mnist-8kB.safetensors")
        ('mnist', None)
    """
    text = os.fspath(name)
    return None if text not in READY or os.path.exists(text) else READY[text]


def locate(name: str | os.PathLike[str]) -> str:
    """Return the path of a set that is asked for by its path or by the name of one that comes with the package.

    Args:
        name: a path, or a key of :data:`READY`; a file of that name comes first.

    Raises:
        OptionError: it is neither; the message lists the names, or gives the command that makes the set.

    Example:
        >>> locate("digits.safetensors"), os.path.basename(locate("mnist-8kB"))
        ('digits.safetensors', 'mnist-8kB.safetensors')
    """
    path = local(name)
    found = ready(path)
    if found is not None:
        return str(found.path)
    if path in NOT_READY and not os.path.lexists(path):
        raise OptionError(f"{path} is not included, since its images have no clear license; make it: {NOT_READY[path]}")
    if not os.path.splitext(path)[1] and os.path.basename(path) == path and not os.path.lexists(path):
        raise OptionError(f"cannot read {path}: there is no such file; {unknown('included set', path, READY)}")
    return path
