"""Each of Avalanche's strategies that can replay our memory, by the line that the docs give."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.logging import BaseLogger
from avalanche.models import SCRModel
from avalanche.training.plugins import CoPEPlugin, EvaluationPlugin, RARPlugin
from avalanche.training.supervised import DER, ER_ACE, MIR, SCR, FeatureReplay, GDumb, ICaRL, Naive, Replay
from torch import nn

from ddplug.avalanche import DistilledBuffer, DistilledReplayPlugin, hand_over
from ddplug.errors import OptionError
from tests.avalanche.streams import CLASSES, nc, seeded
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


def head(outputs: int = CLASSES) -> Any:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, outputs)))


def scr() -> Any:
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
    return SCRModel(body, nn.Linear(16, 8))


def common() -> dict[str, Any]:
    return {"train_mb_size": 7, "eval_mb_size": 16, "evaluator": EvaluationPlugin(loggers=[BaseLogger()])}


def made(cls: Any, model: Any, **options: Any) -> Any:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return cls(model=model, optimizer=optimizer, **{**common(), **options})


CLIENTS: dict[str, Callable[[], Any]] = {
    "GDumb": lambda: made(GDumb, head(), criterion=nn.CrossEntropyLoss(), train_epochs=2),
    "MIR": lambda: made(MIR, head(), criterion=nn.CrossEntropyLoss(), mem_size=12, subsample=9, batch_size_mem=4),
    "ER_ACE": lambda: made(ER_ACE, head(), criterion=nn.CrossEntropyLoss(), batch_size_mem=4),
    "DER": lambda: made(DER, head(), batch_size_mem=4),
    "SCR": lambda: made(SCR, scr(), batch_size_mem=4),
    "FeatureReplay": lambda: made(FeatureReplay, mlp(), batch_size_mem=4),
    "RAR": lambda: made(Naive, mlp(), plugins=[RARPlugin(4, name_ext_layer="features")]),
    "CoPE": lambda: made(
        Naive, head(), plugins=[CoPEPlugin(mem_size=12, n_classes=CLASSES, p_size=CLASSES)], train_mb_size=12
    ),
    "Replay": lambda: made(Replay, head(), criterion=nn.CrossEntropyLoss()),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_stock_strategy_trains_on_the_memory(name: str) -> None:
    # its loader of rows never ends, nor begins, where they do not fill a batch
    size = 4000 if name == "FeatureReplay" else "20 images"
    memory = DistilledBuffer(max_bytes=size, logits=name == "DER", device="cpu")

    def run() -> int:
        strategy = CLIENTS[name]()
        hand_over(memory, strategy)
        stream = nc()
        for experience in stream.train_stream:
            strategy.train(experience)
        return len(strategy.eval(stream.test_stream))

    seeded(run)
    assert set(memory.buffer_groups) == set(range(CLASSES))
    assert memory.updates == 3


def test_icarl_keeps_its_own_exemplars_beside_it() -> None:
    body, classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU()), nn.Linear(16, CLASSES)
    plugin = DistilledReplayPlugin(20, device="cpu")

    def strategy() -> Any:
        optimizer = torch.optim.SGD([*body.parameters(), *classifier.parameters()], lr=0.05)
        return ICaRL(
            feature_extractor=body,
            classifier=classifier,
            optimizer=optimizer,
            memory_size=12,
            buffer_transform=None,
            fixed_memory=True,
            plugins=[plugin],
            **common(),
        )

    def run() -> None:
        one = strategy()
        for experience in nc().train_stream:
            one.train(experience)

    seeded(run)
    assert set(plugin.storage_policy.buffer_groups) == set(range(CLASSES))
    plain = strategy()
    plain.plugins = [each for each in plain.plugins if each is not plugin]
    with pytest.raises(OptionError, match=r"ICaRL has 0 storage policies.*DistilledReplayPlugin"):
        hand_over(DistilledBuffer(12), plain)


@pytest.mark.parametrize("options", [{"max_size": 3}, {"max_bytes": 60, "distiller": "class-mean"}])
def test_feature_replay_is_not_left_without_a_batch(options: dict[str, Any]) -> None:
    strategy = CLIENTS["FeatureReplay"]()
    message = r"holds \d rows, and the strategy needs batch_size_mem=4"
    if "max_size" in options:  # said before anything is trained
        with pytest.raises(OptionError, match=message):
            hand_over(DistilledBuffer(**options), strategy)
        return
    hand_over(DistilledBuffer(**options, device="cpu"), strategy)
    with pytest.raises(OptionError, match=message):
        strategy.train(nc().train_stream[0])
