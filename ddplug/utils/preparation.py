"""What is done before the first step of a run, in parts that are kept, so that a run that was stopped need not redo it.

A method's ``init`` calls :func:`kept` for what takes long, say a network of a pool, or makes a :class:`Stage` of it,
say of a teacher's epochs. Where nothing is to be kept, these only do the work. Where a run was stopped, the parts are
handed out again in the order in which they were made, each with the state that the generator had after it: the numbers
are those of a run that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TypeAlias

import torch
from torch import Tensor

from ddplug.utils.progress import progress
from ddplug.utils.teams import alone, exchanged, team

__all__ = ["Keeper", "Part", "Stage", "keeping", "kept", "kept_each"]

_CPU = torch.device("cpu")

Make: TypeAlias = Callable[[], Mapping[str, Tensor]]
"""Function that gives tensors by name, which nobody changes afterwards."""


@dataclass(frozen=True, eq=False)
class Part:
    """A part that is done.

    Attributes:
        tensors: that it gave, by name.
        generator: ``(n,)`` uint8 state of the generator after it.
    """

    tensors: Mapping[str, Tensor]
    generator: Tensor


@dataclass(eq=False)
class Keeper:
    """The parts of a preparation, by number, and where they are written.

    Attributes:
        write: writes all parts.
        every: seconds between two writings.
        parts: that are done, those of a run that was stopped included.
        new: whether any is not written yet.
    """

    write: Callable[[Mapping[int, Part]], None]
    every: float
    parts: dict[int, Part] = field(default_factory=dict)
    new: bool = False
    _next: int = 0
    _written: float = field(default_factory=time.monotonic)

    def begin(self) -> int:
        """Return the number of the part that begins now."""
        self._next += 1
        return self._next - 1

    def put(self, number: int, part: Part) -> None:
        """Take a part, and write all if it is time."""
        self.parts[number] = part
        self.new = True
        if time.monotonic() - self._written >= self.every:
            self.flush()

    def flush(self) -> None:
        """Write what is not written yet."""
        if self.new:
            self.write(self.parts)
            self.new, self._written = False, time.monotonic()


_KEEPER: ContextVar[Keeper | None] = ContextVar("keeper", default=None)


@contextmanager
def keeping(keeper: Keeper) -> Iterator[None]:
    """Let a keeper take the parts of a preparation."""
    token = _KEEPER.set(keeper)
    try:
        yield
    finally:
        _KEEPER.reset(token)


class Stage:
    """A part that is done step by step; what it has come to is kept in the place of what it had come to before.

    Args:
        rng: generator on the CPU that all its randomness comes from.
    """

    def __init__(self, rng: torch.Generator) -> None:
        self._keeper = _KEEPER.get()
        self._number = self._keeper.begin() if self._keeper is not None else 0
        self._rng = rng

    def begun(self) -> Mapping[str, Tensor] | None:
        """Return what a run that was stopped had come to, if anything, and move the generator as it did."""
        part = None if self._keeper is None else self._keeper.parts.get(self._number)
        if part is None:
            return None
        self._rng.set_state(part.generator)
        return part.tensors

    def keep(self, make: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keep what it has come to.

        Args:
            make: gives tensors that nobody changes afterwards; called only where something is kept.
        """
        if self._keeper is not None:
            self._keeper.put(self._number, Part(dict(make()), self._rng.get_state()))


def kept(rng: torch.Generator, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return what a function gives, or gave to a run that was stopped.

    Args:
        rng: generator on the CPU that all its randomness comes from.
        make: gives tensors by name, which nobody changes afterwards.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> kept(rng, lambda: {"two": torch.tensor(2)})
        {'two': tensor(2)}
    """
    own = Stage(rng)
    found = own.begun()
    if found is None:
        token = _KEEPER.set(None)  # what it calls is part of it, and not called on a resume
        try:
            found = dict(make())
        finally:
            _KEEPER.reset(token)
        own.keep(lambda: found)
    return dict(found)


def kept_each(
    rng: torch.Generator,
    makes: Sequence[Make],
    what: str,
    device: torch.device = _CPU,
    *,
    moves: Sequence[Callable[[], object]] | None = None,
) -> list[dict[str, Tensor]]:
    """Return what each of several functions gives, or gave to a run that was stopped.

    Processes that work together make a share each, in rounds. The generator takes the same way in all of them: where
    one leaves a part to another it calls, in its place, what moves the generator as that part does. Where it does not,
    which the end of a round shows, each of them makes all.

    Args:
        rng: generator on the CPU that all their randomness comes from.
        makes: one a part.
        what: each part is, to show how far it is.
        device: that tensors of the others go to, those apart that they have on the CPU.
        moves: one a part; moves ``rng`` as the part does, and does no more. None where all was drawn before.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> kept_each(rng, [lambda: {"two": torch.tensor(2)}], "number")
        [{'two': tensor(2)}]
    """
    if team().size == 1:
        return [kept(rng, make) for make in progress(makes, what)]
    keeper, size = _KEEPER.get() or Keeper(lambda parts: None, float("inf")), team().size
    numbers = [keeper.begin() for _ in makes]
    parts = [keeper.parts[number] for number in takewhile(keeper.parts.__contains__, numbers)]
    if parts:
        rng.set_state(parts[-1].generator)
    moves = [_nothing] * len(makes) if moves is None else moves
    for first in progress(range(len(parts), len(makes), size), what):
        rest = slice(first, first + size)
        parts += _shared(rng, makes[rest], moves[rest], device)
        for number, part in zip(numbers[rest], parts[first:], strict=True):
            keeper.put(number, part)
    return [dict(part.tensors) for part in parts]


def _shared(
    rng: torch.Generator, makes: Sequence[Make], moves: Sequence[Callable[[], object]], device: torch.device
) -> list[Part]:
    """Make parts, one a process; where the generator would not take the same way in each, all of them in each."""
    before = rng.get_state()

    def share() -> list[Mapping[str, Tensor]]:
        made: Mapping[str, Tensor] = {}
        after = []
        for k, (make, move) in enumerate(zip(makes, moves, strict=True)):
            if k == team_rank:
                made = make()
            elif not _moved(move):
                return [{}, {}]
            after.append(rng.get_state())
        return [made, {"after": torch.stack(after)}]

    team_rank, token = team().rank, _KEEPER.set(None)  # what they call is part of them
    try:
        found = exchanged(share, device)
        ways = [way["after"] for _, way in found if way]
        if len(ways) == len(found) and all(torch.equal(way, ways[0]) for way in ways):
            return [Part(made, way) for (made, _), way in zip(found, ways[0], strict=False)]
        rng.set_state(before)
        with alone():
            return [Part(dict(make()), rng.get_state()) for make in makes]
    finally:
        _KEEPER.reset(token)


def _nothing() -> None:
    """Move no generator."""


def _moved(move: Callable[[], object]) -> bool:
    """Move a generator; tell whether that is possible without the numbers that a part computes."""
    try:
        move()
    except Exception:  # whatever comes of tensors without values
        return False
    return True
