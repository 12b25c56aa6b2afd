"""What each option of a distilled memory does, against what it says."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
import torch
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor

from ddplug.avalanche import DistilledBuffer, DistilledGDumb, DistilledReplay, DistilledReplayPlugin
from ddplug.avalanche.groups import GroupKey
from ddplug.avalanche.options import MemoryKeywords, MemoryOptions
from ddplug.avalanche.schema import read
from ddplug.distillers.dm import DM
from ddplug.distillers.selection.class_mean import ClassMean
from ddplug.errors import OptionError
from tests.avalanche.streams import CLASSES, SCENARIOS, learner, nc, permuted, revisiting, toy, zero_based
from tests.avalanche.test_buffer import QUICK, same


def remembered(stream: Any, size: int | None = 12, **options: Any) -> DistilledBuffer:
    experiences = list(stream)
    made = DistilledBuffer(size, **{"distiller": "class-mean", "storage": "float32", "device": "cpu", **options})
    agent = SimpleNamespace(model=learner(experiences))
    for experience in experiences:
        made.post_adapt(agent, experience)
    return made


def lengths(made: DistilledBuffer) -> list[int]:
    return [len(slot) for slot in made.groups.values()]


def of_class(experience: Any, label: int) -> Tensor:
    rows = read(experience.dataset)[0]
    return rows.x[rows.y == label]


def is_among(x: Tensor, pool: Tensor) -> bool:
    return bool((pool == x).flatten(1).all(1).any())


# ---- groups


def test_a_group_is_all_of_its_parts() -> None:
    groups = {GroupKey(3): "a", GroupKey(3, 1): "b", GroupKey(3, 0, 2): "c"}
    assert groups[GroupKey(3, task=0)] == "a"
    assert len(groups) == 3


def test_stock_code_finds_each_class_under_its_plain_label() -> None:
    made = remembered(zero_based().train_stream, 12)
    assert [(group.label, group.task) for group in made.groups] == [(y, task) for task in range(3) for y in range(2)]
    assert list(made.buffer_groups) == [0, 1]
    for y, of_label in made.buffer_groups.items():
        items = [of_label.buffer[i] for i in range(len(of_label.buffer))]
        assert [(int(item[1]), int(item[2])) for item in items] == [(y, task) for task in (0, 0, 1, 1, 2, 2)]
        wanted = torch.cat([made.groups[GroupKey(y, task)].inputs() for task in range(3)])
        assert torch.equal(torch.stack([item[0] for item in items]), wanted)


def test_auto_keeps_pairs_apart_until_a_domain_shifts() -> None:
    assert {group.experience for group in remembered(nc().train_stream).groups} == {None}
    domains = remembered(permuted().train_stream, 18)
    assert [(group.label, group.experience) for group in domains.groups] == [
        (label, experience) for experience in (None, 1, 2) for label in range(3)
    ]
    rows = domains.rows()
    means = [of_class(e, label).mean(0) for e in permuted().train_stream for label in range(3)]
    per_group = rows.x.view(9, 2, 1, 8, 8).mean(1)
    assert [int((per_group - mean).square().flatten(1).sum(1).argmin()) for mean in means] == list(range(9))


def test_training_again_on_a_domain_is_no_new_one() -> None:
    stream = list(permuted().train_stream)
    made = remembered([stream[0], stream[1], stream[0], stream[1]], 18)
    assert [group.experience for group in made.groups] == [None] * 3 + [1] * 3


@pytest.mark.parametrize(("groupby", "count"), [("class", 3), ("experience", 5), ("auto", 4)])
def test_groupby_is_counted_in_advance_as_it_comes(groupby: str, count: int) -> None:
    made = remembered(revisiting().train_stream, groupby=groupby)
    assert made.planned_groups == len(made.groups) == count


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_groups_of_a_stream_are_known_from_its_labels(scenario: str) -> None:
    made = remembered(SCENARIOS[scenario](), 18)
    assert made.planned_groups == len(made.groups)
    assert made.options.total_num_groups is None


# ---- budgets


def test_a_fixed_budget_divides_with_the_remainder_first() -> None:
    assert lengths(remembered(nc().train_stream, 20)) == [4, 4, 3, 3, 3, 3]
    assert lengths(remembered(nc().train_stream, 20, total_num_groups=10)) == [2] * 6
    assert lengths(remembered(nc().train_stream, 12, total_num_groups=2)) == [2] * 6


def test_an_unknown_stream_is_divided_adaptively() -> None:
    unknown = [SimpleNamespace(dataset=experience.dataset) for experience in nc().train_stream]
    made = DistilledBuffer(12, distiller="random", device="cpu")
    sizes = []
    for experience in unknown:
        made.post_adapt(None, experience)
        sizes.append(lengths(made))
    assert sizes == [[6, 6], [3] * 4, [2] * 6]
    assert made.planned_groups is None
    assert not made.options.adaptive_size


def test_an_unknown_stream_stays_adaptive_when_a_known_one_follows() -> None:
    made = remembered([SimpleNamespace(dataset=nc().train_stream[0].dataset), *nc().train_stream[1:]], 12)
    assert made.planned_groups is None
    assert lengths(made) == [2] * 6


def test_what_was_set_can_be_read_back() -> None:
    made = remembered(nc().train_stream, None, max_bytes=1500, storage="uint8", total_num_groups=2)
    assert (made.max_size, made.max_bytes) == (1500, 1500)
    assert (made.options.total_num_groups, made.options.adaptive_size) == (2, False)
    assert made.images_allowed == len(made.buffer) == (1500 - 6 * 8) // 65
    made.resize(None, 6)
    assert (made.max_size, made.max_bytes, made.images_allowed, len(made.buffer)) == (6, None, 6, 6)


def test_a_prefix_is_a_prefix_and_redistilled_images_are_not() -> None:
    stream = list(nc().train_stream)
    for shrink in ("prefix", "redistil"):
        made = DistilledBuffer(12, distiller="class-mean", adaptive_size=True, shrink=shrink, storage="float32")
        agent = SimpleNamespace(model=learner(stream))
        made.post_adapt(agent, stream[0])
        before = made.groups[GroupKey(0)].inputs()
        made.post_adapt(agent, stream[1])
        after = made.groups[GroupKey(0)].inputs()
        assert len(before) == 6
        assert len(after) == 3
        if shrink == "prefix":
            assert torch.equal(after, before[:3])
        else:
            assert torch.allclose(after.mean(0), before.mean(0), atol=1e-6)  # three means of two
            assert not is_among(after[0], before)


def test_what_needs_no_learner_is_redistilled_without_one() -> None:
    made = DistilledBuffer(12, distiller="class-mean", adaptive_size=True, storage="float32", device="cpu")
    stream = nc().train_stream
    made.post_adapt(None, stream[0])
    before = made.groups[GroupKey(0)].inputs()
    made.post_adapt(None, stream[1])
    assert not is_among(made.groups[GroupKey(0)].inputs()[0], before)


def test_too_few_images_leave_the_last_groups_none_and_say_so_once() -> None:
    with pytest.warns(UserWarning, match="4 images for 6 groups") as caught:
        made = remembered(list(nc().train_stream) * 2, 4, soft_labels=True, groupby="class")
    assert lengths(made) == [1, 1, 1, 1, 0, 0]
    assert len(caught) == 1
    assert len(made.buffer) == len(made.soft_targets()) == 4  # type: ignore[arg-type]
    assert len(made.buffer_groups[5].buffer) == 0


@pytest.mark.parametrize("storage", ["uint8", "float32"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
def test_bytes_are_kept_and_used_up(storage: str, soft: bool, adaptive: bool) -> None:
    limit = 6000 if storage == "float32" else 1500
    made = DistilledBuffer(
        max_bytes=limit, distiller=QUICK, storage=storage, soft_labels=soft, adaptive_size=adaptive, device="cpu"
    )
    assert made.images_allowed is None
    stream = list(nc().train_stream)
    agent = SimpleNamespace(model=learner(stream))
    for experience in stream:
        made.post_adapt(agent, experience)
        assert made.nbytes <= limit
    assert limit - made.nbytes < 64 * (4 if storage == "float32" else 1) + (4 * CLASSES if soft else 1)
    assert len(made.buffer) == made.images_allowed


def test_too_few_bytes_for_an_image_are_refused() -> None:
    with pytest.raises(OptionError, match="max_bytes is 50, but one image takes 73 bytes"):
        remembered(nc().train_stream, None, max_bytes=50, storage="uint8")


def test_resize_shrinks_and_lets_grow() -> None:
    made = remembered(nc().train_stream, 18)
    before = made.rows().x
    made.resize(None, 9)
    assert lengths(made) == [2, 2, 2, 1, 1, 1]
    assert torch.equal(made.rows().x, before[[0, 1, 3, 4, 6, 7, 9, 12, 15]])
    made.resize(SimpleNamespace(model=learner(nc().train_stream)), 6)
    assert len(made.buffer) == made.max_size == 6
    made.resize(None, 100)
    assert len(made.buffer) == 6
    with pytest.raises(OptionError, match="new_size is 0"):
        made.resize(None, 0)


# ---- what the images are


def test_a_class_mean_is_that_of_its_class() -> None:
    made = remembered(nc().train_stream, 6)
    means = [
        of_class(experience, y).mean(0)
        for experience in nc().train_stream
        for y in sorted(set(experience.dataset.targets))
    ]
    assert torch.allclose(made.rows().x, torch.stack(means), atol=1e-6)


@pytest.mark.parametrize(("share", "real"), [(0.0, 0), (0.3, 1), (0.5, 2), (1.0, 4)])
def test_a_share_is_real_and_comes_last(share: float, real: int) -> None:
    stream = nc(data=toy((12, 9, 14, 10, 8, 11))).train_stream
    made = remembered(stream, 24, real_share=share)
    for experience in stream:
        for y in set(experience.dataset.targets):
            slot = made.groups[GroupKey(y)]
            pool = of_class(experience, y)
            found = [is_among(image, pool) for image in slot.inputs()]
            assert slot.real == real
            assert found == [False] * (4 - real) + [True] * real


def test_a_class_with_too_few_samples_is_kept_whole() -> None:
    stream = nc(data=toy((12, 2, 9, 3, 8, 4))).train_stream
    made = remembered(stream, 30)
    assert lengths(made) == [5, 2, 5, 3, 5, 4]
    assert [slot.real for slot in made.groups.values()] == [0, 2, 0, 3, 0, 4]
    assert torch.equal(made.groups[GroupKey(1)].inputs(), of_class(stream[0], 1))


@pytest.mark.parametrize("joint", [True, False])
def test_joint_or_one_class_at_a_time(joint: bool) -> None:
    seen: list[int] = []

    class Counting(ClassMean):
        def init(self, data: Any, rng: Any) -> Any:
            seen.append(data.num_classes)
            return super().init(data, rng)

    remembered(nc().train_stream, 12, distiller=Counting(), joint=joint)
    assert seen == ([2, 2, 2] if joint else [1] * 6)


@pytest.mark.parametrize(
    ("shape", "wanted"), [("class", "crop_scale_rotate"), ("vectors", ""), ("color", "color_crop")]
)
def test_the_augmentation_suits_the_inputs(shape: str, wanted: str) -> None:
    made = remembered(SCENARIOS[shape](), distiller=QUICK, augmentation="auto")
    assert made.recipe is not None
    assert made.recipe.augment.startswith(wanted)
    assert made.recipe.augment or not wanted
    plain = remembered(SCENARIOS[shape](), distiller=QUICK)
    assert plain.recipe is not None
    assert plain.recipe.augment == ""


def test_uint8_is_off_by_at_most_half_a_level() -> None:
    exact = remembered(nc().train_stream, 12)
    rounded = remembered(nc().train_stream, 12, storage="uint8")
    assert (exact.rows().x - rounded.rows().x).abs().max() <= 0.5 / 255 + 1e-6
    assert rounded.nbytes == 12 * 65 + 6 * 8
    assert exact.nbytes == 12 * (256 + 1)
    vectors = remembered(SCENARIOS["vectors"](), 12)
    small = remembered(SCENARIOS["vectors"](), 12, storage="uint8")
    assert 0 < (vectors.rows().x - small.rows().x).abs().max() < 0.01
    assert small.nbytes == 12 * 7 + 6 * 8


def test_real_images_stored_as_bytes_come_back_exactly() -> None:
    made = remembered(nc().train_stream, 12, real_share=1.0, storage="uint8")
    for experience in nc().train_stream:
        for y in set(experience.dataset.targets):
            assert all(is_among(image, of_class(experience, y)) for image in made.groups[GroupKey(y)].inputs())


@pytest.mark.parametrize("network", ["fresh", "learner", "own", "convnet:width=8,depth=1"])
def test_the_network_can_be_chosen(network: str) -> None:
    distiller = DM(steps=2, pool_size=2, init_from="real", network="convnet:width=4,depth=1")
    made = {name: remembered(nc().train_stream, distiller=distiller, network=name) for name in (network, "own")}
    assert same(made[network], made["own"]) == (network == "own")
    assert distiller.network == "convnet:width=4,depth=1"


# ---- how options are given


def test_keywords_and_an_object_are_the_same() -> None:
    options: dict[str, Any] = {"distiller": "kmeans", "factor": 2, "real_share": 0.5}
    assert DistilledBuffer(4, **options).options == DistilledBuffer(4, options=MemoryOptions(**options)).options
    assert DistilledBuffer(4).options == MemoryOptions()


def test_the_keywords_of_type_checkers_are_the_fields() -> None:
    assert get_type_hints(MemoryKeywords) == get_type_hints(MemoryOptions)


def test_the_signature_shows_every_option_with_its_default() -> None:
    for cls in (DistilledBuffer, DistilledReplayPlugin, DistilledReplay, DistilledGDumb):
        shown = inspect.signature(cls).parameters
        own = {"device": "cpu"} if issubclass(cls, SupervisedTemplate) else {}  # of a strategy's model
        defaults = {field.name: shown[field.name].default for field in fields(MemoryOptions)}
        assert defaults == {**vars(MemoryOptions()), **own}


# ---- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "max_size is None and max_bytes is None; give exactly one"),
        ({"max_size": 5, "max_bytes": 5}, "give exactly one"),
        ({"max_size": 0}, "max_size is 0; it must be at least 1"),
        ({"max_bytes": -1}, "max_bytes is -1"),
        ({"max_size": 5, "every": 0}, "every is 0"),
        ({"max_size": 5, "reservoir_size": 0}, "reservoir_size is 0"),
        ({"max_size": 5, "total_num_groups": 0}, "total_num_groups is 0"),
        ({"max_size": 5, "total_num_groups": 2, "adaptive_size": True}, "total_num_groups is 2 with adaptive_size"),
        ({"max_size": 5, "real_share": 1.5}, "real_share is 1.5; it must lie between 0 and 1"),
        ({"max_size": 5, "real_share": float("nan")}, "real_share is nan"),
        ({"max_size": 5, "groupby": "task"}, "'groupby', 'task'"),
        ({"max_size": 5, "shrink": "drop"}, "'shrink', 'drop'"),
        ({"max_size": 5, "revisit": "marge"}, "did you mean 'merge'"),
        ({"max_size": 5, "storage": "float16"}, "'storage', 'float16'"),
        ({"max_size": 5, "distiller": "dmm"}, "did you mean 'dm'"),
        ({"max_size": 5, "distiller": DM}, "pass a distiller such as DM"),
        ({"max_size": 5, "augmentation": "blur"}, "blur"),
        ({"max_size": 5, "distiller": DM(factor=2)}, "give the distiller factor=1 and DistilledBuffer factor=2"),
        ({"max_size": 5, "shrnk": "prefix"}, "did you mean 'shrink'"),
        ({"max_size": 5, "options": MemoryOptions(), "every": 2}, "every and options are given"),
    ],
)
def test_options_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DistilledBuffer(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distiller": QUICK}, "network='fresh' needs the model"),
        ({"distiller": "random", "soft_labels": True}, "soft_labels=True needs the model"),
    ],
)
def test_a_missing_learner_is_named_and_leaves_the_memory_as_it_was(options: dict[str, Any], message: str) -> None:
    made = DistilledBuffer(12, **options)
    stream = nc().train_stream
    with pytest.raises(OptionError, match=message):
        made.post_adapt(SimpleNamespace(), stream[0])
    assert (len(made.groups), made.updates) == (0, 0)
    made.post_adapt(SimpleNamespace(model=learner(stream)), stream[0])
    assert len(made.buffer) == 4


def test_no_warning_is_given_when_all_is_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        remembered(nc().train_stream, distiller=QUICK)
