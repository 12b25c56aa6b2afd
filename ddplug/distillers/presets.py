"""Presets: published hyper-parameters as data, each with its source.

A method carries its own, as the class attribute ``presets``: a mapping from names to :class:`Preset`. So a third
party's method brings them in the same way, and the command line finds them. Of ours ``"paper"`` holds for any data set,
``"<data>-<images per class>"`` for one, with ``-fixed`` behind it for one initial network and ``-cda`` for the
curriculum of CDA, and ``ftd-`` or ``datm-`` before it for these variants of ``mtt``. They restore the published
schedules, which were run on GPUs; the methods' own defaults suit a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ddplug import registry
from ddplug.utils.checks import one_of

__all__ = ["Preset", "get", "of", "per_data"]

_DATA = ("mnist", "fashion-mnist", "svhn", "cifar10", "cifar100")


@dataclass(frozen=True)
class Preset:
    """Hyper-parameters of a method and where they were published.

    Attributes:
        options: fields of the method's dataclass.
        source: paper, section or released default.

    Example:
        >>> Preset({"steps": 1000}, "the paper").extended(images_per_class=10).options
        {'steps': 1000, 'images_per_class': 10}
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def extended(self, **options: Any) -> Preset:
        """Return the preset with more or other options, of the same source."""
        return Preset({**self.options, **options}, self.source)


def per_data(base: Preset, options: Mapping[int, Mapping[str, Any]]) -> dict[str, Preset]:
    """Return the presets of a paper that treats five data sets alike: MNIST, Fashion-MNIST, SVHN and both CIFARs.

    Args:
        base: what they have in common.
        options: images per class -> what differs with them.
    """
    return {f"{data}-{n}": base.extended(images_per_class=n, **more) for data in _DATA for n, more in options.items()}


def of(method: type) -> Mapping[str, Preset]:
    """Return the presets that a method's class carries, by name; none if it has no attribute ``presets``."""
    found: Mapping[str, Preset] = getattr(method, "presets", {})
    return found


def get(method: str, name: str) -> dict[str, Any]:
    """Return the options of a preset.

    Args:
        method: registered name of the method.
        name: of the preset.

    Returns:
        Fields of the method's dataclass.

    Raises:
        OptionError: there is no such method, or it has no such preset.

    Example:
        >>> get("dm", "mnist-10")["learning_rate"]
        0.1
    """
    known = of(registry.resolve("distiller", method))
    one_of(f"preset of {method!r},", name, known)
    return dict(known[name].options)
