"""The memory inside Avalanche's own strategies, and the properties that Avalanche's tests ask of its own policies."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from avalanche.core import Agent
from avalanche.logging import BaseLogger
from avalanche.models import MTSimpleMLP, SimpleMLP
from avalanche.models.dynamic_modules import IncrementalClassifier
from avalanche.training.plugins import (
    EvaluationPlugin,
    GDumbPlugin,
    MIRPlugin,
    RARPlugin,
    ReplayPlugin,
    SupervisedPlugin,
)
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from avalanche.training.supervised import ER_ACE, Naive
from torch import Tensor, nn

from ddplug.avalanche.buffer import DistilledBuffer
from tests.avalanche.streams import CLASSES, nc, online, permuted, plain, seeded, zero_based
from tests.avalanche.test_buffer import QUICK, same

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated function update:DeprecationWarning")


class Spy(SupervisedPlugin):
    """Notes the labels of every batch, after all else had its say."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[list[int]] = []

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.labels.append(strategy.mb_y.tolist())


def mlp(drop_rate: float = 0.0) -> Any:
    return seeded(lambda: SimpleMLP(num_classes=CLASSES, input_size=64, hidden_size=16, drop_rate=drop_rate))


def policy(size: int = 12, **options: Any) -> DistilledBuffer:
    return DistilledBuffer(size, **{"distiller": QUICK, "device": "cpu", **options})


def trained(stream: Any, *plugins: Any, model: Any = None, strategy: Any = Naive, **options: Any) -> Any:
    model = mlp() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"train_mb_size": 7, "evaluator": EvaluationPlugin(loggers=[BaseLogger()]), **options}

    def run() -> Any:
        made = strategy(model=model, optimizer=optimizer, plugins=list(plugins), **options)
        if "policy" in vars(strategy):
            made.storage_policy = strategy.policy()
        for experience in stream:
            made.train(experience)
        return made

    return seeded(run)


@pytest.mark.parametrize(
    "stream",
    [lambda: nc().train_stream, lambda: plain().train_stream, lambda: permuted().train_stream, online],
    ids=["class", "class-plain", "permuted", "online"],
)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_stock_replay_mixes_the_memory_into_its_batches(stream: Any, soft: bool) -> None:
    spy = Spy()
    memory = policy(18, soft_labels=soft)
    trained(stream(), ReplayPlugin(18, storage_policy=memory), spy)
    assert len(memory.buffer) == 18
    assert max(len(labels) for labels in spy.labels) > 7
    assert len({label for labels in spy.labels[-2:] for label in labels}) > 2


def test_what_a_batch_replays_is_the_memory() -> None:
    stream = nc().train_stream
    spy = Spy()
    trained(stream, ReplayPlugin(12, storage_policy=policy(), batch_size_mem=12), spy, train_mb_size=100)
    second, third = spy.labels[1], spy.labels[2]
    assert Counter(second) == Counter([*stream[1].dataset.targets, 0, 0, 1, 1])
    assert Counter(third) == Counter([*stream[2].dataset.targets, *[0, 1, 2, 3] * 2])


def test_multi_head_replay_with_zero_based_labels() -> None:
    memory = policy()
    model = seeded(lambda: MTSimpleMLP(input_size=64, hidden_size=16))
    trained(zero_based().train_stream, ReplayPlugin(12, storage_policy=memory), model=model)
    assert Counter(memory.buffer.targets_task_labels) == {0: 4, 1: 4, 2: 4}
    assert Counter(memory.buffer.targets) == {0: 6, 1: 6}


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("kind", ["fixed", "growing", "multi-head"])
def test_gdumb_trains_on_the_memory_of_what_it_is_about_to_learn(kind: str, soft: bool) -> None:
    plugin = GDumbPlugin(mem_size=12)
    plugin.storage_policy = policy(soft_labels=soft)
    growing = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), IncrementalClassifier(8)))
    heads = seeded(lambda: MTSimpleMLP(input_size=64, hidden_size=16))
    model = {"fixed": mlp(), "growing": growing, "multi-head": heads}[kind]
    spy = Spy()
    stream = zero_based().train_stream if kind == "multi-head" else nc().train_stream
    trained(stream, plugin, spy, model=model, train_mb_size=100)
    wanted = [[0, 0, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]]
    if kind == "multi-head":
        wanted = [[0, 0, 1, 1] * count for count in (1, 2, 3)]
    assert [Counter(labels) for labels in spy.labels] == [Counter(labels) for labels in wanted]


class ErAce(ER_ACE):
    """ER-ACE that notes what it replays."""

    @staticmethod
    def policy() -> DistilledBuffer:
        return policy()

    def _after_forward(self, **kwargs: Any) -> None:
        if self.replay_loader is not None:
            self.replayed = {*getattr(self, "replayed", ()), *self.mb_buffer_y.tolist()}
        super()._after_forward(**kwargs)


