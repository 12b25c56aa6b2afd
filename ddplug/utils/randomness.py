"""Generators of one's own, and the global random state lent to code that knows no other and put back."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ddplug.errors import OptionError
from ddplug.utils.checks import whole

__all__ = ["known_secrets", "nth_generator", "secret_normal", "seeded", "spawn", "temporary_seed", "twin", "twins"]

_Source: TypeAlias = Callable[[tuple[int, ...]], Tensor]
"""Function of a shape: float64 numbers."""


class _Lent:
    """Who has the global generators. A process that is forked off has them for itself, whoever had them before."""

    def __init__(self) -> None:
        self.free()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.free)

    def free(self) -> None:
        """Let nobody have them."""
        self.lock = threading.RLock()


_LENT = _Lent()


@contextmanager
def temporary_seed(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generators of the CPU and of a CUDA device, and restore them at the end.

    Modules initialize themselves, and dropout draws, from global generators only. There is one of a kind in a process,
    so threads that need it wait for each other: what each draws depends on its seed alone.

    Args:
        seed: for both generators.
        device: where the code inside works.
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    with _LENT.lock, torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def seeded(seed: Any) -> torch.Generator:
    """Make a generator on the CPU.

    Args:
        seed: a whole number of any kind, in ``0..2**63-1``.

    Raises:
        OptionError: it is none, or outside its range.
    """
    number = whole("seed", seed)
    if not 0 <= number < 2**63:
        raise OptionError(f"seed is {number}; it must be at least 0 and below 2**63")
    return torch.Generator().manual_seed(number)


def twin(rng: torch.Generator) -> torch.Generator:
    """Make a generator that stands where another does, and moves by itself."""
    other = torch.Generator()
    other.set_state(rng.get_state())
    return other


def twins(rng: torch.Generator, moves: Iterable[Callable[[torch.Generator], object]]) -> list[torch.Generator]:
    """Make for each of some moves of a generator a twin that stands where it does before the move.

    Args:
        rng: generator on the CPU; it makes all the moves.
        moves: each moves the generator that it is given.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> first, second = twins(rng, [lambda rng: torch.rand((), generator=rng)] * 2)
        >>> third = twin(second)
        >>> bool(torch.rand(2, generator=first)[1] == torch.rand((), generator=third))
        True
    """
    found = []
    for move in moves:
        found.append(twin(rng))
        move(rng)
    return found


def nth_generator(seed: int, n: int) -> torch.Generator:
    """Make the n-th of a row of generators; it depends on the seed and on ``n`` alone.

    Args:
        seed: of the row, a whole number of any kind.
        n: which, from 0.

    Raises:
        OptionError: the seed is none.
    """
    return torch.Generator().manual_seed((1_000_003 * whole("seed", seed) + n) % 2**63)


def spawn(rng: torch.Generator, number: int) -> list[torch.Generator]:
    """Make independent generators, one for each repeat, seeded from one."""
    seeds = torch.randint(2**63 - 1, (number,), generator=rng).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def _from_system(shape: tuple[int, ...]) -> Tensor:
    """Draw from the operating system's source for cryptography, by Box & Muller.

    Half the sum of four draws: which floating-point numbers one draw can take would tell it from its sum with a datum.

    Reference: Holohan & Braghin, "Secure Random Sampling in Differential Privacy", ESORICS 2021.
    """
    number = math.prod(shape)
    raw = np.frombuffer(os.urandom(8 * 8 * number), dtype=np.uint64).reshape(2, 4, number) >> np.uint64(11)
    radius = np.sqrt(-2 * np.log((raw[0] + 1.0) * 2.0**-53))
    drawn = (radius * np.cos(raw[1] * (2 * math.pi * 2.0**-53))).sum(0) / 2
    return torch.from_numpy(drawn).view(shape)


_SECRETS: ContextVar[_Source] = ContextVar("secrets", default=_from_system)


def secret_normal(shape: tuple[int, ...]) -> Tensor:
    """Draw standard normal numbers that nobody can draw again: no seed gives them.

    The generator of a run will not do where noise is to hide something: its seed is written down, and torch's own,
    of 32 bits, could be found by trying all.

    Args:
        shape: of what to draw.

    Returns:
        float64 numbers on the CPU.

    Example:
        >>> secret_normal((2, 3)).shape, bool((secret_normal((9,)) == secret_normal((9,))).any())
        (torch.Size([2, 3]), False)
    """
    return _SECRETS.get()(shape)


def _known(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@contextmanager
def known_secrets(source: _Source = _known) -> Iterator[None]:
    """Let tests know what is secret, so that they can repeat it; what is made inside is not private.

    Args:
        source: gives numbers of a shape, each time the same.
    """
    token = _SECRETS.set(source)
    try:
        yield
    finally:
        _SECRETS.reset(token)
