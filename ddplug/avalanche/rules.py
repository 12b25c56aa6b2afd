"""What a memory of so many bytes holds by default, and how it is replayed, by measured rules.

Measured on a held-out part of Split-MNIST's and Split-CIFAR-10's training data, see the page "What was measured".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Preprocess
from ddplug.errors import OptionError
from ddplug.synthetic.codecs.pixels import Pixels
from ddplug.synthetic.codecs.protocol import Codec, codec_of, spec_of
from ddplug.synthetic.codecs.rules import suited

__all__ = ["FEW", "UNMEASURED", "Choice", "Replayed", "chosen", "replayed", "smaller"]

_FINER = 5_000
"""Bytes a class from which on drawings are stored in two bits a number rather than one."""

FEW = 32
"""Vectors of a class up to which k-means centroids are held: with 2, 5, 13 and 26 of the 8x8 digits 4.2, 4.5, 1.0 and
0.3 points better than random ones."""

_EASY = ((6_000, (0.0, 0.3)), (60_000, (0.0, 0.6)))
"""Photographs: bytes a class (of 32x32 pixels), and the window of difficulty that is best below."""


class Replayed(NamedTuple):
    """How :class:`~ddplug.avalanche.plugin.DistilledReplayPlugin` replays a memory by default.

    Attributes:
        rows: of a step beside the stream, as a share of the usual ones.
        translate: strength of translation where an experience brings new classes.
        longer: how many times as many steps the fine-tuning takes as usual.
        tuning: rows of a step of fine-tuning, as a share of the usual ones.
    """

    rows: float
    translate: float
    longer: float = 1
    tuning: float = 1

    def __str__(self) -> str:
        said = [f"{self.rows:.0%} of the rows beside the stream", f"{'' if self.translate else 'not '}translated"]
        said += [f"fine-tuning {self.longer:g} times as long"] * (self.longer != 1)
        said += [f"with {self.tuning:.0%} of the rows"] * (self.tuning != 1)
        return ", ".join(said).replace("%", " %")


UNMEASURED = Replayed(1.0, 1.0)
"""Of all that no rule is for, such as few images, each of which stands for a part of a class."""

_REPLAYED: Mapping[tuple[str, bool], Replayed] = {
    ("drawings", True): Replayed(0.5, 0.0),
    ("numbers", True): Replayed(0.5, 0.0),
    ("photographs", True): Replayed(1.0, 0.0),
    ("photographs", False): Replayed(1.0, 0.0),
    # a batch of the stream is known as inputs only
    ("features", True): Replayed(1.0, 0.0),
    ("features", False): Replayed(1.0, 0.0),
}
"""Kind of data, and whether these are real samples of whole experiences."""

_FEW_TUNED, _MANY_TUNED = {"longer": 0.5}, {"longer": 1.5, "tuning": 0.5}
"""The fine-tuning of real drawings, below ``_FINER`` and from there on.

It is cut to what lets a replay end within one and a half times as long as stock replay: with 784 bytes twice the steps
are worth 0.7 to 0.9 points and a quarter of stock replay's time or more, and with 7,840 whole rows in 400 steps are
worth 0.6 points and four tenths of that time.
"""


@dataclass(frozen=True)
class Choice:
    """What a memory holds.

    Attributes:
        codec: name with options.
        window: ranks of difficulty, from the easiest, that images are drawn from.
        kind: of the data, ``"drawings"``, ``"photographs"`` or ``"numbers"``.
        each: bytes of a class, in the end.
        centroids: whether k-means centroids are held, and not real samples.
    """

    codec: str
    window: tuple[float, float]
    kind: str
    each: float
    centroids: bool = False

    @property
    def why(self) -> str:
        """What it was chosen by."""
        return f"{self.kind}, {self.each:,.0f} bytes a class"

    def real(self, distiller: object) -> bool:
        """Say whether real samples are held, by what was said of the distiller, and not what one makes."""
        return distiller == "auto" and not self.centroids


def replayed(kind: str, real: bool, each: float = 0.0) -> Replayed:
    """Say how a memory is replayed.

    Args:
        kind: of :class:`Choice`, or ``"features"`` in a latent memory, or any other.
        real: whether it holds real samples of whole experiences, and not what was made of them, or pieces of a stream.
        each: bytes of a class, in the end.

    Example:
        >>> print(replayed("drawings", real=True, each=784))
        50 % of the rows beside the stream, not translated, fine-tuning 0.5 times as long
        >>> print(replayed("drawings", real=True, each=7840))
        50 % of the rows beside the stream, not translated, fine-tuning 1.5 times as long, with 50 % of the rows
    """
    found = _REPLAYED.get((kind, real), UNMEASURED)
    if (kind, real) != ("drawings", True):
        return found
    return found._replace(**(_FEW_TUNED if each < _FINER else _MANY_TUNED))


def chosen(
    x: torch.Tensor,
    preprocess: Preprocess,
    nbytes: float,
    codec: str | Codec | None = None,
    window: tuple[float, float] | None = None,
) -> Choice:
    """Choose a codec and a window.

    Args:
        x: ``(n, *shape)`` float32 samples.
        preprocess: from ``[0, 1]`` to them.
        nbytes: of a class, in the end.
        codec: what to take instead, unless ``None`` or ``"auto"``.
        window: what to take instead.
    """
    data = LabeledData(preprocess.inverse(x), torch.zeros(len(x), dtype=torch.int64), 1, preprocess, ("all",))
    found = suited(data, round(nbytes))
    kind = "photographs" if found.startswith("avif") else "drawings" if found == "pixels:bits=1" else "numbers"
    if codec in (None, "auto"):
        if kind == "drawings" and nbytes >= _FINER:
            found = "pixels:bits=2"
        if kind == "photographs":
            found += ",speed=6"  # images are coded anew after each experience
    else:
        found = spec_of(codec)
    easy = next((each for most, each in _EASY if nbytes < most), (0.0, 1.0)) if kind == "photographs" else (0.0, 1.0)
    return Choice(found, easy if window is None else window, kind, nbytes)


def smaller(codec: str, shape: tuple[int, ...]) -> list[str]:
    """Return codecs that take less and less, for memories in which not one sample of each class fits by a codec.

    Args:
        codec: name with options.
        shape: of a sample.

    Example:
        >>> smaller("pixels:bits=4", (64,)), smaller("pixels:bits=1", (1, 28, 28))
        (['pixels:bits=2', 'pixels:bits=1'], ['pixels:bits=1,side=14', 'pixels:bits=1,side=7'])
    """
    made = codec_of(codec)
    most, whole = (made.bits, made.side) if isinstance(made, Pixels) else (8, 0)
    found = [f"pixels:bits={bits}" for bits in (4, 2, 1) if bits < most and not whole]
    least = min(shape[1:]) if len(shape) == 3 else 0
    sides = [side for side in (least // 2, least // 4) if 0 < side < (whole or least)]
    return found + [spec for side in sides if _holds(spec := f"pixels:bits=1,side={side}", shape)]


def _holds(codec: str, shape: tuple[int, ...]) -> bool:
    try:
        codec_of(codec).check(shape, "identity")
    except OptionError:
        return False
    return True
