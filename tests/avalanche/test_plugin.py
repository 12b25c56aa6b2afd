"""Replay with a loss of its own or in mixed batches, against loops written out by hand."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import Any

import pytest
import torch
from avalanche.benchmarks import split_online_stream
from avalanche.benchmarks.utils import DataAttribute
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule, SimpleMLP
from avalanche.training import Naive
from avalanche.training.plugins import (
    EarlyStoppingPlugin,
    EvaluationPlugin,
    EWCPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    SupervisedPlugin,
)
from avalanche.training.storage_policy import (
    ClassBalancedBuffer,
    ExemplarsBuffer,
    ExperienceBalancedBuffer,
    ReservoirSamplingBuffer,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.avalanche.buffer import DistilledBuffer
from ddplug.avalanche.plugin import DistilledReplayPlugin
from ddplug.avalanche.replay import MemoryBatches, match_width
from ddplug.avalanche.schema import Rows, read
from ddplug.avalanche.translation import differences, translated
from ddplug.errors import OptionError
from ddplug.testing import toy_images
from ddplug.utils.randomness import nth_generator
from tests.avalanche.streams import dataset, nc, permuted, seeded

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")

BATCH = 100  # larger than any experience: one step an epoch, whatever the order
CLASSES = 6


def stream(
    *,
    counts: tuple[int, ...] = (12,) * CLASSES,
    experiences: int = 3,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> Any:
    """Toy images in the class order 0, 1, 2, ...; without task labels unless asked for."""
    made = toy_images(counts)
    data = dataset(made.inputs.to(dtype) / 255, made.targets)
    return nc(experiences, data=data, fixed_class_order=list(range(len(counts))), **options)


def mlp(classes: int = CLASSES, seed: int = 0) -> Any:
    return seeded(lambda: SimpleMLP(num_classes=classes, input_size=64, hidden_size=8, drop_rate=0.0), seed).double()


def learner(plugin: Any, model: Any = None, *, rate: float = 0.2, **options: Any) -> Any:
    """A naive learner with plugins."""
    model = mlp() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=options.pop("momentum", 0.0))
    plugins = plugin if isinstance(plugin, list) else [plugin]
    options = {"train_mb_size": BATCH, "evaluator": None, **options}
    return Naive(model=model, optimizer=optimizer, plugins=plugins, **options)


def images(experience: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows = read(experience.dataset)[0]
    return rows.x, rows.y, rows.t


def same(one: nn.Module, other: nn.Module, tolerance: float = 1e-12) -> None:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    for (name, a), (_, b) in pairs:
        assert torch.allclose(a, b, rtol=0, atol=tolerance), f"{name} differs by {(a - b).abs().max()}"


class Spy(SupervisedPlugin):
    """Notes the labels of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[list[int]] = []

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.labels.append(strategy.mb_y.tolist())


def policies() -> list[Any]:
    return [
        pytest.param(lambda: DistilledBuffer(8, distiller="class-mean", adaptive_size=True), id="distilled"),
        pytest.param(lambda: ReservoirSamplingBuffer(8), id="reservoir"),
        pytest.param(lambda: ExperienceBalancedBuffer(8), id="experience"),
    ]


@pytest.mark.parametrize("policy", policies())
@pytest.mark.parametrize(("weight", "factor"), [("experiences", 2.0), ("classes", 5.0), (0.7, 0.7)])
def test_a_step_is_that_of_the_weighted_sum(policy: Any, weight: str | float, factor: float) -> None:
    experiences = stream(per_exp_classes={0: 3, 1: 2, 2: 1}).train_stream
    plugin = DistilledReplayPlugin(storage_policy=policy(), weight=weight, translate=0)
    strategy = learner(plugin)
    strategy.train(experiences[:2])
    hand = copy.deepcopy(strategy.model)
    memory = read(plugin.storage_policy.buffer)[0]
    if weight == "classes":
        factor = len(set(memory.y.tolist())) / 1
    strategy.train(experiences[2])

    x, y, _ = images(experiences[2])
    loss = cross_entropy(hand(x), y) + factor * cross_entropy(hand(memory.x.double()), memory.y)
    loss.backward()
    with torch.no_grad():
        for parameter in hand.parameters():
            parameter -= 0.2 * parameter.grad
    same(strategy.model, hand)


