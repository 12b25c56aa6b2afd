"""Compare sets with what else their bytes could hold, and with training on all the real data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ddplug.data.anything import Data
from ddplug.data.labeled import LabeledData
from ddplug.distillation import settling
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.storage import BudgetError, Storage, storage_for
from ddplug.errors import OptionError
from ddplug.evaluation.finished import Finished
from ddplug.evaluation.pace import Load
from ddplug.evaluation.protocols import described, named, precisions, settled
from ddplug.evaluation.results import check_networks, judge, load, weigh
from ddplug.evaluation.row import Row
from ddplug.evaluation.rows import Comparison
from ddplug.evaluation.run import Progress, Run, preparing
from ddplug.evaluation.train import Trainable
from ddplug.networks.factory import Network, name_of, suited
from ddplug.networks.forms import AUTO
from ddplug.networks.precision import PRECISIONS
from ddplug.registry import resolve
from ddplug.synthetic.codecs.plain import Plain
from ddplug.synthetic.compat import same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.given import AnySet, as_set
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import values_at_least
from ddplug.utils.checks import whole as as_whole
from ddplug.utils.devices import pick_device
from ddplug.utils.fingerprints import fingerprint
from ddplug.utils.notes import note
from ddplug.utils.progress import progress as watched
from ddplug.utils.surroundings import own_surroundings

__all__ = ["CODED", "WHOLE_RECIPE", "WHOLE_STEPS", "Sized", "compare", "sized_like"]

CODED = "coded real"
"""Name of a baseline: random real images, held by the codec that suits the data, as many as fit so."""

WHOLE_RECIPE = Recipe(learning_rate=0.05, batch_size=64, schedule="cosine")
"""How a network is trained on all the real data; the number of steps is an option of :func:`compare`."""

WHOLE_STEPS = 500
"""Steps that it takes unless told otherwise."""

Sets: TypeAlias = AnySet | Sequence[AnySet] | Mapping[str, AnySet]
"""One set or its file, or several, or several by the names that their rows are to have."""

Named: TypeAlias = tuple[str, SyntheticSet]


@own_surroundings()
def compare(
    synthetic: Sets,
    train: Data,
    test: Data,
    *,
    network: Network = AUTO,
    repeats: int = 5,
    recipe: Recipe | str | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    baselines: Sequence[str | Distiller] = ("random", "class-mean", "kmeans"),
    whole: bool = True,
    whole_steps: int = WHOLE_STEPS,
    across: Sequence[Network] = (),
    progress: Progress = False,
    checkpoint: str | Path | None = None,
    precision: str = PRECISIONS[0],
    on_row: Callable[[Row], object] = lambda row: None,
) -> Comparison:
    """Evaluate sets, baselines of the same bytes, and all the real data.

    A baseline gets as many images per class as fit into the bytes of the set, stored by the same codec, so that both
    lose alike by being stored; a set kept as float32 is compared with four times as many images of one byte per
    number. Images are reduced as those of the set are, or by the ``factor`` of a method that has one. Each network of
    a baseline is trained by the same recipe on a set of its own seed; a method that learns is run once for each. Sets
    of the same size that are stored alike share their baselines. One network is trained on the whole data, without
    augmentation and for a limited number of steps: a cheap upper bound, not the best accuracy possible.

    Args:
        synthetic: the set, or several of the same data; in a mapping by the names that their rows are to have.
        train: the real data they were made from.
        test: real data they were not made from, see :func:`ddplug.data.as_labeled`.
        network: name with options, or a function that builds one; see :func:`ddplug.networks.build`.
        repeats: networks to train on each set, and on each baseline, at least 1.
        recipe: how to train, see :func:`ddplug.evaluation.evaluate`; baselines as the set they stand beside.
        seed: of everything.
        device: see :func:`ddplug.utils.devices.pick_device`.
        baselines: names of registered methods, or distillers, whose ``images_per_class`` is replaced by what fits, or
            ``"coded real"`` for random real images held by the codec that suits the data (left out beside ``"random"``
            where that codec holds the set, and so both). One that makes soft labels may take more bytes than the set,
            and its row says so.
        whole: whether to train on the whole data too.
        whole_steps: SGD steps for that, at least 1.
        across: other architectures to train on the sets.
        progress: see :func:`ddplug.evaluation.evaluate`.
        checkpoint: see :func:`ddplug.evaluation.evaluate`.
        precision: of the networks that are trained, see :func:`ddplug.evaluation.evaluate`; baselines are made in
            float32.
        on_row: takes each row as soon as it is measured.

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
    place, sets = pick_device(device), _named(synthetic)
    # before minutes of training, so that a misspelt name costs none, nor does a network that does not fit
    for _, own in sets:
        check_networks(own, [network, *across])
    shape = sets[0][1].shape
    network, across = suited(network, shape), [suited(one, shape) for one in across]
    baselines = [baselines] if isinstance(baselines, str) else baselines
    known = [resolve("distiller", name)() if isinstance(name, str) and name != CODED else name for name in baselines]
    known = [one if isinstance(one, str) else settling.settled(one, shape) for one in known]
    groups = [_Group(alike, train, test, recipe, place) for alike in _alike(sets)]
    finished, first = Finished(checkpoint), groups[0]
    begun = finished.begun([first.one] * repeats, first.test, first.recipe, seed=seed, device=place)
    rounded = precisions(precision, [network, *across], shape, first.one.num_classes, place, begun)
    with preparing(progress):
        planned = [row for group in groups for row in group.rows(known, network, repeats, seed)]
    other = [row for spec in across for group in groups for row in group.own(spec, repeats)]
    if whole:
        planned.append(first.whole(network, whole_steps))
    weights = weigh(first.one, [network, *across], first.recipe, seed, place, rounded) if progress else []
    weight = dict(zip([network, *across], weights, strict=False))
    loads = [row.load for row in planned]
    loads += [replace(row.load, name=f"{row.load.name} with {name_of(row.network)}") for row in other]
    networks = [row.network for row in (*planned, *other)]
    loads = [replace(one, weight=weight.get(own, 1.0)) for one, own in zip(loads, networks, strict=True)]
    how = described(first.recipe, rounded[network])
    said = f"training {sum(one.networks for one in loads)} networks for {len(loads)} rows, {how},"
    run = Run(loads, said, progress, finished, quick=named(first.recipe) == "quick")
    done: list[Row] = []
    for planned_row in (*planned, *other):
        with preparing(progress):
            done.append(planned_row.judged(run, seed, place, rounded[planned_row.network]))
        on_row(done[-1])
    run.finished.forget()
    rows, again = tuple(done[: len(planned)]), tuple(done[len(planned) :])
    return Comparison(rows, name_of(network), first.recipe, time.monotonic() - began, again)


