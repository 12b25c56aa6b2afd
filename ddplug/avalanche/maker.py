"""From the samples of some groups to their memories: combine with what is remembered, distill, store."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ddplug.avalanche.groups import GroupKey, GroupMemory, pack
from ddplug.avalanche.learner import labels_of, networks_for
from ddplug.avalanche.options import MemoryOptions
from ddplug.avalanche.reservoir import Reservoir
from ddplug.avalanche.schema import Schema
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity
from ddplug.distillation.loop import distill
from ddplug.distillers.selection.kmeans import KMeansCentroid
from ddplug.errors import DivergedError, OptionError
from ddplug.functional import augmentation
from ddplug.functional.resize import reduce
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.text import one_line

__all__ = ["Maker", "Request", "combine", "fewer"]


@dataclass(frozen=True, eq=False)
class Request:
    """What the memory of a group is to be made of.

    Attributes:
        group: whose memory it is.
        data: ``(N, *shape)`` float32 to distill from.
        distilled: images to distill, at most ``N``.
        kept: ``(k, *shape)`` images that stay, before the distilled ones.
        real: ``(r, *shape)`` real samples, after them.
        seen: real samples that the images will stand for.
    """

    group: GroupKey
    data: Tensor
    distilled: int
    kept: Tensor
    real: Tensor
    seen: int


def _some(x: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=rng)[:n]]


def combine(
    group: GroupKey,
    new: Reservoir,
    n: int,
    old: GroupMemory | None,
    options: MemoryOptions,
    rng: torch.Generator,
) -> Request:
    """Combine new samples of a group with what is remembered of it.

    What is remembered is treated as the option ``revisit`` says. ``"replace"`` forgets the old images. ``"merge"``
    distills them together with the new data, each repeated so that it weighs as the samples it stands for, but all of
    them no more than the new data (or once each). ``"accumulate"`` keeps a prefix of them, the larger half of ``n``
    (more, if the new samples cannot fill the rest), and distills the new data alone into the others. Of the ``n``
    images, ``real_share`` are real samples, drawn from the new ones and the old in proportion.

    Where no more than ``n`` images are there in all, they are all kept, and the new ones count as real.

    Args:
        group: the group.
        new: its new samples, at least one, and how many they stand for.
        n: images that the group may have.
        old: its memory, if it has one.
        options: of the memory.
        rng: generator on the CPU.
    """
    x, none = new.x, new.x[:0]
    images = old_real = none
    before = 0
    if old is not None and len(old) and options.revisit != "replace":
        images, before = old.images(), old.seen
        old_real = images[len(old) - old.real :]
    seen = before + new.seen
    if len(images) + len(x) <= n:
        return Request(group, none, 0, images[: len(images) - len(old_real)], torch.cat([old_real, x]), seen)
    wanted = round(n * options.real_share)
    if len(images) and options.revisit == "accumulate":
        kept = images[: max(n - n // 2, n - len(x))]
        others = n - len(kept)
        real = _some(x, min(wanted, others), rng)
        return Request(group, x, others - len(real), kept, real, seen)
    from_old = min(len(old_real), round(wanted * before / seen))
    real = torch.cat([_some(old_real, from_old, rng), _some(x, wanted - from_old, rng)])
    data = torch.cat([x, images.repeat(_weight(before, len(images), new), *[1] * (x.ndim - 1))])
    return Request(group, data, n - len(real), none, real, seen)


def _weight(before: int, images: int, new: Reservoir) -> int:
    """Return how often each of the old images is repeated among the new samples."""
    if not images:
        return 1
    ratio = (before / images) / (new.seen / len(new.x))
    return max(1, min(round(ratio), len(new.x) // images))


def fewer(old: GroupMemory, n: int, real_share: float) -> Request:
    """Ask for fewer images, distilled from those of a group; real samples stay in proportion."""
    images = old.images()
    first = len(old) - old.real
    real = images[first : first + min(old.real, round(n * real_share))]
    return Request(old.group, images, n - len(real), images[:0], real, old.seen)


@dataclass(frozen=True, eq=False)
class Maker:
    """Makes the memories of groups, all with the same learner.

    Attributes:
        options: of the memory.
        schema: of the stream.
        learner: the network being trained, if there is one.
        device: where to work.
    """

    options: MemoryOptions
    schema: Schema
    learner: nn.Module | None
    device: torch.device

    def renewed(
        self,
        old: Mapping[GroupKey, GroupMemory],
        new: Mapping[GroupKey, Reservoir],
        images: Mapping[GroupKey, int],
        rng: torch.Generator,
    ) -> dict[GroupKey, GroupMemory]:
        """Make the memories of groups with new samples, and shrink those of others that have too many images.

        Args:
            old: the memory of each group so far; it stays as it is.
            new: new samples.
            images: of the budget that each group may have, old groups before new ones.
            rng: generator on the CPU.

        Returns:
            The memory of each group, in the order of ``images``.
        """
        options = self.options
        groups = dict(old)
        requests: list[Request] = []
        for group, share in images.items():
            n = share * options.factor**2
            mine = old.get(group)
            if group in new:
                requests.append(combine(group, new[group], n, mine, options, rng))
            elif mine is not None and len(mine) > n:
                if options.shrink == "prefix" or (self.learner is None and not new):
                    groups[group] = mine.prefix(n)
                else:
                    requests.append(fewer(mine, n, options.real_share))
        return groups | self.make(requests, rng)

    def make(self, requests: Sequence[Request], rng: torch.Generator) -> dict[GroupKey, GroupMemory]:
        """Make the memory of each group that is asked for.

        Args:
            requests: of different groups.
            rng: generator on the CPU.
        """
        options, schema = self.options, self.schema
        made = self._made(requests, rng)
        recipe = Recipe.paper(augmentation.resolve(options.augmentation, schema.shape))
        memories = {}
        for request in requests:
            kept, real_rows = (reduce(rows, options.factor) for rows in (request.kept, request.real))
            images, own = made.get(request.group, (kept[:0], recipe))
            stored, levels = pack(torch.cat([kept, images, real_rows]), options.storage)
            real = len(request.real)
            memory = GroupMemory(request.group, stored, levels, None, request.seen, real, own, schema)
            if options.soft_labels:
                memory = replace(memory, soft=self.label(memory.inputs(), memory.group))
            memories[request.group] = memory
        return memories

    def distilled(self, requests: Sequence[Request], rng: torch.Generator) -> dict[GroupKey, Tensor]:
        """Return the distilled images of each group alone, in a random order."""
        made = self._made(requests, rng)
        return {group: _some(images, len(images), rng) for group, (images, _) in made.items()}

    def _made(self, requests: Sequence[Request], rng: torch.Generator) -> dict[GroupKey, tuple[Tensor, Recipe]]:
        made: dict[GroupKey, tuple[Tensor, Recipe]] = {}
        for part in self._parts(requests):
            made |= self._distill(part, int(torch.randint(2**62, (), generator=rng)))
        return made

    def label(self, x: Tensor, group: GroupKey) -> Tensor:
        """Let the learner label ``(n, *shape)`` inputs of a group; ``(n, K)``, see :func:`labels_of`.

        Raises:
            OptionError: there is no learner.
        """
        if self.learner is None:
            raise OptionError("soft_labels=True needs the model being trained as agent.model; set it, or say False")
        return labels_of(self.learner, x, group.label, group.task, self.device)

    def _parts(self, requests: Iterable[Request]) -> list[list[Request]]:
        """Put together what is distilled together."""
        parts: dict[tuple[Any, ...], list[Request]] = {}
        for request in requests:
            if request.distilled:
                group = request.group
                key = (group.task, group.experience, request.distilled, None if self.options.joint else group)
                parts.setdefault(key, []).append(request)
        return list(parts.values())

    def _distill(self, part: list[Request], seed: int) -> dict[GroupKey, tuple[Tensor, Recipe]]:
        """Return the images of each group of a part, and how they are to be trained on."""
        options, schema, method = self.options, self.schema, self.options.method()
        labels = [request.group.label for request in part]
        counts = torch.tensor([len(request.data) for request in part])
        data = LabeledData(
            torch.cat([reduce(request.data, options.factor) for request in part]),
            torch.arange(len(part)).repeat_interleave(counts),
            len(part),
            Identity(),
            tuple(map(str, labels)),
            "experience",
            augmentation.resolve(options.augmentation, schema.shape),
        )
        fields: dict[str, Any] = {"images_per_class": part[0].distilled}
        choice = options.network if hasattr(method, "network") else "own"
        shape = schema.shape if options.factor > 1 else None
        with networks_for(choice, self.learner, part[0].group.task, labels, shape) as network:
            if network is not None:
                fields["network"] = network
            method = replace(method, **fields)  # type: ignore[type-var]
            try:
                made = distill(data, method, seed=seed, device=self.device)
            except DivergedError as error:
                warnings.warn(f"{one_line(error)}; these classes are kept as k-means centroids instead", stacklevel=6)
                fallback = KMeansCentroid(images_per_class=part[0].distilled)
                made = distill(data, fallback, seed=seed, device=self.device)
        own = made.hard_targets
        return {request.group: (made.inputs[own == k], made.recipe) for k, request in enumerate(part)}
