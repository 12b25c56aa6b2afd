"""The one loop: seed, device, steps, callbacks, checkpoints and exact resume, for every method."""

from __future__ import annotations

import inspect
import json
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from ddplug import registry
from ddplug._version import __version__
from ddplug.data.anything import Data, as_labeled
from ddplug.data.labeled import LabeledData
from ddplug.distillation import checkpoint as checkpoints
from ddplug.distillation.callbacks import Callback, check_callbacks, preparing
from ddplug.distillation.checkpoint import Snapshot
from ddplug.distillation.config import config_of
from ddplug.distillation.memory import check as check_memory
from ddplug.distillation.precision import precision_of
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.settling import settled
from ddplug.distillation.shards import WHOLE, check_shard, sharding
from ddplug.distillation.storage import Start, Storage, check_sizable, storage_for, with_recipe
from ddplug.distillation.straying import Straying
from ddplug.distillation.through import through
from ddplug.errors import DataError, DdplugError, DivergedError, OptionError
from ddplug.networks.precision import PRECISIONS, computing
from ddplug.synthetic.codecs.protocol import Codec
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.file_format import check_names
from ddplug.synthetic.merging import SHARD
from ddplug.synthetic.ranges import ranges
from ddplug.utils.checks import one_of, out_of_memory, real, whole
from ddplug.utils.devices import pick_device
from ddplug.utils.files import check_header, check_space, check_writable, read_tensors
from ddplug.utils.former import FORMER_SPELLINGS
from ddplug.utils.locks import locked
from ddplug.utils.preparation import Keeper, Part, keeping
from ddplug.utils.signals import saving, stoppable
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.teams import agreed, team
from ddplug.utils.text import storable

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
        made = {**self.identity, "versions": _versions(), "device": str(self.device)}
        # how long it took depends on the number of samples
        return made if _private(self.method) else {**made, "seconds": self.seconds}

    @property
    def expected(self) -> dict[str, Any]:
        """What a checkpoint must be of."""
        return {**self.identity, "versions": _versions(), "anneals": getattr(self.method, "anneals", False)}

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
        self.straying = Straying(None if _private(self.method) else data)
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


def _identity(
    data: LabeledData,
    method: Distiller,
    seed: int,
    storage: Storage | None = None,
    shard: tuple[int, ...] = WHOLE,
    precision: str = PRECISIONS[0],
) -> dict[str, Any]:
    """Say what makes a run the run it is; of data that are private no more than their name."""
    columns = {"columns": list(data.columns), "target": data.target} if data.columns else {}
    told = {} if _private(method) else {"fingerprint": data.fingerprint, "size": len(data)}
    return {
        "method": method.name,
        "config": config_of(method),
        "seed": seed,
        "data": {"name": storable(data.name), **told, **columns},
        **({} if storage is None else storage.to_json()),
        **({} if shard == WHOLE else {SHARD: list(shard)}),
        **({} if precision == PRECISIONS[0] else {"precision": precision}),
        **({"real_images": method.real_images} if hasattr(method, "real_images") else {}),
    }


def _private(method: Distiller) -> bool:
    """Tell whether nothing may be told of the data but by the set itself."""
    return bool(getattr(method, "private", False))


def _check_private(method: Distiller, codec: str | Codec | None, nbytes: int | None) -> None:
    """Refuse what would be settled by looking at private data once more, or several times over."""
    if team().size > 1 and _private(method):
        raise OptionError(
            f"{method.name} is not split among processes, each of which would draw noise of its own; run it in one"
        )
    what = "nbytes" if nbytes is not None else "codec='auto'" if codec == "auto" else None
    if what is not None and _private(method):
        raise OptionError(
            f"{what} is chosen by looking at the real images, which {method.name} must not reveal: give "
            "images_per_class, and a codec by its name if any"
        )


def _with(made: SyntheticSet, provenance: dict[str, Any]) -> SyntheticSet:
    return replace(made, provenance={**made.provenance, **provenance})


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
    check_shard(shard, method, data.num_classes, stored=codec is not None or nbytes is not None)
    precision = precision_of(precision, method, data, path if resume else None)
    asked = storage_for(data, codec, nbytes)
    # what is stored one by one in the end is of the same run, whatever it is stored as
    storage = None if asked is None or asked.afterwards else asked
    identity = _identity(data, method, seed, storage, shard, precision)
    run = _Run(method, identity, place, path, checkpoint_every)
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
    provenance = {**run.account(), "steps": run.now.step, **({} if _private(method) else ranges(data))}
    if storage is None:
        whole_set = _with(made, provenance)
        return whole_set if asked is None else asked.store(whole_set)
    # what was coded while its size was looked for, unless steps were taken since
    found = None if chosen is None or run.now.step else chosen.coded
    coded = storage.store(_with(made, provenance)) if found is None else _with(found, provenance)
    return with_recipe(coded, data.augmentation)
