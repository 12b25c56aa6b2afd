"""How a network is to be trained on a set."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from ddplug.errors import FormatError, OptionError
from ddplug.utils.options import TakesNumbers

__all__ = ["Recipe"]

_MOST = 10**9

_RANGES = {
    "epochs": (1, _MOST),
    "batch_size": (1, _MOST),
    "learning_rate": (0, _MOST),
    "momentum": (0, _MOST),
    "weight_decay": (0, _MOST),
    "steps": (0, _MOST),
    "cutmix": (0, 1),
}
"""Least and most of each field."""

_LATER = ("steps", "cutmix")
"""Fields that the first files did not have."""


@dataclass(frozen=True)
class Recipe(metaclass=TakesNumbers):
    """How a network is to be trained on a set.

    The defaults are the published evaluation protocol of gradient and distribution matching.

    Attributes:
        epochs: passes over the set.
        learning_rate: of SGD.
        momentum: of SGD.
        weight_decay: of SGD.
        batch_size: samples a step.
        steps: of SGD, whatever the size of the set; 0 for as many as ``epochs`` make.
        schedule: ``"step"`` divides the learning rate by ten once, at epoch ``epochs // 2 + 1``, and restarts the
            momentum there, as the published protocol does; ``"cosine"`` goes down to zero; ``"cycle"`` rises in a line
            for three tenths of the training and falls in a line to zero; ``"constant"`` stays.
        augment: operations of :mod:`ddplug.functional.augmentation` joined by ``_``, drawn for each sample; ``""`` for
            none.
        cutmix: share of the steps, 0 to 1, in which a rectangle of another image of the batch is pasted into each and
            the labels are mixed; see :func:`ddplug.functional.cutmix`.
        adopts: whether the operations of the recipe that a set brings take the place of none.

    Reference: Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, section 4.1.

    Example:
        >>> Recipe.paper(augment="crop_flip").epochs
        1001
    """

    epochs: int = 301
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 256
    schedule: Literal["step", "cosine", "cycle", "constant"] = "step"
    augment: str = ""
    steps: int = 0
    cutmix: float = 0.0
    adopts: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, (low, most) in _RANGES.items():
            if not low <= getattr(self, name) <= most:
                raise OptionError(f"{name} is {getattr(self, name)!r}; it must lie between {low} and {most}")
        if self.schedule not in ("step", "cosine", "cycle", "constant"):
            raise OptionError(f"schedule is {self.schedule!r}; it must be step, cosine, cycle or constant")

    @classmethod
    def paper(cls, augment: str = "") -> Recipe:
        """Return the published protocol: 301 epochs without augmentation, 1001 with it."""
        return cls(epochs=1001 if augment else 301, augment=augment)

    @classmethod
    def quick(cls, augment: str | None = None) -> Recipe:
        """Return a protocol for a fast answer: a fifth of the published epochs, at a larger, cosine-annealed rate.

        The learning rates of all epochs sum to about what they do in the published protocol.

        Args:
            augment: operations; if not given, those of the recipe that the set brings. So ``Recipe.quick()`` is what
                ``ddplug evaluate --protocol quick`` trains by.
        """
        epochs = 200 if augment else 60
        quick = cls(epochs=epochs, learning_rate=0.05, schedule="cosine", augment=augment or "")
        return replace(quick, adopts=True) if augment is None else quick

    @classmethod
    def by_steps(cls, steps: int, augment: str = "") -> Recipe:
        """Return a protocol for sets of many images, which a thousand epochs would take hours for.

        Args:
            steps: of SGD on 128 images each.
            augment: see :mod:`ddplug.functional.augmentation`; for photographs ``"crop+flip+color"``, for drawings
                ``"affine"``.
        """
        return cls(learning_rate=0.1, batch_size=128, schedule="cycle", augment=augment, steps=steps)

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse inputs that cannot be varied as the recipe says.

        Args:
            shape: of one input.

        Raises:
            OptionError: an operation is unknown, or needs images ``(C, H, W)``.
        """
        # imported here: commands that only name a recipe start without torch
        from ddplug.functional import augmentation

        augmentation.check(self.augment, shape)
        if self.cutmix and len(shape) != 3:
            raise OptionError(
                f"cutmix={self.cutmix:g} needs (C, H, W) images, not inputs of shape {shape}; set it to 0"
            )

    def on(self, augment: str) -> Recipe:
        """Return the recipe for a set.

        Args:
            augment: operations of the recipe that the set brings, which take the place of none where that is wanted.

        Example:
            >>> Recipe.quick().on("crop_flip") == Recipe.quick("crop_flip")
            True
        """
        if self.augment or not self.adopts:
            return self
        return Recipe.quick(augment) if self == Recipe.quick() else replace(self, augment=augment, adopts=False)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values; those that older readers do not know only where they are not 0."""
        return {n: value for n, value in asdict(self).items() if n != "adopts" and (n not in _LATER or value)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """Build a recipe from stored fields.

        Raises:
            FormatError: a field is unknown, of the wrong type or out of range.
        """
        types = {f.name: type(f.default) for f in fields(cls) if f.compare}
        for name, value in values.items():
            if name not in types:
                known = ", ".join(types)
                raise FormatError(
                    f"unknown recipe field {reprlib.repr(name)}; this version reads {known}: update ddplug"
                )
            wanted = (int, float) if types[name] is float else types[name]
            if not isinstance(value, wanted) or isinstance(value, bool) or len(str(value)) > 100:
                raise FormatError(f"recipe field {name!r} is {reprlib.repr(value)}, not a short {types[name].__name__}")
        try:
            return cls(**values)
        except OptionError as error:
            raise FormatError(f"recipe: {error}") from None
