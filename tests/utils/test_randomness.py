"""Generators that depend on a seed and a number alone."""

from __future__ import annotations

import threading

import torch

from ddplug.utils.randomness import nth_generator, temporary_seed


def test_rows_of_generators_do_not_meet() -> None:
    drawn = {
        (seed, n): torch.randint(2**62, (), generator=nth_generator(seed, n)).item()
        for seed in range(4)
        for n in range(50)
    }
    assert len(set(drawn.values())) == len(drawn)
    # this very formula: a memory that is taken up again by a later release draws what it would have drawn
    assert nth_generator(2, 5).initial_seed() == 2_000_011
    assert nth_generator(2**62, 0).initial_seed() == (2**62 * 1_000_003) % 2**63


def test_threads_that_lend_the_global_generators_wait_for_each_other() -> None:
    inside = threading.Event()
    drawn: dict[int, torch.Tensor] = {}

    def second() -> None:
        inside.wait()
        with temporary_seed(1):
            drawn[1] = torch.rand(3)

    other = threading.Thread(target=second)
    other.start()
    with temporary_seed(0):
        first = torch.rand(1)
        inside.set()
        other.join(0.2)  # it waits, since this one has them
        with temporary_seed(2):  # the same thread may lend them again
            pass
        drawn[0] = torch.cat([first, torch.rand(2)])
    other.join()
    for seed, numbers in drawn.items():
        assert torch.equal(numbers, torch.rand(3, generator=torch.Generator().manual_seed(seed)))
