"""Several processes that do one piece of work together, as ``torchrun`` starts them.

All of them run the same program on the same data and come to the same places in the same order. What is independent
there is cut into pieces by a rule that does not ask how many they are; each does its share, all get the pieces of all,
and add them up in their one order. So the result has the bits that one process gives. Only the first writes and prints.

One process alone takes the plain path: nothing is sent, and ``torch.distributed`` is not asked for anything. Pieces
travel as safetensors, over gloo, through the memory of the CPU, so that their bits arrive as they were sent.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeVar

from ddplug import errors
from ddplug.errors import DdplugError, ProcessError

if TYPE_CHECKING:  # whoever asks only whom it was started with need not wait for torch
    import torch

__all__ = ["Team", "agreed", "alone", "exchanged", "failure", "in_turn", "launched", "spread", "team", "together"]

T = TypeVar("T")

_PATIENCE = timedelta(days=30)
"""How long one waits for what another computes; one that ends is noticed at once."""

_FAILED = "ddplug/failed"


@dataclass(frozen=True)
class Team:
    """Where a process stands among those that work together.

    Attributes:
        rank: its number, from 0; 0 is the one that writes and prints.
        size: how many there are.
        local: its number among those on the same machine, which is that of its accelerator.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and prints."""
        return self.rank == 0


_BY_ITSELF = Team()

_TEAM: ContextVar[Team] = ContextVar("team", default=_BY_ITSELF)
_STORE: list[Any] = []
"""Where processes leave word for each other; it stays when they have parted."""

_GROUP: list[Any] = []
"""Those that work together now. Nothing else may refer to it, so that its threads end when they part."""

_MEETINGS = itertools.count()


def team() -> Team:
    """Return whom this process works with at the moment; by itself it is a team of one."""
    return _TEAM.get()


def launched() -> Team:
    """Return whom ``torchrun`` has started this process with, whether or not they work together."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # clusters set the others for purposes of their own
        return Team()
    numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    return Team(*map(int, numbers)) if all(number.isdecimal() for number in numbers) else Team()


@contextlib.contextmanager
def together() -> Iterator[Team]:
    """Let the processes that ``torchrun`` has started work together in a block, which all of them must enter.

    Raises:
        ProcessError: in the block, another of them has ended.

    Example:
        >>> with together() as team:  # by itself
        ...     team.size
        1
    """
    found = launched()
    if found.size == 1 or team().size > 1:
        yield team()
        return
    token = _TEAM.set(found)
    try:
        _meet()
        yield found
    except Exception as error:
        named = isinstance(error, DdplugError)
        _tell(str(error) if named else f"{type(error).__name__}: {error}")
        raise
    finally:
        _TEAM.reset(token)
        _GROUP.clear()


def _meet() -> None:
    """Wait for the others.

    The group is not the default one of ``torch.distributed``: PyTorch's own modules keep that in the defaults of their
    functions when they are imported while it is there, so it never goes, and its threads are cut off at the exit.
    """
    from torch.distributed import PrefixStore, ProcessGroupGloo  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    if not _STORE:
        _STORE[:] = next(rendezvous("env://", timeout=_PATIENCE))[:1]
    own = launched()
    place = PrefixStore(f"ddplug/{next(_MEETINGS)}", _STORE[0])
    _GROUP.append(ProcessGroupGloo(place, own.rank, own.size, _PATIENCE))
    _GROUP[0].barrier().wait()  # one that parted at once would cut off another that is still connecting


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Work by itself in a block, as on one's own share: what is in it is not split once more, and may write."""
    token = _TEAM.set(Team(local=team().local))
    try:
        yield
    finally:
        _TEAM.reset(token)


