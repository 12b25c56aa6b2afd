"""The one loop: seed, device, steps, callbacks, checkpoints and exact resume, for every method."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ddplug import registry
from ddplug.data.anything import Data, as_labeled
from ddplug.distillation.callbacks import Callback, check_callbacks, preparing
from ddplug.distillation.config import config_of
from ddplug.distillation.precision import precision_of
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.provenance import identity_of, is_private
from ddplug.distillation.run import Run
from ddplug.distillation.settling import settled
from ddplug.distillation.shards import WHOLE, check_shard, sharding
from ddplug.distillation.storage import storage_for, with_recipe
from ddplug.errors import DivergedError, OptionError
from ddplug.networks.precision import computing
from ddplug.synthetic.codecs.protocol import Codec
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.file_format import check_names
from ddplug.synthetic.ranges import ranges
from ddplug.utils.checks import one_of, real, whole
from ddplug.utils.devices import pick_device
from ddplug.utils.files import check_header, check_writable
from ddplug.utils.former import FORMER_SPELLINGS
from ddplug.utils.locks import locked
from ddplug.utils.preparation import keeping
from ddplug.utils.signals import stoppable
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.teams import team

__all__ = ["distill"]


def _made(distiller: Distiller | str, options: Mapping[str, Any]) -> Distiller:
    """Return the method that is meant, with its hyper-parameters."""
    if not isinstance(distiller, str):
        if is_dataclass(distiller) and not hasattr(distiller, "init"):
            raise OptionError(
                f"a {type(distiller).__name__} is no distiller; give the data first and then the method, as "
                "distill(data, 'dm')"
            )
        config_of(distiller)  # refuses what is no method
        if options:
            given = ", ".join(options)
            raise OptionError(f"{given} given beside a distiller: set its own fields, or name the method, as 'dm'")
        return distiller
    cls = registry.resolve("distiller", distiller)
    known = [*inspect.signature(cls).parameters]
    for name in options:
        one_of(
            f"option of {distiller},",
            name,
            [*known, *(former for field in known for former in FORMER_SPELLINGS.get(field, ()))],
        )
    made: Distiller = cls(**options)
    return made


def _check_private(method: Distiller, codec: str | Codec | None, nbytes: int | None) -> None:
    """Refuse what would be settled by looking at private data once more, or several times over."""
    if team().size > 1 and is_private(method):
        raise OptionError(
            f"{method.name} is not split among processes, each of which would draw noise of its own; run it in one"
        )
    what = "nbytes" if nbytes is not None else "codec='auto'" if codec == "auto" else None
    if what is not None and is_private(method):
        raise OptionError(
            f"{what} is chosen by looking at the real images, which {method.name} must not reveal: give "
            "images_per_class, and a codec by its name if any"
        )


def _with(made: SyntheticSet, provenance: dict[str, Any]) -> SyntheticSet:
    return replace(made, provenance={**made.provenance, **provenance})


@own_surroundings()
def distill(
    data: Data,
    distiller: Distiller | str,
    *,
    nbytes: int | None = None,
    codec: str | Codec | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | None = None,
    resume: bool = True,
    checkpoint_every: float = 30.0,
    shard: tuple[int, int] = WHOLE,
    precision: str = "float32",
    **options: Any,
) -> SyntheticSet:
    """Distill real data into a small synthetic set.

    The same call gives the same numbers on the same machine. With a checkpoint, stopping and calling again gives the
    numbers of a run that was never stopped, bit for bit. Of a method that promises differential privacy this holds from
    its noise on, which no seed gives. Processes that work together (:mod:`ddplug.utils.teams`) get the numbers of
    one; all of them call this function, and all get the set.

    Args:
        data: real training data: labeled data, a torch ``Dataset``, a name or a folder; see
            :func:`ddplug.data.as_labeled`.
        distiller: a method with its hyper-parameters, or a registered name for its defaults.
        nbytes: that the set may take, as :attr:`ddplug.synthetic.SyntheticSet.nbytes` counts. As many images of each
            class are made as fit, whatever ``images_per_class`` says, at most what the smallest class has. A method
            that selects fills the bytes to a hundredth or one image of each class; one that learns gets as many as
            real images would fit, of which the last are left out if they take more when they are finished.
        codec: that holds the images (:mod:`ddplug.synthetic.codecs`), by name with options, as ``"avif:quality=15"``;
            ``"auto"`` for one that suits the data, which is what ``nbytes`` takes without one.
        steps: steps to take in all, those before a resume included; the method's own number if not given.
        seed: of the one generator that all randomness comes from, in ``0..2**63-1``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``; see
            :func:`ddplug.utils.devices.pick_device`.
        callbacks: told of every step, see :mod:`ddplug.distillation.callbacks`.
        checkpoint: file to keep the run in: every ``checkpoint_every`` seconds, at the end, and when interrupted.
        resume: take up the checkpoint where it stands, if there is one; otherwise begin anew and overwrite it.
        checkpoint_every: seconds between two checkpoints, at least 0 (after each step).
        shard: ``(k, n)`` makes every ``n``-th class only, from the ``k``-th (``k`` in ``1..n``), of a method that
            treats the classes apart; :func:`ddplug.synthetic.merge` puts the shards together.
        precision: that networks compute in, ``"float32"`` or ``"bfloat16"`` (autocast; images and weights stay
            float32). The second one is faster where the machine has units for it, and many times slower elsewhere.
            ``"auto"`` tries both for a moment and takes bfloat16 where it saves a sixth of the time; a run that goes on
            keeps its own, and a method that computes in float32 only does so.
        **options: hyper-parameters of a method that is given by its name, such as ``images_per_class``.

    Returns:
        The set, on the CPU, with its provenance.

    Raises:
        OptionError: an option is unknown or outside its range, the run cannot fit in memory
            (:mod:`ddplug.distillation.memory`), the codec cannot hold the data, or the bytes do not suffice for one
            image of each class.
        CheckpointError: the checkpoint is of another method, configuration, seed or data; the message says which.
        DivergedError: a loss or the state became NaN or infinite, or images or labels went far outside of what the
            data are like; the checkpoint holds the last good state.

    Example:
        >>> from ddplug.testing import toy_images
        >>> len(distill(toy_images((12, 11)), "random", device="cpu"))  # 10 images for each of two classes
        20
        >>> len(distill(toy_images((12, 11)), "random", images_per_class=3, device="cpu"))
        6
        >>> made = distill(toy_images((12, 11)), "random", nbytes=700, codec="pixels:bits=8", device="cpu")
        >>> len(made), made.nbytes
        (8, 578)
    """
    method = _made(distiller, options)
    config_of(method)
    total = whole("steps", method.steps if steps is None else steps)
    seed, nbytes = whole("seed", seed), None if nbytes is None else whole("nbytes", nbytes)
    checkpoint_every = real("checkpoint_every", checkpoint_every)
    for what, value in (("steps", total), ("checkpoint_every", checkpoint_every), ("seed", seed)):
        if not 0 <= value < 2**63:
            raise OptionError(f"{what} is {value}; it must be at least 0 and below 2**63")
    check_callbacks(callbacks)
    place = pick_device(device)
    data = as_labeled(data).to(place)
    method = settled(method, data.shape)
    path = None if checkpoint is None else os.fspath(check_writable(checkpoint))
    _check_private(method, codec, nbytes)
    shard = check_shard(shard, method, data.num_classes, stored=codec is not None or nbytes is not None)
    precision = precision_of(precision, method, data, path if resume else None)
    asked = storage_for(data, codec, nbytes)
    # what is stored one by one in the end is of the same run, whatever it is stored as
    storage = None if asked is None or asked.afterwards else asked
    identity = identity_of(data, method, seed, storage, shard, precision)
    run = Run(method, identity, place, path, checkpoint_every)
    check_header(run.account(), "the set")  # what no file can hold is refused before the work
    check_names(data.class_names)
    if not team().leads:  # the first process says how far it is
        callbacks = ()
    with stoppable(), sharding(shard), computing(precision), nullcontext() if path is None else locked(path):
        try:
            with preparing(callbacks), keeping(run.parts):
                chosen = run.begin(data, total, storage, resume=resume)
            made = run.loop(data, total, callbacks)
        except DivergedError:
            raise
        except BaseException as error:
            run.rescue_after(error)
            raise
    provenance = {**run.account(), "steps": run.now.step, **({} if is_private(method) else ranges(data))}
    if storage is None:
        whole_set = _with(made, provenance)
        return whole_set if asked is None else asked.store(whole_set)
    # what was coded while its size was looked for, unless steps were taken since
    found = None if chosen is None or run.now.step else chosen.coded
    coded = storage.store(_with(made, provenance)) if found is None else _with(found, provenance)
    return with_recipe(coded, data.augmentation)
