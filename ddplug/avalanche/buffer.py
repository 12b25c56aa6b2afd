"""DistilledBuffer: an Avalanche storage policy that remembers a few distilled images of every class.

What :meth:`DistilledBuffer.post_adapt` does with an experience, step by step:

1. *read* (``schema.py``): the experience as tensors ``x, y, t``, and how its items look; for a latent memory
   (``latent.py``) what a layer of the learner makes of ``x``.
2. *plan* (``allocation.py``): which domain the experience belongs to, and in the first call the number of groups that
   the stream will bring, counted in its labels. A group is a class of a task, and of a domain where that shifts.
3. *sort* (``reservoir.py``): the samples of each group. In an online stream they join the real samples that wait, and
   nothing more happens in most calls; where the memory is coded, they are coded as far as its bytes have room.
4. *divide* (``allocation.py``): how many images each group may have, from the limit in images or in bytes.
5. *combine* (``maker.py``): for each group, what to distill and what to keep, from its new samples and its old images;
   groups without new samples give up the images that they may no longer have.
6. *make* (``maker.py``): distill, in copies of the learner (``learner.py``), and store as few bytes as the options say
   (``groups.py``).

The memory is replaced as a whole at the end: an error on the way leaves it as it was.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor, nn
from typing_extensions import Unpack

from ddplug.avalanche.allocation import Plan, images_in, is_online, limit_of, shares
from ddplug.avalanche.coded import Arrival, arrive
from ddplug.avalanche.coder import Coder
from ddplug.avalanche.groups import (
    ClassMemory,
    GroupKey,
    GroupMemory,
    by_label,
    dataset_of,
    drawn,
    label_bytes,
    rows_of,
    soft_targets_of,
    stored_bytes,
)
from ddplug.avalanche.latent import Latent, latent_rows
from ddplug.avalanche.learner import with_heads_for, working_device
from ddplug.avalanche.logits import bytes_of_logits, logits_of
from ddplug.avalanche.maker import Maker
from ddplug.avalanche.options import MemoryKeywords, MemoryOptions, shows_memory_options
from ddplug.avalanche.reservoir import Reservoir, by_group, joined
from ddplug.avalanche.rules import Choice, Replayed, replayed
from ddplug.avalanche.schema import Rows, Schema, read, some_of_each, write
from ddplug.errors import OptionError
from ddplug.functional.resize import reduced_shape
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least, values_at_least
from ddplug.utils.randomness import nth_generator
from ddplug.utils.surroundings import own_surroundings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DistilledBuffer"]

_logger = logging.getLogger(__name__)

_READ, _LEAST_READ = 100, 1000
"""Samples of a class that are read for each image of the memory's bytes, and at least: a coded one takes a hundredth of
the bytes at the fewest."""

_WAITING = 50
"""Real samples of a group that wait for the next distillation of whole images, unless it is said."""

_SPARE = 2
"""Samples that are read for each that a class may store, once that is known."""


@shows_memory_options
class DistilledBuffer(ExemplarsBuffer):
    """A replay memory of distilled images, for any Avalanche strategy or plugin that takes a storage policy.

    The memory is divided into groups, each with its own images: a class of a task, and where the domain shifts a class
    of an experience. It is self-contained: nothing refers to the stream's data, and its items look like the stream's.
    Equal seeds give equal memories, whatever the global random state, which stays where it is; a copy or a pickle made
    between two experiences goes on exactly as the original would.

    Args:
        max_size: images in all.
        max_bytes: bytes in all instead: of the stored images with their levels, and of their labels.
        options: how it is filled, divided and stored. Instead of such an object, each of its fields can be given as a
            keyword.
        **keywords: fields of :class:`~ddplug.avalanche.options.MemoryOptions`.

    Attributes:
        max_size: the limit in images, as it was given or set by :meth:`resize`. Where the limit is in bytes it is
            that number, since stock code wants one: no image takes less than a byte.
        max_bytes: the limit in bytes, or ``None``.
        options: what was given.
        groups: the memory of each group, in the order they were first seen in.
        images_allowed: images that the limit allows; ``None`` until the shape of an input is known.
        seconds: that the last call of :meth:`post_adapt` spent distilling, 0 if it did not.
        total_seconds: that all calls spent.
        updates: how often the memory was made anew.

    Raises:
        OptionError: an option is unknown or out of range.

    Example:
        >>> DistilledBuffer(100, distiller="kmeans-centroid").max_size
        100
        >>> DistilledBuffer(100, options=MemoryOptions(distiller="kmeans-centroid", factor=2)).options.factor
        2
    """

    _least_rows = 0
    """Rows that a stock strategy cannot do without."""

    _pieces = False
    """Whether experiences come in pieces, as far as is known."""

    _queue: tuple[Arrival, ...] = ()
    """What came since a coded memory was made, in the bytes that it left."""

    def __init__(
        self,
        max_size: int | None = None,
        *,
        max_bytes: int | str | None = None,
        options: MemoryOptions | None = None,
        **keywords: Unpack[MemoryKeywords],
    ) -> None:
        if (max_size is None) == (max_bytes is None):
            raise OptionError(f"max_size is {max_size} and max_bytes is {max_bytes}; give exactly one of them")
        MemoryOptions.check_names(keywords)
        if options is not None and keywords:
            raise OptionError(f"{', '.join(keywords)} and options are given; put all into options, or give no options")
        self.options = MemoryOptions(**keywords) if options is None else options
        self._limit = None if max_bytes is None else limit_of(max_bytes)
        number, unit = (max_size, "") if self._limit is None else self._limit
        super().__init__(number)
        self.max_bytes = number if unit == "B" else None
        at_least(self, max_size=1)
        self.coded = self.options.coded and max_size is None
        if self.coded:
            self.options.check_coded()
        elif self.options.codec is not None:
            raise OptionError(
                f"codec={self.options.codec!r} needs the memory's size in bytes; give max_bytes, not max_size"
            )
        self.choice: Choice | None = None
        self.latent: Latent | None = None
        self._groups: dict[GroupKey, GroupMemory] = {}
        self._arrivals: tuple[Arrival, ...] = ()
        self.images_allowed = max_size
        self.seconds = 0.0
        self.total_seconds = 0.0
        self.updates = 0
        self._order: list[GroupKey] = []
        self._waiting: dict[GroupKey, Reservoir] = {}
        self._calls = 0
        self._plan = Plan(self.options)
        self._warned = False
        self._dataset: Any = None
        self._logits: Tensor | None = None

    @property
    def groups(self) -> Mapping[GroupKey, GroupMemory]:
        """The memory of each group, in the order they were first seen in."""
        if not self._groups and self._arrivals:
            decoded = {group: own for arrival in self._arrivals for group, own in arrival.memories().items()}
            self._groups = {group: decoded[group] for group in self._order if group in decoded}
        return self._groups

    @property
    def buffer(self) -> Any:
        """The whole memory as one ``AvalancheDataset``, group after group in the order they were first seen in."""
        if self._dataset is None:
            self._dataset = self._written() if self.groups else self._buffer
        return self._dataset

    def _written(self) -> Any:
        if self._logits is None:
            return dataset_of(list(self.groups.values()))
        return write(self.rows(), list(self.groups.values())[-1].schema, self.soft_targets(), self._logits)

    @property
    def buffer_groups(self) -> dict[int, ClassMemory]:
        """The memory of each class under its plain label, which is what Avalanche's own code asks for."""
        return by_label(self.groups.values())

    @property
    def planned_groups(self) -> int | None:
        """Groups that the limit is divided over unless there are more; ``None`` for as many as were seen."""
        return self._plan.groups

    @property
    def recipe(self) -> Recipe | None:
        """How the distiller wants its newest images trained on; ``None`` while there are none."""
        recipes = [memory.recipe for memory in self.groups.values() if len(memory)]
        return recipes[-1] if recipes else None

    @property
    def replayed(self) -> Replayed:
        """How :class:`~ddplug.avalanche.plugin.DistilledReplayPlugin` replays it by default."""
        kind, each = ("", 0.0) if self.choice is None else (self.choice.kind, self.choice.each)
        real = self.choice is not None and self.choice.real(self.options.distiller) and not self._pieces
        return replayed(kind if self.options.features is None else "features", real, each)

    @property
    def nbytes(self) -> int:
        """Bytes of the images with their levels and labels, and of the samples that wait."""
        waiting: list[Reservoir | Arrival] = [*self._waiting.values(), *self._queue]
        held: Iterable[Arrival | GroupMemory] = self._arrivals if self.coded else self.groups.values()
        # coded images count what stands beside them
        logits = 0 if self._logits is None or self.coded else self._logits.numel() * self._logits.element_size()
        return logits + sum(each.nbytes for each in (*waiting, *held))

    @property
    def buffer_datasets(self) -> list[Any]:
        """The memory of each class, as stock balanced buffers give it."""
        return [memory.buffer for memory in self.buffer_groups.values()]

    def get_group_lengths(self, num_groups: int) -> list[int]:
        """Divide the present number of images over groups, as stock balanced buffers do."""
        return shares(self.images_allowed or 0, num_groups)

    def memory_report(self) -> str:
        """Return in a line what the memory holds, and why."""
        rows = sum(map(len, self.groups.values()))
        limit = f"{self.max_size} images" if self.max_bytes is None else f"{self.max_bytes:,} bytes"
        how = self.options.method().name
        if self.choice is not None:
            what = "real images" if self.choice.real(self.options.distiller) else how
            first, last = self.choice.window
            codecs = dict.fromkeys(layer.codec for arrival in self._arrivals for layer in arrival.layers)
            how = f"{what}, codec {' and '.join(codecs)}, ranks {first:g} to {last:g} of difficulty ({self.choice.why})"
            how = f"{how}; by default {self.replayed}"
        return f"{rows:,} images of {len(self.groups)} groups in {self.nbytes:,} bytes of {limit}: {how}"

    def picture(self, per_row: int = 10) -> Figure:
        """Draw the memory, a group a row with its label before it, small images enlarged.

        Args:
            per_row: images of a group to show, at least 1.

        Raises:
            DataError: nothing is remembered, or no images of one or three channels.
            OptionError: ``per_row`` is below 1.
        """
        return drawn(self.groups.values(), per_row)

    def update_from_dataset(self, new_data: Any) -> None:
        """Take a dataset in, without a learner, as stock buffers do; items of another kind get the task label 0."""
        if not isinstance(new_data, AvalancheDataset):
            new_data = _make_taskaware_classification_dataset(new_data, task_labels=0)
        self.post_adapt(None, SimpleNamespace(dataset=new_data))
        self.require_rows(self._least_rows)

    def require_rows(self, number: int) -> None:
        """Refuse a memory, now or once :meth:`update_from_dataset` filled it, that holds fewer rows than are needed.

        Args:
            number: of rows.

        Raises:
            OptionError: it holds fewer, or will.
        """
        self._least_rows = number
        most = None if self.coded or self.max_bytes is not None else self.max_size * self.options.factor**2
        rows = sum(map(len, self.groups.values())) if self.groups else most
        if rows is not None and rows < number:
            raise OptionError(
                f"the memory holds {rows} rows, and the strategy needs batch_size_mem={number} of them; give the "
                "memory more, or the strategy a smaller batch_size_mem"
            )

    def rows(self) -> Rows:
        """Return the whole memory as tensors, in the order of :attr:`buffer`."""
        return rows_of(self.groups.values())

    def soft_targets(self) -> Tensor | None:
        """Return the ``(N, K)`` soft labels of :meth:`rows`, padded with zeros to the widest; ``None`` if hard."""
        return soft_targets_of(self.groups.values())

    @own_surroundings()
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
        looked_at, each = self._looked_at(exp.dataset)
        rows, schema = read(looked_at)
        if self.coded and self._limit is not None and self.max_bytes is None:
            self.max_bytes = self.max_size = self._limit[0] * math.prod(schema.shape)
        learner = getattr(agent, "model", None)
        learner = None if learner is None else with_heads_for(learner, exp)
        if self.options.features is not None:
            rows, schema = self._features(self.options.features, rows, schema, learner, agent)
        came = by_group(rows, each, self._plan.domain(exp, rows, self._order, self._calls))
        self._calls += 1
        self._pieces = is_online(exp)
        times = self.options.waits_for(len(exp.dataset), online=self._pieces)
        new = came if times == 1 else self._gathered(came, schema, times)
        if new is None:
            return
        self._update(new, schema, learner, agent)
        self._waiting = {group: own for group, own in self._waiting.items() if group not in new}
        self._queue = ()
        self.seconds = time.perf_counter() - began
        self.total_seconds += self.seconds

    @own_surroundings()
    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the number of images; groups that have too many shrink, and the others wait for new data.

        Args:
            strategy: its ``model`` is the learner; without one, groups keep a prefix of their images.
            new_size: images in all, which takes the place of a limit in bytes.

        Raises:
            OptionError: the size is below one.
        """
        values_at_least(1, new_size=new_size)
        self.max_size = self.images_allowed = new_size
        self.max_bytes = new_size if self.coded else None
        self._queue = ()
        if self.groups:
            schema = list(self.groups.values())[-1].schema
            self._update({}, schema, getattr(strategy, "model", None), strategy)

    def _gathered(
        self, new: Mapping[GroupKey, Reservoir], schema: Schema, times: int
    ) -> Mapping[GroupKey, Reservoir] | None:
        """Add a piece to what waits; return what the memory is to be made of, ``None`` for nothing yet."""
        if not self._order:
            _logger.info("pieces of a stream: the memory is made anew every %d of them, and for a new class", times)
        queues = self.coded and self.options.reservoir_size is None
        most = 0 if queues else self.options.reservoir_size or _WAITING
        self._waiting = joined(self._waiting, new, most, self._rng(0, self._calls))
        if self._calls % times and all(group in self._order for group in new):
            self._queue += self._queued(new, schema) if queues else ()
            return None
        return self._standing_for_all(new) if queues else self._waiting

    def _queued(self, new: Mapping[GroupKey, Reservoir], schema: Schema) -> tuple[Arrival, ...]:
        """Code a piece of an online stream as far as the memory's bytes have room for it, until it is made anew."""
        assert self.choice is not None  # a class that is new has been taken in
        assert self.max_bytes is not None
        samples = {group: own.x for group, own in new.items()}
        room = self.max_bytes - self.nbytes
        cost = sum(each.nbytes for each in self._arrivals) / sum(map(len, self._arrivals))
        seen = [own.seen for own in new.values()]
        made = arrive(samples, seen, self.choice.codec, room, [1.0], cost, schema, Recipe()) if room > 0 else None
        return () if made is None else (made,)

    def _standing_for_all(self, new: Mapping[GroupKey, Reservoir]) -> dict[GroupKey, Reservoir]:
        """Let the newest piece of an online stream, with what is queued, stand for all since the memory was made."""
        queued = [each.memories() for each in self._queue]
        groups = dict.fromkeys([group for part in (*queued, new) for group in part])
        made = {}
        for group in groups:
            parts = [part[group].images() for part in queued if group in part]
            x = torch.cat([*parts, *([new[group].x] if group in new else [])])
            if len(x):
                made[group] = Reservoir(x, self._waiting[group].seen)
        return made

    def _looked_at(self, dataset: Any) -> tuple[Any, Mapping[int, float]]:
        """Return as much of a dataset as coded real images are chosen from: reading all of it would take longest.

        Beside it, how many samples one of a class stands for, unless 1.
        """
        if not self.coded or self.options.distiller != "auto" or self._limit is None or not hasattr(dataset, "subset"):
            return dataset, {}
        number, unit = self._limit
        images = number if unit == "images" else number / math.prod(dataset[0][0].shape)
        most = max(_LEAST_READ, int(_READ * images))
        used = sum(arrival.nbytes for arrival in self._arrivals)
        if self._drawn_at_random and self.max_bytes is not None and 2 * used > self.max_bytes:
            short = [number for arrival in self._arrivals for number in arrival.short]
            held, groups = sum(map(len, self._arrivals)) - sum(short), len(self._order) - len(short)
            if held:
                most = min(most, math.ceil(_SPARE * held * self.max_bytes / used / groups))
        found = some_of_each(dataset, most, self._rng(0, self._calls + 1))
        return (dataset, {}) if found is None else (dataset.subset(found[0]), found[1])

    def _features(
        self, layer: str, rows: Rows, schema: Schema, learner: nn.Module | None, agent: Any
    ) -> tuple[Rows, Schema]:
        """Return what a layer of the learner makes of samples, and how that looks."""
        if learner is None:
            raise OptionError(f"features={layer!r} needs the model being trained as agent.model; set it")
        rows, self.latent = latent_rows(learner, layer, rows, working_device(self.options.device, agent, learner))
        return rows, replace(schema, shape=tuple(rows.x.shape[1:]), dtype=torch.float32)

    @property
    def _drawn_at_random(self) -> bool:
        """Whether no more samples are needed than are stored: none is chosen for its difficulty."""
        return self.choice is not None and self.choice.window == (0.0, 1.0)

    def __getstate__(self) -> dict[str, Any]:
        # what was decoded is no part of the memory
        return {**vars(self), "_dataset": None, **({"_groups": {}} if self.coded else {})}

    def _rng(self, stage: int, counter: int) -> torch.Generator:
        """Return the generator of one event; none is kept, so that a copy draws what the original does."""
        return nth_generator(self.options.seed, 2 * counter + stage)

    def _update(self, new: Mapping[GroupKey, Reservoir], schema: Schema, learner: nn.Module | None, agent: Any) -> None:
        """Make the memories of groups with new data, and shrink the others to what is left for them."""
        order = [*self._order, *(group for group in new if group not in self._order)]
        maker = Maker(self.options, schema, learner, working_device(self.options.device, agent, learner))
        extra = self._bytes_of_logits(new, maker)
        if self.coded:
            self._recode(new, maker, extra)
            self._order = order
            self._take_logits(maker)
            return
        number = max(self.planned_groups or 0, len(order))
        allowed = self.max_size if self.max_bytes is None else self._fitting(self.max_bytes, number, new, maker, extra)
        if allowed < len(order):
            self._warn(f"{allowed} images for {len(order)} groups: some groups have none", order)
        images = dict(zip(order, shares(allowed, number), strict=False))
        self._groups = maker.renewed(self._groups, new, images, self._rng(1, self.updates))
        self._order = order
        self.images_allowed = allowed
        self.updates += 1
        self._dataset = None
        self._take_logits(maker)

    def _warn(self, what: str, groups: Iterable[GroupKey]) -> None:
        """Say once that the memory is too small."""
        if not self._warned:
            self._warned = True
            domains = len({group.experience for group in groups}) > 1
            advice = "; groupby='class' keeps one for each class" if domains else ""
            warnings.warn(f"{what}{advice}", stacklevel=5)

    def _bytes_of_logits(self, new: Mapping[GroupKey, Reservoir], maker: Maker) -> int:
        """Return the bytes that the learner's outputs for an image take, where they are kept."""
        if not self.options.logits:
            return 0
        held = {group: memory.images() for group, memory in self.groups.items()}
        samples = {**held, **{group: reservoir.x for group, reservoir in new.items()}}
        return bytes_of_logits(samples, maker.learner, maker.device)

    def _take_logits(self, maker: Maker) -> None:
        """Keep the learner's outputs for all images, where they are wanted."""
        if self.options.logits and maker.learner is not None:
            self._logits = logits_of(self.groups.values(), maker.learner, maker.device)
            self._dataset = None

    def _recode(self, new: Mapping[GroupKey, Reservoir], maker: Maker, extra: int) -> None:
        """Code new samples, and drop layers of the others."""
        assert self.max_bytes is not None  # known from the first sample on
        coder = Coder(self.options, self.max_bytes, self._plan.steps, maker, extra)
        arrivals, choice = coder.renewed(self._arrivals, new, self.choice, self._rng(1, self.updates))
        if not any(map(len, arrivals)):
            raise OptionError(f"max_bytes is {self.max_bytes}, in which not one image fits; give more")
        first, self._arrivals, self.choice = self.choice is None, arrivals, choice
        if first:
            _logger.info("by default %s", self.replayed)
        self._groups, self._dataset = {}, None
        self.images_allowed = sum(map(len, arrivals))
        known = {*self._order, *new}
        empty = known - {group for arrival in arrivals for group, number in arrival.numbers.items() if number}
        if empty:
            each = f"{self.max_bytes // len(known)} bytes of each are less than one takes; give the memory more bytes"
            self._warn(f"{len(empty)} of {len(known)} groups have no image: {each}", known)
        self.updates += 1

    def _fitting(self, max_bytes: int, number: int, new: Mapping[GroupKey, Reservoir], maker: Maker, extra: int) -> int:
        """Return how many images of ``number`` groups fit into a number of bytes."""
        options = self.options
        each, levels = stored_bytes(reduced_shape(maker.schema.shape, options.factor), options.storage)
        label = max(label_bytes(group.label) for group in (*self.groups, *new))
        if options.soft_labels:
            widths = [memory.soft.shape[1] for memory in self.groups.values() if memory.soft is not None]
            widths += [maker.label(samples.x[:1], group).shape[1] for group, samples in new.items()]
            label = 4 * max(widths)
        return images_in(max_bytes, number, (each + label + extra) * options.factor**2, levels)
