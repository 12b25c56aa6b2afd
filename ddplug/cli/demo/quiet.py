"""Let a framework work as if nobody noticed: nothing on the screen, and no random state moved."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import numpy as np

from ddplug.utils.randomness import temporary_seed

__all__ = ["quietly", "unmoved"]


@contextmanager
def unmoved(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python and put them back at the end; swallow warnings.

    Args:
        seed: for the three generators, at least 0.
    """
    before = np.random.get_state(), random.getstate()
    with warnings.catch_warnings(), temporary_seed(seed):
        warnings.simplefilter("ignore")
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before[0])
            random.setstate(before[1])


@contextmanager
def quietly(seed: int) -> Iterator[None]:
    """Do what :func:`unmoved` does, and swallow prints.

    Args:
        seed: for the three generators, at least 0.
    """
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), unmoved(seed):
        yield
