"""Generators that depend on a seed and a number alone."""

from __future__ import annotations

import torch

from ddplug.utils.randomness import nth_generator


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