def test_the_learners_own_criterion_is_used() -> None:
    experiences = stream(experiences=2).train_stream
    strategy = learner(
        DistilledReplayPlugin(translate=0, storage_policy=ReservoirSamplingBuffer(5), weight=3),
        criterion=nn.MultiMarginLoss(margin=0.5),
    )
    strategy.train(experiences[0])
    hand, memory = copy.deepcopy(strategy.model), read(strategy.plugins[0].storage_policy.buffer)[0]
    strategy.train(experiences[1])
    x, y, _ = images(experiences[1])
    margin = nn.MultiMarginLoss(margin=0.5)
    (margin(hand(x), y) + 3 * margin(hand(memory.x), memory.y)).backward()
    torch.optim.SGD(hand.parameters(), lr=0.2).step()
    same(strategy.model, hand)


def test_other_plugins_see_the_streams_batch_alone() -> None:
    experiences, spy = stream(experiences=2).train_stream, Spy()
    strategy = learner([DistilledReplayPlugin(storage_policy=ReservoirSamplingBuffer(5)), spy])
    strategy.train(experiences)
    assert [set(labels) for labels in spy.labels] == [{0, 1, 2}, {3, 4, 5}]


@pytest.mark.parametrize(("n", "size"), [(1, 10), (4, 10), (7, 5), (10, 10), (13, 5)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_mixed_batches_hold_the_memory(n: int, size: int, drop_last: bool) -> None:
    experiences, spy = stream(experiences=2).train_stream, Spy()
    plugin = DistilledReplayPlugin(storage_policy=ReservoirSamplingBuffer(n), mode="batch", batch_size_mem=size)
    strategy = learner([plugin, spy], train_mb_size=10)
    strategy.train(experiences[0])
    spy.labels.clear()
    strategy.train(experiences[1], drop_last=drop_last)
    assert len(spy.labels) == (3 if drop_last else 4)  # 36 samples
    assert [sum(label < 3 for label in batch) for batch in spy.labels] == [size] * len(spy.labels)


def test_mixed_batches_of_a_distilled_memory_are_one_plain_mean() -> None:
    experiences = stream(experiences=2).train_stream
    plugin = DistilledReplayPlugin(6, distiller="class-mean", mode="batch", batch_size_mem=9)
    strategy = learner(plugin)
    strategy.train(experiences[0])
    assert len(plugin.storage_policy.buffer) == 3
    hand, memory = copy.deepcopy(strategy.model), read(plugin.storage_policy.buffer)[0]
    strategy.train(experiences[1])
    x, y, _ = images(experiences[1])
    cross_entropy(hand(torch.cat([x, *[memory.x] * 3])), torch.cat([y, *[memory.y] * 3])).backward()
    torch.optim.SGD(hand.parameters(), lr=0.2).step()
    same(strategy.model, hand)


def drawn(n: int, size: int, seed: int = 0, augment: str = "") -> MemoryBatches:
    x = torch.rand(n, 1, 8, 8, generator=nth_generator(7, 0))
    rows = Rows(x, torch.arange(n), torch.zeros(n, dtype=torch.int64))
    return MemoryBatches(rows, None, size, augment, nth_generator(seed, 0))


def test_every_row_comes_before_any_comes_again() -> None:
    memory = drawn(13, 5)
    batches = [memory.batch()[1].tolist() for _ in range(13)]
    assert [len(batch) for batch in batches] == [5] * 13
    rows = [row for batch in batches for row in batch]
    for start in range(0, 65, 13):
        assert sorted(rows[start : start + 13]) == list(range(13))
    assert rows[:13] != rows[13:26] != list(range(13))


def test_a_small_memory_is_used_whole_and_draws_nothing() -> None:
    memory = drawn(4, 5)
    before = memory.rng.get_state()
    assert memory.batch()[1].tolist() == [0, 1, 2, 3]
    assert torch.equal(before, memory.rng.get_state())


def test_draws_follow_the_seed_and_leave_the_global_state() -> None:
    before = torch.get_rng_state()
    one, again, other = (drawn(13, 5, seed, "crop_rotate").batch() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one[0], again[0]) and torch.equal(one[1], again[1])
    assert not torch.equal(one[1], other[1])


def test_rows_are_augmented_each_by_its_own_operation() -> None:
    x = torch.rand(1, 1, 8, 8, generator=nth_generator(0, 0)).expand(64, -1, -1, -1)
    memory = MemoryBatches(Rows(x, torch.arange(64), torch.zeros(64)), None, 64, "flip_rotate", nth_generator(0, 1))
    flipped = x[0].flip(2)
    kinds = Counter(
        "same" if torch.equal(r, x[0]) else "flip" if torch.equal(r, flipped) else "turn" for r in memory.batch()[0]
    )
    assert min(kinds["same"], kinds["flip"]) >= 5
    assert kinds["turn"] >= 20


@pytest.mark.parametrize("width", [2, 3, 5])
def test_soft_labels_fit_the_output(width: int) -> None:
    soft = torch.tensor([[0.6, 0.2, 0.2], [0.1, 0.3, 0.6]])
    out = match_width(soft, torch.zeros(2, width, dtype=torch.float64))
    want = {
        2: [[0.75, 0.25], [0.25, 0.75]],
        3: [[0.6, 0.2, 0.2], [0.1, 0.3, 0.6]],
        5: [[0.6, 0.2, 0.2, 0, 0], [0.1, 0.3, 0.6, 0, 0]],
    }[width]
    assert torch.allclose(out, torch.tensor(want, dtype=torch.float64), atol=1e-7)


class Growing(nn.Module):
    """Features and a head that grows with the classes seen."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        self.head = IncrementalClassifier(8, initial_out_features=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out


class Heads(MultiTaskModule):
    """Features and a head a task."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU())
        self.head = MultiHeadClassifier(8, 2)

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x), task_labels)
        return out


