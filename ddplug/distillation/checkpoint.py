"""A run on disk: the state, the generator and what they belong to, in the file format of the sets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ddplug.errors import CheckpointError, FormatError
from ddplug.utils.files import is_checked, read_tensors, write_tensors
from ddplug.utils.preparation import Part
from ddplug.utils.text import one_line

__all__ = ["KIND", "PARTS", "Snapshot", "load", "load_parts", "save", "save_parts", "unsound"]

_log = logging.getLogger(__name__)

KIND = "checkpoint"
"""What the header of the file calls it."""

PARTS = "parts"
"""Header field of a run that was stopped before its first step: how many parts of the preparation are done."""

_PREFIX = "state."


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where a run stands between two steps.

    Attributes:
        state: the method's tensors, by name, on the run's device or the CPU.
        generator: ``(n,)`` uint8 state of the run's generator.
        step: steps taken.
    """

    state: Mapping[str, Tensor]
    generator: Tensor
    step: int

    @property
    def finite(self) -> bool:
        """Whether no tensor of the state holds NaN or infinity."""
        return all(bool(tensor.isfinite().all()) for tensor in self.state.values())


def save(path: str, snapshot: Snapshot, header: Mapping[str, Any]) -> None:
    """Write a snapshot and what it belongs to.

    Args:
        path: file to write; replaced as a whole or not at all.
        snapshot: where the run stands.
        header: JSON-ready ``method``, ``config``, ``seed``, ``data``, ``device``, ``seconds`` and ``versions``.

    Raises:
        OptionError: the file cannot be written, or a tensor's type cannot be stored.
    """
    tensors = {_PREFIX + name: tensor for name, tensor in snapshot.state.items()}
    on_cpu = [] if header["device"] == "cpu" else [n for n, t in snapshot.state.items() if t.device.type == "cpu"]
    more = {"step": snapshot.step, "on_cpu": on_cpu}
    write_tensors(path, KIND, {**tensors, "generator": snapshot.generator}, {**header, **more})


def save_parts(path: str, parts: Mapping[int, Part], header: Mapping[str, Any]) -> None:
    """Write what is done of a preparation, and what it belongs to; see :func:`save`."""
    tensors = {f"part.{k}.{name}": tensor for k, part in parts.items() for name, tensor in part.tensors.items()}
    generators = {f"generator.{k}": part.generator for k, part in parts.items()}
    on_cpu = [] if header["device"] == "cpu" else [name for name, t in tensors.items() if t.device.type == "cpu"]
    write_tensors(path, KIND, {**tensors, **generators}, {**header, PARTS: len(parts), "on_cpu": on_cpu})


