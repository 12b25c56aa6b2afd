r"""Experts: networks trained on real data, whose weights are written down as they move.

An expert's trajectory is its weights before training and after each epoch. It lies in one file, which is mapped, not
read: a step of a method takes two snapshots of one expert, and memory holds no more than these. A file is safetensors
(:mod:`ddplug.utils.files`, kind ``expert``) with one tensor ``snapshots``, ``(epochs + 1, P)`` float32 or float16, a
row for each snapshot with the parameters one after the other; the header names network, parameters and their shapes,
data, preprocessing, training, seed and number, and has the SHA-256 of each row, which is checked when the row is used.

Each expert has its own generator, made from the seed and its number; so any machine makes the same expert in any order,
and a folder that is filled in shards has the files of one that was filled at once.

Reference: Cazenavette, Wang, Torralba, Efros & Zhu, "Dataset Distillation by Matching Training Trajectories", CVPR
2022, section 3.2. Flat experts: Du, Jiang, Tan, Zhou & Li, "Minimizing the Accumulated Trajectory Error to Improve
Dataset Distillation", CVPR 2023, section 4; Zhuang et al., "Surrogate Gap Minimization Improves Sharpness-Aware
Training", ICLR 2022, algorithm 1.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ddplug.data.labeled import LabeledData
from ddplug.distillers.parts.images import pick_augmentation
from ddplug.errors import DataError, DivergedError, FormatError, OptionError
from ddplug.functional import augmentation as augment
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network, has_batch_norm, name_of
from ddplug.networks.functional import initial_parameters, loss_gradient, stateless
from ddplug.utils.checks import at_least
from ddplug.utils.devices import pick_device
from ddplug.utils.files import check_writable, read_tensors, write_tensors
from ddplug.utils.fingerprints import fingerprint
from ddplug.utils.progress import progress as progress_bar

__all__ = [
    "KIND",
    "Expert",
    "ExpertSource",
    "ExpertTraining",
    "expert_path",
    "flatten",
    "open_experts",
    "read_expert",
    "structure",
    "train_experts",
    "trajectory",
    "unflatten",
]

KIND = "expert"
"""What the files hold, for :func:`ddplug.utils.files.read_tensors`."""

_LIMIT = 100_000
"""Experts that a folder can hold; their numbers have five digits."""

_SOURCE_BATCH = 64
"""Samples in a step of experts that a method trains for itself."""


@dataclass(frozen=True)
class ExpertTraining:
    """How experts are trained: SGD without momentum and weight decay.

    Attributes:
        epochs: snapshots to take after the first, one an epoch.
        epoch_steps: SGD steps that count as an epoch; 0 for a pass over the data, as published.
        learning_rate: of SGD.
        batch_size: real samples a step.
        augment: operations of :mod:`ddplug.functional.augmentation` joined by ``_``, ``"auto"`` for what suits the
            data, or ``""``.
        rho: how far the weights are moved uphill before the gradient is taken, for flat experts: 0.01 in FTD. 0 for
            plain SGD.
        alpha: share of the plain gradient's part across the uphill one that is taken off it, for flat experts: 0.3 or 1
            in FTD.

    Raises:
        OptionError: an option is outside its range.

    Example:
        >>> ExpertTraining(epochs=100, rho=0.01, alpha=0.3).learning_rate
        0.01
    """

    epochs: int = 50
    epoch_steps: int = 0
    learning_rate: float = 0.01
    batch_size: int = 256
    augment: str = "auto"
    rho: float = 0.0
    alpha: float = 0.0

    def __post_init__(self) -> None:
        at_least(self, epochs=1, epoch_steps=0, learning_rate=1e-9, batch_size=1, rho=0, alpha=0)
        if self.alpha and not self.rho:
            raise OptionError(f"alpha is {self.alpha} and rho is 0; flat experts need both: rho=0.01")

    def steps(self, data: LabeledData) -> int:
        """Return the SGD steps of an epoch."""
        return self.epoch_steps or math.ceil(len(data) / self.batch_size)


def structure(network: Network, data: LabeledData) -> nn.Module:
    """Return the structure that experts are trained and matched with: without dropout or batch statistics.

    Raises:
        OptionError: the network has batch normalization, whose running statistics are not parameters.
    """
    module = stateless(network, data.shape, data.num_classes, training=False)
    if has_batch_norm(module):
        raise OptionError(
            f"trajectories do not take batch normalization: the running statistics of {name_of(network)!r} are not "
            "among its parameters; use a network without, e.g. convnet (norm=instance)"
        )
    return module


def flatten(weights: Mapping[str, Tensor], module: nn.Module) -> Tensor:
    """Put the parameters of a network one after the other, ``(P,)``, in the network's order."""
    return torch.cat([weights[name].flatten() for name, _ in module.named_parameters()])


