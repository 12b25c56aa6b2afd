"""The options of a replay memory: defined, documented and checked here, for buffer, plugin and strategies alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypedDict, TypeVar

from torch import nn

from ddplug import registry
from ddplug.distillation.config import config_of
from ddplug.distillation.protocol import Distiller
from ddplug.errors import OptionError
from ddplug.functional import augmentation
from ddplug.networks.forms import AUTO
from ddplug.synthetic.codecs.protocol import Codec, codec_of
from ddplug.utils.checks import at_least, one_of, values_at_least
from ddplug.utils.options import TakesNumbers

__all__ = ["METHOD_OPTIONS", "MemoryOptions", "shows_memory_options"]

METHOD_OPTIONS: Mapping[str, Mapping[str, Any]] = {"dm": {"learning_rate": 0.3, "batch_real": 256}}
"""What a method's name stands for here on top of its defaults, which were chosen for other networks than learners are:
validated on Split-MNIST with fresh copies of a multi-layer perceptron."""

IN_ROWS = "kmeans-centroid"
"""What ``distiller="auto"`` stands for where a memory's rows are counted: at ten images of MNIST two points better than
DM, at ten of CIFAR-10 twenty."""

PIECES = 500
"""Samples of an online stream after which a memory is made anew, unless ``every`` says it."""

_WHOLE = ("network", "joint", "shrink", "real_share", "factor", "storage", "soft_labels", "augmentation")
"""Options of memories that hold whole images, or a distiller's; without effect on coded real images."""

_CHOICES = {
    "groupby": ("auto", "class", "experience"),
    "shrink": ("redistil", "prefix"),
    "revisit": ("merge", "replace", "accumulate"),
    "storage": ("uint8", "float32"),
}