def test_soft_labels_with_a_growing_head() -> None:
    experiences = stream(dtype=torch.float32).train_stream
    plugin = DistilledReplayPlugin(
        12, translate=0, distiller="kmeans", adaptive_size=True, soft_labels=True, weight=1.5
    )
    strategy = learner(plugin, seeded(Growing))
    strategy.train(experiences[0])
    before, grown = strategy.model.state_dict(), seeded(Growing, 1)
    before = {name: tensor.clone() for name, tensor in before.items()}
    rows, soft = plugin.storage_policy.rows(), plugin.storage_policy.soft_targets()
    assert soft is not None and soft.shape == (12, 2)

    class Start(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            self.model = copy.deepcopy(strategy.model)

    start = Start()
    strategy.plugins.append(start)
    strategy.train(experiences[1])
    grown = start.model
    assert grown.head.classifier.out_features == 4
    assert torch.equal(grown.head.classifier.weight[:2], before["head.classifier.weight"])
    x, y, _ = images(experiences[1])
    log_p = grown(rows.x).log_softmax(1)[:, :2]
    (cross_entropy(grown(x), y) - 1.5 * (soft * log_p).sum(1).mean()).backward()
    torch.optim.SGD(grown.parameters(), lr=0.2).step()
    same(strategy.model, grown, 1e-6)


@pytest.mark.parametrize("zero_based", [False, True])
@pytest.mark.parametrize("mode", ["loss", "batch"])
def test_several_heads(mode: str, zero_based: bool) -> None:
    options: dict[str, Any] = {"class_ids_from_zero_in_each_exp": True} if zero_based else {}
    bench = stream(dtype=torch.float32, task_labels=True, **options)
    plugin = DistilledReplayPlugin(12, distiller="kmeans", adaptive_size=True, mode=mode)
    strategy = learner(plugin, seeded(Heads))
    strategy.train(bench.train_stream[:2])
    memory = plugin.storage_policy.rows()
    assert Counter(memory.t.tolist()) == {0: 6, 1: 6}
    frozen = [head.classifier.weight.clone() for head in strategy.model.head.classifiers.values()]
    strategy.train(bench.train_stream[2])
    heads = list(strategy.model.head.classifiers.values())
    # both earlier heads were trained by the memory alone
    assert all(not torch.equal(head.classifier.weight[: len(w)], w) for head, w in zip(heads, frozen, strict=False))


def test_a_task_incremental_step_is_that_of_the_weighted_sum() -> None:
    experiences = stream(dtype=torch.float32, task_labels=True, class_ids_from_zero_in_each_exp=True).train_stream
    plugin = DistilledReplayPlugin(12, distiller="kmeans", adaptive_size=True)
    strategy = learner(plugin, seeded(Heads))
    strategy.train(experiences[:2])
    strategy.train(experiences[1])  # the heads are there: nothing is drawn at random any more
    hand, memory = copy.deepcopy(strategy.model), plugin.storage_policy.rows()
    strategy.train(experiences[0])
    x, y, t = images(experiences[0])
    (cross_entropy(hand(x, t), y) + 3 * cross_entropy(hand(memory.x, memory.t), memory.y)).backward()
    torch.optim.SGD(hand.parameters(), lr=0.2).step()
    same(strategy.model, hand, 1e-6)


def normed() -> Any:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 6)).double())