def _belongings(header: Mapping[str, Any], anneals: bool) -> dict[str, Any]:
    """Name, flat, what must be equal for a run to go on: everything but the number of steps and the data's name.

    The steps too where the method anneals over them: those that were taken belong to one number of them.
    """
    config, data = header["config"], header["data"]
    flat = {"method": header["method"], "seed": header["seed"], "data fingerprint": data.get("fingerprint")}
    flat |= {
        "codec": header.get("codec"),
        "number of bytes": header.get("nbytes"),
        "shard": header.get("shard"),
        "precision": header.get("precision", "float32"),
    }
    return {**flat, **{f"hyper-parameter {key}": value for key, value in config.items() if anneals or key != "steps"}}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say what differs, the method first."""
    anneals = bool(new.get("anneals"))
    before, after = _belongings(old, anneals), _belongings(new, anneals)
    if before["method"] != after["method"]:
        return f"its method was {before['method']!r} and is now {after['method']!r}"
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return "; ".join(f"its {key} was {before.get(key)!r} and is now {after.get(key)!r}" for key in changed)


def _seconds(header: Mapping[str, Any]) -> float:
    seconds = header.get("seconds", 0)  # a private run does not tell
    if type(seconds) not in (int, float) or seconds < 0:
        raise ValueError(f"{seconds!r} seconds")
    return float(seconds)


def _checked(generator: Tensor) -> Tensor:
    """Return the state of a generator, if it is one."""
    torch.Generator().set_state(generator)
    return generator


def _parse(tensors: Mapping[str, Tensor], header: Mapping[str, Any], device: torch.device) -> Snapshot:
    """Build the snapshot, or say that the file cannot be a checkpoint."""
    step = header["step"]
    if type(step) is not int or step < 0:
        raise ValueError(f"step {step!r} after {header.get('seconds')!r} seconds")
    state = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    # what a method keeps off the accelerator, counters and the like, must not land on it and make every step wait
    state = {name: tensor if name in header["on_cpu"] else tensor.to(device) for name, tensor in state.items()}
    snapshot = Snapshot(state, _checked(tensors["generator"]), step)
    if not snapshot.finite:
        raise ValueError("its state holds NaN or infinity")
    return snapshot


def _parse_parts(tensors: Mapping[str, Tensor], header: Mapping[str, Any], device: torch.device) -> dict[int, Part]:
    """Build the parts of a preparation, or say that the file cannot hold them."""
    number = header[PARTS]
    if type(number) is not int or not 0 <= number <= len(tensors):
        raise ValueError(f"{number!r} parts")
    found: dict[int, dict[str, Tensor]] = {k: {} for k in range(number)}
    for name, tensor in tensors.items():
        what, k, *rest = name.split(".", 2)
        if what == "part":
            found[int(k)][rest[0]] = tensor if name in header["on_cpu"] else tensor.to(device)
    return {k: Part(part, _checked(tensors[f"generator.{k}"])) for k, part in found.items()}


_Held = TypeVar("_Held")


def _load(
    path: str,
    identity: Mapping[str, Any],
    parse: Callable[[Mapping[str, Tensor], Mapping[str, Any], torch.device], _Held],
    device: torch.device,
) -> tuple[_Held, float]:
    """Read what a checkpoint of a run holds, and the seconds that were spent on it."""
    tensors, header = read_tensors(path, KIND)
    try:
        held, seconds = parse(tensors, header, device), _seconds(header)
        different = _differences(header, json.loads(json.dumps(identity)))
        versions = dict(header["versions"])
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise unsound(path, error) from None
    if different:
        raise CheckpointError(
            f"checkpoint {path} belongs to another run: {different}; use another path, or start over with "
            "resume=False (--no-resume)"
        )
    _note(path, versions, identity.get("versions", {}))
    return held, seconds


def unsound(path: str, error: Exception) -> FormatError:
    """Return the error to raise where a checkpoint holds what no run can have written."""
    return FormatError(
        f"{path} is not a valid checkpoint: {type(error).__name__} {one_line(error, most=200)}; "
        "start over with resume=False (--no-resume)"
    )


def _note(path: str, before: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """Say what makes a resume less than it promises."""
    changed = [f"{name} {before.get(name)}, now {new}" for name, new in now.items() if before.get(name) != new]
    if changed:
        _log.warning("%s is of %s: the numbers may differ from those of one run", path, "; ".join(changed))
    if not is_checked(path):
        _log.warning("%s is unchecked: it was written before files had checksums", path)


def load_parts(path: str, identity: Mapping[str, Any], device: torch.device) -> tuple[dict[int, Part], float]:
    """Read back what :func:`save_parts` wrote; see :func:`load`.

    Returns:
        The parts by number, and the seconds that were spent on them.
    """
    return _load(path, identity, _parse_parts, device)


def load(path: str, identity: Mapping[str, Any], device: torch.device, total: int) -> tuple[Snapshot, float]:
    """Read a snapshot back.

    Args:
        path: file to read.
        identity: ``method``, ``config``, ``seed``, ``data`` and ``versions`` of the run that wants to go on.
        device: where the state is to lie, apart from what lay on the CPU while the rest was on an accelerator.
        total: steps that run is to take in all.

    Returns:
        The snapshot and the seconds that were spent on it.

    Raises:
        OptionError: the file cannot be read.
        FormatError: it is not a valid checkpoint.
        CheckpointError: it belongs to another run, or is further than ``total`` already.
    """
    snapshot, seconds = _load(path, identity, _parse, device)
    if snapshot.step > total:
        raise CheckpointError(
            f"checkpoint {path} is at step {snapshot.step}, beyond the {total} asked for; ask for at least "
            f"{snapshot.step}, or start over with resume=False (--no-resume)"
        )
    return snapshot, seconds