Class = TypeVar("Class", bound=type[Any])


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(metaclass=TakesNumbers):
    """How a replay memory is filled, divided and stored; how large it is, is said elsewhere.

    :class:`~ddplug.avalanche.buffer.DistilledBuffer`, the plugin and the strategies take each of these as a keyword.

    Args:
        distiller: any distiller or its registered name, selection baselines included. How many images it makes of a
            class is chosen by the memory. A name stands for the method's defaults with :data:`METHOD_OPTIONS`.
            ``"auto"`` is, in a memory of so many bytes, real samples behind a codec, as many as fit, or k-means
            centroids where these are few vectors (:data:`ddplug.avalanche.rules.FEW`); and k-means centroids in one of
            so many rows.
        codec: how a memory of so many bytes stores images, by its name with options such as ``"pixels:bits=1"``
            (:func:`ddplug.synthetic.codecs.codec_of`), whatever the distiller; ``"auto"`` or, without a distiller,
            ``None`` for what suits data and bytes (:mod:`ddplug.avalanche.rules`).
        window: ranks of the samples of a class, from the easiest to the just trained learner at 0 to the hardest at 1,
            that real images are drawn from; ``None`` for what suits data and bytes.
        features: name of a layer of the learner, as ``model.named_modules()`` has it: what it makes of the samples is
            remembered in their place, and replayed from there on (a latent memory,
            :mod:`ddplug.avalanche.latent`). For learners whose layers up to there are frozen, or change slowly.
        network: what the distiller matches with, if it has a network: ``"fresh"`` copies of the learner's architecture,
            the ``"learner"`` as it is, the distiller's ``"own"``, or a network's name or a function.
        groupby: ``"class"`` keeps (task, class) pairs apart, ``"experience"`` those of each experience. ``"auto"`` does
            the first until an experience brings no pair that is new: its domain must be, and it gets groups of its own.
            In an online stream pairs come back all the time, and ``"auto"`` always keeps just pairs apart.
        joint: distill the classes of a task in an experience together rather than one at a time.
        adaptive_size: divide the memory over the groups seen so far, which shrink as others come, rather than over
            those that there will be.
        total_num_groups: groups that there will be; if not given, they are counted in the stream's labels, and where
            that cannot be done without loading data the size is adaptive. More groups than that shrink the others.
        shrink: how a group gives up images: ``"redistil"`` distills its own into fewer, ``"prefix"`` keeps the first.
        revisit: what a group does when more of its data come, see :func:`ddplug.avalanche.maker.combine`.
        real_share: share of each group's images that are real samples drawn at random.
        factor: store images at a fraction of their side and ``factor**2`` of them for each image of the budget, so that
            the memory has that many more rows; see :mod:`ddplug.functional.resize`. For ``(C, H, W)`` images only.
        storage: ``"uint8"`` or ``"float32"``; see :func:`ddplug.avalanche.groups.pack`.
        soft_labels: let the learner label the images, once they are made; the labels travel as the data attribute
            ``"soft_targets"`` of the memory's dataset.
        logits: keep the learner's outputs for the images too, in half precision and within the bytes, taken anew after
            each experience. Items of the memory's dataset then end with them, as Avalanche's ``DER`` wants it, and
            other plugins do not.
        every: calls of ``post_adapt`` between two times that the memory is made anew, for online streams. A group never
            seen before is taken in at once, and so is whatever waits. ``None`` for every whole experience, and in an
            online stream for pieces of about :data:`PIECES` samples together.
        reservoir_size: real samples of a group that wait meanwhile at most, drawn uniformly. They come on top of the
            memory's size, and count in its bytes. ``None`` for 50, and for none where images are coded: what comes
            meanwhile is then coded as far as the memory's bytes have room, and the newest piece stands for the rest.
        augmentation: operations of :mod:`ddplug.functional.augmentation` for a distiller's ``augment="auto"``;
            ``"auto"`` for what suits the shape. None by default: images matched under augmentations that the learner
            does not train with were worse.
        seed: of all that is drawn.
        device: where to distill: ``"auto"``, ``"learner"`` for where the strategy works, or a name. A strategy takes no
            such keyword: its ``device`` is that of the model, and its memory's stays ``"auto"``.

    Raises:
        OptionError: an option is out of range, or the distiller is none.

    Example:
        >>> MemoryOptions(distiller="dm").method().learning_rate
        0.3
    """

    distiller: str | Distiller = "auto"
    codec: str | Codec | None = None
    window: tuple[float, float] | None = None
    features: str | None = None
    network: str | Callable[[], nn.Module] = "fresh"
    groupby: str = "auto"
    joint: bool = True
    adaptive_size: bool = False
    total_num_groups: int | None = None
    shrink: str = "redistil"
    revisit: str = "merge"
    real_share: float = 0.0
    factor: int = 1
    storage: str = "uint8"
    soft_labels: bool = False
    logits: bool = False
    every: int | None = None
    reservoir_size: int | None = None
    augmentation: str = ""
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.total_num_groups is not None:
            if self.adaptive_size:
                given = f"total_num_groups is {self.total_num_groups} with adaptive_size=True"
                raise OptionError(f"{given}; give only one of them")
            at_least(self, total_num_groups=1)
        at_least(self, factor=1)
        values_at_least(1, every=1 if self.every is None else self.every)
        values_at_least(1, reservoir_size=1 if self.reservoir_size is None else self.reservoir_size)
        if not 0 <= self.real_share <= 1:
            raise OptionError(f"real_share is {self.real_share}; it must lie between 0 and 1")
        for name, known in _CHOICES.items():
            one_of(f"value of option {name!r},", getattr(self, name), known)
        augmentation.resolve(self.augmentation, (3, 8, 8))
        if self.window is not None and not (len(self.window) == 2 and 0 <= self.window[0] < self.window[1] <= 1):
            raise OptionError(
                f"window is {self.window}; give two shares of the ranks, such as (0, 0.5), within 0 and 1"
            )
        if self.codec not in (None, "auto"):
            codec_of(self.codec)
        method = self.method()
        config_of(method)  # refuses what is not a distiller
        if self.features is not None:
            self._check_features(method)
        if getattr(method, "factor", 1) != 1:
            raise OptionError(
                f"the distiller has factor={method.factor}, but the memory itself stores images smaller; give the "  # type: ignore[attr-defined]
                f"distiller factor=1 and DistilledBuffer factor={method.factor}"  # type: ignore[attr-defined]
            )

    def _check_features(self, method: Distiller) -> None:
        """Refuse what asks the learner about whole inputs, which a latent memory does not have."""
        asks = [name for name in ("window", "soft_labels", "logits") if getattr(self, name)]
        if self.distiller != "auto" and hasattr(method, "network") and self.network in ("fresh", "learner"):
            asks.append(f"network={self.network!r}")
        if asks:
            raise OptionError(
                f"{', '.join(asks)} would give the learner whole inputs, and features={self.features!r} keeps none; "
                "leave it out, and match a method by a network such as 'mlp'"
            )

    def check_coded(self) -> None:
        """Refuse options that have no effect on coded images.

        Raises:
            OptionError: the message names them, and what to give instead.
        """
        without = [
            name for name in _WHOLE if self.distiller == "auto" or name not in ("network", "joint", "augmentation")
        ]
        defaults = {field.name: field.default for field in fields(self)}
        given = [name for name in without if getattr(self, name) != defaults[name]]
        if given:
            raise OptionError(
                f"{', '.join(given)} would have no effect, since a memory with max_bytes stores coded images; leave it "
                "out, or name a distiller= and no codec="
            )

    @property
    def coded(self) -> bool:
        """Whether a memory of so many bytes holds its images behind a codec."""
        return self.codec is not None or self.distiller == "auto"

    def waits_for(self, samples: int, *, online: bool) -> int:
        """Return the calls between two times that the memory is made anew, for experiences of so many samples."""
        if self.every is not None:
            return self.every
        return max(1, PIECES // max(1, samples)) if online else 1

    def method(self) -> Distiller:
        """Return the distiller; one that is given by name stores images at full size, for the memory reduces them."""
        if not isinstance(self.distiller, str):
            return replace(self.distiller, factor=1) if getattr(self.distiller, "factor", 1) == AUTO else self.distiller  # type: ignore[type-var]
        name = IN_ROWS if self.distiller == "auto" else self.distiller
        make = registry.resolve("distiller", name)
        method: Distiller = make(**METHOD_OPTIONS.get(name, {}))
        return replace(method, factor=1) if hasattr(method, "factor") else method  # type: ignore[type-var]

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def check_names(cls, names: Any) -> None:
        """Refuse names that no option has, and suggest the nearest."""
        for name in names:
            one_of("option of the memory,", name, cls.names())


class SharedKeywords(TypedDict, total=False):
    """The fields of :class:`MemoryOptions` that a strategy takes too, whose ``device`` is that of its model."""

    distiller: str | Distiller
    codec: str | Codec | None
    window: tuple[float, float] | None
    features: str | None
    network: str | Callable[[], nn.Module]
    groupby: str
    joint: bool
    adaptive_size: bool
    total_num_groups: int | None
    shrink: str
    revisit: str
    real_share: float
    factor: int
    storage: str
    soft_labels: bool
    logits: bool
    every: int | None
    reservoir_size: int | None
    augmentation: str
    seed: int


class MemoryKeywords(SharedKeywords, total=False):
    """The fields of :class:`MemoryOptions` as keywords, for type checkers: a test holds the two together."""

    device: str


def shows_memory_options(cls: Class) -> Class:
    """Show the memory's options in a constructor's signature instead of the ``**keywords`` that take them.

    ``help()`` reads it, and Avalanche refuses arguments that no signature of a strategy names.
    """
    signature = inspect.signature(cls.__init__)
    own = list(signature.parameters.values())
    shown = [
        parameter
        for parameter in inspect.signature(MemoryOptions).parameters.values()
        if parameter.name not in signature.parameters
    ]
    rest = own[-1:] if own[-1].name == "base_kwargs" else []
    vars(cls.__init__)["__signature__"] = signature.replace(parameters=[*own[:-1], *shown, *rest])
    return cls
