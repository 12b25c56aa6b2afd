r"""Experts: networks trained on real data, whose weights are written down as they move.

An expert's trajectory is its weights before training and after each epoch. It lies in one file, which is
memory-mapped, not read: a step of a method takes two snapshots of one expert, and memory holds no more than these. A
file is safetensors (:mod:`ddplug.utils.files`, kind ``expert``) with one tensor ``snapshots``, ``(epochs + 1, P)``
float32 or float16, a row for each snapshot with the parameters one after the other; the header names network,
parameters and their shapes, data, preprocessing, training, seed and number, and has the SHA-256 of each row, which is
checked when the row is used.

Each expert has its own generator, made from the seed and its number; so any machine makes the same expert in any order,
and a folder that is filled in shards has the files of one that was filled at once.

Reference: Cazenavette, Wang, Torralba, Efros & Zhu, "Dataset Distillation by Matching Training Trajectories", CVPR
2022, section 3.2.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ddplug.data.anything import Data, as_labeled
from ddplug.data.labeled import LabeledData
from ddplug.distillers.parts.images import pick_augmentation
from ddplug.distillers.parts.shares import each_part
from ddplug.distillers.parts.training import TRAIN_BATCH, ExpertTraining, structure, trajectory
from ddplug.errors import DataError, DivergedError, FormatError, OptionError
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network, name_of, suited
from ddplug.networks.forms import AUTO
from ddplug.utils.checks import whole
from ddplug.utils.devices import pick_device
from ddplug.utils.files import check_writable, read_tensors, write_tensors
from ddplug.utils.fingerprints import fingerprint
from ddplug.utils.forecast import parts
from ddplug.utils.locks import clean, locked
from ddplug.utils.paths import local
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.teams import agreed, alone, team
from ddplug.utils.text import os_reason

__all__ = [
    "KIND",
    "Expert",
    "ExpertSource",
    "expert_path",
    "open_experts",
    "read_expert",
    "train_experts",
]

KIND = "expert"
"""What the files hold, for :func:`ddplug.utils.files.read_tensors`."""

_LIMIT = 100_000
"""Experts that a folder can hold; their numbers have five digits."""


@dataclass(frozen=True)
class Expert:
    """A trajectory in a file.

    Attributes:
        path: the file.
        header: what it says of itself.
        snapshots: ``(epochs + 1, P)`` float32 or float16, memory-mapped.
    """

    path: Path
    header: Mapping[str, Any] = field(repr=False)
    snapshots: Tensor = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 over the header, which has those of the snapshots: equal experts have equal digests."""
        return hashlib.sha256(json.dumps(self.header, sort_keys=True).encode()).digest()

    def at(self, epoch: int) -> Tensor:
        """Read the weights after an epoch (0: before the training), ``(P,)`` float32 on the CPU.

        Raises:
            FormatError: the row is not what was written.
        """
        row = self.snapshots[epoch].clone()
        if _sum(row) != self.header["sha256"][epoch] or not bool(row.isfinite().all()):
            raise FormatError(
                f"{self.path} was altered or damaged: its snapshot {epoch} does not have the checksum in the header; "
                "remove it and train it again with `ddplug experts`"
            )
        return row.float()


def _sum(row: Tensor) -> str:
    return hashlib.sha256(row.numpy().data).hexdigest()


def expert_path(folder: str | Path, number: int) -> Path:
    """Return the file of an expert: ``expert-00000.safetensors`` and on.

    Example:
        >>> expert_path("experts", 7).name
        'expert-00007.safetensors'
    """
    return Path(local(folder)) / f"expert-{number:05d}.safetensors"


def _numbers(folder: Path) -> list[int]:
    """List the numbers of the experts that a folder has."""
    try:
        found = (re.fullmatch(r"expert-(\d{5})\.safetensors", name, re.ASCII) for name in os.listdir(folder))
        return sorted(int(match[1]) for match in found if match)
    except OSError as error:
        raise OptionError(f"cannot read the folder of experts {folder}: {os_reason(error)}") from None


def _belongings(network: Network, data: LabeledData) -> dict[str, Any]:
    """Name what an expert must have been trained with, flat and JSON-ready."""
    module = structure(network, data)
    return {
        "network": name_of(network),
        "parameters": [[name, list(parameter.shape)] for name, parameter in module.named_parameters()],
        "preprocessing": data.preprocess.kind,
        "preprocessing's fingerprint": fingerprint(data.preprocess.tensors()),
        "data's fingerprint": data.fingerprint,
    }


def read_expert(path: str | Path, *, whole: bool = True) -> Expert:
    """Open an expert's file; its content is parsed, not trusted.

    Args:
        path: the file; it is memory-mapped.
        whole: look at every byte; without, only what is used is read, and compared with its own checksum.

    Returns:
        The expert.

    Raises:
        OptionError: the file is not there or cannot be read.
        FormatError: it is not an expert's.
    """
    tensors, header = read_tensors(path, KIND, mapped=True, whole=whole)
    fault = _fault(tensors, header)
    if fault:
        raise FormatError(f"{path} is not a valid expert: {fault}; remove it and train it again with `ddplug experts`")
    return Expert(Path(path), header, tensors["snapshots"])


