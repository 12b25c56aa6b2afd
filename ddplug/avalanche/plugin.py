"""Replay from a small memory: as a loss term of its own, or mixed into the batches so that it is really seen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.benchmarks import OnlineCLExperience
from avalanche.training.plugins import ReplayPlugin, SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from typing_extensions import Unpack

from ddplug.avalanche.buffer import DistilledBuffer
from ddplug.avalanche.direct import read_directly
from ddplug.avalanche.latent import Latent
from ddplug.avalanche.options import MemoryKeywords, MemoryOptions, shows_memory_options
from ddplug.avalanche.replay import (
    Augment,
    MemoryBatches,
    check_augment,
    match_width,
    mild,
    repeat_to_size,
    resolved,
    stored_rows,
)
from ddplug.avalanche.rules import UNMEASURED, Replayed
from ddplug.avalanche.schema import Rows, check_item, pairs_of
from ddplug.avalanche.variations import STREAM, own_variation
from ddplug.errors import OptionError
from ddplug.utils.checks import one_of, values_at_least
from ddplug.utils.randomness import nth_generator

__all__ = ["DistilledReplayPlugin"]

FINETUNE = 200
"""Steps of fine-tuning, unless they are said."""

ROWS = 100
"""Rows a step of a memory of coded images, at least, unless they are said."""

_KEPT = 8
"""Last batches of an experience whose differences serve the fine-tuning after it."""


@shows_memory_options
class DistilledReplayPlugin(SupervisedPlugin, supports_distributed=False):  # type: ignore[call-arg]
    """Replay from a distilled memory, or from any other storage policy.

    A memory of a few images says little in stock replay, which never repeats a sample inside a batch and takes a plain
    mean over all rows. Here it gets a loss of its own (``mode="loss"``): ``loss(current) + weight * loss(memory)``, on
    a memory batch drawn for each step. Metrics and other plugins see the batch of the stream alone. ``mode="batch"``
    is stock mixing with the memory repeated until each batch holds exactly ``batch_size_mem`` rows of it, also with
    ``drop_last=True``.

    Works with and without task labels. The memory's tensors are on the learner's device during an experience only;
    nothing but the policy and a few numbers is kept between experiences, so the plugin can be pickled there.

    Args:
        mem_size: the memory may take the bytes of so many images of the stream, at a byte a number; without
            ``distiller`` and ``codec`` as many coded images as fit (200 if nothing is said).
        mem_bytes: bytes of the memory instead, also as ``"8kB"``.
        storage_policy: a memory to use instead of a new :class:`~ddplug.avalanche.buffer.DistilledBuffer`.
        mode: ``"loss"`` or ``"batch"``.
        batch_size_mem: memory rows a step, beside the stream and in the fine-tuning. By default the learner's
            ``train_mb_size``, and of coded images no fewer than :data:`ROWS`, a loss of ten rows being too noisy for
            its weight; of coded drawings and numbers half as many beside the stream, and of drawings that have many
            bytes in the fine-tuning too (:attr:`~ddplug.avalanche.buffer.DistilledBuffer.replayed`). A memory that is
            no larger is used whole; a larger one is gone through in a random order, every row before any comes again.
        weight: of the memory's loss. ``"experiences"``: the number of experiences that were put into the memory, so
            that each weighs as much as the present one. ``"classes"``: groups in the memory over groups in the present
            experience. Or a number. On the parts of an online stream ``"experiences"`` means ``"classes"``: where an
            experience ends may not be known there, and the memory holds the present classes too.
        translate: strength with which memory rows are moved by differences between samples of the present classes, see
            :mod:`ddplug.avalanche.translation`; 0 for not at all. ``"auto"`` is 0 with a memory of many coded images
            and with a latent one (:attr:`~ddplug.avalanche.buffer.DistilledBuffer.replayed`); with others it is 1
            where the present experience brings classes that are new, and 0 where it brings another domain of known
            ones, which vary in another way. Without effect on mixed batches.
        augment: how memory rows are varied: operations of :mod:`ddplug.functional.augmentation` joined by ``_``, drawn
            for each row, or a function of one input ``(*shape)``, such as a torchvision transform; ``""`` for none;
            ``"stream"`` for the steps of the stream's ``train`` transforms that its ``eval`` transforms do not have,
            taken before a normalization (:mod:`ddplug.avalanche.variations`).
            ``"auto"`` varies coded ones in the fine-tuning alone, see :func:`ddplug.avalanche.replay.mild`: beside
            samples of the stream, which are not, they would be told apart by that. Without effect on mixed batches.
        batch_norm: ``"update"`` lets memory rows move running statistics, as stock replay does; ``"keep"`` normalizes
            them by their own batch and leaves the running statistics to the stream. Without effect on mixed batches.
        finetune_steps: steps of the learner's own optimizer on memory batches alone, in training mode, each time the
            memory has been updated (on online streams: made anew), unless it was empty before. Balanced fine-tuning:
            Castro et al., "End-to-End Incremental Learning", ECCV 2018, section 3.2. ``"auto"`` is
            :data:`FINETUNE` with a memory of coded images, half as many of drawings, and of drawings that have many
            bytes 300 (:attr:`~ddplug.avalanche.buffer.DistilledBuffer.replayed`); at most twice as many as the stream
            had since the last time, or three times for these; and else 0.
        **memory: fields of :class:`~ddplug.avalanche.options.MemoryOptions` for the new memory; ``seed`` is of every
            draw from it, too.

    Soft labels of a distilled memory are used by ``mode="loss"`` and by the fine-tuning as a cross-entropy with
    probabilities, cut or zero-padded to the present width of the output; mixed batches carry hard labels only.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> DistilledReplayPlugin(10, distiller="random", weight=2.0).storage_policy.max_size
        10
    """

    _iterations = 0
    """Of the stream since the memory was last made anew."""

    def __init__(
        self,
        mem_size: int | None = None,
        *,
        mem_bytes: int | str | None = None,
        storage_policy: Any = None,
        mode: str = "loss",
        batch_size_mem: int | None = None,
        weight: str | float = "experiences",
        translate: str | float = "auto",
        augment: Augment = "auto",
        batch_norm: str = "update",
        finetune_steps: int | str = "auto",
        **memory: Unpack[MemoryKeywords],
    ) -> None:
        super().__init__()
        one_of("mode", mode, ("batch", "loss"))
        one_of("batch_norm", batch_norm, ("keep", "update"))
        _check_number("weight", weight, ("classes", "experiences"))
        _check_number("translate", translate, ("auto",))
        _check_integer("batch_size_mem", 1 if batch_size_mem is None else batch_size_mem, 1)
        if finetune_steps != "auto":
            _check_integer("finetune_steps", finetune_steps, 0)
        check_augment(augment)
        self.storage_policy = make_policy(storage_policy, mem_size, mem_bytes, memory)
        if mode == "batch":
            refuse_latent(self.storage_policy, "mode='batch', which mixes inputs; leave it out")
        if augment == STREAM:
            refuse_latent(self.storage_policy, "augment='stream', which varies inputs; leave it out")
        self.mode = mode
        self.batch_size_mem = batch_size_mem
        self.weight = weight
        self.translate = translate
        self.augment = augment
        self.batch_norm = batch_norm
        self.finetune_steps = finetune_steps
        self.seed = memory.get("seed", 0)
        self.experiences = 0
        """Experiences put into the memory so far; the parts of an online stream do not count."""
        self._draws = 0
        self._memory: MemoryBatches | None = None
        self._moves: list[Tensor] = []
        self._factor = 0.0

    def before_train_dataset_adaptation(self, strategy: Any, **kwargs: Any) -> None:
        """Look at what is to be remembered, before anything is trained."""
        dataset = strategy.experience.dataset
        check_item(dataset)
        if self.augment == STREAM and len(dataset):
            own_variation(dataset)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Bring the memory to the device, or mix it into the loader."""
        read_directly(strategy.dataloader)
        if len(self.storage_policy.buffer) == 0:
            return
        if self.mode == "batch":
            size = self._size(strategy)
            memory = repeat_to_size(self.storage_policy.buffer, size, exactly=True)
            stock = ReplayPlugin(len(memory), batch_size_mem=size, storage_policy=_Fixed(memory, len(memory)))
            stock.before_training_exp(strategy, **kwargs)
        else:
            own = self._replayed
            self._memory = self._take(strategy, self._strength(strategy, own.translate), own.rows)
            self._factor = self._weigh(strategy, self._memory)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the memory's loss."""
        memory = self._memory
        if memory is None:
            return
        moves = None
        if memory.translate:
            moves = memory.moves(*_batch(strategy))
            self._moves = [*self._moves[1 - _KEPT :], moves]
        strategy.loss += self._factor * self._loss(strategy, memory, moves)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Update the memory, and fine-tune on it."""
        memory, self._memory = self._memory, None
        policy, online = self.storage_policy, isinstance(strategy.experience, OnlineCLExperience)
        self._iterations += strategy.clock.train_exp_iterations
        filled, updates = len(policy.buffer) > 0, getattr(policy, "updates", None)
        update(policy, strategy, **kwargs)
        self.experiences += not online and len(strategy.experience.dataset) > 0
        renewed = not online if updates is None else policy.updates != updates
        steps = self._steps()
        if steps and filled and renewed:
            self._finetune(strategy, steps, 0.0 if memory is None else memory.translate)
        if renewed:
            self._iterations = 0
        self._moves = []

    def _steps(self) -> int:
        """Return the steps of fine-tuning after the present experience."""
        if not isinstance(self.finetune_steps, str):
            return self.finetune_steps
        if not self._coded or self.mode != "loss":
            return 0
        longer = self._replayed.longer
        return round(min(longer * FINETUNE, max(1, longer) * 2 * self._iterations))

    @property
    def _replayed(self) -> Replayed:
        """How the memory is replayed, as far as nothing was said."""
        found: Replayed = getattr(self.storage_policy, "replayed", UNMEASURED)
        return found

    @property
    def _coded(self) -> bool:
        """Whether the memory holds many coded images."""
        return isinstance(self.storage_policy, DistilledBuffer) and self.storage_policy.coded

    @property
    def _latent(self) -> Latent | None:
        """Where the memory's features enter the learner."""
        return getattr(self.storage_policy, "latent", None)

    def _size(self, strategy: Any, share: float = 1.0) -> int:
        """Return the memory rows of a step, or a share of them unless they were said."""
        if self.batch_size_mem is not None:
            return self.batch_size_mem
        return math.ceil(share * max(int(strategy.train_mb_size), ROWS if self._coded else 0))

    def _take(self, strategy: Any, translate: float, share: float) -> MemoryBatches:
        """Bring the memory to the learner's device, with a generator of its own; batches have a share of the rows."""
        rows, soft = stored_rows(self.storage_policy)
        self._draws += 1
        rng = nth_generator(self.seed, self._draws)
        augment = "" if self.augment == "auto" else self.augment
        chosen = resolved(augment, tuple(rows.x.shape[1:]), strategy.experience.dataset)
        rows = Rows(*(tensor.to(strategy.device) for tensor in (rows.x, rows.y, rows.t)))
        soft = None if soft is None else soft.to(strategy.device)
        return MemoryBatches(rows, soft, self._size(strategy, share), chosen, rng, translate)

    def _strength(self, strategy: Any, translate: float) -> float:
        """Return the strength of translation in the present experience."""
        if not isinstance(self.translate, str):
            return float(self.translate)
        online = isinstance(strategy.experience, OnlineCLExperience)
        if translate and not online and pairs_of(strategy.experience.dataset) <= pairs_of(self.storage_policy.buffer):
            return 0.0
        return translate

    def _weigh(self, strategy: Any, memory: MemoryBatches) -> float:
        """Return the weight of the memory's loss in the present experience."""
        if not isinstance(self.weight, str):
            return float(self.weight)
        if self.weight == "experiences" and not isinstance(strategy.experience, OnlineCLExperience):
            return float(max(1, self.experiences))
        policy, rows = self.storage_policy, memory.rows
        distilled = isinstance(policy, DistilledBuffer)
        stored = len(policy.groups) if distilled else torch.stack([rows.t, rows.y]).unique(dim=1).shape[1]
        return stored / len(pairs_of(strategy.experience.dataset))

    def _loss(self, strategy: Any, memory: MemoryBatches, moves: Tensor | None) -> Tensor:
        """Return the learner's loss on a memory batch."""
        x, y, t, soft = memory.batch(moves)
        latent = self._latent
        entered = nullcontext() if latent is None else latent.entered(strategy.model, x)
        # the learner's own forward: it knows when a model takes task labels
        kept, strategy.mbatch = strategy.mbatch, [x if latent is None else latent.blanks(x), y, t]
        try:
            with _running_statistics(strategy.model, self.batch_norm == "update"), entered:
                out = strategy.forward()
        finally:
            strategy.mbatch = kept
        loss: Tensor = strategy._criterion(out, y) if soft is None else cross_entropy(out, match_width(soft, out))
        return loss

    def _finetune(self, strategy: Any, steps: int, translate: float) -> None:
        memory = self._take(strategy, translate, self._replayed.tuning)
        training = strategy.model.training
        if self.augment == "auto" and self._coded and self._latent is None:
            memory.augment = mild
        moves = torch.cat(self._moves) if self._moves else None
        strategy.model.train()
        for _ in range(steps):
            strategy.optimizer.zero_grad()
            self._loss(strategy, memory, moves).backward()
            strategy.optimizer.step()
        strategy.model.train(training)


