"""A memory is what it is whatever the strategy's process has set."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from ddplug.avalanche.buffer import DistilledBuffer
from tests.avalanche.streams import nc
from tests.surroundings import everything


def memory(surrounded: bool) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(nc_width(), 10))
    buffer = DistilledBuffer(4, device="cpu")
    for experience in nc().train_stream[:2]:
        agent = SimpleNamespace(model=model)
        if surrounded:
            with everything():
                buffer.post_adapt(agent, experience)
        else:
            buffer.post_adapt(agent, experience)
    return buffer.rows().x


def nc_width() -> int:
    width: int = nc().train_stream[0].dataset[0][0].numel()
    return width


def test_a_memory_does_not_ask_what_the_caller_has_set() -> None:
    assert torch.equal(memory(False), memory(True))
