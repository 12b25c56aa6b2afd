"""Generators of one's own, and the global random state lent to code that knows no other and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ddplug.errors import OptionError
from ddplug.utils.checks import whole

__all__ = ["nth_generator", "seeded", "spawn", "temporary_seed"]


@contextmanager
def temporary_seed(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generators of the CPU and of a CUDA device, and restore them at the end.

    Modules initialize themselves, and dropout draws, from global generators only.

    Args:
        seed: for both generators.
        device: where the code inside works.
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
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


def nth_generator(seed: int, n: int) -> torch.Generator:
    """Make the n-th of a row of generators; it depends on the seed and on ``n`` alone.

    Args:
        seed: of the row, at least 0.
        n: which, from 0.
    """
    return torch.Generator().manual_seed((1_000_003 * seed + n) % 2**63)


def spawn(rng: torch.Generator, number: int) -> list[torch.Generator]:
    """Make independent generators, one for each repeat, seeded from one."""
    seeds = torch.randint(2**63 - 1, (number,), generator=rng).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]