@dataclass(frozen=True)
class _Fixed:
    """As much of a storage policy as the stock plugin looks at."""

    buffer: Any
    max_size: int


MEM_SIZE = 200
"""Images whose bytes a memory may take if nothing is said."""


def make_policy(policy: Any, mem_size: int | None, mem_bytes: int | str | None, options: Mapping[str, Any]) -> Any:
    """Return the policy, or a new memory with the options.

    Raises:
        OptionError: both are given, the policy is none, or an option is unknown.
    """
    MemoryOptions.check_names(options)
    if policy is None:
        if mem_bytes is not None and mem_size is not None:
            raise OptionError(f"mem_size is {mem_size} and mem_bytes is {mem_bytes}; give only one of them")
        size = MEM_SIZE if mem_size is None else mem_size
        memory = MemoryOptions(**options)
        if mem_bytes is None and not memory.coded:  # whole images are counted as such
            return DistilledBuffer(size, options=memory)
        values_at_least(1, mem_size=size)
        return DistilledBuffer(max_bytes=f"{size} images" if mem_bytes is None else mem_bytes, options=memory)
    if not isinstance(policy, ExemplarsBuffer):
        raise OptionError(f"storage_policy is a {type(policy).__name__}; it must be an avalanche ExemplarsBuffer")
    given = {
        *options,
        *(name for name, value in (("mem_size", mem_size), ("mem_bytes", mem_bytes)) if value is not None),
    }
    extra = ", ".join(sorted(given - {"seed"}))
    if extra:
        raise OptionError(f"{extra} would make a new memory beside storage_policy; give them to the policy itself")
    return policy