def unflatten(vector: Tensor, module: nn.Module) -> Tensors:
    """Cut ``(P,)`` numbers into the parameters of a network; the inverse of :func:`flatten`."""
    shapes = {name: parameter.shape for name, parameter in module.named_parameters()}
    parts = vector.split([shape.numel() for shape in shapes.values()])
    return {name: part.view(shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


def _batches(size: int, batch_size: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Return positions of batches without end, every pass over the data in a new order."""
    while True:
        yield from torch.randperm(size, generator=rng).split(batch_size)


def _dot(one: Tensors, other: Tensors) -> Tensor:
    return torch.stack([(one[name] * other[name]).sum() for name in one]).sum()


def _gradient(module: nn.Module, weights: Tensors, x: Tensor, y: Tensor, training: ExpertTraining) -> Tensors:
    """Return the direction to descend in: the gradient, or that of GSAM."""
    buffers = {name: buffer.to(x.device) for name, buffer in module.named_buffers()}
    plain, _ = loss_gradient(module, {**buffers, **weights}, x, y)
    if not training.rho:
        return plain
    tiny = torch.finfo(x.dtype).tiny
    reach = training.rho / (_dot(plain, plain).sqrt() + tiny)
    uphill = {name: weight + reach * plain[name] for name, weight in weights.items()}
    steep, _ = loss_gradient(module, {**buffers, **uphill}, x, y)
    along = _dot(plain, steep) / (_dot(steep, steep) + tiny)
    return {name: g - training.alpha * (plain[name] - along * g) for name, g in steep.items()}


def trajectory(
    network: Network,
    data: LabeledData,
    training: ExpertTraining,
    rng: torch.Generator,
    tick: Callable[[], object] = lambda: None,
) -> Iterator[Tensor]:
    """Train an expert.

    Args:
        network: name with options, or a function that builds one.
        data: real data.
        training: how.
        rng: generator on the CPU.
        tick: called after each step.

    Yields:
        ``(P,)`` weights on the data's device: before the training, and after each epoch.

    Raises:
        OptionError: the network or the augmentation does not suit.
        DivergedError: a weight became NaN or infinite.

    Example:
        >>> from ddplug.testing import toy_images
        >>> rng = torch.Generator().manual_seed(0)
        >>> [len(w) for w in trajectory("mlp:width=5", toy_images(), ExpertTraining(epochs=2), rng)]
        [373, 373, 373]
    """
    strategy = pick_augmentation(training.augment, data)
    augment.check(strategy, data.shape)
    module = structure(network, data)
    started = initial_parameters(network, data, rng)
    weights = {name: started[name] for name, _ in module.named_parameters()}
    yield flatten(weights, module)
    batches = _batches(len(data), training.batch_size, rng)
    for epoch in range(training.epochs):
        for index in islice(batches, training.steps(data)):
            x = augment.augment(data.batch(index), strategy, rng)
            direction = _gradient(module, weights, x, data.targets[index.to(data.device)], training)
            weights = {name: weight - training.learning_rate * direction[name] for name, weight in weights.items()}
            tick()
        vector = flatten(weights, module)
        if not bool(vector.isfinite().all()):
            raise DivergedError(
                f"an expert diverged to NaN or infinity in epoch {epoch + 1} with "
                f"learning_rate={training.learning_rate}; lower it"
            )
        yield vector


@dataclass(frozen=True)
class Expert:
    """A trajectory in a file.

    Attributes:
        path: the file.
        header: what it says of itself.
        snapshots: ``(epochs + 1, P)`` float32 or float16, mapped.
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
    return Path(folder) / f"expert-{number:05d}.safetensors"


def _numbers(folder: Path) -> list[int]:
    """List the numbers of the experts that a folder has."""
    try:
        found = (re.fullmatch(r"expert-(\d{5})\.safetensors", name, re.ASCII) for name in os.listdir(folder))
        return sorted(int(match[1]) for match in found if match)
    except OSError as error:
        raise OptionError(f"cannot read the folder of experts {folder}: {error.strerror or error}") from None


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


def read_expert(path: str | Path) -> Expert:
    """Open an expert's file; its content is parsed, not trusted.

    Args:
        path: the file; it is mapped, and only what is used is read.

    Returns:
        The expert.

    Raises:
        OptionError: the file is not there or cannot be read.
        FormatError: it is not an expert's.
    """
    tensors, header = read_tensors(path, KIND, mapped=True)
    fault = _fault(tensors, header)
    if fault:
        raise FormatError(f"{path} is not a sound expert: {fault}; remove it and train it again with `ddplug experts`")
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
        number: the first so many; 0 for all.

    Returns:
        The experts, by number.

    Raises:
        OptionError: the folder cannot be read, or an expert is missing.
        FormatError: a file is not a sound expert.
        DataError: an expert is of another network, or was trained on other data or otherwise.
    """
    present = _numbers(Path(folder))
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


def train_experts(
    data: LabeledData,
    folder: str | Path,
    network: Network = "convnet",
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

    Args:
        data: real data.
        folder: for the files; it is made. A process that is killed may leave ``.ddplug-*.tmp`` there, never a part of
            an expert.
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
        OptionError: an option is unknown or outside its range, or the folder cannot be written.
        FormatError: a file there is not a sound expert.
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
    if not 1 <= number <= _LIMIT:
        raise OptionError(f"the number of experts is {number}; it must lie between 1 and {_LIMIT}")
    if not 1 <= shard[0] <= shard[1]:
        raise OptionError(f"the shard is {shard[0]}/{shard[1]}; it must be K/N with K between 1 and N")
    data = data.to(pick_device(device))
    training = training or ExpertTraining()
    training = replace(training, augment=pick_augmentation(training.augment, data))
    header = {
        **_belongings(network, data),
        **{f"training's {name}": value for name, value in asdict(training).items()},
        "seed": seed,
        "stored": "float16" if half else "float32",
    }
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"cannot make the folder {folder}: {error.strerror or error}; choose another path") from None
    check_writable(expert_path(folder, 0))
    for k in _numbers(Path(folder)):
        _check(read_expert(expert_path(folder, k)), k, header)
    paths = {k: expert_path(folder, k) for k in range(shard[0] - 1, number, shard[1])}
    missing = [k for k, path in paths.items() if not path.exists()]
    total = len(missing) * training.epochs * training.steps(data)
    with tqdm(total=total, desc="experts", unit="step", disable=not progress, leave=False) as bar:
        for k in missing:
            _train(paths[k], data, network, training, {**header, "number": k}, bar.update)
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
        augment: as in :class:`ExpertTraining`, of experts trained here.
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
            The part of a state that the other functions need: ``experts`` ``(K, 32)``, the digests by which a resumed
            run knows the files again, or ``trajectories`` ``(K, epochs + 1, P)``.

        Raises:
            OptionError: the experts in the folder were trained for fewer epochs; or see :func:`open_experts`.
        """
        if not self.folder:
            training = ExpertTraining(
                self.epochs, self.epoch_steps, self.learning_rate, batch_size=_SOURCE_BATCH, augment=self.augment
            )
            numbers = progress_bar(range(self.number), "experts")
            made = [torch.stack(list(trajectory(self.network, data, training, rng))) for _ in numbers]
            return {"trajectories": torch.stack(made)}
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
        expert = read_expert(expert_path(self.folder, k))
        if list(expert.digest) != state["experts"][k].tolist():
            raise DataError(
                f"{expert.path} is not the expert that this run began with; put the old folder back, or begin anew"
            )
        return [expert.at(epoch) for epoch in epochs]
