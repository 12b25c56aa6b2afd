"""What the selection baselines share: no steps, and a set made of real samples or of averages of them."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillation.protocol import Metrics, State
from ddplug.distillation.shards import own_classes
from ddplug.distillers.parts.features import extractor, thinned
from ddplug.distillers.parts.images import available, balanced_labels, selected_labels, to_set
from ddplug.functional.types import Tensors
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import one_of
from ddplug.utils.former import TakesFormerSpellings
from ddplug.utils.preparation import kept_each
from ddplug.utils.randomness import twins

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FeatureSelection", "Selection", "check_keep", "each_class", "pick_by_score", "pick_pool", "shuffled"]


@dataclass(frozen=True)
class Selection(metaclass=TakesFormerSpellings):
    """A distiller that does all its work in :meth:`init`; subclasses are frozen dataclasses.

    A state is ``{"index": (M,) int64}``, positions of real samples, or ``{"inputs": (M, *shape) float32}``, made ones
    in model space; both sorted by class. With ``{"labels": (M, C) float32}`` the set has these probabilities.

    Attributes:
        images_per_class: samples to keep of each class, at most.
        steps: none are needed.
        apart: whether each class is chosen from without regard to the others (:mod:`ddplug.distillation.shards`).
    """

    name: ClassVar[str]
    apart: ClassVar[bool] = False
    real_images: ClassVar[bool] = True
    small: ClassVar[Mapping[str, Any]] = {"images_per_class": 2}
    images_per_class: int = 10
    steps: int = 0

    @abstractmethod
    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        """Choose or make the samples.

        Args:
            data: real data.
            rng: generator on the CPU.

        Returns:
            The state.

        Raises:
            OptionError: ``images_per_class`` is below one.
        """

    def work(self, most: int = sys.maxsize) -> dict[str, int]:
        """Return how often :meth:`init` repeats each part of its work, for an estimate of the time.

        Args:
            most: samples that a class has, at most.
        """
        return {}

    def trial(self, **more: int) -> Self:
        """Return the method with next to no repeated work, or with more of some parts, for timing them.

        Args:
            more: how much more of what :meth:`work` names.
        """
        return self

    @final
    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        """Return the state as it is, with a loss of zero."""
        return state, {"loss": torch.zeros((), device=data.device)}

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        """Build the set; real samples stored as bytes stay bytes, bit for bit."""
        recipe = Recipe.paper(augment=data.augmentation)
        targets = state["labels"] if "labels" in state else self._labels(state, data)
        if "inputs" in state:
            return to_set(data, state["inputs"], targets, recipe)
        selected = to_set(data, data.batch(state["index"]), targets, recipe)
        if data.inputs.dtype != torch.uint8:
            return selected
        # not quantize(): its levels follow the values, and rounding in the inverse map would move them off 0 and 1
        levels = torch.tensor([0.0, 1.0], device=data.device)[:, None].repeat(1, data.shape[0])
        stored = replace(selected, levels=levels)
        return replace(stored, inputs=stored.decode(data.inputs[state["index"].to(data.inputs.device)].to(data.device)))

    def _labels(self, state: State, data: LabeledData) -> Tensor:
        """Return the classes of the samples: as many of each as are wanted, or as it has."""
        taken = len(state["index" if "index" in state else "inputs"])
        own = own_classes(data.num_classes)
        labels = selected_labels(data, self.images_per_class, own)
        return labels if len(labels) == taken else balanced_labels(data, self.images_per_class, own)


@dataclass(frozen=True)
class FeatureSelection(Selection):
    """Chooses real samples of each class by their features; a subclass says which in :meth:`choose`.

    Attributes:
        features: ``"pixels"`` (model space), or the specification of a network whose embedding is used.
        train_epochs: epochs to train that network for first, on real data; 0 for a random network.
    """

    features: str = "pixels"
    train_epochs: int = 0

    @abstractmethod
    def choose(self, features: Tensor, number: int, rng: torch.Generator) -> Tensor:
        """Choose rows of a class's features.

        Args:
            features: ``(n, d)`` float32 on the device of the data.
            number: of rows, at most ``n``.
            rng: generator on the CPU.

        Returns:
            ``(number,)`` int64 rows on the CPU.
        """

    def move(self, rng: torch.Generator) -> None:
        """Move a generator as :meth:`choose` does, which draws the same whatever the features; so classes are apart."""
        raise NotImplementedError

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        extract = extractor(self.features, self.train_epochs, data, rng)

        def choose(members: Tensor, rng: torch.Generator) -> Tensor:
            members = thinned(data, members, self.images_per_class)
            return members[self.choose(extract(members), min(self.images_per_class, len(members)), rng)]

        if not self.apart:
            available(data, self.images_per_class)
            return {"index": torch.cat([choose(own, rng) for own in data.class_indices]).to(data.device)}
        return {"index": each_class(data, self.images_per_class, choose, rng, lambda members, rng: self.move(rng))}


def each_class(
    data: LabeledData,
    images_per_class: int,
    choose: Callable[[Tensor, torch.Generator], Tensor],
    rng: torch.Generator,
    move: Callable[[Tensor, torch.Generator], object],
) -> Tensor:
    """Apply a choice to the ``(n_c,)`` positions of each class and join what it gives.

    Processes that work together take some classes each, and a shard of a run has some of them.

    Args:
        data: real data.
        images_per_class: number to be chosen in each class, or all that it has; a note says where.
        choose: from the positions of a class and a generator to the positions (or inputs) chosen for it.
        rng: generator on the CPU; each class gets one that stands where this does when its turn comes.
        move: from such positions and a generator, which it moves as the choice does.

    Returns:
        The choices of all classes, joined along dimension 0, on the device of the data.

    Raises:
        OptionError: ``images_per_class`` is below one.
        DataError: a class has no sample.
    """
    available(data, images_per_class)
    starts = twins(rng, [partial(move, members) for members in data.class_indices])

    def chosen(label: int) -> Tensors:
        return {"chosen": choose(data.class_indices[label], starts[label])}

    makes = [partial(chosen, label) for label in own_classes(data.num_classes)]
    found = kept_each(rng, makes, "classes", data.device)
    return torch.cat([part["chosen"].to(data.device) for part in found])


def shuffled(members: Tensor, rng: torch.Generator) -> Tensor:
    """Return ``(n,)`` positions in a random order."""
    return members[torch.randperm(len(members), generator=rng)]


def pick_by_score(scores: Tensor, number: int, keep: str, rng: torch.Generator) -> Tensor:
    """Return the positions of the lowest (``"easy"``) or highest (``"hard"``) scores; the generator breaks ties.

    Args:
        scores: ``(n,)`` difficulties, on the CPU; infinity is allowed.
        number: how many, at most ``n``.
        keep: which end, ``"easy"`` or ``"hard"``.
        rng: generator on the CPU.

    Returns:
        ``(number,)`` int64 positions, from the end that was asked for inwards.

    Example:
        >>> pick_by_score(torch.tensor([2.0, 0.0, 1.0]), 2, "easy", torch.Generator()).tolist()
        [1, 2]
    """
    shuffled = torch.randperm(len(scores), generator=rng)
    order = scores[shuffled].argsort(stable=True, descending=keep == "hard")
    return shuffled[order[:number]]


def pick_pool(
    data: LabeledData, pool: Tensor, scores: Tensor, images_per_class: int, keep: str, rng: torch.Generator
) -> Tensor:
    """Pick the best scored samples of each class out of a pool.

    Args:
        data: real data.
        pool: ``(n,)`` positions that were scored, at least ``images_per_class`` of each class, or all of it.
        scores: ``(n,)`` their difficulties, on the CPU.
        images_per_class: number to pick in each class.
        keep: see :func:`pick_by_score`.
        rng: generator on the CPU.

    Returns:
        ``(M,)`` positions, sorted by class, on the device of the data.
    """
    labels = data.targets.cpu()[pool]
    groups = [(labels == label).nonzero()[:, 0] for label in range(data.num_classes)]
    picks = [group[pick_by_score(scores[group], images_per_class, keep, rng)] for group in groups]
    return pool[torch.cat(picks)].to(data.device)


def check_keep(keep: str) -> None:
    """Refuse an unknown end of the scores.

    Raises:
        OptionError: it is neither ``"easy"`` nor ``"hard"``.
    """
    one_of("end to keep", keep, ("easy", "hard"))
