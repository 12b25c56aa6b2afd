"""Judge a set: train fresh networks on it, test them on real data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddplug.data.anything import Data
from ddplug.data.labeled import LabeledData
from ddplug.errors import DataError
from ddplug.evaluation.finished import Finished, Found, digest
from ddplug.evaluation.pace import Load, Pace
from ddplug.evaluation.protocols import described, named, precisions, settled
from ddplug.evaluation.run import Progress, Run
from ddplug.evaluation.train import Trainable, steps_of, train_each
from ddplug.networks.batching import batch_pieces
from ddplug.networks.factory import Network, name_of, suited
from ddplug.networks.forms import AUTO, form_of
from ddplug.networks.functional import stateless
from ddplug.networks.precision import PRECISIONS, applied, computing
from ddplug.synthetic.compat import same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.given import AnySet, as_set
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import values_at_least, whole
from ddplug.utils.devices import pick_device
from ddplug.utils.randomness import seeded
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.teams import exchanged, team
from ddplug.utils.text import percent

__all__ = [
    "Evaluation",
    "accuracy",
    "check_networks",
    "cross_architecture",
    "evaluate",
    "judge",
    "load",
    "weigh",
]

NETWORKS = ("convnet", "mlp", "lenet", "alexnet", "vgg11", "resnet18")
"""The networks of the papers' cross-architecture tables."""