@pytest.mark.parametrize("policy", ["keep", "update"])
def test_batch_norm(policy: str) -> None:
    experiences = stream(experiences=2).train_stream
    plugin = DistilledReplayPlugin(translate=0, storage_policy=ReservoirSamplingBuffer(5), batch_norm=policy)
    strategy = learner(plugin, normed())
    strategy.train(experiences[0])
    hand, memory = copy.deepcopy(strategy.model), read(plugin.storage_policy.buffer)[0]
    strategy.train(experiences[1])
    x, y, _ = images(experiences[1])
    loss = cross_entropy(hand(x), y)
    statistics = {name: buffer.clone() for name, buffer in hand.named_buffers()}
    (loss + cross_entropy(hand(memory.x), memory.y)).backward()
    torch.optim.SGD(hand.parameters(), lr=0.2).step()
    if policy == "keep":
        hand.load_state_dict({**hand.state_dict(), **statistics})
    same(strategy.model, hand)
    assert strategy.model[2].track_running_stats


def test_one_row_passes_batch_norm() -> None:
    plugin = DistilledReplayPlugin(storage_policy=ReservoirSamplingBuffer(1))
    strategy = learner(plugin, normed())
    strategy.train(stream(experiences=2).train_stream)
    assert all(parameter.isfinite().all() for parameter in strategy.model.parameters())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fine_tuning_is_the_learners_optimizer_on_the_new_memory(momentum: float) -> None:
    experiences = stream(experiences=2).train_stream
    plugins = [
        DistilledReplayPlugin(translate=0, storage_policy=ReservoirSamplingBuffer(20), finetune_steps=n) for n in (0, 3)
    ]
    plain, tuned = (learner(plugin, momentum=momentum) for plugin in plugins)
    for strategy in (plain, tuned):
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            strategy.train(experiences[0])
            if strategy is tuned:
                same(plain.model, tuned.model)  # none after the first experience
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        plain.train(experiences[1])
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        tuned.train(experiences[1])
    memory = read(tuned.plugins[0].storage_policy.buffer)[0]
    assert set(memory.y.tolist()) & {3, 4, 5}
    for _ in range(3):
        plain.optimizer.zero_grad()
        cross_entropy(plain.model(memory.x), memory.y).backward()
        plain.optimizer.step()
    same(plain.model, tuned.model)


