"""Classes that come back, online or not: what is combined, what waits, and how it is weighed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from avalanche.benchmarks import split_online_stream
from torch import Tensor

from ddplug.avalanche.buffer import DistilledBuffer
from ddplug.avalanche.groups import GroupKey, GroupMemory, pack
from ddplug.avalanche.maker import combine
from ddplug.avalanche.options import MemoryOptions
from ddplug.avalanche.reservoir import Reservoir
from ddplug.avalanche.schema import Schema
from ddplug.synthetic.recipe import Recipe
from tests.avalanche.streams import CLASSES, learner, nc, online, permuted
from tests.avalanche.test_buffer import numbers
from tests.avalanche.test_buffer_options import remembered


def slot(images: Tensor, seen: int, real: int = 0) -> GroupMemory:
    return GroupMemory(GroupKey(0), *pack(images, "float32"), None, seen, real, Recipe(), Schema((1,), torch.float32))


def numbered(start: int, count: int) -> Tensor:
    return torch.arange(start, start + count).float()[:, None]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_merge_weighs_old_images_as_what_they_stand_for() -> None:
    old = slot(numbered(0, 4), seen=40)
    for count, times in ((100, 10), (40, 10), (20, 5), (6, 1), (3, 1)):
        new = Reservoir(numbered(10, count), count)
        made = combine(GroupKey(0), new, 4, old, MemoryOptions(revisit="merge"), rng())
        assert sorted(made.data.flatten().tolist()) == sorted([0, 1, 2, 3] * times + list(range(10, 10 + count)))
        assert (made.distilled, made.seen, len(made.kept), len(made.real)) == (4, 40 + count, 0, 0)
    waiting = combine(GroupKey(0), Reservoir(numbered(10, 20), 40), 4, old, MemoryOptions(revisit="merge"), rng())
    assert waiting.data.flatten().tolist().count(0.0) == 5


def test_replace_forgets_and_accumulate_appends() -> None:
    old, new = slot(numbered(0, 4), seen=40), Reservoir(numbered(10, 20), 20)
    replaced = combine(GroupKey(0), new, 4, old, MemoryOptions(revisit="replace"), rng())
    assert (int(replaced.data.min()), replaced.distilled, replaced.seen) == (10, 4, 20)
    appended = combine(GroupKey(0), new, 5, old, MemoryOptions(revisit="accumulate"), rng())
    assert appended.kept.flatten().tolist() == [0, 1, 2]
    assert (int(appended.data.min()), appended.distilled, appended.seen) == (10, 2, 60)
    small = combine(GroupKey(0), Reservoir(numbered(10, 1), 1), 4, old, MemoryOptions(revisit="accumulate"), rng())
    assert (small.kept.flatten().tolist(), small.distilled) == ([0, 1, 2], 1)


@pytest.mark.parametrize("revisit", ["merge", "accumulate"])
def test_what_fits_is_all_kept(revisit: str) -> None:
    old, new = slot(numbered(0, 3), seen=30, real=1), Reservoir(numbered(10, 2), 2)
    made = combine(GroupKey(0), new, 5, old, MemoryOptions(revisit=revisit), rng())
    assert (made.kept.flatten().tolist(), made.real.flatten().tolist()) == ([0, 1], [2, 10, 11])
    assert made.seen == 32
    assert made.distilled == 0


def test_real_samples_are_drawn_from_old_and_new_in_proportion() -> None:
    old, new = slot(numbered(0, 8), seen=30, real=4), Reservoir(numbered(100, 10), 10)
    made = combine(GroupKey(0), new, 8, old, MemoryOptions(revisit="merge", real_share=0.5), rng())
    values = made.real.flatten().tolist()
    assert sorted(value >= 100 for value in values) == [False] * 3 + [True]
    assert all(value >= 4 for value in values)
    assert made.distilled == 4


def test_merged_means_are_those_of_all_samples() -> None:
    whole = nc(6).train_stream[0].dataset
    halves = [SimpleNamespace(dataset=whole.subset(list(range(k, k + 6)))) for k in (0, 6)]
    made = remembered(halves, 1, groupby="class")
    assert torch.allclose(made.rows().x[0], torch.stack([item[0] for item in whole]).mean(0), atol=1e-5)
    assert [slot.seen for slot in made.groups.values()] == [12]


def test_a_reservoir_is_uniform() -> None:
    generator = rng()
    counts = torch.zeros(20)
    for _ in range(2000):
        reservoir = Reservoir(torch.zeros(0, 1), 0)
        for part in numbered(0, 20).split(3):
            reservoir = reservoir.add(part, 5, generator)
        assert (len(reservoir.x), reservoir.seen) == (5, 20)
        counts[reservoir.x.flatten().long()] += 1
    assert (counts / 2000 - 0.25).abs().max() < 0.05  # five standard deviations


def test_online_distils_every_few_calls_and_at_first_sight() -> None:
    stream = list(online(5))
    agent = SimpleNamespace(model=learner(stream))
    made = DistilledBuffer(12, distiller="class-mean", every=4, reservoir_size=3, device="cpu")
    seen: set[int] = set()
    for call, experience in enumerate(stream, 1):
        new = set(experience.dataset.targets) - seen
        seen |= new
        before, memory = made.updates, numbers(made)
        made.post_adapt(agent, experience)
        assert made.updates - before == int(bool(new) or call % 4 == 0)
        assert (made.seconds > 0) == (made.updates > before)
        waiting = sum(len(reservoir.x) for reservoir in made._waiting.values())
        assert made.nbytes == sum(slot.nbytes for slot in made.groups.values()) + waiting * 64 * 4
        assert all(len(reservoir.x) <= 3 for reservoir in made._waiting.values())
        if made.updates == before:
            assert all(torch.equal(a, b) for a, b in zip(memory, numbers(made), strict=True))
        assert {group.label for group in made.groups} == seen
    assert sum(s.seen for s in made.groups.values()) + sum(r.seen for r in made._waiting.values()) == 63
    assert made.total_seconds > 0


def test_domains_are_not_told_apart_online_unless_asked() -> None:
    assert {group.experience for group in remembered(online()).groups} == {None}
    pieces = list(split_online_stream(permuted().train_stream, 10, seed=0))
    assert {group.experience for group in remembered(pieces).groups} == {None}
    asked = remembered(online(), groupby="experience")
    assert [(group.label, group.experience) for group in asked.groups] == [(y, y // 2) for y in range(CLASSES)]


def test_every_distillation_draws_anew() -> None:
    stream = [nc().train_stream[0]] * 2
    once = remembered(stream[:1], 12, distiller="random", groupby="class", revisit="replace")
    twice = remembered(stream, 12, distiller="random", groupby="class", revisit="replace")
    assert not torch.equal(once.rows().x, twice.rows().x)
