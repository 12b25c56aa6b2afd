"""The one loop: seed, device, steps, callbacks, checkpoints and exact resume, for every method."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddplug import registry
from ddplug._version import __version__
from ddplug.data.labeled import LabeledData
from ddplug.distillation import checkpoint as checkpoints
from ddplug.distillation.callbacks import Callback, preparing
from ddplug.distillation.checkpoint import Snapshot
from ddplug.distillation.config import config_of
from ddplug.distillation.memory import check as check_memory
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.storage import Start, Storage, check_sizable, storage_for, with_recipe
from ddplug.distillation.through import through
from ddplug.errors import DivergedError, OptionError
from ddplug.synthetic.codecs.protocol import Codec
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.devices import pick_device
from ddplug.utils.files import check_writable, read_tensors

__all__ = ["distill"]

_CHECK_EVERY = 25
"""Steps between two looks at the losses where a look means waiting for an accelerator."""


def _versions() -> dict[str, str]:
    return {
        "ddplug": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


class _Run:
    """One call of :func:`distill`: where it stands, what of it is known to be sound, and where that is kept."""

    def __init__(self, method: Distiller, identity: dict[str, Any], device: torch.device, path: str | None) -> None:
        self.method = method
        self.identity = identity
        self.device = device
        self.path = path
        self.rng = torch.Generator().manual_seed(identity["seed"])
        self.began = self.saved = time.monotonic()
        self.kept = False  # whether the checkpoint on disk is of this run
        self.now = Snapshot({}, self.rng.get_state(), 0)  # after the last complete step
        self.sound: Snapshot | None = None  # the last one that gave a finite loss or was checked as a whole
        self.losses: list[Tensor] = []  # of the steps that have not been looked at

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def account(self) -> dict[str, Any]:
        """Say what is being done, where, with what and for how long."""
        return {**self.identity, "versions": _versions(), "device": str(self.device), "seconds": self.seconds}

    def start(self, data: LabeledData, total: int, resume: bool, chosen: Start | None) -> None:
        """Take up the checkpoint, or begin at step 0, with what was chosen already if anything was."""
        if self.path is not None and resume and os.path.exists(self.path):
            self.now, seconds = checkpoints.load(self.path, self.identity, self.device, total)
            self.rng.set_state(self.now.generator)
            self.began -= seconds
            self.kept = True
        elif chosen is not None:
            self.rng.set_state(chosen.generator)
            self.now = Snapshot(chosen.state, chosen.generator, 0)
        else:
            state = self.method.init(data, self.rng)
            self.now = Snapshot(state, self.rng.get_state(), 0)
        self.sound = self.now

    def step(self, data: LabeledData, callbacks: Sequence[Callback]) -> None:
        """Take one step; an interrupt at any point leaves ``now`` at a complete one."""
        before = self.now
        state, metrics = self.method.step(before.state, data, self.rng)
        number = before.step + 1
        if "loss" in metrics:
            self.losses.append(metrics["loss"].detach())
            if self.device.type == "cpu" or len(self.losses) >= _CHECK_EVERY:
                self.check(number)
                self.sound = before
        # callbacks come first: a log may hold one row too many after an interrupt (a resume drops it), never one less
        for callback in callbacks:
            callback.step(number, metrics)
        self.now = Snapshot(state, self.rng.get_state(), number)

    def check(self, number: int) -> None:
        """Look at the losses of the steps up to ``number`` that have not been looked at."""
        if not self.losses:
            return
        losses = torch.stack(self.losses)
        bad = losses.isfinite().logical_not().nonzero()
        if len(bad):
            first = int(bad[0, 0])
            self.diverged(f"the loss is {float(losses[first])} at step {number - len(self.losses) + first + 1}")
        self.losses = []

    def diverged(self, what: str) -> None:
        """Keep what is sound and say what to do."""
        if self.sound is not None:
            self.keep(self.sound)
        if self.kept:
            place = f"the last good checkpoint is {self.path}"
        else:
            place = "there is no checkpoint" if self.path is None else "no good checkpoint could be kept"
        raise DivergedError(f"{self.method.name} diverged: {what}; lower the learning rate; {place}")

    def keep(self, snapshot: Snapshot) -> None:
        """Write a snapshot to the checkpoint, unless there is nowhere to or it is not finite."""
        if self.path is not None and snapshot.finite:
            checkpoints.save(self.path, snapshot, self.account())
            self.kept = True

    def save(self) -> None:
        """Make sure that all is finite so far, and write the checkpoint."""
        self.check(self.now.step)
        if not self.now.finite:
            self.diverged(f"the state holds NaN or infinity after step {self.now.step}")
        self.sound = self.now
        self.keep(self.now)
        self.saved = time.monotonic()

    def rescue(self) -> None:
        """Write the last complete step after an interrupt; if that turns out to have diverged, the last sound one."""
        if self.sound is not None:  # else it came before there was any state
            clean = all(bool(loss.isfinite()) for loss in self.losses)
            self.keep(self.now if clean and self.now.finite else self.sound)

    def loop(self, data: LabeledData, total: int, callbacks: Sequence[Callback], every: float) -> SyntheticSet:
        """Go on to step ``total`` and give the result, on the CPU."""
        with ExitStack() as closing:
            for callback in callbacks:
                closing.callback(callback.close)
                callback.start(total, self.now.step, self.method.name)
            while self.now.step < total:
                self.step(data, callbacks)
                if time.monotonic() - self.saved >= every:
                    self.save()
            self.save()
        return self.method.result(self.now.state, data).to("cpu")


def _identity(data: LabeledData, method: Distiller, seed: int, storage: Storage | None = None) -> dict[str, Any]:
    """Say what makes a run the run it is."""
    return {
        "method": method.name,
        "config": config_of(method),
        "seed": seed,
        "data": {"name": data.name, "fingerprint": data.fingerprint, "size": len(data)},
        **({} if storage is None else storage.to_json()),
        **({"real_images": method.real_images} if hasattr(method, "real_images") else {}),
    }


def _with(made: SyntheticSet, provenance: dict[str, Any]) -> SyntheticSet:
    return replace(made, provenance={**made.provenance, **provenance})


def _sized(
    method: Distiller, data: LabeledData, seed: int, storage: Storage | None, before: str | None
) -> tuple[Distiller, Start | None]:
    """Fit the number of images to the bytes; a checkpoint tells what was found for its run."""
    if storage is None or storage.nbytes is None:
        return method, None
    check_sizable(method)
    if before is not None:
        config = read_tensors(before, checkpoints.KIND)[1].get("config")
        number = config.get("images_per_class") if isinstance(config, dict) else None
        if type(number) is int and number >= 1:
            sized: Any = method
            return replace(sized, images_per_class=number), None
    return storage.sized(method, data, seed)


def distill(
    data: LabeledData,
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
) -> SyntheticSet:
    """Distill real data into a small synthetic set.

    The same call gives the same numbers on the same machine. With a checkpoint, stopping and calling again gives the
    numbers of a run that was never stopped, bit for bit.

    Args:
        data: real training data.
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

    Returns:
        The set, on the CPU, with its provenance.

    Raises:
        OptionError: an option is unknown or outside its range, the run cannot fit in memory
            (:mod:`ddplug.distillation.memory`), the codec cannot hold the data, or the bytes do not suffice for one
            image of each class.
        CheckpointError: the checkpoint is of another method, configuration, seed or data; the message says which.
        DivergedError: a loss or the state became NaN or infinite; the checkpoint holds the last good state.

    Example:
        >>> from ddplug.testing import toy_images
        >>> len(distill(toy_images((12, 11)), "random", device="cpu"))  # 10 images for each of two classes
        20
        >>> made = distill(toy_images((12, 11)), "random", nbytes=700, codec="pixels:bits=8", device="cpu")
        >>> len(made), made.nbytes
        (8, 578)
    """
    method: Distiller = registry.resolve("distiller", distiller)() if isinstance(distiller, str) else distiller
    config_of(method)
    total = method.steps if steps is None else steps
    for what, number in (("steps", total), ("checkpoint_every", checkpoint_every), ("seed", seed)):
        if not 0 <= number < 2**63:
            raise OptionError(f"{what} is {number}; it must be at least 0 and below 2**63")
    place = pick_device(device)
    data = data.to(place)
    path = None if checkpoint is None else os.fspath(check_writable(checkpoint))
    before = path if path is not None and resume and os.path.exists(path) else None
    began = time.monotonic()
    storage = storage_for(data, codec, nbytes)
    method, chosen = _sized(method, data, seed, storage, before)
    identity = _identity(data, method, seed, storage)
    check_memory(method, data, place)
    run = _Run(through(method, None if storage is None else storage.codec), identity, place, path)
    run.began = began  # finding how many images fit may be most of the work
    try:
        with preparing(callbacks):
            run.start(data, total, resume, chosen)
        made = run.loop(data, total, callbacks, checkpoint_every)
    except KeyboardInterrupt:
        run.rescue()
        raise
    provenance = {**run.account(), "steps": run.now.step}
    if storage is None:
        return _with(made, provenance)
    # what was coded while its size was looked for, unless steps were taken since
    found = None if chosen is None or run.now.step else chosen.coded
    coded = storage.store(_with(made, provenance)) if found is None else _with(found, provenance)
    return with_recipe(coded, data.augmentation)