def trained(plugins: Any, bench: Any, **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(3)
        strategy = learner(plugins, **options)
        strategy.train(bench.train_stream, eval_streams=[bench.test_stream], num_workers=0)
    return strategy


def others(name: str, optimizer: Any) -> Any:
    if name == "ewc":
        return EWCPlugin(ewc_lambda=0.5)
    if name == "lwf":
        return LwFPlugin(alpha=1, temperature=2)
    if name == "early stopping":
        return EarlyStoppingPlugin(patience=1, val_stream_name="test_stream")
    return LRSchedulerPlugin(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5))


@pytest.mark.parametrize("name", ["ewc", "lwf", "early stopping", "scheduler"])
@pytest.mark.filterwarnings("ignore:Metric Top1_Acc_Stream used by the EarlyStopping:UserWarning")
def test_the_order_of_plugins_does_not_matter(name: str) -> None:
    bench, results = stream(dtype=torch.float32), []
    for first in (True, False):
        model = mlp().float()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        plugin = DistilledReplayPlugin(6, distiller="kmeans", adaptive_size=True)
        given = [plugin, others(name, optimizer)][:: 1 if first else -1]
        kept = list(given)
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(3)
            strategy = Naive(
                model=model,
                optimizer=optimizer,
                plugins=given,
                train_mb_size=BATCH,
                train_epochs=3,
                eval_every=1,
                evaluator=EvaluationPlugin(accuracy_metrics(stream=True), loggers=[]),
            )
            strategy.train(bench.train_stream, eval_streams=[bench.test_stream])
        assert given == kept
        results.append(strategy.model)
    same(results[0], results[1], 1e-5)


class Old(ReservoirSamplingBuffer):
    """A third party's policy, which knows only the old ``update``."""

    post_adapt = ExemplarsBuffer.post_adapt

    def update(self, strategy: Any, **kwargs: Any) -> None:
        self.update_from_dataset(strategy.experience.dataset)


def test_a_policy_that_knows_only_update() -> None:
    plugin = DistilledReplayPlugin(storage_policy=Old(6))
    learner(plugin).train(stream().train_stream)
    assert len(plugin.storage_policy.buffer) == 6


def test_nothing_is_kept_between_experiences() -> None:
    experiences = stream().train_stream
    plugin = DistilledReplayPlugin(12, distiller="kmeans", adaptive_size=True, augment="auto", batch_size_mem=3)
    strategy = learner(plugin)
    strategy.train(experiences[:2])
    own = {name: value for name, value in vars(plugin).items() if name != "storage_policy"}
    assert all(value in (None, []) or isinstance(value, int | float | str) for value in own.values()), own
    for twin in (copy.deepcopy(plugin), pickle.loads(pickle.dumps(plugin))):
        assert twin.experiences == 2
        assert torch.equal(twin.storage_policy.rows().x, plugin.storage_policy.rows().x)


def test_going_on_from_a_pickle_equals_going_on() -> None:
    experiences = stream().train_stream
    plugin = DistilledReplayPlugin(12, distiller="kmeans", adaptive_size=True, augment="auto", batch_size_mem=3)
    strategy = learner(plugin, train_mb_size=7, momentum=0.9)
    strategy.train(experiences[:2])
    ends = []
    for whole in (pickle.loads(pickle.dumps(strategy)), strategy):
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(0)
            whole.train(experiences[2])
        ends.append(whole)
    same(ends[0].model, ends[1].model, 0.0)
    rows = [end.plugins[0].storage_policy.rows() for end in ends]
    assert torch.equal(rows[0].x, rows[1].x)


