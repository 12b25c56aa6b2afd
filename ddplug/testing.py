"""Toy data, and the contract that every distiller keeps: ours, and a third party's on its own method."""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Standardize, fit
from ddplug.distillation.config import config_of
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import Distiller, State
from ddplug.distillation.settling import settled
from ddplug.distillers import presets
from ddplug.errors import OptionError
from ddplug.networks.forms import form_of
from ddplug.synthetic.compat import same_preprocess
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.randomness import known_secrets
from ddplug.utils.surroundings import own_surroundings

__all__ = ["check_class_symmetry", "check_distiller", "made_small", "toy_images", "toy_series", "toy_table"]


@own_surroundings()
def _toy(counts: Sequence[int], shape: tuple[int, ...], seed: int, name: str, images: bool) -> LabeledData:
    """Draw classes around centers that lie apart, interleaved so that the rows are not sorted by class."""
    rng = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    targets = targets[torch.randperm(len(targets), generator=rng)]
    centers = torch.rand((len(counts), *shape), generator=rng)
    noise = torch.rand((len(targets), *shape), generator=rng)
    inputs = 0.7 * centers[targets] + 0.3 * noise
    if images:
        inputs = (inputs * 255).to(torch.uint8)
    names = tuple(f"class{label}" for label in range(len(counts)))
    # nobody's data: what is computed from them is as public as the seed
    preprocess = Standardize(**fit("standardize", inputs).tensors())
    return LabeledData(inputs, targets, len(counts), preprocess, names, name)


def toy_images(counts: Sequence[int] = (12, 10, 8), *, channels: int = 1, size: int = 8, seed: int = 0) -> LabeledData:
    """Make small images of a few classes that a linear classifier can tell apart.

    Args:
        counts: samples of each class.
        channels: 1 for gray, 3 for color.
        size: height and width, in pixels.
        seed: of the draw.

    Returns:
        uint8 data of the shape ``(sum(counts), channels, size, size)``.

    Example:
        >>> toy_images((3, 2)).shape
        (1, 8, 8)
    """
    return _toy(counts, (channels, size, size), seed, "toy-images", True)


def toy_table(counts: Sequence[int] = (12, 10, 8), *, columns: int = 6, seed: int = 0) -> LabeledData:
    """Make rows of a table of a few classes that a linear classifier can tell apart.

    Args:
        counts: samples of each class.
        columns: numbers a row.
        seed: of the draw.

    Returns:
        float32 data of the shape ``(sum(counts), columns)``.

    Example:
        >>> toy_table((3, 2)).shape
        (6,)
    """
    return _toy(counts, (columns,), seed, "toy-table", False)


def toy_series(
    counts: Sequence[int] = (12, 10, 8), *, channels: int = 2, length: int = 16, seed: int = 0
) -> LabeledData:
    """Make short series of a few classes that a linear classifier can tell apart.

    Args:
        counts: samples of each class.
        channels: of a series.
        length: values in time.
        seed: of the draw.

    Returns:
        float32 data of the shape ``(sum(counts), channels, length)``.

    Example:
        >>> toy_series((3, 2)).shape
        (2, 16)
    """
    return _toy(counts, (channels, length), seed, "toy-series", False)


_SMALL_NETWORKS = {"series": "conv1d:width=8,depth=1", "row": "mlp:width=8,depth=2"}
"""Form of data that are no images -> a quick network for them."""


def made_small(distiller: Any, shape: tuple[int, ...] = (1, 8, 8)) -> Any:
    """Return a method with quick values in the fields that have their default, as its attribute ``small`` says.

    Args:
        distiller: a method whose class may carry ``small``, a mapping from fields to values for tests.
        shape: of one input; networks of ``small`` are for images, and others take their place where it is none.

    Returns:
        The method; what was set to something else stays.

    Example:
        >>> from ddplug.distillers.dm import DM
        >>> quick = made_small(DM(batch_real=9))
        >>> quick.pool_size, quick.batch_real
        (2, 9)
    """
    quick: Mapping[str, Any] = getattr(distiller, "small", {})
    default = {field.name: field.default for field in fields(distiller)}
    chosen = {name: value for name, value in quick.items() if getattr(distiller, name) == default[name]}
    other, suits = _SMALL_NETWORKS.get(form_of(shape)), getattr(distiller, "suits", {})
    chosen |= {name: other for name in chosen if other is not None and name in suits}
    return settled(replace(distiller, **chosen), shape)


def _require(distiller: Distiller, holds: object, complaint: str) -> None:
    if not holds:
        raise AssertionError(f"{distiller.name}: {complaint}")


def _global_state() -> tuple[Any, ...]:
    """Return the global random states of torch, numpy and Python, comparable."""
    legacy: Any = np.random.get_state()
    return torch.get_rng_state().tolist(), legacy[0], legacy[1].tolist(), legacy[2:], random.getstate()


