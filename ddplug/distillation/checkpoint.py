"""A run on disk: the state, the generator and what they belong to, in the file format of the sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddplug.errors import CheckpointError, FormatError
from ddplug.utils.files import read_tensors, write_tensors

__all__ = ["KIND", "Snapshot", "load", "save"]

KIND = "checkpoint"
"""What the header of the file calls it."""

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


def _belongings(header: Mapping[str, Any]) -> dict[str, Any]:
    """Name, flat, what must be equal for a run to go on: everything but the number of steps and the data's name."""
    config, data = header["config"], header["data"]
    flat = {"method": header["method"], "seed": header["seed"], "data fingerprint": data["fingerprint"]}
    flat |= {"codec": header.get("codec"), "number of bytes": header.get("nbytes")}
    return {**flat, **{f"hyper-parameter {key}": value for key, value in config.items() if key != "steps"}}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say what differs, the method first."""
    before, after = _belongings(old), _belongings(new)
    if before["method"] != after["method"]:
        return f"its method was {before['method']!r} and is now {after['method']!r}"
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return "; ".join(f"its {key} was {before.get(key)!r} and is now {after.get(key)!r}" for key in changed)


def _parse(tensors: Mapping[str, Tensor], header: Mapping[str, Any], device: torch.device) -> tuple[Snapshot, float]:
    """Build the snapshot and the seconds, or say that the file cannot be a checkpoint."""
    step, seconds = header["step"], header["seconds"]
    if type(step) is not int or type(seconds) not in (int, float) or step < 0 or seconds < 0:
        raise ValueError(f"step {step!r} after {seconds!r} seconds")
    torch.Generator().set_state(tensors["generator"])
    state = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(_PREFIX)}
    # what a method keeps off the accelerator, counters and the like, must not land on it and make every step wait
    state = {name: tensor if name in header["on_cpu"] else tensor.to(device) for name, tensor in state.items()}
    snapshot = Snapshot(state, tensors["generator"], step)
    if not snapshot.finite:
        raise ValueError("its state holds NaN or infinity")
    return snapshot, float(seconds)


def load(path: str, identity: Mapping[str, Any], device: torch.device, total: int) -> tuple[Snapshot, float]:
    """Read a snapshot back.

    Args:
        path: file to read.
        identity: ``method``, ``config``, ``seed`` and ``data`` of the run that wants to go on.
        device: where the state is to lie, apart from what lay on the CPU while the rest was on an accelerator.
        total: steps that run is to take in all.

    Returns:
        The snapshot and the seconds that were spent on it.

    Raises:
        OptionError: the file cannot be read.
        FormatError: it is not a sound checkpoint.
        CheckpointError: it belongs to another run, or is further than ``total`` already.
    """
    tensors, header = read_tensors(path, KIND)
    try:
        snapshot, seconds = _parse(tensors, header, device)
        different = _differences(header, json.loads(json.dumps(identity)))
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise FormatError(
            f"{path} is not a sound checkpoint: {type(error).__name__} {error}; "
            "begin anew with resume=False (--no-resume)"
        ) from None
    if different:
        raise CheckpointError(
            f"checkpoint {path} is of another run: {different}; use another path, or begin anew with "
            "resume=False (--no-resume)"
        )
    if snapshot.step > total:
        raise CheckpointError(
            f"checkpoint {path} is at step {snapshot.step}, beyond the {total} asked for; ask for at least "
            f"{snapshot.step}, or begin anew with resume=False (--no-resume)"
        )
    return snapshot, seconds
