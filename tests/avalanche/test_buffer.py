"""The contract of a distilled memory: every policy, in every scenario, with hard and soft labels."""

from __future__ import annotations

import copy
import pickle
import random
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor
from torch.utils.data import DataLoader

from ddplug.avalanche.buffer import DistilledBuffer
from ddplug.avalanche.schema import read
from ddplug.distillers.dm import DM
from tests.avalanche.streams import SCENARIOS, learner, seeded

SIZE = 18
"""A multiple of the groups of every scenario but one; at most what each group has samples for."""

QUICK = DM(steps=1, pool_size=1, init_from="real")

POLICIES: dict[str, dict[str, Any]] = {
    "dm": {"distiller": QUICK},
    "dm-learner": {"distiller": QUICK, "network": "learner", "joint": False},
    "random": {"distiller": "random"},
    "class-mean": {"distiller": "class-mean", "storage": "float32"},
    "kmeans": {"distiller": "kmeans-centroid"},
    "mixed": {"distiller": "class-mean", "real_share": 0.5},
    "experience": {"distiller": "class-mean", "groupby": "experience"},
    "redistil": {"distiller": "class-mean", "adaptive_size": True},
    "prefix": {"distiller": "class-mean", "adaptive_size": True, "shrink": "prefix", "real_share": 0.3},
    "replace": {"distiller": "random", "revisit": "replace"},
    "accumulate": {"distiller": "random", "revisit": "accumulate", "groupby": "class"},
    "bytes": {"distiller": "class-mean", "max_size": None, "max_bytes": 1500},
}

BYTES = {"color": 3000, "vectors": 300, "instances": 1750, "blurry": 1750}
"""Where 1500 bytes hold more images than there are samples, or fewer than there are groups."""

every_policy = pytest.mark.parametrize("policy", POLICIES)
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS)

EVERY = [(policy, scenario, False) for policy in POLICIES for scenario in SCENARIOS]
EVERY += [(policy, scenario, True) for policy in ("dm", "mixed", "redistil", "bytes") for scenario in SCENARIOS]

everything = pytest.mark.parametrize(
    ("policy", "scenario", "soft"), EVERY, ids=[f"{a}-{b}-{'soft' if c else 'hard'}" for a, b, c in EVERY]
)


def memory(policy: str, soft: bool = False, **options: Any) -> DistilledBuffer:
    return DistilledBuffer(
        **{"max_size": SIZE, "soft_labels": soft, "device": "cpu", "every": 1, **POLICIES[policy], **options}
    )


def numbers(policy: DistilledBuffer) -> list[Tensor]:
    """Everything that is remembered."""
    rows, soft = policy.rows(), policy.soft_targets()
    stored = [slot.stored.clone() for slot in policy.groups.values()]
    return [rows.x, rows.y, rows.t, *stored, torch.zeros(0) if soft is None else soft]


def same(one: DistilledBuffer, other: DistilledBuffer) -> bool:
    mine, theirs = numbers(one), numbers(other)
    return len(mine) == len(theirs) and all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def global_state() -> list[Any]:
    legacy: Any = np.random.get_state()
    return [torch.get_rng_state().tolist(), legacy[1].tolist(), legacy[2:], random.getstate()]


@dataclass
class Run:
    """A stream taken in, and what was there after each experience."""

    stream: list[Any]
    policy: DistilledBuffer
    lengths: list[int]
    covered: list[set[tuple[int, int]]]


@cache
def run(policy: str, scenario: str, soft: bool) -> Run:
    stream = list(SCENARIOS[scenario]())
    agent = SimpleNamespace(model=learner(stream))
    limit = {"max_bytes": BYTES[scenario]} if policy == "bytes" and scenario in BYTES else {}
    made = memory(policy, soft, **limit)
    result = Run(stream, made, [], [])
    for experience in stream:
        state = global_state()
        made.post_adapt(agent, experience)
        assert state == global_state(), "the global random state was moved"
        rows = made.rows()
        result.lengths.append(len(made.buffer))
        result.covered.append(set(zip(rows.t.tolist(), rows.y.tolist(), strict=True)))
    return result


def pairs(experience: Any) -> set[tuple[int, int]]:
    rows = read(experience.dataset)[0]
    return set(zip(rows.t.tolist(), rows.y.tolist(), strict=True))


@everything
def test_the_memory_is_filled_exactly(policy: str, scenario: str, soft: bool) -> None:
    done = run(policy, scenario, soft)
    limit = done.policy.images_allowed
    if (policy, scenario) == ("replace", "online"):
        return  # a piece of the stream has fewer samples of a class than the memory holds
    assert done.lengths[-1] == len(done.policy.rows()) == limit
    if done.policy.max_bytes is None:
        assert limit == SIZE
        assert max(done.lengths) <= SIZE
    else:
        assert done.policy.nbytes <= done.policy.max_bytes
    per_group = [len(slot) for slot in done.policy.groups.values()]
    assert max(per_group) - min(per_group) <= 1


@everything
def test_no_class_is_ever_missing(policy: str, scenario: str, soft: bool) -> None:
    done = run(policy, scenario, soft)
    seen: set[tuple[int, int]] = set()
    for experience, covered in zip(done.stream, done.covered, strict=True):
        seen |= pairs(experience)
        assert covered == seen


