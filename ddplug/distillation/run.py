"""One run: its steps, the checkpoint that it is kept in, and what is saved of it when it is stopped or fails."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillation import checkpoint as checkpoints
from ddplug.distillation.callbacks import Callback
from ddplug.distillation.checkpoint import Snapshot
from ddplug.distillation.config import config_of
from ddplug.distillation.memory import check as check_memory
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.provenance import is_private, versions
from ddplug.distillation.storage import Start, Storage, check_sizable
from ddplug.distillation.straying import Straying
from ddplug.distillation.through import through
from ddplug.errors import DataError, DdplugError, DivergedError, OptionError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.checks import out_of_memory
from ddplug.utils.files import check_space, read_tensors
from ddplug.utils.preparation import Keeper, Part
from ddplug.utils.signals import saving
from ddplug.utils.teams import agreed

__all__ = ["Run"]

_CHECK_EVERY = 25
"""Steps between two looks at the losses where a look means waiting for an accelerator."""


class Run:
    """One call of :func:`ddplug.distill`: where it stands, what of it is known to be sound, and where that is kept."""

    def __init__(
        self, method: Distiller, identity: dict[str, Any], device: torch.device, path: str | None, every: float
    ) -> None:
        self.method = method
        self.identity = self.asked = identity  # with the images that fit, and as it was asked for
        self.device = device
        self.path = path
        self.every = every
        self.parts = Keeper(self.keep_parts, every)
        self.resumed = False  # whether no step has been taken yet on what was read from a file
        self.straying = Straying()
        self.rng = torch.Generator().manual_seed(identity["seed"])
        self.began = self.saved = time.monotonic()
        self.kept = False  # whether the checkpoint on disk is of this run
        self.now = Snapshot({}, self.rng.get_state(), 0)  # after the last complete step
        self.written: Snapshot | None = None  # what the checkpoint on disk holds
        self.sound: Snapshot | None = None  # the last one that gave a finite loss or was checked as a whole
        self.losses: list[Tensor] = []  # of the steps that have not been looked at

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def account(self) -> dict[str, Any]:
        """Say what is being done, where, with what and for how long."""
        made = {**self.identity, "versions": versions(), "device": str(self.device)}
        # how long it took depends on the number of samples
        return made if is_private(self.method) else {**made, "seconds": self.seconds}

    @property
    def expected(self) -> dict[str, Any]:
        """What a checkpoint must be of."""
        return {**self.identity, "versions": versions(), "anneals": getattr(self.method, "anneals", False)}

    def prepared(self, header: Mapping[str, Any]) -> bool:
        """Take up the parts of a preparation, if that is what the checkpoint holds."""
        if self.path is None or checkpoints.PARTS not in header:
            return False
        self.parts.parts, seconds = checkpoints.load_parts(self.path, self.expected, self.device)
        self.began -= seconds
        self.kept = self.resumed = True
        return True

    def begin(self, data: LabeledData, total: int, storage: Storage | None, *, resume: bool) -> Start | None:
        """Fit the number of images to the bytes, and start; give what was chosen, where fitting has chosen."""
        found = self.path is not None and resume and os.path.exists(self.path)
        header = read_tensors(self.path, checkpoints.KIND)[1] if found and self.path is not None else {}
        partly = self.prepared(header)
        agreed(f"the checkpoint {self.path}, or the data", json.dumps([self.asked, header], sort_keys=True))
        self.method, chosen = _sized(self.method, data, self.identity["seed"], storage, header)
        check_memory(self.method, data, self.device)
        self.identity = {**self.identity, "config": config_of(self.method)}
        self.straying = Straying(None if is_private(self.method) else data)
        self.method = through(self.method, None if storage is None else storage.codec)
        self.start(data, total, bool(header) and not partly, chosen)
        self.parts.parts = {}  # the state has all of it now
        return chosen

    def start(self, data: LabeledData, total: int, taken_up: bool, chosen: Start | None) -> None:
        """Take up the checkpoint, or begin at step 0, with what was chosen already if anything was."""
        if self.path is not None and taken_up:
            self.now, seconds = checkpoints.load(self.path, self.expected, self.device, total)
            agreed(f"the checkpoint {self.path}", str(self.now.step))  # before the first process writes another
            self.rng.set_state(self.now.generator)
            self.began -= seconds
            self.kept = self.resumed = True
            self.check_taken_up(data)
        elif chosen is not None:
            self.rng.set_state(chosen.generator)
            self.now = Snapshot(chosen.state, chosen.generator, 0)
        else:
            with self.blaming_the_file():
                state = self.method.init(data, self.rng)
            self.now = Snapshot(state, self.rng.get_state(), 0)
        self.sound = self.now
        self.written = self.now if taken_up else None
        if self.path is not None:
            check_space(self.path, sum(tensor.nbytes for tensor in self.now.state.values()))

    def check_taken_up(self, data: LabeledData) -> None:
        """Refuse a state of which the method cannot make a set."""
        with self.blaming_the_file(DataError):
            made = self.method.result(self.now.state, data)
            if (made.num_classes, made.shape) != (data.num_classes, data.shape):
                raise ValueError(f"its images have the shape {made.shape}")

    @contextmanager
    def blaming_the_file(self, *others: type[Exception]) -> Iterator[None]:
        """Say of what fails on what was just read that the checkpoint is to blame; our own errors say what is.

        Args:
            others: of our own errors that may come of the checkpoint too.
        """
        try:
            yield
        except (LookupError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            named = isinstance(error, DdplugError) and not isinstance(error, others)
            if not self.resumed or self.path is None or named or out_of_memory(error):
                raise
            raise checkpoints.unsound(self.path, error) from error

    def step(self, data: LabeledData, callbacks: Sequence[Callback]) -> None:
        """Take one step; an interrupt at any point leaves ``now`` at a complete one."""
        before = self.now
        number = before.step + 1
        try:
            with self.blaming_the_file():
                state, metrics = self.method.step(before.state, data, self.rng)
        except DivergedError as error:
            self.diverged(f"{error} at step {number}")
        self.resumed = False
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

    def diverged(self, what: str) -> NoReturn:
        """Keep what is sound and say what to do."""
        if self.sound is not None:
            self.keep(self.sound)
        if self.kept:
            place = f"the last good checkpoint is {self.path}"
        else:
            place = "there is no checkpoint" if self.path is None else "no good checkpoint could be kept"
        raise DivergedError(f"{self.method.name} diverged: {what}; lower the learning rate; {place}")

    def keep(self, snapshot: Snapshot) -> None:
        """Write a snapshot to the checkpoint, unless there is nowhere to or it is not sound."""
        if self.fault(snapshot) is None:
            self.write(snapshot)

    def write(self, snapshot: Snapshot) -> None:
        """Write a snapshot that is known to be sound to the checkpoint, unless there is nowhere to."""
        if self.path is not None and snapshot is not self.written:
            with saving():
                checkpoints.save(self.path, snapshot, self.account())
                self.written = snapshot
                self.kept = True

    def keep_parts(self, parts: Mapping[int, Part]) -> None:
        """Write what is done of the preparation to the checkpoint, unless there is nowhere to."""
        if self.path is not None:
            with saving():
                checkpoints.save_parts(self.path, parts, {**self.account(), **self.asked})
                self.kept = True

    def fault(self, snapshot: Snapshot) -> str | None:
        """Say what shows that a snapshot is of a run that has diverged."""
        return self.straying.found(snapshot.state) if snapshot.finite else "the state holds NaN or infinity"

    def save(self) -> None:
        """Make sure that all is sound so far, and write the checkpoint."""
        self.check(self.now.step)
        fault = self.fault(self.now)
        if fault is not None:
            self.diverged(f"{fault} after step {self.now.step}")
        self.sound = self.now
        self.write(self.now)
        self.saved = time.monotonic()

    def rescue(self) -> None:
        """Write the last complete step after an interrupt; if that turns out to have diverged, the last sound one."""
        if self.sound is None:  # it came before there was any state
            self.parts.flush()
        else:
            clean = all(bool(loss.isfinite()) for loss in self.losses)
            if clean and self.fault(self.now) is None:
                self.write(self.now)
            else:
                self.keep(self.sound)

    def rescue_after(self, error: BaseException) -> None:
        """Keep what is sound after an error; where the checkpoint cannot be written any more, somewhere else.

        Raises:
            OptionError: the checkpoint cannot be written; the message says where the run is kept.
        """
        try:
            with saving():
                self.rescue()
        except OptionError as failed:
            raise OptionError(f"{failed}; {self.kept_elsewhere()}") from None
        except Exception:
            # memory is short, say: the checkpoint on disk is what is left, and the first error what counts
            if isinstance(error, KeyboardInterrupt):
                raise

    def kept_elsewhere(self) -> str:
        """Write the run to the folder for temporary files; say how to go on from there."""
        name = f"ddplug-{secrets.token_hex(4)}.checkpoint"
        try:
            self.path = os.path.join(tempfile.gettempdir(), name)
            self.rescue()
        except (OptionError, OSError):  # there may be no folder for temporary files
            return "and the run could not be kept elsewhere either"
        return f"the run is kept in {self.path}: go on with that checkpoint (--checkpoint {self.path})"

    def loop(self, data: LabeledData, total: int, callbacks: Sequence[Callback]) -> SyntheticSet:
        """Go on to step ``total`` and give the result, on the CPU."""
        with ExitStack() as closing:
            for callback in callbacks:
                closing.callback(callback.close)
                callback.start(total, self.now.step, self.method.name)
            while self.now.step < total:
                self.step(data, callbacks)
                if time.monotonic() - self.saved >= self.every:
                    self.save()
            self.save()
        with self.blaming_the_file(DataError):
            return self.method.result(self.now.state, data).to("cpu")


def _sized(
    method: Distiller, data: LabeledData, seed: int, storage: Storage | None, before: Mapping[str, Any]
) -> tuple[Distiller, Start | None]:
    """Fit the number of images to the bytes; the header of a checkpoint tells what was found for its run."""
    if storage is None or storage.nbytes is None:
        return method, None
    check_sizable(method)
    if before and checkpoints.PARTS not in before:
        config = before.get("config")
        number = config.get("images_per_class") if isinstance(config, dict) else None
        if type(number) is int and number >= 1:
            sized: Any = method
            return replace(sized, images_per_class=number), None
    return storage.sized(method, data, seed)
