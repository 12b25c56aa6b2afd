"""Fixtures of all tests, and the guard that nothing moves the global random state."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side share the cores, and so do what they start
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

from ddplug.data.datasets import load
from ddplug.data.labeled import LabeledData


def _global_state() -> dict[str, object]:
    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": repr(np.random.get_state(legacy=False)),
        "random": random.getstate(),
    }


@pytest.fixture(autouse=True)
def global_random_state() -> Iterator[None]:
    """Fail a test that moved a global generator; a test that builds a module itself forks the generator first."""
    before = _global_state()
    yield
    after = _global_state()
    moved = [name for name in before if before[name] != after[name]]
    assert not moved, f"the global random state of {', '.join(moved)} was moved"


@pytest.fixture(scope="session")
def digits() -> LabeledData:
    """Training split of the digits."""
    return load("digits")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets that are too large for the repository."""
    path = Path(os.environ.get("DDPLUG_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path}; set DDPLUG_SHARED_DATA to the folder that holds MNIST/raw")
    return path


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Let signals do what they do by default, also where the tests were started with ``nohup`` or in the background."""
    with ExitStack() as back:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            own = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            back.callback(signal.signal, number, signal.signal(number, own))
        yield