def test_runs_repeat_by_seed() -> None:
    def run(seed: int) -> Any:
        plugin = DistilledReplayPlugin(
            12, distiller="kmeans", adaptive_size=True, augment="auto", batch_size_mem=3, seed=seed
        )
        return trained(plugin, stream()).model.state_dict()["classifier.weight"]

    one, again, other = run(0), run(0), run(1)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("mode", ["loss", "batch"])
@pytest.mark.parametrize("boundaries", [True, False])
def test_an_online_stream(mode: str, boundaries: bool) -> None:
    bench, spy = stream(experiences=2, counts=(12,) * 4), Spy()
    online = split_online_stream(bench.train_stream, 8, access_task_boundaries=boundaries)
    plugin = DistilledReplayPlugin(
        4, distiller="kmeans", adaptive_size=True, mode=mode, every=2, finetune_steps=1, weight="experiences"
    )
    strategy, steps = learner([plugin, spy], mlp(4), train_mb_size=8), []
    strategy.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    for experience in online:
        strategy.train(experience)
    assert 1 < plugin.storage_policy.updates < 6
    assert len(steps) == 6 + plugin.storage_policy.updates - 1  # a step of fine-tuning each time but the first
    assert set(plugin.storage_policy.rows().y.tolist()) == {0, 1, 2, 3}
    assert len(spy.labels) == 6
    assert plugin.experiences == 0  # their parts are not counted
    mixed = [any(label < 2 for label in batch) for batch in spy.labels[3:]]
    assert mixed == [mode == "batch"] * 3


def test_on_an_online_stream_groups_weigh_alike() -> None:
    bench = stream(experiences=2, counts=(8,) * 4)
    online = list(split_online_stream(bench.train_stream, 16, drop_last=False))
    plugin = DistilledReplayPlugin(4, translate=0, distiller="kmeans", adaptive_size=True)
    strategy = learner(plugin, mlp(4))
    strategy.train(online[0])
    hand, memory = copy.deepcopy(strategy.model), plugin.storage_policy.rows()
    strategy.train(online[1])
    x, y, _ = images(online[1])
    classes = len(set(memory.y.tolist())) / len(set(y.tolist()))
    (cross_entropy(hand(x), y) + classes * cross_entropy(hand(memory.x), memory.y)).backward()
    torch.optim.SGD(hand.parameters(), lr=0.2).step()
    same(strategy.model, hand)


def test_a_filled_memory_serves_a_new_learner() -> None:
    experiences = stream(experiences=2).train_stream
    first = DistilledReplayPlugin(6, translate=0, distiller="kmeans", adaptive_size=True)
    learner(first).train(experiences[0])
    strategy = learner(DistilledReplayPlugin(translate=0, storage_policy=first.storage_policy))
    hand, memory = copy.deepcopy(strategy.model), first.storage_policy.rows()
    strategy.train(experiences[1])
    x, y, _ = images(experiences[1])
    (cross_entropy(hand(x), y) + cross_entropy(hand(memory.x), memory.y)).backward()
    torch.optim.SGD(hand.parameters(), lr=0.2).step()
    same(strategy.model, hand)


