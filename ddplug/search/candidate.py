"""Train and score one candidate network on a set, as the set's own recipe says.

Interim scores are taken on a part of the validation split that is equal for all candidates, and so small that all of
them together cost at most 3 % of training and final scoring (or 32 images, if that is more). A candidate is judged on
the whole split, at the end.

Batch normalization keeps averages over about its last ten steps. After a training as short as proxies are, they are of
weights long gone, or still of the initial ones, and the network guesses whatever it has learned. So the averages are
taken anew before it is judged.

Candidates of one process take turns, also where threads ask at once: the random state that weights and dropout are
drawn from is one for the process.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity
from ddplug.errors import DivergedError, OptionError
from ddplug.evaluation.results import accuracy
from ddplug.evaluation.train import fit, steps_of
from ddplug.networks.factory import check_outputs
from ddplug.search.protocol import HopelessError, OverTimeError, Protocol, Result, over_time, reason
from ddplug.search.sets import widened
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.devices import pick_device
from ddplug.utils.randomness import spawn, temporary_seed
from ddplug.utils.surroundings import own_surroundings

__all__ = ["Report", "fitted", "forward_flops", "images_of", "train_and_score"]

Report = Callable[[float, int], object]
"""Is told an interim accuracy, and the training steps taken so far, those of earlier seeds included."""

INTERIM_SHARE = 0.03
"""Cost of all interim scores, as a share of that of training and final scoring."""
SHORT = 1000
"""Most steps of a training after which the averages of batch normalization are taken anew."""
STATISTICS = 256
"""Most images that they are taken over."""
_MOST_INTERIM = 9
_LEAST_IMAGES = 32

_turn = threading.RLock()


class _ToldError(Exception):
    """What the listener to interim accuracies raised; that is no failure of the candidate."""


def _sizes(recipe: Recipe, samples: int) -> list[int]:
    """Return the sizes of the batches of an epoch, as :func:`ddplug.evaluation.train.fit` cuts them."""
    number = -(-samples // recipe.batch_size)
    if recipe.steps:
        return [samples // number + (n < samples % number) for n in range(number)]
    return [recipe.batch_size] * (number - 1) + [samples - (number - 1) * recipe.batch_size]


def images_of(recipe: Recipe, samples: int) -> int:
    """Return the images that a training passes.

    Args:
        recipe: how it is done.
        samples: in the set.

    Example:
        Three epochs pass all images three times; three steps of 64 on 100 images pass 50 each.

        >>> images_of(Recipe(epochs=3), 100), images_of(Recipe(steps=3, batch_size=64), 100)
        (300, 150)
    """
    sizes = _sizes(recipe, samples)
    epochs, rest = divmod(steps_of(recipe, samples), len(sizes))
    return epochs * samples + sum(sizes[:rest])


class _Repeated(nn.Module):
    """A network for colored images that is given gray ones."""

    def __init__(self, module: nn.Module, channels: int) -> None:
        super().__init__()
        self.module = module
        self.channels = channels

    def forward(self, x: Tensor) -> Any:
        return self.module(widened(x, self.channels))


def fitted(module: Any, train: SyntheticSet, channels: int | None, device: torch.device) -> nn.Module:
    """Bring a network to a device, repeat the channel for it, and refuse it where its outputs do not fit.

    Args:
        module: what a space made.
        train: what it is to be trained on, on the device.
        channels: see :class:`Protocol`.
        device: where to train.

    Returns:
        The network, in training mode.

    Raises:
        OptionError: it is no module, nothing in it can be trained, its layers do not take such inputs, or it does not
            give one logit a class.
    """
    if not isinstance(module, nn.Module):
        raise OptionError(f"the space made a {type(module).__name__}; it must make a torch.nn.Module")
    if channels is not None:
        widened(train[:1][0], channels)
        module = _Repeated(module, channels)
    placed: nn.Module = module.to(device)
    check_outputs(placed, train[:1][0], train.num_classes)
    return placed


def forward_flops(module: nn.Module, sample: Tensor) -> float | None:
    """Count the floating-point operations of one input; ``None`` where counting fails."""
    module.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(sample)
        return float(counter.get_total_flops())
    except Exception:
        return None
    finally:
        module.train()


def _has_averages(module: nn.Module) -> bool:
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


class _Candidate:
    """One candidate at work: where it is scored on the way, when it must end and what it has cost."""

    def __init__(self, train: SyntheticSet, validation: SyntheticSet, protocol: Protocol, report: Report) -> None:
        self.protocol = protocol
        self.recipe = protocol.recipe(train.recipe)
        self.recipe.check(train.shape)
        self.device = pick_device(protocol.device)
        self.train = train.to(self.device)
        self.validation = _labeled(validation).to(self.device)
        self.report = report
        self.sizes = _sizes(self.recipe, len(train))
        self._plan()
        self.accuracies: list[float] = []
        self.interim: list[float] = []
        self.at: list[int] = []
        self.before = 0
        self.stopped: str | None = None
        self.images = self.scored = 0
        self.forward: float | None = None
        self.began = time.perf_counter()

    def _plan(self) -> None:
        """Choose the steps of the interim scores and the part of the validation split that they look at."""
        # trainings by epochs are looked at after whole ones
        each, name = (1, "step") if self.recipe.steps else (len(self.sizes), "epoch")
        units, n = steps_of(self.recipe, len(self.train)) // each, len(self.validation)
        budget = int(INTERIM_SHARE * (3 * images_of(self.recipe, len(self.train)) + n))
        number = min(_MOST_INTERIM, units - 1, max(1, budget // _LEAST_IMAGES))
        self.points = {round(k * units / (number + 1)) * each for k in range(1, number + 1)}
        self.judged = math.inf
        if self.protocol.patience is not None and units > 1:
            self.judged = max(1, min(units - 1, math.ceil(self.protocol.patience * units))) * each
            self.points.add(int(self.judged))
        self.unit = each, name
        size = min(n, max(_LEAST_IMAGES, budget // max(1, len(self.points))))
        # equal for all candidates, whatever their seed
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        self.part = self.validation.subset(order[:size].sort().values)
        guess = float(torch.bincount(self.validation.targets).max()) / n
        self.hope = guess + 2 * math.sqrt(guess * (1 - guess) / size)

    def run(self, build: Callable[[torch.Generator], nn.Module], seed: int) -> None:
        """Train and score with one seed."""
        own, order = spawn(torch.Generator().manual_seed(seed), 2)
        with temporary_seed(seed, self.device):
            module = fitted(build(own), self.train, self.protocol.channels, self.device)
            if not self.accuracies:
                self._count(module)
        step = 0

        def tick(networks: int) -> None:
            nonlocal step
            self.images += self.sizes[step % len(self.sizes)]
            step += 1
            self._keep_time()
            if step in self.points:
                self._look(module, step)

        try:
            fit([module], [self.train], self.recipe, [order], tick=tick)
        except HopelessError as stop:
            self.stopped = str(stop)
        self._refresh(module, step)
        self.before += steps_of(self.recipe, len(self.train))
        self.accuracies.append(accuracy(module, self.validation))
        self.scored += len(self.validation)

    def _refresh(self, module: nn.Module, step: int) -> None:
        """Take the averages of batch normalization anew, over images as they are trained on but for augmentation."""
        if step > SHORT or not _has_averages(module):
            return
        # imported here: it brings a compiler, for seconds
        from torch.optim.swa_utils import update_bn

        n = min(len(self.train), STATISTICS)
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(0))
        inputs = self.train[order[:n].to(self.device)][0]
        with temporary_seed(0, self.device):  # dropout is at work meanwhile
            # none smaller than in training: batch normalization refuses a single image
            update_bn(inputs.tensor_split(max(1, n // self.recipe.batch_size)), module)
        self.scored += n

    def _count(self, module: nn.Module) -> None:
        """Count the operations of one input; that is no part of the candidate's time."""
        before = time.perf_counter()
        self.forward = forward_flops(module, self.train[:1][0])
        self.began += time.perf_counter() - before

    def _keep_time(self) -> None:
        limit = self.protocol.time_limit
        if limit is not None and time.perf_counter() - self.began > limit:
            raise OverTimeError(over_time(limit))

    def _look(self, module: nn.Module, step: int) -> None:
        """Take an interim score."""
        if not all(bool(p.isfinite().all()) for p in module.parameters()):
            # the same words as at the end of the training
            rate = self.recipe.learning_rate
            raise DivergedError(f"training diverged to NaN or infinity with learning_rate={rate}; lower it")
        if step >= self.judged:
            self._refresh(module, step)
        value = accuracy(module, self.part)
        self.scored += len(self.part)
        self.interim.append(value)
        self.at.append(self.before + step)
        try:
            self.report(value, self.at[-1])
        except Exception as error:
            raise _ToldError from error
        if step >= self.judged and value <= self.hope:
            each, name = self.unit
            raise HopelessError(f"guessing: {value:.3f} of {len(self.part)} right after {name} {step // each}")

    def result(self, failure: str | None) -> Result:
        """Sum up."""
        flops = None if self.forward is None else self.forward * (3 * self.images + self.scored)
        return Result(
            metric=None if failure else sum(self.accuracies) / len(self.accuracies),
            failure=failure,
            accuracies=tuple(self.accuracies),
            intermediate=tuple(self.interim),
            stopped=self.stopped,
            seconds=time.perf_counter() - self.began,
            images=self.images,
            flops=flops,
            at=tuple(self.at),
        )


