"""What a method is: a frozen dataclass with three functions of explicit state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["Distiller", "Metrics", "Prepares", "State"]

State: TypeAlias = Mapping[str, Tensor]
"""Everything a method carries from step to step: detached, finite tensors by name, on the data's device or the CPU."""

Metrics: TypeAlias = Mapping[str, Tensor]
"""What a step reports: 0-d tensors by name, ``"loss"`` among them."""


class Distiller(Protocol):
    """A method: a frozen dataclass of hyper-parameters, and three functions of explicit state.

    Nothing is hidden in ``self`` and all randomness comes from ``rng``, a generator on the CPU; so every method can be
    repeated, stopped and resumed bit for bit. :func:`ddplug.testing.check_distiller` checks all of it. A method may
    also say by ``memory(sizes)`` what its options need, so that a run that cannot fit is refused
    (:mod:`ddplug.distillation.memory`); carry published options as the class attribute ``presets``
    (:mod:`ddplug.distillers.presets`); quick ones for tests as ``small`` (:func:`ddplug.testing.made_small`); by
    ``real_images`` whether its sets hold real images or parts of them, for the account of how a set was made; and by
    ``bfloat16`` whether all its networks are called by :func:`ddplug.networks.forward` and its like, or trained by
    :func:`ddplug.evaluation.train.fit`, so that they can compute in that precision; by ``soft_labels`` whether they
    have soft labels, so that a number of bytes is filled well; by ``anneals`` whether a step depends on how many there
    are to be, so that a run is not resumed with another number; by ``private`` that nothing may be told of the data but
    by its state and its sets, so that no digest, number of samples, range of values or time is written down
    (:mod:`ddplug.distillers.dp_dm`); and by ``suits`` what the value ``"auto"`` of an option means for images, series
    and rows (:func:`ddplug.distillation.settling.settled`). What takes long in ``init`` is kept by
    :func:`ddplug.utils.preparation.kept`, part by part.

    Attributes:
        name: the name it is registered under.
        steps: steps to take unless :func:`ddplug.distillation.distill` is told otherwise; 0 for a method that only
            selects.
        images_per_class: samples to make for each class.
    """

    name: ClassVar[str]

    @property
    def steps(self) -> int:
        """Steps to take unless told otherwise; 0 for a method that only selects."""

    @property
    def images_per_class(self) -> int:
        """Samples to make for each class."""

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        """Return the state before the first step; a method that only selects does all its work here."""

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        """Return the next state and the metrics of the step, without changing the tensors of ``state``."""

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        """Turn a state into a set; :func:`ddplug.distillation.distill` fills in its provenance."""


@runtime_checkable
class Prepares(Protocol):
    """A method with costly work that a few images more or less do not change: finding how many fit repeats none."""

    def prepare(self, data: LabeledData, rng: torch.Generator) -> State:
        """Do that work for about as many images as are wanted, such as ranking the data by a teacher."""

    def init(self, data: LabeledData, rng: torch.Generator, prepared: State | None = None) -> State:
        """Return the state before the first step, from what :meth:`prepare` gave or after doing it."""