def _named(synthetic: Sets) -> list[Named]:
    """Name each set by the method that made it, if no name is given; those of one method and size by numbers too."""
    if isinstance(synthetic, Mapping):
        found = [(str(name), as_set(own)) for name, own in synthetic.items()]
    else:
        found = []
        one = isinstance(synthetic, (SyntheticSet, str, bytes, os.PathLike)) or not isinstance(synthetic, Iterable)
        several: Any = [synthetic] if one else synthetic
        for own in map(as_set, several):
            method = str(own.provenance.get("method", "this set"))
            # one method at several sizes is one line of a plot
            again = [name for name, kept in found if name.startswith(method) and kept.nbytes == own.nbytes]
            found.append((f"{method} ({len(again) + 1})" if again else method, own))
    if not found:
        raise OptionError("there is no set to compare; give at least one")
    return found


def _alike(sets: Sequence[Named]) -> list[list[Named]]:
    """Put sets together that have their baselines in common: of as many bytes, stored and trained on alike."""
    groups: dict[Hashable, list[Named]] = {}
    for name, own in sets:
        shapes = tuple(own.inputs.shape[1:]), own.shape, own.class_names
        key = own.nbytes, own.codec, shapes, own.recipe, fingerprint(own.preprocess.tensors())
        groups.setdefault(key, []).append((name, own))
    return sorted(groups.values(), key=lambda group: group[0][1].nbytes)


@dataclass(frozen=True)
class _Planned:
    """A row that is to be measured.

    Attributes:
        load: its name and what it costs.
        make: makes what to train on, one a network.
        test: real data to test on.
        network: to train.
        recipe: how.
        budget: bytes of the set that it stands beside; ``None`` for the whole data.
        kind: of the row.
        steps: where they are bounded.
    """

    load: Load
    make: Callable[[], Sequence[Trainable]]
    test: LabeledData
    network: Network
    recipe: Recipe
    budget: int | None
    kind: str = "set"
    steps: int | None = None

    def judged(self, run: Run, seed: int, device: torch.device, precision: str) -> Row:
        """Train and test."""
        made = self.make()
        options: dict[str, Any] = {"steps": self.steps, "precision": precision, "run": run}
        result = judge(made, self.test, self.network, self.recipe, seed=seed, device=device, **options)
        one = made[0]
        nbytes = _bytes(one) if isinstance(one, LabeledData) else one.nbytes
        return Row(
            self.load.name,
            len(one) / one.num_classes,
            nbytes,
            result,
            self.budget is not None and nbytes <= self.budget,
            self.steps,
            8 * nbytes / one.num_classes,
            self.budget,
            self.kind,
        )


