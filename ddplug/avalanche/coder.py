"""From the samples of an experience to coded images: choose the form, rank, order, and fill the bytes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddplug.avalanche.coded import Arrival, arrive, cuts, image_bytes, interleaved, range_of
from ddplug.avalanche.groups import GroupKey
from ddplug.avalanche.learner import losses
from ddplug.avalanche.maker import Maker, Request
from ddplug.avalanche.options import MemoryOptions
from ddplug.avalanche.reservoir import Reservoir
from ddplug.avalanche.rules import FEW, Choice, chosen, smaller
from ddplug.distillation.storage import recipe_for
from ddplug.functional import augmentation

__all__ = ["Coder"]

_logger = logging.getLogger(__name__)

_FULL = 0.9
"""Share of its bytes below which an arrival has no more samples to give."""


@dataclass(frozen=True, eq=False)
class Coder:
    """Makes and shrinks the arrivals of a memory.

    Attributes:
        options: of the memory.
        max_bytes: of the memory.
        planned: groups that it will have after each experience; empty where that is not known.
        maker: distills, if a distiller was named, and knows learner and schema.
        extra: bytes that are stored beside each image.
    """

    options: MemoryOptions
    max_bytes: int
    planned: Sequence[int]
    maker: Maker
    extra: int = 0

    def renewed(
        self,
        old: Sequence[Arrival],
        new: Mapping[GroupKey, Reservoir],
        choice: Choice | None,
        rng: torch.Generator,
    ) -> tuple[tuple[Arrival, ...], Choice | None]:
        """Take new samples in, each group having the same share of the bytes.

        Args:
            old: what is remembered; it stays as it is.
            new: new samples; those of groups that are remembered already are joined with their images.
            choice: of before, ``None`` the first time.
            rng: generator on the CPU.

        Returns:
            What is to be remembered, and what was chosen.
        """
        known = {group for arrival in old for group in arrival.groups}
        back = known & set(new)
        remembered = {group: memory for arrival in old for group, memory in _memories(arrival, back).items()}
        rest = [kept.beside(self.extra) for arrival in old if (kept := arrival.without(back)) is not None]
        total = len(known | set(new))
        share = _level(rest, self.max_bytes, total)
        shrunk = self._shrunk(rest, share)
        if not new:
            return tuple(shrunk), choice
        if choice is None:
            choice = self._chosen(new, total)
        samples, seen = self._samples(new, remembered, choice, share, rng)
        room = self.max_bytes - sum(arrival.nbytes for arrival in shrunk)
        shares = cuts(total, total - len(set(new) - known), self.planned)
        # later arrivals decide how many images there will be in all
        recipe = recipe_for(0, augmentation.resolve("auto", self.maker.schema.shape))
        cost = old[-1].nbytes / len(old[-1]) if old else None
        arrival = None
        for codec in (choice.codec, *self._smaller(choice.codec)):
            arrival = arrive(samples, seen, codec, room, shares, cost, self.maker.schema, recipe, self.extra)
            if arrival is not None and all(arrival.numbers.values()):
                choice = replace(choice, codec=codec)
                break
            cost = None
        if arrival is None:
            return tuple(shrunk), choice
        if arrival.nbytes < _FULL * room and rest:  # the others need not shrink that far
            share = (self.max_bytes - arrival.nbytes) / (total - len(new))
            shrunk = self._shrunk(rest, share)
        return (*shrunk, arrival), choice

    def _shrunk(self, arrivals: Sequence[Arrival], share: float) -> list[Arrival]:
        """Give each arrival the bytes of its groups; one for which they do not suffice is left out."""
        kept = (
            arrival.within(int(_allowed(arrival, share)), self._smaller(arrival.layers[0].codec))
            for arrival in arrivals
        )
        return [arrival for arrival in kept if arrival is not None]

    def _smaller(self, codec: str) -> list[str]:
        """Return codecs that take less than one that nobody asked for."""
        return smaller(codec, self.maker.schema.shape) if self.options.codec in (None, "auto") else []

    def _chosen(self, new: Mapping[GroupKey, Reservoir], total: int) -> Choice:
        options = self.options
        some = torch.cat([reservoir.x[:200] for reservoir in new.values()])
        each = self.max_bytes / max(total, *self.planned, options.total_num_groups or 0)
        choice = chosen(some, range_of([some]), each, options.codec, options.window)
        if options.distiller == "auto" and some.ndim == 2 and each <= FEW * image_bytes(some, choice.codec):
            choice = replace(choice, centroids=True)
        _logger.info(
            "memory of %d bytes: %s: codec %s, ranks %g to %g of difficulty",
            self.max_bytes,
            choice.why,
            choice.codec,
            *choice.window,
        )
        return choice

    def _samples(
        self,
        new: Mapping[GroupKey, Reservoir],
        remembered: Mapping[GroupKey, Any],
        choice: Choice,
        share: float,
        rng: torch.Generator,
    ) -> tuple[dict[GroupKey, Tensor], list[int]]:
        """Return the samples of each group in the order in which they are to be taken, and how many they stand for."""
        options = self.options
        made = {} if choice.real(options.distiller) else self._distilled(new, choice.codec, share, rng)
        samples, seen = {}, []
        for group, reservoir in new.items():
            x = made[group] if made else reservoir.x[self._order(group, reservoir.x, choice.window, rng)]
            before = remembered.get(group)
            if before is None or options.revisit == "replace":
                samples[group] = x
                seen.append(reservoir.seen)
                continue
            images = before.images()
            of_old = 0.5 if options.revisit == "accumulate" else before.seen / (before.seen + reservoir.seen)
            # the order of either is kept: it is what they were chosen by
            samples[group] = torch.cat([images, x])[interleaved(len(images), len(x), of_old)]
            seen.append(before.seen + reservoir.seen)
        return samples, seen

    def _order(self, group: GroupKey, x: Tensor, window: tuple[float, float], rng: torch.Generator) -> Tensor:
        """Order samples: those in a window of difficulty at random, then the others, the nearest to it first."""
        learner = self.maker.learner
        if learner is None or window == (0.0, 1.0):
            return torch.randperm(len(x), generator=rng)
        ranked = losses(learner, x, group.label, group.task, self.maker.device).argsort(stable=True)
        first, last = (round(bound * len(x)) for bound in window)
        inside = ranked[first:last]
        shuffled = inside[torch.randperm(len(inside), generator=rng)]
        return torch.cat([shuffled, ranked[last:], ranked[:first].flip(0)])

    def _distilled(
        self, new: Mapping[GroupKey, Reservoir], codec: str, share: float, rng: torch.Generator
    ) -> dict[GroupKey, Tensor]:
        """Distill about as many images of each group as will fit."""
        some = torch.cat([reservoir.x[:32] for reservoir in new.values()])
        each = max(1, int(share / image_bytes(some, codec)))
        requests = [
            Request(group, reservoir.x, min(each, len(reservoir.x)), reservoir.x[:0], reservoir.x[:0], reservoir.seen)
            for group, reservoir in new.items()
        ]
        return self.maker.distilled(requests, rng)


def _small(arrival: Arrival, share: float) -> list[float]:
    """Return the bytes of each group that has no more samples than are kept, where these take less than a share."""
    each = arrival.nbytes / max(1, len(arrival))
    return [number * each for number in arrival.short if number * each < share]


def _level(arrivals: Sequence[Arrival], nbytes: int, groups: int) -> float:
    """Return the bytes of a group, if small ones leave to the others what they cannot use.

    Args:
        arrivals: what is remembered.
        nbytes: of the memory.
        groups: that it has, new ones too.
    """
    share = nbytes / groups
    for _ in range(groups):  # a higher level makes more groups small
        small = [own for arrival in arrivals for own in _small(arrival, share)]
        higher = (nbytes - sum(small)) / max(1, groups - len(small))
        if higher <= share:
            break
        share = higher
    return share


def _allowed(arrival: Arrival, share: float) -> float:
    """Return the bytes that an arrival may take, at so many for each of its groups that has the samples for them."""
    small = _small(arrival, share)
    return share * (len(arrival.groups) - len(small)) + sum(small)


def _memories(arrival: Arrival, groups: set[GroupKey]) -> dict[GroupKey, Any]:
    """Return the memories of some groups, without decoding for none."""
    mine = groups & set(arrival.groups)
    return {group: memory for group, memory in arrival.memories().items() if group in mine} if mine else {}