_OTHERS = {"series": ("conv1d", "conv1d:norm=batch", "mlp"), "row": ("mlp", "mlp:depth=2", "mlp:depth=1")}
"""Form of data that are no images -> the networks of a table for them."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Test accuracies of networks trained on a set.

    Attributes:
        accuracies: of the networks after their last epoch, in [0, 1].
        network: name of the architecture, with options.
        recipe: how the networks were trained.
        seconds: for all of it.
        learned: whether they were trained by the steps and rates that were learned with the set, not by the recipe.
        precision: that they computed in, ``"float32"`` or ``"bfloat16"``.
    """

    accuracies: tuple[float, ...]
    network: str
    recipe: Recipe
    seconds: float
    learned: bool = False
    precision: str = PRECISIONS[0]

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Standard deviation over the networks, as the papers take it (divided by their number)."""
        return statistics.pstdev(self.accuracies)

    @property
    def n(self) -> int:
        """Number of networks."""
        return len(self.accuracies)

    @property
    def text(self) -> str:
        """Mean and standard deviation in percent, ``97.3 ± 0.2``; the mean alone of one network."""
        return percent(self.mean, self.std, self.n)

    @property
    def protocol(self) -> str:
        """What the training is called: ``"learned"``; or by the recipe ``"quick"``, ``"paper"`` or ``"own"``."""
        return "learned" if self.learned else named(self.recipe)

    @property
    def how(self) -> str:
        """The protocol and how long it is, ``quick (60 epochs)``, with the precision where it is not float32."""
        return self.protocol if self.learned else described(self.recipe, self.precision)

    def __repr__(self) -> str:
        networks = "1 network" if self.n == 1 else f"{self.n} networks"
        return f"Evaluation({self.text} %, {networks} {self.network}, {self.how})"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "network": self.network,
            "protocol": self.protocol,
            "mean": self.mean,
            "std": self.std,
            "n": self.n,
            "accuracies": list(self.accuracies),
            "recipe": self.recipe.to_json(),
            "precision": self.precision,
            "seconds": self.seconds,
        }


@own_surroundings()
def accuracy(module: nn.Module, data: LabeledData, batch_size: int = 256) -> float:
    """Measure the share of samples that a network labels rightly.

    Args:
        module: a network; it is left in the mode it was in.
        data: real data in the network's model space; they are read a batch at a time.
        batch_size: samples to read at once, at least 1.

    Returns:
        The accuracy, in [0, 1].

    Raises:
        OptionError: the batch size is less than 1.
        DataError: there are no data.
    """
    batch_size = whole("batch_size", batch_size)
    values_at_least(1, batch_size=batch_size)
    if len(data) == 0:
        raise DataError(f"data {data.name!r} have 0 samples to measure an accuracy on; give at least one")
    parameter = next(module.parameters(), None)
    device = data.device if parameter is None else parameter.device
    training = module.training
    module.eval()
    try:
        right = sum((_right(module, data, index, device) for index in torch.arange(len(data)).split(batch_size)), 0)
    finally:
        module.train(training)
    return int(right) / len(data)


@torch.no_grad()
def _right(module: nn.Module, data: LabeledData, index: Tensor, device: torch.device) -> Tensor:
    """Count the samples of a batch that a network labels rightly, on the device."""
    x = data.batch(index).to(device)
    guesses = torch.cat([applied(module, x[piece]).argmax(1) for piece in batch_pieces(module, x[:1], len(x))])
    return (guesses == data.labels(index).to(device)).sum()


@own_surroundings()
def judge(
    data: Sequence[Trainable],
    test: LabeledData,
    network: Network,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    steps: int | None = None,
    precision: str = PRECISIONS[0],
    run: Run | None = None,
) -> Evaluation:
    """Train one fresh network on each of several sets, and test them all.

    Processes that work together (:mod:`ddplug.utils.teams`) train some of the networks each.

    Args:
        data: what to train on, as for :func:`~ddplug.evaluation.train.train_each`.
        test: real data in the same model space.
        network: name with options, or a function that builds one.
        recipe: how to train.
        seed: of initializations, orders and augmentations.
        device: to work on.
        steps: SGD steps; the recipe's epochs if not given.
        precision: one of :data:`ddplug.networks.precision.PRECISIONS`, to train and test in.
        run: what this is the next row of; networks that it has already are not trained again.

    Returns:
        The accuracies, one a set.
    """
    run, network, share = run or Run(), suited(network, test.shape), team()
    pace = run.pace or Pace([Load("", len(data), 1, 1, 0)], lambda line: None, "")
    told: dict[str, Any] = {"seed": seed, "device": device, "steps": steps, "precision": precision}
    key = digest(data, test, network, recipe, **told) if run.finished.keeps else None
    found = _shared(run.finished.find(key))
    pace.begin()
    pace.skip(len(found))
    began = time.monotonic()

    def test_all(modules: Mapping[int, nn.Module]) -> None:
        nonlocal began
        rights = {k: accuracy(module, test) for k, module in modules.items()}
        seconds = (time.monotonic() - began) / max(1, len(modules))
        new = _shared({k: (right, seconds) for k, right in rights.items()})
        found.update(new)
        run.finished.put(key, new)
        began = time.monotonic()

    with computing(precision):
        train_each(
            data, network, recipe, rng=seeded(seed), device=device, steps=steps, progress=run.bars,
            tick=lambda networks: pace.tick(networks * share.size), ready=test_all, done=tuple(found), share=share,
        )  # fmt: skip
    rows = [found[k] for k in range(len(data))]
    accuracies, seconds = tuple(row[0] for row in rows), sum(row[1] for row in rows)
    result = Evaluation(accuracies, name_of(network), recipe, seconds, precision=precision)
    pace.end(f"{result.text} %")
    return result


def _shared(found: Found) -> Found:
    """Return what all processes that work together have found; by itself what is given."""
    if team().size == 1:
        return found
    rows = torch.tensor([(k, *row) for k, row in found.items()], dtype=torch.float64).view(-1, 3)
    parts = exchanged(lambda: [{"rows": rows}])
    return {int(k): (right, seconds) for (part,) in parts for k, right, seconds in part["rows"].tolist()}


@own_surroundings()
def evaluate(
    synthetic: AnySet,
    test: Data,
    *,
    network: Network = AUTO,
    repeats: int = 5,
    recipe: Recipe | str | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: Progress = False,
    checkpoint: str | Path | None = None,
    precision: str = PRECISIONS[0],
) -> Evaluation:
    """Train fresh networks on a set and test them on real data, after their last epoch.

    Nothing is chosen on the test data. They go through the set's own preprocessing, whatever theirs.

    Args:
        synthetic: the set, or the file of one.
        test: real data that the set was not made from, see :func:`ddplug.data.as_labeled`.
        network: name with options, or a function that builds one; see :func:`ddplug.networks.build`.
        repeats: networks to train, at least 1.
        recipe: how to train, or ``"set"`` for as the set says, ``"paper"`` for as published, or ``"quick"``. If not
            given, as the set says; but where that is as published and the device a CPU, quickly.
        seed: of initializations, orders and augmentations.
        device: see :func:`ddplug.utils.devices.pick_device`.
        progress: say on standard error how long it takes, if it is long, and show a progress bar; or a function that
            takes the lines.
        checkpoint: file that keeps the accuracies of networks that are done until all are; if it is stopped, the same
            call goes on from there. Networks that a function builds are trained anew.
        precision: that networks are trained and tested in, ``"float32"`` or ``"bfloat16"`` (autocast; weights, losses
            and the optimizer stay float32), which is faster where the machine has units for it; ``"auto"`` tries both
            for a moment with each network. See :func:`ddplug.distill`.

    Returns:
        The accuracies.

    Raises:
        OptionError: an option is unknown or outside its range, or does not suit the data.
        DataError: set and data do not fit together.
        DivergedError: a network became NaN or infinite.

    Example:
        >>> from ddplug.distillation.loop import distill
        >>> from ddplug.testing import toy_images
        >>> train, test = toy_images((20, 20)).split(0.4)
        >>> made = distill(train, "random", device="cpu")
        >>> evaluate(made, test, network="mlp", repeats=2, recipe=Recipe(epochs=20), device="cpu").accuracies
        (1.0, 1.0)

    Reference: Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, section 4.1.
    """
    return _each(
        synthetic, test, [network], repeats, recipe, precision,
        seed=seed, device=device, progress=progress, checkpoint=checkpoint,
    )[0]  # fmt: skip


@own_surroundings()
def cross_architecture(
    synthetic: AnySet,
    test: Data,
    networks: Network | Sequence[Network] | None = None,
    *,
    repeats: int = 5,
    recipe: Recipe | str | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: Progress = False,
    checkpoint: str | Path | None = None,
    precision: str = PRECISIONS[0],
) -> list[Evaluation]:
    """Evaluate a set with several architectures.

    Args:
        synthetic: the set, or the file of one.
        test: real data that the set was not made from, see :func:`ddplug.data.as_labeled`.
        networks: names with options, or functions that build one, or a single one; if not given those of the papers'
            tables for images, and a few each for series and rows of numbers.
        repeats: networks to train of each architecture, at least 1.
        recipe: how to train, see :func:`evaluate`.
        seed: of each evaluation.
        device: see :func:`ddplug.utils.devices.pick_device`.
        progress: see :func:`evaluate`.
        checkpoint: see :func:`evaluate`.
        precision: see :func:`evaluate`.

    Returns:
        An evaluation for each architecture, in order.

    Raises:
        OptionError: as for :func:`evaluate`; an architecture that does not suit the inputs is named before any is
            trained.
        DataError: set and data do not fit together.
    """
    synthetic = as_set(synthetic)
    networks = _OTHERS.get(form_of(synthetic.shape), NETWORKS) if networks is None else networks
    networks = [networks] if isinstance(networks, str) or callable(networks) else networks
    return _each(
        synthetic, test, networks, repeats, recipe, precision,
        seed=seed, device=device, progress=progress, checkpoint=checkpoint,
    )  # fmt: skip


def _each(
    synthetic: AnySet,
    test: Data,
    networks: Sequence[Network],
    repeats: int,
    recipe: Recipe | str | None,
    precision: str,
    *,
    seed: int,
    device: str | torch.device,
    progress: Progress,
    checkpoint: str | Path | None,
) -> list[Evaluation]:
    """Evaluate a set with one architecture after the other."""
    synthetic, repeats = as_set(synthetic), whole("repeats", repeats)
    values_at_least(1, repeats=repeats)
    place = pick_device(device)
    test, recipe = same_space(synthetic, test, "test", place), settled(recipe, synthetic.recipe, place)
    recipe.check(synthetic.shape)
    networks = [suited(network, synthetic.shape) for network in networks]
    check_networks(synthetic, networks)
    moved, finished = synthetic.to(place), Finished(checkpoint)
    sets = [moved] * repeats
    begun = finished.begun(sets, test, recipe, seed=seed, device=place)
    rounded = precisions(precision, networks, synthetic.shape, synthetic.num_classes, place, begun)
    weights = weigh(moved, networks, recipe, seed, place, rounded) if progress else [1.0] * len(networks)
    loads = [
        load(name_of(network), synthetic, recipe, repeats, len(test), weight=weight)
        for network, weight in zip(networks, weights, strict=True)
    ]
    what = f"training {repeats * len(loads)} networks, {described(recipe, *list(rounded.values())[:1])},"
    run = Run(loads, what, progress, finished, quick=named(recipe) == "quick")
    found = [
        judge(sets, test, network, recipe, seed=seed, device=place, precision=rounded[network], run=run)
        for network in networks
    ]
    run.finished.forget()
    return found


def check_networks(synthetic: SyntheticSet, networks: Sequence[Network]) -> None:
    """Refuse a network that does not suit a set, before minutes of training of another.

    Raises:
        OptionError: it does not.
    """
    for network in networks:
        stateless(network, synthetic.shape, synthetic.num_classes, training=False)


def load(
    name: str,
    data: Trainable | int,
    recipe: Recipe,
    networks: int,
    tested: int,
    *,
    steps: int | None = None,
    weight: float = 1.0,
) -> Load:
    """Tell what a row costs.

    Args:
        name: of the row.
        data: that each network is trained on, or the number of its samples.
        recipe: how to train.
        networks: to train.
        tested: samples to test each on.
        steps: SGD steps; the recipe's if not given.
        weight: of the architecture.
    """
    samples = data if isinstance(data, int) else len(data)
    batch = samples / -(-samples // recipe.batch_size)
    return Load(name, networks, steps_of(recipe, samples) if steps is None else steps, batch, tested, weight)


def weigh(
    synthetic: SyntheticSet,
    networks: Sequence[Network],
    recipe: Recipe,
    seed: int,
    device: torch.device,
    rounded: Mapping[Network, str],
) -> list[float]:
    """Measure what a step costs with each of several architectures; where there is one, it need not be known."""
    if len(networks) < 2:
        return [1.0] * len(networks)
    found = []
    for network in networks:
        times: list[float] = []

        def tick(networks: int, times: list[float] = times) -> None:
            times.append(time.monotonic())

        with computing(rounded[network]):
            train_each([synthetic], network, recipe, rng=seeded(seed), device=device, steps=2, tick=tick)
        found.append(times[1] - times[0])  # the first step warms up
    return found
