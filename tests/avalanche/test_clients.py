"""Each of Avalanche's strategies that can replay our memory, by the line that the docs give."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.training.supervised import DER

from ddplug.avalanche import DistilledBuffer
from ddplug.errors import OptionError
from tests.avalanche.streams import CLASSES, nc
from tests.avalanche.test_buffer_stock import mlp, trained

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated function update:DeprecationWarning")


class Der(DER):
    """DER that notes what it replays."""

    @staticmethod
    def policy() -> DistilledBuffer:
        return DistilledBuffer(max_bytes="20 images", logits=True, device="cpu")

    def _before_forward(self, **kwargs: Any) -> None:
        super()._before_forward(**kwargs)
        if self.replay_loader is not None:
            replayed = self.mb_y[: self.batch_size_mem].tolist()
            self.replayed = {*getattr(self, "replayed", ()), *replayed}
            assert self.batch_logits.shape == (self.batch_size_mem, CLASSES)


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_der_replays_images_and_logits(beta: float) -> None:
    strategy = trained(nc().train_stream, strategy=Der, batch_size_mem=5, beta=beta)
    assert strategy.replayed == {0, 1, 2, 3}
    memory = strategy.storage_policy
    x, y, _, logits = memory.buffer[len(memory.buffer) - 1]
    with torch.no_grad():
        now = strategy.model.eval()(x[None])[0]
    assert y == CLASSES - 1
    assert torch.allclose(logits, now, atol=2e-3)
    assert memory.nbytes <= memory.max_bytes == 20 * 64


@pytest.mark.parametrize("options", [{"max_bytes": 1280}, {"max_bytes": 900, "distiller": "class-mean"}])
def test_logits_are_counted_in_the_bytes(options: dict[str, Any]) -> None:
    made = {}
    for logits in (False, True):
        memory = DistilledBuffer(**options, logits=logits, device="cpu")
        for experience in nc().train_stream:
            memory.post_adapt(SimpleNamespace(model=mlp()), experience)
            assert memory.nbytes <= options["max_bytes"]
        made[logits] = len(memory.rows())
        taken = sum(arrival.nbytes for arrival in memory._arrivals) or sum(own.nbytes for own in memory.groups.values())
        beside = 0 if memory.coded else 2 * CLASSES * len(memory.rows()) * logits
        assert memory.nbytes == taken + beside
    assert made[True] <= made[False]


def test_logits_need_a_learner() -> None:
    with pytest.raises(OptionError, match=r"needs the model.*agent\.model"):
        DistilledBuffer(max_bytes=1280, logits=True, device="cpu").post_adapt(None, nc().train_stream[0])