def _fault(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a file's layout, if anything."""
    if set(tensors) != {"snapshots"}:
        return f"it holds the tensors {reprlib.repr(sorted(tensors))}, not 'snapshots'"
    rows, sums, parameters = tensors["snapshots"], header.get("sha256"), header.get("parameters")
    if rows.ndim != 2 or rows.dtype not in (torch.float32, torch.float16) or not rows.is_contiguous():
        return f"its snapshots are {rows.dtype} of the shape {tuple(rows.shape)}"
    if not isinstance(sums, list) or len(sums) != len(rows) or not all(isinstance(text, str) for text in sums):
        return f"it has {len(rows)} snapshots and other checksums"
    try:
        size = sum(math.prod(shape) for _, shape in parameters)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        return f"its parameters are {reprlib.repr(parameters)}"
    return None if size == rows.shape[1] else f"its snapshots have {rows.shape[1]} numbers, its parameters {size}"


def _check(expert: Expert, number: int, wanted: Mapping[str, Any]) -> None:
    """Refuse an expert of something else.

    Raises:
        DataError: it is; the message says of what.
    """
    for name, value in {**wanted, "number": number}.items():
        found = expert.header.get(name)
        if found != value:
            raise DataError(
                f"{expert.path} does not belong here: its {name} is {reprlib.repr(found)}, not {reprlib.repr(value)}; "
                "use experts of this network, data and preprocessing (and the same --validation), or another folder"
            )


def open_experts(folder: str | Path, network: Network, data: LabeledData, number: int = 0) -> list[Expert]:
    """Open the experts in a folder, and check that they were trained on these data, all in the same way.

    Args:
        folder: that :func:`train_experts` filled.
        network: the architecture they must have.
        data: the data they must have been trained on.
        number: of experts to open, the first ones; 0 for all.

    Returns:
        The experts, by number.

    Raises:
        OptionError: the folder cannot be read, or an expert is missing.
        FormatError: a file is not a valid expert.
        DataError: an expert is of another network, or was trained on other data or otherwise.
    """
    present = _numbers(Path(local(folder)))
    wanted = range(number or max(len(present), 1))
    missing = [k for k in wanted if k not in present]
    if missing:
        raise OptionError(
            f"the folder {folder} has {len(present)} experts, and number {missing[0]} is not among them; train it with "
            "`ddplug experts`, or ask for fewer"
        )
    experts = [read_expert(expert_path(folder, k)) for k in wanted]
    alike = {name: value for name, value in experts[0].header.items() if name not in ("number", "sha256")}
    for k, expert in enumerate(experts):
        _check(expert, k, {**alike, **_belongings(network, data)})
    return experts


def _generator(seed: int, number: int) -> torch.Generator:
    """Make the generator of an expert: independent of the others', and the same in every shard."""
    digest = hashlib.sha256(f"expert {number} of seed {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@own_surroundings()
def train_experts(
    data: Data,
    folder: str | Path,
    network: Network = AUTO,
    training: ExpertTraining | None = None,
    *,
    number: int = 100,
    seed: int = 0,
    shard: tuple[int, int] = (1, 1),
    half: bool = False,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> list[Path]:
    """Train experts and write each to a file of its own, whole or not at all; those that are there are kept.

    Processes that work together (:mod:`ddplug.utils.teams`) train and write a share each.

    Args:
        data: real data.
        folder: for the files; it is made. A process that is killed may leave ``.ddplug-*.tmp`` there, which the next
            one removes, never a part of an expert.
        network: name with options, or a function that builds one.
        training: how; the published way if not given.
        number: of experts in all shards together, at most 100,000.
        seed: of all randomness.
        shard: ``(k, n)`` trains every ``n``-th expert, from the ``k``-th; ``k`` in ``1..n``.
        half: store float16, half the size; weights then are rounded by up to 1 in 2,000.
        device: see :func:`ddplug.utils.devices.pick_device`.
        progress: show a progress bar.

    Returns:
        The files of the shard's experts.

    Raises:
        OptionError: an option is unknown or outside its range, the folder cannot be written, or another process is
            training the same expert.
        FormatError: a file there is not a valid expert.
        DataError: the folder has experts of another network, other data, another training or seed.
        DivergedError: a weight became NaN or infinite.

    Example:
        >>> import tempfile
        >>> from ddplug.testing import toy_images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = train_experts(toy_images(), folder, "mlp:width=5", ExpertTraining(epochs=2), number=2)
        ...     [path.name for path in made], read_expert(made[0]).snapshots.shape
        (['expert-00000.safetensors', 'expert-00001.safetensors'], torch.Size([3, 373]))
    """
    number, seed = whole("number", number), whole("seed", seed)
    if not 1 <= number <= _LIMIT:
        raise OptionError(f"the number of experts is {number}; it must lie between 1 and {_LIMIT}")
    if not 1 <= shard[0] <= shard[1]:
        raise OptionError(f"the shard is {shard[0]}/{shard[1]}; it must be K/N with K between 1 and N")
    data = as_labeled(data).to(pick_device(device))
    network = suited(network, data.shape)
    training = training or ExpertTraining()
    training = replace(training, augment=pick_augmentation(training.augment, data))
    header = {
        **_belongings(network, data),
        **{f"training's {name}": value for name, value in asdict(training).items()},
        "seed": seed,
        "stored": "float16" if half else "float32",
    }
    try:
        Path(local(folder)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"cannot make the folder {folder}: {os_reason(error)}; choose another path") from None
    check_writable(expert_path(folder, 0))
    clean(folder)
    for k in _numbers(Path(local(folder))):
        _check(read_expert(expert_path(folder, k)), k, header)
    paths = {k: expert_path(folder, k) for k in range(shard[0] - 1, number, shard[1])}
    missing = [k for k, path in paths.items() if not path.exists()]
    own = team()
    agreed(f"the experts that are missing in {folder}", str(missing))
    mine = missing[own.rank :: own.size]
    total = len(mine) * training.epochs * training.steps(data)
    with (
        alone(),
        tqdm(total=total, desc="experts", unit="step", disable=not progress, leave=False) as bar,
        parts(total, "experts") as done,
    ):
        for k in mine:
            with locked(paths[k]):
                _train(paths[k], data, network, training, {**header, "number": k}, lambda: (bar.update(), done()))
    agreed("what was done", "all of it")  # the others' files are there too
    return list(paths.values())


def _train(
    path: Path,
    data: LabeledData,
    network: Network,
    training: ExpertTraining,
    header: Mapping[str, Any],
    tick: Callable[[], object],
) -> None:
    """Train one expert and write it."""
    dtype = getattr(torch, header["stored"])
    rng = _generator(header["seed"], header["number"])
    rows: Sequence[Tensor] = [row.to("cpu", dtype) for row in trajectory(network, data, training, rng, tick)]
    if not all(bool(row.isfinite().all()) for row in rows):
        raise DivergedError(f"weights of expert {header['number']} are too large for float16; store float32")
    write_tensors(path, KIND, {"snapshots": torch.stack(list(rows))}, {**header, "sha256": [_sum(row) for row in rows]})


@dataclass(frozen=True)
class ExpertSource:
    """Where a method takes experts from: a folder, or a few that it trains at the start and keeps in its state.

    Attributes:
        network: the architecture.
        folder: of experts that :func:`train_experts` made; ``""`` to train some.
        number: of experts; 0 for all in the folder.
        epochs: that they must have been trained for, or are.
        epoch_steps: SGD steps that count as an epoch of experts trained here; 0 for a pass over the data.
        learning_rate: of experts trained here.
        augment: as in :class:`ddplug.distillers.ExpertTraining`, of experts trained here.
    """

    network: Network
    folder: str
    number: int
    epochs: int
    epoch_steps: int
    learning_rate: float
    augment: str

    def begin(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Open or train the experts.

        Args:
            data: real data.
            rng: generator on the CPU.

        Returns:
            For the method's state, ``experts`` ``(K, 32)``, the digests by which a resumed run knows the files again,
            or ``trajectories`` ``(K, epochs + 1, P)``.

        Raises:
            OptionError: the experts in the folder were trained for fewer epochs; or see :func:`open_experts`.
        """
        if not self.folder:
            training = ExpertTraining(
                self.epochs, self.epoch_steps, self.learning_rate, batch_size=TRAIN_BATCH, augment=self.augment
            )

            def expert(data: LabeledData, state: Mapping[str, Tensor]) -> Tensors:
                return {"rows": torch.stack(list(trajectory(self.network, data, training, rng)))}

            found = each_part([expert] * self.number, data, {}, rng, "experts")
            return {"trajectories": torch.stack([one["rows"] for one in found])}
        experts = open_experts(self.folder, self.network, data, self.number)
        epochs = min(len(expert.snapshots) for expert in experts) - 1
        if epochs < self.epochs:
            raise OptionError(
                f"the experts in {self.folder} were trained for {epochs} epochs, but max_start_epoch - 1 + "
                f"expert_epochs is {self.epochs}; lower these, or train experts for longer"
            )
        return {"experts": torch.tensor([list(expert.digest) for expert in experts], dtype=torch.uint8)}

    def count(self, state: Mapping[str, Tensor]) -> int:
        """Return the number of experts in a state."""
        return len(state["experts" if self.folder else "trajectories"])

    def weights(self, state: Mapping[str, Tensor], k: int, epochs: Sequence[int]) -> list[Tensor]:
        """Return the ``(P,)`` weights of the ``k``-th expert after some epochs; -1 is the last.

        Raises:
            DataError: the file is not that of the expert that the run began with.
            FormatError: the file was altered or damaged.
        """
        if not self.folder:
            return [state["trajectories"][k, epoch] for epoch in epochs]
        expert = read_expert(expert_path(self.folder, k), whole=False)  # at every step
        if list(expert.digest) != state["experts"][k].tolist():
            raise DataError(
                f"{expert.path} is not the expert that this run began with; put the old folder back, or start over "
                "with resume=False (--no-resume)"
            )
        return [expert.at(epoch) for epoch in epochs]
