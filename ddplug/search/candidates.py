"""What is searched: samples, and the candidate that each stands for; the published space of 720 networks among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import torch
from numpy.random import RandomState

from ddplug.errors import OptionError
from ddplug.networks.convnet import SPACE, ConvNet
from ddplug.networks.layers import ACTIVATIONS, POOLS, pick
from ddplug.search.judging import Candidate
from ddplug.utils.checks import image_shape, scalar, values_at_least, whole

__all__ = ["CHOICES", "Candidates", "check_choices", "convnets", "distinct", "member"]

_OPTIONS = {"width": "width", "depth": "depth", "norm": "norm", "activation": "act", "pooling": "pool"}
"""Label in a sample -> option of :class:`ddplug.networks.ConvNet`."""

CHOICES: Mapping[str, Sequence[Any]] = {label: SPACE[option] for label, option in _OPTIONS.items()}
"""Label -> choices of the published space."""

_PATIENCE = 10_000
"""Draws in a row that give nothing new before a space counts as exhausted."""


@dataclass(frozen=True)
class Candidates:
    """Samples of a space, and how to make the candidate that one stands for.

    Attributes:
        samples: label -> choice each, JSON-ready.
        make: turns a sample into a candidate, see :class:`ddplug.search.Judge`.
        about: what tells the space from others in a journal, JSON-ready.

    Example:
        >>> widths = Candidates([{"width": 8}, {"width": 16}], lambda sample: f"mlp:width={sample['width']}")
        >>> widths.make(widths.samples[1])
        'mlp:width=16'
    """

    samples: Sequence[Mapping[str, Any]]
    make: Callable[[Mapping[str, Any]], Candidate]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # whoever draws them may give an iterator, and they are gone through several times
        object.__setattr__(self, "samples", list(self.samples))


def distinct(draw: Callable[[RandomState], dict[str, Any] | None], n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Draw distinct samples.

    Args:
        draw: draws one; ``None`` or nothing where that is none of the space.
        n: how many, at least 1.
        seed: of the draw; the first samples of a longer draw are those of a shorter one.

    Raises:
        OptionError: ``n`` is below 1, or the space seems to have fewer.
    """
    n = whole("n", n)
    values_at_least(1, n=n)
    state = RandomState(seed)
    found: dict[str, dict[str, Any]] = {}
    idle = 0
    while len(found) < n:
        sample = draw(state) or {}
        name = repr(sorted(sample.items()))
        idle = idle + 1 if not sample or name in found else 0
        if idle == 0:
            found[name] = sample
        elif idle == _PATIENCE:
            raise OptionError(f"n is {n}, but the space seems to have {len(found)} architectures; ask for that many")
    return list(found.values())


def convnets(shape: Sequence[int], num_classes: int, n: int, seed: int = 0, **choices: Sequence[Any]) -> Candidates:
    """Draw networks from the published space of 720 ConvNets, or from a part of it, uniformly.

    Args:
        shape: ``(C, H, W)`` of one input.
        num_classes: number of outputs.
        n: how many different ones, at least 1.
        seed: of the draw; the first networks of a longer draw are those of a shorter one.
        choices: ``width``, ``depth``, ``norm``, ``activation`` and ``pooling``, where they are not to be the published
            ones. Small inputs cannot be pooled often: ``depth=(1, 2)`` for 8 x 8.

    Raises:
        OptionError: a list of choices is empty or repeats a value, a value is unknown or out of range, a combination
            does not suit the inputs, or there are fewer networks.

    Reference: Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, section 4.3.

    Example:
        >>> drawn = convnets((3, 32, 32), 10, 4)
        >>> [sample["width"] for sample in drawn.samples]
        [128, 128, 256, 32]
    """
    for name in choices:
        if name not in CHOICES:
            raise OptionError(f"there is no choice {name!r} in the space; give {', '.join(CHOICES)}")
    all_choices = {label: list(map(scalar, choices.get(label, own))) for label, own in CHOICES.items()}
    inputs, outputs = tuple(whole("shape", side) for side in shape), whole("num_classes", num_classes)
    check_choices("the space", inputs, outputs, all_choices)

    def draw(state: RandomState) -> dict[str, Any]:
        # as NNI draws, so that both adapters see the same networks
        return {
            label: own[int(state.choice(len(own), p=[1 / len(own)] * len(own)))] for label, own in all_choices.items()
        }

    def make(sample: Mapping[str, Any]) -> Candidate:
        return partial(member, sample, inputs, outputs)

    about = {"space": {"convnets": [list(inputs), outputs]}}
    return Candidates(distinct(draw, n, seed), make, about)


def member(sample: Mapping[str, Any], shape: tuple[int, ...], num_classes: int) -> ConvNet:
    """Make the network that a sample names, with fresh weights from the global random state."""
    return ConvNet(shape, num_classes, **{option: sample[label] for label, option in _OPTIONS.items()})


def check_choices(what: str, shape: tuple[int, ...], num_classes: int, choices: Mapping[str, list[Any]]) -> None:
    """Try the deepest networks of a space, without memory or randomness; what suits them suits the others.

    Args:
        what: how to call the space in an error.
        shape: of one input.
        num_classes: number of outputs.
        choices: label -> what to choose from.

    Raises:
        OptionError: see :func:`convnets`.
    """
    image_shape(shape, what, "use mlp")
    values_at_least(1, num_classes=num_classes)
    for label, values in choices.items():
        if not values or len(set(values)) < len(values):
            raise OptionError(f"{what} has the choices {values} of {label}; give one or more different values")
    for option, label, table in (("act", "activation", ACTIVATIONS), ("pool", "pooling", POOLS)):
        for value in choices[label]:
            pick(option, value, table)
    deepest = {**choices, "depth": sorted({min(choices["depth"]), max(choices["depth"])})}
    deepest["activation"] = choices["activation"][:1]  # an activation changes no shape
    for combination in product(*deepest.values()):
        sample = dict(zip(deepest, combination, strict=True))
        try:
            with torch.device("meta"):
                member(sample, shape, num_classes)
        except OptionError as error:
            height, width = shape[1:]
            raise OptionError(
                f"{what} holds {sample}, which does not suit {height}x{width} inputs: {error}; "
                "leave that choice out of the space"
            ) from None