@contextmanager
def _other_global_state() -> Iterator[None]:
    """Seed the global generators with something else for a while."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(20_231)  # torch.manual_seed would move an accelerator's too
    np.random.seed(20_231)
    random.seed(20_231)
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])


def _run(distiller: Distiller, data: LabeledData, seed: int = 0, **options: Any) -> SyntheticSet:
    """Distill with a copy of the distiller, so that nothing hidden in it is carried from one run to the next."""
    again: Distiller = replace(distiller)  # type: ignore[type-var]
    with known_secrets():
        return distill(data, again, **{"steps": 4 if distiller.steps else 0, "seed": seed, "device": "cpu", **options})


def _same(one: SyntheticSet, other: SyntheticSet) -> bool:
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


def _check_dataclass(distiller: Distiller) -> None:
    """Check the hyper-parameters."""
    if isinstance(distiller, type) or not is_dataclass(distiller):
        raise AssertionError(f"{distiller!r} is not an instance of a dataclass")
    frozen = type(distiller).__dataclass_params__.frozen
    _require(distiller, frozen, "it is a dataclass, but not a frozen one")
    _require(distiller, isinstance(distiller.name, str) and distiller.name, "its name is not a string")
    _require(distiller, distiller.steps >= 0, f"steps is {distiller.steps}, below 0")
    _require(distiller, distiller.images_per_class >= 1, f"images_per_class is {distiller.images_per_class}, below 1")
    json.dumps(config_of(distiller), allow_nan=False)
    for name, preset in presets.of(type(distiller)).items():
        try:
            replace(distiller, **preset.options)
        except (OptionError, TypeError) as error:
            raise AssertionError(f"{distiller.name}: preset {name!r} cannot be made: {error}") from error


def _check_refusal(distiller: Distiller, data: LabeledData) -> None:
    """Check that no images at all are refused, when made or when begun."""
    try:
        _run(replace(distiller, images_per_class=0), data)  # type: ignore[type-var]
    except OptionError:
        return
    raise AssertionError(f"{distiller.name}: images_per_class=0 raises no OptionError")


def _check_state(distiller: Distiller, state: State, when: str) -> None:
    """Check that a state is nothing but finite, detached tensors."""
    _require(distiller, isinstance(state, Mapping), f"the state {when} is a {type(state).__name__}, not a mapping")
    for name, tensor in state.items():
        what = f"state {name!r} {when}"
        _require(distiller, isinstance(tensor, Tensor), f"{what} is a {type(tensor).__name__}, not a tensor")
        _require(distiller, not tensor.requires_grad, f"{what} requires a gradient; detach it")
        _require(distiller, tensor.isfinite().all(), f"{what} holds NaN or infinity")


def _check_steps(distiller: Distiller, data: LabeledData) -> None:
    """Take two steps by hand: types, and that neither the state nor the data given are changed."""
    rng = torch.Generator().manual_seed(0)
    inputs, targets = data.inputs.clone(), data.targets.clone()
    state = distiller.init(data, rng)
    _check_state(distiller, state, "after init")
    for number in (1, 2):
        before = {name: tensor.clone() for name, tensor in state.items()}
        following, metrics = distiller.step(state, data, rng)
        changed = [name for name in {**before, **state} if not _equal(before.get(name), state.get(name))]
        _require(distiller, not changed, f"step {number} changes the state it is given: {', '.join(changed)}")
        _check_state(distiller, following, f"after step {number}")
        _require(distiller, not distiller.steps or "loss" in metrics, f"step {number} reports no loss")
        for name, value in metrics.items():
            fine = isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad
            _require(distiller, fine, f"metric {name!r} of step {number} is not a detached 0-d tensor")
        state = following
    untouched = torch.equal(inputs, data.inputs) and torch.equal(targets, data.targets)
    _require(distiller, untouched, "it changes the real data")


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def _check_set(distiller: Distiller, data: LabeledData) -> None:
    """Check what comes out, and that it survives a file."""
    made = _run(distiller, data)
    n = distiller.images_per_class
    _require(distiller, made.shape == data.shape, f"the set has inputs of {made.shape}, the data of {data.shape}")
    _require(distiller, made.num_classes == data.num_classes, f"the set has {made.num_classes} classes")
    _require(distiller, made.class_names == data.class_names, f"the set names its classes {made.class_names}")
    _require(distiller, same_preprocess(made.preprocess, data.preprocess), "the set's preprocessing is not the data's")
    # a method with a factor stores more images, smaller, in the same number of bytes
    n *= getattr(distiller, "factor", 1) ** 2
    _require(distiller, len(made) == n * data.num_classes, f"the set has {len(made)} samples, {n} a class asked for")
    most = distiller.images_per_class * data.num_classes * math.prod(data.shape)
    _require(distiller, made.inputs.numel() <= most, f"its images hold {made.inputs.numel()} numbers, {most} asked for")
    counts = torch.bincount(made.hard_targets, minlength=data.num_classes).tolist()
    balanced = made.targets.ndim == 2 or counts == [n] * data.num_classes
    _require(distiller, balanced, f"the set has {counts} samples of its classes, not {n} of each")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "set.safetensors"))
        made.save(path)
        again = SyntheticSet.load(path)
    kept = _same(made, again) and made.recipe == again.recipe and dict(made.provenance) == dict(again.provenance)
    _require(distiller, kept, "saving and loading the set changes it")


def _check_repeats(distiller: Distiller, data: LabeledData) -> None:
    """Check that a run is a function of its arguments and its seed."""
    first = _run(distiller, data)
    with _other_global_state():
        again = _run(distiller, data)
    _require(distiller, _same(first, again), "two runs of one seed differ; take all randomness from rng")
    rng = torch.Generator().manual_seed(0)
    state = distiller.init(data, rng)
    if distiller.steps:
        distiller.step(state, data, rng)
    if torch.equal(rng.get_state(), torch.Generator().manual_seed(0).get_state()):
        _require(distiller, _same(first, _run(distiller, data, seed=1)), "seeds differ, though rng is never drawn from")


def _check_resume(distiller: Distiller, data: LabeledData) -> None:
    """Check that k steps, a file and k steps more are 2k steps, bit for bit."""
    steps = 4 if distiller.steps else 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.safetensors")
        try:
            _run(distiller, data, steps=steps // 2, checkpoint=path)
        except OptionError as error:
            raise AssertionError(f"{distiller.name}: its state cannot be kept in a checkpoint: {error}") from error
        resumed = _run(distiller, data, steps=steps, checkpoint=path)
    whole = _run(distiller, data, steps=steps)
    _require(
        distiller, _same(resumed, whole), f"{steps // 2} steps, a checkpoint and as many again are not {steps} steps"
    )


@own_surroundings()
def check_distiller(distiller: Distiller, data: LabeledData | None = None) -> None:
    """Check that a distiller keeps the contract of :class:`ddplug.distillation.Distiller`, on the CPU.

    It takes four steps at a time, several times over. Checked are the types of what it gives; that it changes nothing
    it is given and neither reads nor moves the global random state; that equal seeds give equal sets and a checkpoint
    file is taken up bit for bit; and the set itself, its balance and its way through a file, also at one image a class.
    Presets of the class are made too. Fields that have their default take the value that the class's attribute
    ``small`` has for them, so that a step is quick; see :func:`made_small`.

    Args:
        distiller: with at least one image a class.
        data: real data with at least as many samples in each class as the distiller gives; small gray images of three
            classes and colored ones of two, the classes of different sizes, if not given.

    Raises:
        AssertionError: the contract is broken; the message says where.

    Example:
        >>> from ddplug.distillers.selection.class_mean import ClassMean
        >>> check_distiller(ClassMean(images_per_class=1))
    """
    _check_dataclass(distiller)
    distiller = made_small(distiller, (1, 8, 8) if data is None else data.shape)
    n = distiller.images_per_class * getattr(distiller, "factor", 1) ** 2
    cases = [data.to("cpu")] if data else [toy_images((n + 6, n + 4, n + 5)), toy_images((n + 2, n + 5), channels=3)]
    before = _global_state()
    for case in cases:
        _check_steps(distiller, case)
        _check_set(distiller, case)
    _check_set(replace(distiller, images_per_class=1), cases[0])  # type: ignore[type-var]
    _check_repeats(distiller, cases[0])
    _check_resume(distiller, cases[0])
    _check_refusal(distiller, cases[0])
    _require(distiller, before == _global_state(), "it moves the global random state of torch, numpy or Python")


@own_surroundings()
def check_class_symmetry(distiller: Distiller, data: LabeledData | None = None) -> None:
    """Check that naming the classes in another order gives the same images under the new names.

    It holds for a method that treats the classes alike and draws nothing at random.

    Args:
        distiller: such a method.
        data: real data, or small images if not given.

    Raises:
        AssertionError: it does not.

    Example:
        >>> from ddplug.distillers.selection.class_mean import ClassMean
        >>> check_class_symmetry(ClassMean(images_per_class=1))
    """
    n = distiller.images_per_class
    data = data or toy_images((n + 6, n + 4, n + 5))
    shifted = replace(data, targets=(data.targets + 1) % data.num_classes)
    one, other = _run(distiller, data), _run(distiller, shifted)
    for label in range(data.num_classes):
        mine = one.inputs[one.hard_targets == label]
        theirs = other.inputs[other.hard_targets == (label + 1) % data.num_classes]
        same = mine.shape == theirs.shape and torch.allclose(mine, theirs, atol=1e-5)
        _require(distiller, same, f"class {label} depends on the order of the classes")