def test_stock_memories_with_task_labels() -> None:
    bench = stream(dtype=torch.float32, task_labels=True)
    plugin = DistilledReplayPlugin(storage_policy=ClassBalancedBuffer(6))
    strategy = learner(plugin, seeded(Heads))
    strategy.train(bench.train_stream)
    assert plugin.experiences == 3
    assert isinstance(plugin.storage_policy.buffer.targets, DataAttribute)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "los"}, "unknown mode 'los'; did you mean 'loss'?"),
        ({"batch_norm": "freeze"}, "unknown batch_norm 'freeze'"),
        ({"weight": "class"}, "unknown weight 'class'; did you mean 'classes'?"),
        ({"weight": -1.0}, "weight is -1.0; it must be a finite number of at least 0"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"batch_size_mem": 0}, "batch_size_mem is 0; it must be an integer of at least 1"),
        ({"finetune_steps": -1}, "finetune_steps is -1; it must be an integer of at least 0"),
        ({"finetune_steps": 1.5}, "finetune_steps is 1.5"),
        ({"augment": "crop_spin"}, "unknown augmentation 'spin'"),
        ({"netwerk": "own"}, "unknown option of the memory, 'netwerk'; did you mean 'network'?"),
        ({"storage_policy": []}, "storage_policy is a list; it must be an avalanche ExemplarsBuffer"),
        (
            {"storage_policy": ReservoirSamplingBuffer(3), "every": 2},
            "every would make a new memory beside storage_policy",
        ),
        ({"distiller": "dmm"}, "unknown distiller 'dmm'; did you mean 'dm'?"),
    ],
)
def test_bad_options_are_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        DistilledReplayPlugin(**options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_operations_on_what_is_no_image_are_refused() -> None:
    made = toy_images((12,) * 4)
    data = dataset(made.inputs.double().flatten(1), made.targets)
    experiences = nc(2, data=data, fixed_class_order=[0, 1, 2, 3]).train_stream
    strategy = learner(DistilledReplayPlugin(storage_policy=ReservoirSamplingBuffer(4), augment="crop"), mlp(4))
    strategy.train(experiences[0])
    with pytest.raises(OptionError, match=r"augmentation 'crop' needs \(C, H, W\) images"):
        strategy.train(experiences[1])


def test_a_translated_step_is_that_of_the_moved_rows() -> None:
    experiences = stream(experiences=2).train_stream
    plugin = DistilledReplayPlugin(6, distiller="class-mean", translate=0.5, weight=1.0, seed=3)
    seen: list[Any] = []

    class Batch(SupervisedPlugin):
        def before_forward(self, strategy: Any, **kwargs: Any) -> None:
            seen[:] = [strategy.mb_x.clone(), strategy.mb_y.clone()]

    strategy = learner([plugin, Batch()])
    strategy.train(experiences[0])
    hand = copy.deepcopy(strategy.model)
    memory = plugin.storage_policy.rows()
    strategy.train(experiences[1])

    x, y = seen
    rng = nth_generator(3, 1)
    moves = differences(x, y, 1, rng)
    times = BATCH // len(memory.y)
    rows = translated(memory.x.double().repeat(times, 1, 1, 1), moves, 0.5, rng)
    assert float((rows - memory.x.repeat(times, 1, 1, 1)).abs().max()) > 0.01
    loss = cross_entropy(hand(x), y) + cross_entropy(hand(rows), memory.y.repeat(times))
    loss.backward()
    with torch.no_grad():
        for parameter in hand.parameters():
            parameter -= 0.2 * parameter.grad
    same(strategy.model, hand)


@pytest.mark.parametrize(("kind", "moved"), [("new classes", True), ("another domain", False)])
def test_rows_are_translated_where_classes_are_new(kind: str, moved: bool) -> None:
    experiences = (stream(experiences=2) if kind == "new classes" else permuted(2)).train_stream
    double = kind == "new classes"
    ends = []
    for translate in ("auto", 0):
        model = mlp() if double else mlp().float()
        strategy = learner(DistilledReplayPlugin(12, distiller="class-mean", translate=translate), model)
        for experience in experiences:
            torch.manual_seed(0)
            strategy.train(experience)
        ends.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*ends) != moved


def test_fine_tuning_translates_as_the_experience_did() -> None:
    experiences = stream(experiences=3).train_stream
    ends = []
    for translate in ("auto", 1, 0):
        strategy = learner(
            DistilledReplayPlugin(12, distiller="class-mean", translate=translate, weight=0, finetune_steps=2)
        )
        for experience in experiences[:2]:
            torch.manual_seed(0)
            strategy.train(experience)
        ends.append(torch.cat([p.flatten() for p in strategy.model.parameters()]))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[1], ends[2])
