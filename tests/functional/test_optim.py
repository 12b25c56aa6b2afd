"""The fall of a learning rate beside torch's own schedule."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from ddplug.functional.optim import cosine_fall


@pytest.mark.parametrize("total", [1, 2, 7, 300])
def test_the_fall_is_that_of_torch(total: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = CosineAnnealingLR(optimizer, T_max=total)
    for step in range(total + 1):
        rate = optimizer.param_groups[0]["lr"]
        assert 0.3 * cosine_fall(step, total) == pytest.approx(rate, abs=1e-12)
        assert 0.3 * cosine_fall(step / total) == pytest.approx(rate, abs=1e-12)
        optimizer.step()
        schedule.step()