def test_er_ace_replays_the_memory() -> None:
    stream = nc(task_labels=True).train_stream
    strategy = trained(stream, model=mlp(), strategy=ErAce, mem_size=12, batch_size_mem=4)
    assert strategy.replayed == set(range(CLASSES))
    assert len(strategy.storage_policy.buffer) == 12


def test_mir_leaves_out_the_classes_it_has_just_seen() -> None:
    plugin = MIRPlugin(batch_size_mem=2, mem_size=12)
    plugin.storage_policy = policy()
    # it unpacks three parts, so it needs task labels, which in a stream of one task are all 0
    stream = nc(task_labels=False).train_stream
    trained(stream, plugin, train_mb_size=100)
    assert [int(key) for key in plugin.storage_policy.buffer_groups] == list(range(CLASSES))
    assert {int(y) for y in next(plugin.replay_loader)[1]} == {0, 1, 2, 3}


def test_rar_replays_it() -> None:
    memory = policy()
    spy = Spy()
    plugin = RARPlugin(batch_size_mem=4, mem_size=12, storage_policy=memory, name_ext_layer="features")
    trained(nc().train_stream, plugin, spy)
    assert len(memory.buffer) == 12


class Learner(Agent):
    """An agent of the functional API."""

    def __init__(self, memory: Any) -> None:
        super().__init__()
        self.model = mlp()
        self.memory = memory


@pytest.mark.parametrize("stream", [lambda: nc().train_stream, lambda: plain().train_stream, online])
def test_the_agent_api_updates_it(stream: Any) -> None:
    agent, other = Learner(policy()), policy()
    for experience in stream():
        agent.pre_adapt(experience)
        agent.post_adapt(experience)
        other.post_adapt(agent, experience)
    assert len(agent.memory.buffer) == 12
    assert same(agent.memory, other)


def test_update_forwards_to_post_adapt() -> None:
    one, other, agent = policy(), policy(), Learner(None)
    for experience in nc().train_stream:
        agent.experience = experience
        one.update(agent)
        other.post_adapt(agent, experience)
    assert same(one, other)


@pytest.mark.parametrize("size", [6, 13, 18, 24])
@pytest.mark.parametrize("adaptive", [False, True], ids=["fixed", "adaptive"])
def test_the_memory_is_balanced(size: int, adaptive: bool) -> None:
    """Avalanche's ``ReplayTest``: group lengths are equal up to one, and sum to the size."""
    memory = policy(size, adaptive_size=adaptive, distiller="random")
    sums = []
    for experience in nc().train_stream:
        memory.post_adapt(Learner(None), experience)
        lengths = [len(slot.buffer) for slot in memory.buffer_groups.values()]
        assert max(lengths) - min(lengths) <= 1 or len(lengths) * min(lengths) < 21
        assert sum(lengths) == len(memory.buffer)
        sums.append(sum(lengths))
    share = size // CLASSES
    extra = size % CLASSES
    fixed = [seen * share + min(seen, extra) for seen in (2, 4, 6)]
    assert sums == ([min(size, 21), size, size] if adaptive else fixed)


def test_buffers_stay_flat() -> None:
    """Avalanche's flattening test: no tree of datasets grows with the experiences."""
    memory = policy()
    agent = Learner(None)
    depths = []
    for _ in range(3):
        for experience in nc().train_stream:
            memory.post_adapt(agent, experience)
            depths.append(memory.buffer._tree_depth())
    assert set(depths) == {2}


def test_a_stock_policy_alive_beside_it_keeps_the_stream_and_ours_does_not() -> None:
    stream = nc().train_stream
    ours, stock = policy(), ReservoirSamplingBuffer(12)
    agent = Learner(None)
    ours.post_adapt(agent, stream[0])
    stock.post_adapt(agent, stream[0])
    stream[0].dataset[0][0].fill_(7)  # the stream's own memory
    assert not any(bool((item[0] == 7).all()) for item in ours.buffer)
    assert any(bool((stream[0].dataset[i][0] == 7).all()) for i in range(2))


def test_training_resumes_from_a_copy() -> None:
    stream = list(nc().train_stream)
    memory = policy()
    trained(stream, ReplayPlugin(12, storage_policy=memory))
    first = policy()
    model = mlp()
    strategy = trained(stream[:2], ReplayPlugin(12, storage_policy=first), model=model)
    again = copy.deepcopy(strategy)

    def finish(one: Any) -> Tensor:
        seeded(lambda: one.train(stream[2]))
        weights: Tensor = one.model.classifier.weight
        return weights

    assert torch.equal(finish(strategy), finish(again))
    assert same(strategy.plugins[0].storage_policy, again.plugins[0].storage_policy)
