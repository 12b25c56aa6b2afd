"""DistilledBuffer: an Avalanche storage policy that remembers a few distilled images of every class."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor, nn
from torch.nn.functional import pad

from ddplug import registry
from ddplug.avalanche.allocation import count_groups, experience_number, images_in, is_online, shares, stream_pairs
from ddplug.avalanche.learner import adapted, place
from ddplug.avalanche.maker import Maker, Request, fold, shrunk
from ddplug.avalanche.reservoir import Queue, enqueue
from ddplug.avalanche.schema import Rows, Schema, read, write
from ddplug.avalanche.slots import Group, Slot, label_bytes, split, stored_bytes
from ddplug.distillation.config import config_of
from ddplug.distillation.protocol import Distiller
from ddplug.errors import OptionError, unknown
from ddplug.functional import augmentation as augment
from ddplug.functional.resize import reduced_shape
from ddplug.synthetic.recipe import Recipe

__all__ = ["OPTIONS", "DistilledBuffer"]

OPTIONS: Mapping[str, Mapping[str, Any]] = {"dm": {"learning_rate": 0.3, "batch_real": 256}}
"""What a method's name stands for here beside its defaults, which were chosen for other networks than learners are:
validated on Split-MNIST with fresh copies of a multi-layer perceptron."""

_QUEUE = 50
"""Real samples a group that wait for the next distillation, unless told otherwise."""

_CHOICES = {
    "groupby": ("auto", "class", "experience"),
    "shrink": ("redistil", "prefix"),
    "revisit": ("merge", "replace", "accumulate"),
    "storage": ("uint8", "float32"),
}


def _at_least_one(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise OptionError(f"{name} is {number}; it must be at least 1")


def _one_of(**values: str) -> None:
    for name, value in values.items():
        if value not in _CHOICES[name]:
            raise unknown(f"value of option {name!r},", value, _CHOICES[name])


class DistilledBuffer(ExemplarsBuffer):
    """A replay memory of distilled images, for any Avalanche strategy or plugin that takes a storage policy.

    The memory is divided into groups, each with its own images: a class of a task, and where the domain shifts a class
    of an experience. It is self-contained: nothing refers to the stream's data, and its items look like the stream's.
    Equal seeds give equal memories, whatever the global random state, which stays where it is; a copy or a pickle made
    between two experiences goes on exactly as the original would.

    Args:
        max_size: images in all.
        max_bytes: bytes in all instead: uint8 images with their levels, and their labels. ``max_size`` follows once the
            shape of an input is known, and is ``max_bytes`` before that.
        distiller: any distiller or its registered name, selection baselines included. How many images it makes of a
            class is chosen by the memory. A name stands for the method's defaults with :data:`OPTIONS`.
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
        revisit: what a group does when more of its data come, see :func:`ddplug.avalanche.maker.fold`.
        real_share: share of each group's images that are real samples drawn at random.
        factor: store images at a fraction of their side and ``factor**2`` of them for each image of the budget, so that
            the memory has that many more rows; see :mod:`ddplug.functional.resize`. For ``(C, H, W)`` images only.
        storage: ``"uint8"`` or ``"float32"``; see :func:`ddplug.avalanche.slots.pack`.
        soft_labels: let the learner label the images, once they are made; the labels travel as the data attribute
            ``"soft_targets"`` of :attr:`buffer`.
        every: calls of :meth:`post_adapt` between two distillations, for online streams. Meanwhile a few real samples
            of each group wait. A group never seen before is distilled at once, and so is whatever waits.
        queue: real samples of a group that wait at most, drawn uniformly. They come on top of the memory's size, and
            count in :attr:`nbytes`.
        augmentation: operations of :mod:`ddplug.functional.augmentation` for a distiller's ``augment="auto"``;
            ``"auto"`` for what suits the shape. None by default: images matched under augmentations that the learner
            does not train with were worse.
        seed: of all that is drawn.
        device: where to distill: ``"auto"``, ``"learner"`` for where the strategy works, or a name.

    Raises:
        OptionError: an option is unknown or out of range.

    Example:
        >>> DistilledBuffer(100, distiller="kmeans-centroid").max_size
        100
    """

    def __init__(
        self,
        max_size: int | None = None,
        *,
        max_bytes: int | None = None,
        distiller: str | Distiller = "dm",
        network: str | Callable[[], nn.Module] = "fresh",
        groupby: str = "auto",
        joint: bool = True,
        adaptive_size: bool = False,
        total_num_groups: int | None = None,
        shrink: str = "redistil",
        revisit: str = "merge",
        real_share: float = 0.0,
        factor: int = 1,
        storage: str = "uint8",
        soft_labels: bool = False,
        every: int = 1,
        queue: int | None = None,
        augmentation: str = "",
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        if (max_size is None) == (max_bytes is None):
            raise OptionError(f"max_size is {max_size} and max_bytes is {max_bytes}; give exactly one of them")
        if adaptive_size and total_num_groups is not None:
            raise OptionError(f"total_num_groups is {total_num_groups} with adaptive_size=True; give only one of them")
        _at_least_one(max_size=max_size, max_bytes=max_bytes, total_num_groups=total_num_groups)
        _at_least_one(every=every, queue=queue, factor=factor)
        if not 0 <= real_share <= 1:
            raise OptionError(f"real_share is {real_share}; it must lie between 0 and 1")
        _one_of(groupby=groupby, shrink=shrink, revisit=revisit, storage=storage)
        augment.check("" if augmentation == "auto" else augmentation, (3, 8, 8))
        super().__init__(max_bytes if max_size is None else max_size)
        method: Distiller = _named(distiller) if isinstance(distiller, str) else distiller
        config_of(method)  # refuses what is not a distiller
        if getattr(method, "factor", 1) != 1:
            raise OptionError(
                f"the distiller has factor={method.factor}, but it is the memory that stores images smaller; give the "  # type: ignore[attr-defined]
                f"distiller factor=1 and DistilledBuffer factor={method.factor}"  # type: ignore[attr-defined]
            )
        self.max_bytes = max_bytes
        self.groupby = groupby
        self.adaptive_size = adaptive_size
        self.total_num_groups = total_num_groups
        self.shrink = shrink
        self.revisit = revisit
        self.every = every
        self.queue = queue or _QUEUE
        self.factor = factor
        self.seed = seed
        self.device = device
        self.buffer_groups: dict[Group, Slot] = {}
        self.seconds = 0.0
        self.total_seconds = 0.0
        self.updates = 0
        self._maker = Maker(method, network, joint, augmentation, storage, soft_labels, real_share, factor)
        self._queues: dict[Group, Queue] = {}
        self._calls = 0
        self._domains: dict[int, int | None] = {}
        self._warned = False
        self._written: Any = None

    @property
    def buffer(self) -> Any:
        """The whole memory as one ``AvalancheDataset``, group after group in the order they were first seen in."""
        if self._written is None:
            schema = self._schema
            self._written = self._buffer if schema is None else write(self.rows(), schema, self.soft_targets())
        return self._written

    @property
    def recipe(self) -> Recipe | None:
        """How the distiller wants its newest images trained on; ``None`` while there are none."""
        recipes = [slot.recipe for slot in self.buffer_groups.values() if len(slot)]
        return recipes[-1] if recipes else None

    @property
    def nbytes(self) -> int:
        """Bytes of the images with their levels and labels, and of the real samples that wait."""
        waiting = sum(queue.nbytes for queue in self._queues.values())
        return waiting + sum(slot.nbytes for slot in self.buffer_groups.values())

    def rows(self) -> Rows:
        """Return the whole memory as tensors, in the order of :attr:`buffer`."""
        parts = [slot.rows() for slot in self.buffer_groups.values()]
        if not parts:
            none = torch.zeros(0, dtype=torch.int64)
            return Rows(torch.zeros(0, 0), none, none)
        return Rows(*(torch.cat([getattr(part, name) for part in parts]) for name in ("x", "y", "t")))

    def soft_targets(self) -> Tensor | None:
        """Return the ``(N, K)`` soft labels of :meth:`rows`, padded with zeros to the widest; ``None`` if hard."""
        parts = [slot.soft for slot in self.buffer_groups.values() if slot.soft is not None and len(slot.soft)]
        width = max((part.shape[1] for part in parts), default=0)
        return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts]) if parts else None

    def post_adapt(self, agent: Any, exp: Any) -> None:
        """Take an experience into the memory.

        Args:
            agent: a strategy or an ``Agent``; its ``model`` is the learner, which stays as it is.
            exp: the experience; an empty one changes nothing.

        Raises:
            DataError: its items cannot be remembered, see :func:`ddplug.avalanche.schema.read`.
            OptionError: the distiller refuses the data or the network, or not one image fits.
        """
        self.seconds = 0.0
        if not len(exp.dataset):
            return
        began = time.perf_counter()
        rows, schema = read(exp.dataset)
        if self.total_num_groups is None and not self.adaptive_size:
            self._plan(exp)
        domain = self._domain(exp, rows)
        self._calls += 1
        new = {group: Queue(x, len(x)) for group, x in split(rows, domain).items()}
        if self.every > 1:
            self._wait(new)
            if self._calls % self.every and all(group in self.buffer_groups for group in new):
                return
            new = self._queues
        learner = getattr(agent, "model", None)
        self._update(new, schema, None if learner is None else adapted(learner, exp), agent)
        self._queues = {}
        self.seconds = time.perf_counter() - began
        self.total_seconds += self.seconds

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the number of images; groups that have too many shrink, and the others wait for new data.

        Args:
            strategy: its ``model`` is the learner; without one, groups keep a prefix of their images.
            new_size: images in all, which takes the place of a limit in bytes.

        Raises:
            OptionError: the size is below one.
        """
        if new_size < 1:
            raise OptionError(f"new_size is {new_size}; it must be at least 1")
        self.max_size, self.max_bytes = new_size, None
        schema = self._schema
        if schema is not None:
            self._update({}, schema, getattr(strategy, "model", None), strategy)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_written": None}

    @property
    def _schema(self) -> Schema | None:
        slots = list(self.buffer_groups.values())
        return slots[-1].schema if slots else None

    def _rng(self, stage: int, counter: int) -> torch.Generator:
        """Return the generator of one event; none is kept, so that a copy draws what the original does."""
        return torch.Generator().manual_seed((self.seed * 1_000_003 + counter * 2 + stage) % 2**63)

    def _plan(self, exp: Any) -> None:
        """Count the groups that the stream will bring; if that cannot be known, go on adaptively."""
        pairs = stream_pairs(exp)
        by = "class" if self.groupby == "auto" and is_online(exp) else self.groupby
        self.total_num_groups = None if pairs is None else max(1, count_groups(pairs, by))
        self.adaptive_size = self.total_num_groups is None

    def _domain(self, exp: Any, rows: Rows) -> int | None:
        """Tell which domain the groups of an experience belong to; ``None`` where domains are not told apart."""
        number = experience_number(exp)
        number = self._calls if number is None else number
        if self.groupby != "auto":
            return number if self.groupby == "experience" else None
        if number not in self._domains:
            seen = {(group.task, group.label) for group in self.buffer_groups}
            known = set(zip(rows.t.tolist(), rows.y.tolist(), strict=True)) <= seen
            self._domains[number] = number if known and not is_online(exp) else None
        return self._domains[number]

    def _wait(self, new: Mapping[Group, Queue]) -> None:
        """Put new samples into the queues of their groups."""
        rng = self._rng(0, self._calls)
        queues = dict(self._queues)
        for group, part in new.items():
            queues[group] = enqueue(queues.get(group), part.x, self.queue, rng)
        self._queues = queues

    def _update(self, new: Mapping[Group, Queue], schema: Schema, learner: nn.Module | None, agent: Any) -> None:
        """Make the slots of new data, and shrink the others to what is left for them."""
        order = [*self.buffer_groups, *(group for group in new if group not in self.buffer_groups)]
        device = place(self.device, agent, learner)
        groups = max(self.total_num_groups or 0, len(order))
        if self.max_bytes is not None:
            self.max_size = self._fitting(self.max_bytes, groups, new, schema, learner, device)
        if self.max_size < len(order) and not self._warned:
            self._warned = True
            warnings.warn(f"{self.max_size} images for {len(order)} groups: some groups have none", stacklevel=3)
        rng = self._rng(1, self.updates)
        slots = dict(self.buffer_groups)
        requests: list[Request] = []
        for group, share in zip(order, shares(self.max_size, groups), strict=False):
            n = share * self.factor**2
            old = slots.get(group)
            if group in new:
                requests.append(fold(group, new[group], n, old, self.revisit, self._maker.real_share, rng))
            elif old is not None and len(old) > n:
                if self.shrink == "prefix" or (learner is None and not new):
                    slots[group] = old.prefix(n)
                else:
                    requests.append(shrunk(old, n, self._maker.real_share))
        self.buffer_groups = {**slots, **self._maker.make(requests, schema, learner, device, rng)}
        self.updates += 1
        self._written = None

    def _fitting(
        self,
        max_bytes: int,
        groups: int,
        new: Mapping[Group, Queue],
        schema: Schema,
        learner: Any,
        device: torch.device,
    ) -> int:
        """Return how many images of a schema fit into a number of bytes."""
        each, levels = stored_bytes(reduced_shape(schema.shape, self.factor), self._maker.storage)
        label = max(label_bytes(group.label) for group in (*self.buffer_groups, *new))
        if self._maker.soft:
            widths = [slot.soft.shape[1] for slot in self.buffer_groups.values() if slot.soft is not None]
            for group, queue in new.items():
                widths.append(self._maker.label(queue.x[:1], group.task, learner, device).shape[1])
            label = 4 * max(widths)
        return images_in(max_bytes, groups, (each + label) * self.factor**2, levels)


def _named(name: str) -> Distiller:
    """Make the distiller that a name stands for; smaller images are the memory's affair."""
    method: Distiller = registry.resolve("distiller", name)(**OPTIONS.get(name, {}))
    return replace(method, factor=1) if hasattr(method, "factor") else method  # type: ignore[type-var]