class _Group:
    """Sets of as many bytes, stored alike, and the real data in their space."""

    def __init__(
        self, sets: Sequence[Named], train: Data, test: Data, recipe: Recipe | str | None, device: torch.device
    ) -> None:
        self.sets = [(name, own.to(device)) for name, own in sets]
        self.one, self.device = self.sets[0][1], device
        self.train, self.test = same_space(self.one, train, "train", device), same_space(self.one, test, "test", device)
        self.recipe = settled(recipe, self.one.recipe, device)

    def rows(
        self, baselines: Sequence[str | Distiller], network: Network, repeats: int, seed: int
    ) -> Sequence[_Planned]:
        """Plan the rows of the sets and of their baselines."""
        random = any(getattr(baseline, "name", "") == "random" for baseline in baselines)
        fitted = (self._sized(one, seed, random=random) for one in watched(baselines, "fitting baselines to the bytes"))
        sized = [found for found in fitted if found is not None]
        return [*self.own(network, repeats), *(self._baseline(*one, network, repeats, seed) for one in sized)]

    def own(self, network: Network, repeats: int) -> list[_Planned]:
        """Plan the rows of the sets."""
        return [
            self._row(name, len(own), partial(_repeated, own, repeats), network, repeats) for name, own in self.sets
        ]

    def whole(self, network: Network, steps: int) -> _Planned:
        """Plan the row of all the real data."""
        cost = load("whole data", len(self.train), WHOLE_RECIPE, 1, len(self.test), steps=steps)
        return _Planned(cost, lambda: [self.train], self.test, network, WHOLE_RECIPE, None, "whole data", steps)

    def _row(
        self, name: str, samples: int, make: Callable[[], Sequence[Trainable]], network: Network, repeats: int
    ) -> _Planned:
        cost = load(name, samples, self.recipe, repeats, len(self.test))
        return _Planned(cost, make, self.test, network, self.recipe, self.one.nbytes)

    def _sized(self, baseline: str | Distiller, seed: int, *, random: bool) -> tuple[str, Sized] | None:
        """Give a baseline as many images as fit.

        Returns:
            ``None`` for coded real images where no codec holds them, or where the row ``random`` is the same.
        """
        if not isinstance(baseline, str):
            return str(baseline.name), sized_like(self.one, baseline, self.train, seed)
        try:
            storage = storage_for(self.train, "auto", self.one.nbytes)
            assert storage is not None
            if random and self.one.stored is not None and self.one.stored.codec == storage.codec:
                return None
            drawn = resolve("distiller", "random")()
            return CODED, (storage.sized(drawn, self.train, seed)[0], storage.store_alike)
        except OptionError as error:
            note(f"{CODED} is left out: {error}")
            return None

    def _baseline(self, name: str, sized: Sized, network: Network, repeats: int, seed: int) -> _Planned:
        method, store = sized
        options: Any = method

        def make() -> list[SyntheticSet]:
            seeds = watched(range(seed, seed + repeats), f"making sets by {name}")
            made = store([distill(self.train, method, seed=own, device=self.device) for own in seeds])
            return [one.to(self.device) for one in made]

        samples = options.images_per_class * self.train.num_classes * getattr(method, "factor", 1) ** 2
        return replace(self._row(name, samples, make, network, repeats), kind="baseline")


def _repeated(own: SyntheticSet, number: int) -> list[SyntheticSet]:
    return [own] * number


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
    options: Any = method
    _check_sizable(method)
    held = synthetic.stored
    stored = tuple(synthetic.inputs.shape[1:]) if held is None else held.shape
    storage = Storage(synthetic.codec or Plain.name, synthetic.nbytes, stored)
    whatever = replace(storage, nbytes=None).store_alike
    try:
        # as many soft labels as images stay, and the row says that they take more
        return storage.sized(method, data, seed)[0], whatever if held is None else storage.store_alike
    except BudgetError:
        return replace(options, images_per_class=1), whatever


def _check_sizable(method: Distiller) -> None:
    if "images_per_class" not in getattr(method, "__dataclass_fields__", ()):
        named = getattr(method, "name", repr(method))
        raise OptionError(f"baseline {named} has no images_per_class to fit to the bytes of the set; leave it out")


def _bytes(data: LabeledData) -> int:
    """Count the bytes of real data as they are stored, labels as in a set."""
    return data.inputs.numel() * data.inputs.element_size() + len(data) * (1 if data.num_classes <= 256 else 4)