def spread(
    number: int, make: Callable[[int], Mapping[str, torch.Tensor]], device: torch.device | str = "cpu"
) -> list[dict[str, torch.Tensor]]:
    """Make pieces that do not depend on each other; each process every so many of them, and all get all.

    Args:
        number: of pieces.
        make: gives tensors by name; all its randomness comes from a generator of its own or was drawn before.
        device: that tensors of the others go to, those apart that they have on the CPU.

    Returns:
        The pieces in their order.

    Raises:
        DdplugError: what one of them raised, in all of them.
        ProcessError: another of them has ended.

    Example:
        >>> import torch
        >>> spread(2, lambda k: {"square": torch.tensor(k**2)})
        [{'square': tensor(0)}, {'square': tensor(1)}]
    """
    own = team()
    found = exchanged(lambda: [make(k) for k in range(own.rank, number, own.size)], device)
    return [found[k % own.size][k // own.size] for k in range(number)]


def exchanged(
    make: Callable[[], Sequence[Mapping[str, torch.Tensor]]], device: torch.device | str = "cpu"
) -> list[list[dict[str, torch.Tensor]]]:
    """Return what each process makes, to all; within, each works :func:`alone`.

    Args:
        make: gives any number of pieces, tensors by name.
        device: that tensors go to, those apart that were on the CPU.

    Returns:
        For each process its pieces.

    Raises:
        DdplugError: what one of them raised, in all of them.
        ProcessError: another of them has ended.
    """
    if team().size == 1:
        return [[dict(piece) for piece in make()]]
    try:
        with alone():
            content = _packed(make())
    except DdplugError as error:
        content = _packed([], error=type(error).__name__, text=str(error))
    return [_unpacked(part, device) for part in _gathered(content)]


def in_turn(make: Callable[[], T]) -> T:
    """Let the first process do something before the others, who find what it left, such as a file."""
    if not team().leads:
        exchanged(list)
    with alone():
        found = make()
    if team().leads:
        exchanged(list)
    return found


def agreed(what: str, value: str) -> None:
    """Wait for all processes, and make sure that they found the same.

    Args:
        what: they looked at.
        value: that this one found.

    Raises:
        ProcessError: another found something else.
    """
    if team().size == 1:
        return
    import torch

    own = torch.frombuffer(bytearray(sha256(value.encode()).digest()), dtype=torch.uint8)
    found = exchanged(lambda: [{"value": own}])
    if not all(torch.equal(part["value"], own) for (part,) in found):
        raise ProcessError(
            f"{what} is not the same in all of the {team().size} processes; put files on a disk that all of them share"
        )


def _tell(line: str) -> None:
    """Leave word of why this process ends, for the first one to say."""
    own = launched()
    with contextlib.suppress(RuntimeError):
        if not own.leads and not _STORE[0].check([_FAILED]):
            _STORE[0].set(_FAILED, f"process {own.rank} of {own.size}: {line}")


def failure() -> str | None:
    """Return why another process ended, if it left word."""
    with contextlib.suppress(RuntimeError):
        if _STORE and _STORE[0].check([_FAILED]):
            return bytes(_STORE[0].get(_FAILED)).decode()
    return None


def _packed(pieces: Sequence[Mapping[str, torch.Tensor]], **about: str) -> bytes:
    import torch
    from safetensors.torch import save

    # clones: safetensors refuses tensors that share memory
    flat = {
        f"{k}.{name}": tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for k, piece in enumerate(pieces)
        for name, tensor in piece.items()
    }
    names = [[(name, tensor.device.type == "cpu") for name, tensor in piece.items()] for piece in pieces]
    return save(flat, {"names": json.dumps(names), **about})


def _unpacked(content: bytes, device: torch.device | str) -> list[dict[str, torch.Tensor]]:
    from safetensors.torch import load

    size = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + size])["__metadata__"]
    if "error" in about:
        raise getattr(errors, about["error"], ProcessError)(about["text"])
    tensors = load(content)
    return [
        {name: tensors[f"{k}.{name}"] if on_cpu else tensors[f"{k}.{name}"].to(device) for name, on_cpu in names}
        for k, names in enumerate(json.loads(about["names"]))
    ]


def _gathered(content: bytes) -> list[bytes]:
    """Send bytes to all processes; return what each of them sent."""
    import torch

    own = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(team().size)]
    try:
        _GROUP[0].allgather([sizes], [torch.tensor([len(own)])]).wait()
        longest = max(map(int, sizes))
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
        _GROUP[0].allgather([parts], [torch.cat([own, own.new_zeros(longest - len(own))])]).wait()
    except RuntimeError:
        raise ProcessError(
            failure()
            or f"another of the {team().size} processes has ended; start all of them again, with any number of them"
        ) from None
    return [part[: int(size)].numpy().tobytes() for part, size in zip(parts, sizes, strict=True)]