def refuse_latent(policy: Any, where: str) -> None:
    """Refuse a latent memory where it would be taken for inputs.

    Raises:
        OptionError: the memory holds features.
    """
    options = getattr(policy, "options", None)
    if options is not None and options.features is not None:
        raise OptionError(f"features={options.features!r} is for DistilledReplay and its plugin, not for {where}")


def update(policy: Any, strategy: Any, **kwargs: Any) -> None:
    """Put the present experience into a memory; a policy that knows only the old ``update`` gets that."""
    if type(policy).post_adapt is not ExemplarsBuffer.post_adapt:
        policy.post_adapt(strategy, strategy.experience)
    else:
        policy.update(strategy, **kwargs)


def _check_integer(name: str, value: Any, low: int) -> None:
    """Refuse what is not an integer from ``low`` on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise OptionError(f"{name} is {value!r}; it must be an integer of at least {low}")


def _check_number(name: str, value: str | float, words: tuple[str, ...]) -> None:
    if isinstance(value, str):
        one_of(name, value, words)
    elif not 0 <= value < math.inf:
        raise OptionError(f"{name} is {value}; it must be a finite number of at least 0, or {' or '.join(words)}")


def _batch(strategy: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, labels and task labels of the present batch of the stream."""
    x, y, *rest = strategy.mbatch
    return x, y, rest[-1] if rest else torch.zeros_like(y)


@contextmanager
def _running_statistics(module: nn.Module, move: bool) -> Iterator[None]:
    """Let batch normalization use a batch's own statistics without noting them, unless they are to move."""
    if move:
        yield
        return
    norms = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    held = [m for m in module.modules() if isinstance(m, norms) and m.training and m.track_running_stats]
    for layer in held:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in held:
            layer.track_running_stats = True