def _labeled(validation: SyntheticSet) -> LabeledData:
    """Return a set of real images, which are in model space already, as data to be scored on."""
    names, targets = validation.class_names, validation.hard_targets
    return LabeledData(validation.enlarged().inputs, targets, validation.num_classes, Identity(), names, "validation")


def train_and_score(
    build: Callable[[torch.Generator], nn.Module],
    train: SyntheticSet,
    validation: SyntheticSet,
    protocol: Protocol,
    *,
    report: Report = lambda accuracy, step: None,
) -> Result:
    """Train a candidate on a set with each seed and score it on real data; a candidate that fails is a result too.

    The global random state is lent to the candidate and put back, one candidate of the process at a time.

    Args:
        build: makes the candidate from a generator of its own; called once a seed, while the global generators of
            torch are seeded with it, so that the weights depend on the seed alone.
        train: what to train on.
        validation: real data with hard labels, in the model space of ``train``, see
            :func:`ddplug.search.sets.check_pair`; its classes may be in another order.
        protocol: how.
        report: called with every interim accuracy and the steps taken before it; what it raises goes through.

    Returns:
        Accuracy, or why there is none, and the costs. An exception of the candidate (also out of memory, outputs that
        do not fit, divergence, the time limit) is in ``failure``.

    Raises:
        OptionError: the protocol does not suit the set or the machine.

    Example:
        >>> from ddplug.distillation.loop import distill
        >>> from ddplug.networks.factory import build
        >>> from ddplug.testing import toy_images
        >>> data = toy_images((12, 11))
        >>> made = distill(data, "random", device="cpu")
        >>> real = SyntheticSet(data.batch(torch.arange(23)), data.targets, 2, data.preprocess)
        >>> result = train_and_score(lambda rng: build("mlp", made.shape, 2, rng), made, real,
        ...                          Protocol(epochs=5, device="cpu"))
        >>> result.images, result.failure, len(result.accuracies)
        (100, None, 1)
    """
    with _turn:
        return _train_and_score(build, train, validation, protocol, report)


@own_surroundings()
def _train_and_score(
    build: Callable[[torch.Generator], nn.Module],
    train: SyntheticSet,
    validation: SyntheticSet,
    protocol: Protocol,
    report: Report,
) -> Result:
    candidate, failure = _Candidate(train, validation.in_order_of(train.class_names), protocol, report), None
    try:
        for seed in range(protocol.seed, protocol.seed + protocol.seeds):
            candidate.run(build, seed)
    except _ToldError as told:
        raise told.__cause__ or told from None
    except Exception as error:
        failure = reason(error)
    if failure and candidate.device.type == "cuda":
        torch.cuda.empty_cache()  # what a candidate too large has left behind
    return candidate.result(failure)