@everything
def test_items_mix_with_those_of_the_stream(policy: str, scenario: str, soft: bool) -> None:
    done = run(policy, scenario, soft)
    buffer, data = done.policy.buffer, done.stream[-1].dataset
    assert isinstance(buffer, AvalancheDataset)
    assert [type(part) for part in buffer[0]] == [type(part) for part in data.eval()[0]]
    for both in (data.concat(buffer), buffer.concat(data)):
        assert len(both.targets) == len(both) == len(buffer) + len(data)
        assert hasattr(both, "targets_task_labels") == hasattr(data, "targets_task_labels")
        batch = next(iter(DataLoader(both, batch_size=len(both), generator=torch.Generator())))
        assert batch[0].dtype == data[0][0].dtype
        assert len(batch) == len(data[0])
    rows = done.policy.rows()
    x = torch.stack([item[0] for item in buffer])
    assert torch.equal(x, rows.x)
    assert list(buffer.targets) == [int(item[1]) for item in buffer] == rows.y.tolist()


@everything
def test_it_stands_alone(policy: str, scenario: str, soft: bool) -> None:
    done = run(policy, scenario, soft).policy
    assert len(pickle.dumps(done)) < done.nbytes + 900 * len(done.groups) + 4000
    assert done.nbytes == sum(slot.nbytes for slot in done.groups.values())


@every_scenario
@pytest.mark.parametrize("policy", ["dm", "mixed", "redistil", "bytes"])
def test_soft_labels_are_the_learners_probabilities(policy: str, scenario: str) -> None:
    hard, done = run(policy, scenario, False), run(policy, scenario, True)
    soft = done.policy.soft_targets()
    assert hard.policy.soft_targets() is None
    assert not hasattr(hard.policy.buffer, "soft_targets")
    assert soft is not None
    assert torch.equal(torch.stack(list(done.policy.buffer.soft_targets)), soft)
    assert torch.allclose(soft.sum(1), torch.ones(len(soft)))
    assert len(soft.unique(dim=0)) > 1
    if POLICIES[policy].get("max_bytes") is None:
        assert torch.equal(hard.policy.rows().x, done.policy.rows().x)


@pytest.mark.parametrize("scenario", ["class", "online"])
@every_policy
def test_equal_seeds_give_equal_memories_and_others_others(policy: str, scenario: str) -> None:
    done = run(policy, scenario, True)
    agent = SimpleNamespace(model=learner(done.stream))

    def repeated(seed: int) -> DistilledBuffer:
        made = memory(policy, True, seed=seed)
        for experience in done.stream:
            made.post_adapt(agent, experience)
        return made

    assert same(done.policy, seeded(lambda: repeated(0), 99))
    assert not same(done.policy, repeated(1))


@pytest.mark.parametrize("scenario", ["permuted", "revisited", "online"])
@every_policy
def test_a_copy_goes_on_as_the_original_would(policy: str, scenario: str) -> None:
    done = run(policy, scenario, True)
    agent = SimpleNamespace(model=learner(done.stream))
    made = memory(policy, True)
    for number, experience in enumerate(done.stream):
        made.buffer  # noqa: B018 - what it remembers of having been looked at must not travel
        made = pickle.loads(pickle.dumps(made)) if number % 2 else copy.deepcopy(made)
        made.post_adapt(agent, experience)
    assert same(done.policy, made)


@every_policy
def test_nothing_of_the_callers_is_changed(policy: str) -> None:
    stream = list(SCENARIOS["task-zero-based"]())
    model = learner(stream)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    options = copy.deepcopy(POLICIES[policy])
    made = memory(policy, True)
    for experience in stream:
        before, items = dict(vars(experience)), read(experience.dataset)[0].x
        group = experience.dataset._flat_data._transform_groups.current_group
        made.post_adapt(SimpleNamespace(model=model), experience)
        assert dict(vars(experience)) == before
        assert torch.equal(read(experience.dataset)[0].x, items)
        assert experience.dataset._flat_data._transform_groups.current_group == group
    after = model.state_dict()
    assert state.keys() == after.keys()
    assert all(torch.equal(state[name], after[name]) for name in state)
    assert modes == [module.training for module in model.modules()]
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert options == POLICIES[policy]


@pytest.mark.parametrize("revisit", ["merge", "replace", "accumulate"])
@pytest.mark.parametrize("policy", ["dm", "mixed", "redistil", "prefix", "bytes"])
def test_it_does_not_grow_when_classes_come_back(policy: str, revisit: str) -> None:
    stream = list(SCENARIOS["class"]())
    agent = SimpleNamespace(model=learner(stream))
    made = memory(policy, False, groupby="class", revisit=revisit)
    sizes = []
    for _ in range(3):
        for experience in stream:
            made.post_adapt(agent, experience)
        sizes.append(len(pickle.dumps(made)))
    assert abs(sizes[2] - sizes[1]) < 100
    assert len(made.buffer) == made.images_allowed


@pytest.mark.parametrize("samples", [0, 1])
@every_policy
def test_an_empty_experience_changes_nothing_and_one_sample_is_enough(policy: str, samples: int) -> None:
    stream = list(SCENARIOS["class"]())
    agent = SimpleNamespace(model=learner(stream))
    made = memory(policy)
    made.post_adapt(agent, stream[0])
    before = numbers(made)
    small = SimpleNamespace(dataset=stream[1].dataset.subset(list(range(samples))))
    made.post_adapt(agent, small)
    if samples:
        assert {group.label: len(slot) for group, slot in made.groups.items()}[2] == 1
    else:
        assert all(torch.equal(a, b) for a, b in zip(before, numbers(made), strict=True))
        assert (made.updates, made.seconds) == (1, 0.0)


def test_an_empty_memory_is_an_empty_dataset() -> None:
    made = DistilledBuffer(5)
    assert (len(made.buffer), len(made.rows()), made.nbytes, made.recipe) == (0, 0, 0, None)
    assert isinstance(made.buffer, AvalancheDataset)
    made.post_adapt(SimpleNamespace(), SimpleNamespace(dataset=[]))
    assert len(made.buffer) == 0
