"""What is done before the first step of a run, in parts that are kept, so that a run that was stopped need not redo it.

A method's ``init`` calls :func:`kept` for what takes long, say a network of a pool, or makes a :class:`Stage` of it,
say of a teacher's epochs. Where nothing is to be kept, these only do the work. Where a run was stopped, the parts are
handed out again in the order in which they were made, each with the state that the generator had after it: the numbers
are those of a run that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Keeper", "Part", "Stage", "keeping", "kept"]


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
