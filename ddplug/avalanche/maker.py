"""From the samples of some groups to their slots: fold in what is remembered, distill, store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ddplug.avalanche.learner import networks_for, probabilities
from ddplug.avalanche.reservoir import Queue
from ddplug.avalanche.schema import Schema
from ddplug.avalanche.slots import Group, Slot, pack
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import Distiller
from ddplug.errors import OptionError
from ddplug.functional import augmentation
from ddplug.functional.resize import reduce
from ddplug.synthetic.recipe import Recipe

__all__ = ["Maker", "Request", "fold", "shrunk"]


@dataclass(frozen=True, eq=False)
class Request:
    """What a slot is to be made of.

    Attributes:
        group: whose it is.
        data: ``(N, *shape)`` float32 to distill from.
        distilled: images to distill, at most ``N``.
        kept: ``(k, *shape)`` images that stay, before the distilled ones.
        real: ``(r, *shape)`` real samples, after them.
        seen: real samples that the slot will stand for.
    """

    group: Group
    data: Tensor
    distilled: int
    kept: Tensor
    real: Tensor
    seen: int


def _some(x: Tensor, n: int, rng: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=rng)[:n]]


def fold(
    group: Group, new: Queue, n: int, old: Slot | None, revisit: str, real_share: float, rng: torch.Generator
) -> Request:
    """Decide what becomes of new samples of a group and of what is remembered of it.

    Where no more than ``n`` images are there in all, they are all kept, and the new ones count as real.

    Args:
        group: the group.
        new: its new samples, at least one, and how many they stand for.
        n: images that the group may have.
        old: its slot, if it has one.
        revisit: ``"replace"`` forgets the old images. ``"merge"`` distills them together with the new data, each
            repeated so that it weighs as the samples it stands for, but all of them no more than the new data (or once
            each). ``"accumulate"`` keeps a prefix of them, the larger half of ``n`` (more, if the new samples cannot
            fill the rest), and distills the new data alone into the others.
        real_share: share of ``n`` that real samples get, drawn from the new ones and the old in proportion.
        rng: generator on the CPU.
    """
    x, none = new.x, new.x[:0]
    images = old_real = none
    before = 0
    if old is not None and len(old) and revisit != "replace":
        images, before = old.images(), old.seen
        old_real = images[len(old) - old.real :]
    seen = before + new.seen
    if len(images) + len(x) <= n:
        return Request(group, none, 0, images[: len(images) - len(old_real)], torch.cat([old_real, x]), seen)
    wanted = round(n * real_share)
    if len(images) and revisit == "accumulate":
        kept = images[: max(n - n // 2, n - len(x))]
        room = n - len(kept)
        real = _some(x, min(wanted, room), rng)
        return Request(group, x, room - len(real), kept, real, seen)
    from_old = min(len(old_real), round(wanted * before / seen))
    real = torch.cat([_some(old_real, from_old, rng), _some(x, wanted - from_old, rng)])
    data = torch.cat([x, images.repeat(_weight(before, len(images), new), *[1] * (x.ndim - 1))])
    return Request(group, data, n - len(real), none, real, seen)


def _weight(before: int, images: int, new: Queue) -> int:
    """Return how often each of the old images is repeated among the new samples."""
    if not images:
        return 1
    ratio = (before / images) / (new.seen / len(new.x))
    return max(1, min(round(ratio), len(new.x) // images))


def shrunk(old: Slot, n: int, real_share: float) -> Request:
    """Ask for a smaller slot distilled from the images of a larger one; real samples stay in proportion."""
    images = old.images()
    first = len(old) - old.real
    real = images[first : first + min(old.real, round(n * real_share))]
    return Request(old.group, images, n - len(real), images[:0], real, old.seen)


@dataclass(frozen=True, eq=False)
class Maker:
    """How slots are made.

    Attributes:
        distiller: its ``images_per_class`` is replaced by what is asked for.
        network: see :func:`ddplug.avalanche.learner.networks_for`.
        joint: whether classes of a task that get equally many images are distilled together.
        augmentation: operations that keep the label, or ``"auto"``.
        storage: ``"uint8"`` or ``"float32"``.
        soft: whether the learner labels the images.
        real_share: share of each group's images that are real samples.
        factor: how much smaller than the stream's images those stored are.
    """

    distiller: Distiller
    network: Any
    joint: bool
    augmentation: str
    storage: str
    soft: bool
    real_share: float
    factor: int

    def make(
        self,
        requests: Sequence[Request],
        schema: Schema,
        learner: nn.Module | None,
        device: torch.device,
        rng: torch.Generator,
    ) -> dict[Group, Slot]:
        """Make a slot for each request.

        Args:
            requests: of different groups.
            schema: of the stream.
            learner: the network being trained.
            device: where to work.
            rng: generator on the CPU.
        """
        made: dict[Group, tuple[Tensor, Recipe]] = {}
        for part in self._parts(requests):
            made |= self._distill(part, schema, learner, device, int(torch.randint(2**62, (), generator=rng)))
        recipe = Recipe.paper(augmentation.resolve(self.augmentation, schema.shape))
        slots = {}
        for request in requests:
            kept, real_rows = (reduce(rows, self.factor) for rows in (request.kept, request.real))
            images, own = made.get(request.group, (kept[:0], recipe))
            stored, levels = pack(torch.cat([kept, images, real_rows]), self.storage)
            real = len(request.real)
            slot = Slot(request.group, stored, levels, None, request.seen, real, own, schema)
            if self.soft:
                slot = replace(slot, soft=self.label(slot.inputs(), slot.group.task, learner, device))
            slots[request.group] = slot
        return slots

    def label(self, x: Tensor, task: int, learner: nn.Module | None, device: torch.device) -> Tensor:
        """Let the learner label ``(n, *shape)`` inputs of a task; ``(n, K)``.

        Raises:
            OptionError: there is no learner.
        """
        if learner is None:
            raise OptionError("soft_labels=True needs the model being trained as agent.model; set it, or say False")
        return probabilities(learner, x, task, device)

    def _parts(self, requests: Iterable[Request]) -> list[list[Request]]:
        """Put together what is distilled together."""
        parts: dict[tuple[Any, ...], list[Request]] = {}
        for request in requests:
            if request.distilled:
                group = request.group
                key = (group.task, group.experience, request.distilled, None if self.joint else group)
                parts.setdefault(key, []).append(request)
        return list(parts.values())

    def _distill(
        self, part: list[Request], schema: Schema, learner: nn.Module | None, device: torch.device, seed: int
    ) -> dict[Group, tuple[Tensor, Recipe]]:
        labels = [int(request.group) for request in part]
        counts = torch.tensor([len(request.data) for request in part])
        data = LabeledData(
            torch.cat([reduce(request.data, self.factor) for request in part]),
            torch.arange(len(part)).repeat_interleave(counts),
            len(part),
            Identity(),
            tuple(map(str, labels)),
            "experience",
            augmentation.resolve(self.augmentation, schema.shape),
        )
        options: dict[str, Any] = {"images_per_class": part[0].distilled}
        choice = self.network if hasattr(self.distiller, "network") else "own"
        shape = schema.shape if self.factor > 1 else None
        with networks_for(choice, learner, part[0].group.task, labels, shape) as network:
            if network is not None:
                options["network"] = network
            method = replace(self.distiller, **options)  # type: ignore[type-var]
            made = distill(data, method, seed=seed, device=device)
        own = made.hard_targets
        return {request.group: (made.inputs[own == k], made.recipe) for k, request in enumerate(part)}
