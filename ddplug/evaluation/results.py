"""Judge a set: train fresh networks on it, test them on real data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ddplug.data.anything import Data, as_labeled
from ddplug.data.labeled import LabeledData
from ddplug.errors import DataError
from ddplug.evaluation.train import Trainable, train_each
from ddplug.functional import augmentation as augment
from ddplug.networks.batching import batch_pieces
from ddplug.networks.factory import Network, name_of, suited
from ddplug.networks.forms import AUTO, form_of
from ddplug.networks.functional import stateless
from ddplug.synthetic.compat import same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import values_at_least, whole
from ddplug.utils.devices import pick_device
from ddplug.utils.randomness import seeded
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.text import percent

__all__ = ["Evaluation", "accuracy", "cross_architecture", "evaluate", "judge"]

NETWORKS = ("convnet", "mlp", "lenet", "alexnet", "vgg11", "resnet18")
"""The networks of the papers' cross-architecture tables."""

_OTHERS = {"series": ("conv1d", "conv1d:norm=batch", "mlp"), "row": ("mlp", "mlp:depth=2", "mlp:depth=1")}
"""Form of data that are no images -> the networks of a table for them."""


@dataclass(frozen=True)
class Evaluation:
    """Test accuracies of networks trained on a set.

    Attributes:
        accuracies: of the networks after their last epoch, in [0, 1].
        network: name of the architecture, with options.
        recipe: how the networks were trained.
        seconds: for all of it.
    """

    accuracies: tuple[float, ...]
    network: str
    recipe: Recipe
    seconds: float

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

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "network": self.network,
            "mean": self.mean,
            "std": self.std,
            "n": self.n,
            "accuracies": list(self.accuracies),
            "recipe": self.recipe.to_json(),
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
    guesses = torch.cat([module(x[piece]).argmax(1) for piece in batch_pieces(module, x[:1], len(x))])
    return (guesses == data.targets[index.to(data.device)].to(device)).sum()


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
    progress: bool = False,
) -> Evaluation:
    """Train one fresh network on each of several sets, and test them all.

    Args:
        data: what to train on, as for :func:`~ddplug.evaluation.train.train_each`.
        test: real data in the same model space.
        network: name with options, or a function that builds one.
        recipe: how to train.
        seed: of initializations, orders and augmentations.
        device: to work on.
        steps: SGD steps; the recipe's epochs if not given.
        progress: show a progress bar.

    Returns:
        The accuracies, one a set.
    """
    began, rng, network = time.monotonic(), seeded(seed), suited(network, test.shape)
    modules = train_each(data, network, recipe, rng=rng, device=device, steps=steps, progress=progress)
    accuracies = tuple(accuracy(module, test) for module in modules)
    return Evaluation(accuracies, name_of(network), recipe, time.monotonic() - began)


@own_surroundings()
def evaluate(
    synthetic: SyntheticSet,
    test: Data,
    *,
    network: Network = AUTO,
    repeats: int = 5,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> Evaluation:
    """Train fresh networks on a set and test them on real data, after their last epoch.

    Nothing is chosen on the test data. They go through the set's own preprocessing, whatever theirs.

    Args:
        synthetic: the set.
        test: real data that the set was not made from, see :func:`ddplug.data.as_labeled`.
        network: name with options, or a function that builds one; see :func:`ddplug.networks.build`.
        repeats: networks to train, at least 1.
        recipe: how to train; the set's own if not given. :meth:`~ddplug.synthetic.Recipe.quick` is a fast one.
        seed: of initializations, orders and augmentations.
        device: see :func:`ddplug.utils.devices.pick_device`.
        progress: show a progress bar.

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
    repeats = whole("repeats", repeats)
    values_at_least(1, repeats=repeats)
    place = pick_device(device)
    test = same_space(synthetic, test, "test", place)
    sets = [synthetic.to(place)] * repeats
    return judge(sets, test, network, recipe or synthetic.recipe, seed=seed, device=place, progress=progress)


@own_surroundings()
def cross_architecture(
    synthetic: SyntheticSet,
    test: Data,
    networks: Sequence[Network] | None = None,
    *,
    repeats: int = 5,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> list[Evaluation]:
    """Evaluate a set with several architectures.

    Args:
        synthetic: the set.
        test: real data that the set was not made from, see :func:`ddplug.data.as_labeled`.
        networks: names with options, or functions that build one; if not given those of the papers' tables for
            images, and a few each for series and rows of numbers.
        repeats: networks to train of each architecture, at least 1.
        recipe: how to train; the set's own if not given.
        seed: of each evaluation.
        device: see :func:`ddplug.utils.devices.pick_device`.
        progress: show a progress bar.

    Returns:
        An evaluation for each architecture, in order.

    Raises:
        OptionError: as for :func:`evaluate`; an architecture that does not suit the inputs is named before any is
            trained.
        DataError: set and data do not fit together.
    """
    test = as_labeled(test, "test")
    augment.check((recipe or synthetic.recipe).augment, synthetic.shape)
    networks = _OTHERS.get(form_of(synthetic.shape), NETWORKS) if networks is None else networks
    for network in networks:
        stateless(network, synthetic.shape, synthetic.num_classes, training=False)  # which refuses what does not fit
    options: dict[str, Any] = {"recipe": recipe, "seed": seed, "device": device, "progress": progress}
    return [evaluate(synthetic, test, network=network, repeats=repeats, **options) for network in networks]
