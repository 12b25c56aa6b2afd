"""Compare a set with what else its bytes could hold, and with training on all the real data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from ddplug.data.anything import Data
from ddplug.data.labeled import LabeledData
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.storage import BudgetError, Storage, reduced_to
from ddplug.errors import OptionError
from ddplug.evaluation.results import Evaluation, judge
from ddplug.networks.factory import Network, name_of
from ddplug.networks.functional import stateless
from ddplug.registry import resolve
from ddplug.synthetic.budget import images_within
from ddplug.synthetic.compat import same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import values_at_least
from ddplug.utils.checks import whole as as_whole
from ddplug.utils.devices import pick_device
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.text import markdown

__all__ = ["HEAD", "WHOLE_RECIPE", "Comparison", "Row", "compare", "sized_like"]

WHOLE_RECIPE = Recipe(learning_rate=0.05, batch_size=64, schedule="cosine")
"""How a network is trained on all the real data; the number of steps is an option of :func:`compare`."""


HEAD = ("training data", "images per class", "bytes", "bits per class", "accuracy (%)", "networks")
"""Head of a table of rows."""


@dataclass(frozen=True)
class Row:
    """One way to come by training data.

    Attributes:
        method: name; ``"whole data"`` for all the real data.
        images_per_class: samples kept of each class; a mean where classes differ.
        nbytes: what they take.
        evaluation: accuracies of the networks trained on them.
        fits: whether they take no more than the set does.
        steps: SGD steps, where they are bounded instead of following the recipe.
        bits_per_class: what the samples of a class take, in bits.
    """

    method: str
    images_per_class: float
    nbytes: int
    evaluation: Evaluation
    fits: bool = True
    steps: int | None = None
    bits_per_class: float = 0.0

    @property
    def mean(self) -> float:
        """Mean accuracy, in [0, 1]."""
        return self.evaluation.mean

    @property
    def std(self) -> float:
        """Standard deviation of the accuracy over the networks."""
        return self.evaluation.std

    @property
    def n(self) -> int:
        """Number of networks."""
        return self.evaluation.n

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            **self.evaluation.to_json(),
            "method": self.method,
            "images_per_class": self.images_per_class,
            "nbytes": self.nbytes,
            "bits_per_class": self.bits_per_class,
            "fits": self.fits,
            "steps": self.steps,
        }

    def cells(self) -> list[str]:
        """Return the cells of the row in a table."""
        name = self.method if self.steps is None else f"{self.method}, {self.steps} steps"
        # that all the data take more goes without saying
        note = "" if self.fits or self.steps is not None else " (more than the set)"
        return [
            name,
            f"{self.images_per_class:.4g}",
            f"{self.nbytes:,}{note}",
            f"{self.bits_per_class:,.0f}",
            self.evaluation.text,
            str(self.n),
        ]


@dataclass(frozen=True)
class Comparison:
    """A set and what it was compared with.

    Attributes:
        rows: the set first, then the baselines of the same bytes, then the whole data.
        network: name of the architecture.
        recipe: how the networks were trained on everything but the whole data.
        seconds: for all of it.
    """

    rows: tuple[Row, ...]
    network: str
    recipe: Recipe
    seconds: float

    def table(self) -> str:
        """Return a Markdown table; accuracies in percent, mean and standard deviation over the networks."""
        return markdown(HEAD, [row.cells() for row in self.rows])

    def _repr_markdown_(self) -> str:
        return self.table()

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "network": self.network,
            "recipe": self.recipe.to_json(),
            "seconds": self.seconds,
            "rows": [row.to_json() for row in self.rows],
        }


@own_surroundings()
def compare(
    synthetic: SyntheticSet,
    train: Data,
    test: Data,
    *,
    network: Network = "convnet",
    repeats: int = 5,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    baselines: Sequence[str | Distiller] = ("random", "class-mean", "kmeans"),
    whole: bool = True,
    whole_steps: int = 500,
    progress: bool = False,
) -> Comparison:
    """Evaluate a set, baselines of the same bytes, and all the real data.

    A baseline gets as many images per class as fit, quantized and with hard labels, in the bytes of the set: a set
    kept as float32 stands against four times as many. Its images are stored as small and in as few bits a number as
    those of the set, so that what storage alone does is in both; a method with a ``factor`` of its own stores them as
    small as that says. Every network of a baseline is trained on a set of its own seed, by the same recipe; a method
    that learns is run once for each. Where a codec holds the set, the same codec holds the baselines, as many images as
    it really fits into those bytes. The network for the whole data is one, trained without augmentation for a bounded
    number of steps: a bound that is cheap to have, not the best that can be had.

    Args:
        synthetic: the set.
        train: the real data it was made from.
        test: real data it was not made from, see :func:`ddplug.data.as_labeled`.
        network: name with options, or a function that builds one; see :func:`ddplug.networks.build`.
        repeats: networks to train on the set, and on each baseline, at least 1.
        recipe: how to train; the set's own if not given.
        seed: of everything.
        device: see :func:`ddplug.utils.devices.pick_device`.
        baselines: names of registered methods, or distillers, whose ``images_per_class`` is replaced by what fits. One
            that makes soft labels may take more bytes than the set, and its row says so.
        whole: whether to train on the whole data too.
        whole_steps: SGD steps for that, at least 1.
        progress: show a progress bar.

    Returns:
        The rows.

    Raises:
        OptionError: an option is unknown or outside its range, or does not suit the data; or a baseline has no
            ``images_per_class``.
        DataError: set and data do not fit together.
        DivergedError: a network became NaN or infinite.

    Example:
        >>> from ddplug.testing import toy_images
        >>> train = toy_images((12, 11))
        >>> made = distill(train, "random", device="cpu").quantize()
        >>> short = Recipe(epochs=20)
        >>> result = compare(made, train, train, network="mlp", recipe=short, whole_steps=20, device="cpu")
        >>> [(row.method, row.images_per_class) for row in result.rows]
        [('random', 10.0), ('random', 10.0), ('class-mean', 10.0), ('kmeans', 10.0), ('whole data', 11.5)]
    """
    began = time.monotonic()
    repeats, whole_steps, seed = (
        as_whole(name, value) for name, value in {"repeats": repeats, "whole_steps": whole_steps, "seed": seed}.items()
    )
    values_at_least(1, whole_steps=whole_steps, repeats=repeats)
    place, recipe = pick_device(device), recipe or synthetic.recipe
    train, test = same_space(synthetic, train, "train", place), same_space(synthetic, test, "test", place)
    # before minutes of training, so that a misspelt name costs none, nor does a network that does not fit
    stateless(network, synthetic.shape, synthetic.num_classes, training=False)
    known = [resolve("distiller", name)() if isinstance(name, str) else name for name in baselines]
    methods = [sized_like(synthetic, method, train, seed) for method in known]
    options: dict[str, Any] = {"seed": seed, "device": place, "progress": progress}
    own = judge([synthetic.to(place)] * repeats, test, network, recipe, **options)
    label = str(synthetic.provenance.get("method", "this set"))
    rows = [_row(label, synthetic, own, synthetic.nbytes)]
    for method, store in methods:
        made = store([distill(train, method, seed=seed + k, device=place) for k in range(repeats)])
        made = [one.to(place) for one in made]
        result = judge(made, test, network, recipe, **options)
        rows.append(_row(method.name, made[0], result, synthetic.nbytes))
    if whole:
        result = judge([train], test, network, WHOLE_RECIPE, steps=whole_steps, **options)
        nbytes = _bytes(train)
        each, fits = len(train) / train.num_classes, nbytes <= synthetic.nbytes
        rows.append(Row("whole data", each, nbytes, result, fits, whole_steps, 8 * nbytes / train.num_classes))
    return Comparison(tuple(rows), name_of(network), recipe, time.monotonic() - began)


def _row(name: str, made: SyntheticSet, result: Evaluation, most: int) -> Row:
    each, nbytes = len(made) / made.num_classes, made.nbytes
    return Row(name, each, nbytes, result, nbytes <= most, bits_per_class=made.bits_per_class)


Sized: TypeAlias = tuple[Distiller, Callable[[Sequence[SyntheticSet]], list[SyntheticSet]]]
"""A baseline with as many images of each class as fit, at least one, and how to store what it makes."""


def sized_like(synthetic: SyntheticSet, method: Distiller, data: LabeledData, seed: int) -> Sized:
    """Fit a baseline to the bytes of a set, stored as the set is.

    Args:
        synthetic: the set.
        method: the baseline.
        data: what it is to be made of.
        seed: of its first run.

    Raises:
        OptionError: the method has no ``images_per_class``.
    """
    return (_quantized if synthetic.stored is None else _coded)(method, synthetic, data, seed)


def _quantized(method: Distiller, synthetic: SyntheticSet, data: LabeledData, seed: int) -> Sized:
    """Fit a baseline to the bytes of a set without a codec: stored as small, and in as few bits a number."""
    options: Any = method
    _check_sizable(method)
    bits = 8 if synthetic.levels is None else synthetic.bits
    stored = tuple(synthetic.inputs.shape[1:])
    factor = getattr(method, "factor", 1)
    fitting = images_within(synthetic.nbytes, data, stored if factor == 1 else factor, bits)
    sized: Distiller = replace(options, images_per_class=max(1, fitting // factor**2))
    return sized, lambda made: [reduced_to(one, stored).quantize(bits=bits) for one in made]


def _coded(method: Distiller, synthetic: SyntheticSet, data: LabeledData, seed: int) -> Sized:
    """Fit a baseline to the bytes of a set that a codec holds, by what that codec makes of it."""
    options: Any = method
    assert synthetic.stored is not None
    _check_sizable(method)
    storage = Storage(synthetic.stored.codec, synthetic.nbytes, synthetic.stored.shape)
    try:
        return storage.sized(method, data, seed)[0], storage.store_alike
    except BudgetError:
        return replace(options, images_per_class=1), replace(storage, nbytes=None).store_alike


def _check_sizable(method: Distiller) -> None:
    if "images_per_class" not in getattr(method, "__dataclass_fields__", ()):
        named = getattr(method, "name", repr(method))
        raise OptionError(f"baseline {named} has no images_per_class to fit to the bytes of the set; leave it out")


def _bytes(data: LabeledData) -> int:
    """Count the bytes of real data as they are stored, labels as in a set."""
    return data.inputs.numel() * data.inputs.element_size() + len(data) * (1 if data.num_classes <= 256 else 4)
