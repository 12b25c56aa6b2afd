"""The two strategies on every kind of small stream, and against training loops written out by hand."""

from __future__ import annotations

import copy
import inspect
from dataclasses import asdict
from typing import Any

import pytest
import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import IncrementalClassifier, MTSimpleMLP, SimpleMLP
from avalanche.training import Naive, Replay
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin, SupervisedPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from ddplug.avalanche import DistilledBuffer, DistilledGDumb, DistilledReplay
from ddplug.data.labeled import LabeledData
from ddplug.distillers.dm import DM
from ddplug.errors import OptionError
from tests.avalanche.streams import SCENARIOS, dataset, learner, nc, seeded, toy

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")

FAST: dict[str, Any] = {"mem_size": 8, "distiller": "kmeans-centroid", "train_mb_size": 16, "evaluator": None}


def stream(experiences: int = 2, **options: Any) -> Any:
    """Four classes in their order."""
    data = toy((12, 12, 12, 12))
    return nc(experiences, data=data, **{"fixed_class_order": [0, 1, 2, 3], **options})


def mlp(classes: int = 4, hidden: int = 8) -> Any:
    return SimpleMLP(num_classes=classes, input_size=64, hidden_size=hidden, drop_rate=0.0)


def growing() -> Any:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), IncrementalClassifier(8, masking=False))


def made(cls: Any, model: Any = mlp, *, rate: float = 0.1, momentum: float = 0.0, **options: Any) -> Any:
    model = seeded(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    return cls(model=model, optimizer=optimizer, **{**FAST, **options})


def run(strategy: Any, experiences: Any, seed: int = 0, **options: Any) -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        for experience in experiences:
            strategy.train(experience, **options)
    return strategy


STRATEGIES = [
    pytest.param(DistilledReplay, {}, id="loss"),
    pytest.param(DistilledReplay, {"finetune_steps": 2, "augment": "auto", "weight": "classes"}, id="fine-tuned"),
    pytest.param(DistilledReplay, {"distiller": "auto"}, id="coded"),
    pytest.param(DistilledReplay, {"soft_labels": True}, id="soft"),
    pytest.param(DistilledReplay, {"mode": "batch"}, id="batch"),
    pytest.param(DistilledGDumb, {"augment": "auto"}, id="gdumb"),
]


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(("cls", "options"), STRATEGIES)
def test_every_stream_trains_and_evaluates(scenario: str, cls: Any, options: dict[str, Any]) -> None:
    if scenario == "vectors":
        options = {**options, "augment": ""}
    if scenario == "online":
        options = {**options, "every": 4}
    experiences = list(SCENARIOS[scenario]())
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True, stream=True), loggers=[])
    # the present generator's experiences do not tell multi-head models what classes they have
    model = (lambda: mlp(6)) if scenario == "task" else (lambda: learner(SCENARIOS[scenario]()))
    strategy = made(cls, model, **options, mem_size=18, evaluator=evaluator)
    for experience in experiences:
        run(strategy, [experience])
        policy = strategy.storage_policy
        memory = policy.rows()
        assert len(memory) == len(policy.buffer)
        assert policy.nbytes <= policy.max_bytes if policy.coded else len(memory) <= 18
    figures = strategy.eval(experiences if scenario != "online" else nc().test_stream)
    assert any(name.startswith("Top1_Acc_Stream/eval_phase") for name in figures)
    seen = (
        {(int(t), int(y)) for e in experiences for *_, y, t in e.dataset}
        if len(experiences[0].dataset[0]) == 3
        else None
    )
    if seen is not None:
        assert {*zip(memory.t.tolist(), memory.y.tolist(), strict=True)} == seen
    assert strategy.clock.train_exp_counter == len(experiences)


@pytest.mark.parametrize(("cls", "options"), STRATEGIES)
@pytest.mark.parametrize("eval_every", [0, 1])
def test_periodic_evaluation_sees_a_head_grow(cls: Any, options: dict[str, Any], eval_every: int) -> None:
    bench = stream()
    evaluator = EvaluationPlugin(accuracy_metrics(experience=True, stream=True), loggers=[])
    strategy = made(cls, growing, **options, evaluator=evaluator, train_epochs=2, eval_every=eval_every)
    run(strategy, bench.train_stream, eval_streams=[bench.test_stream])
    figures = evaluator.get_all_metrics()["Top1_Acc_Stream/eval_phase/test_stream/Task000"]
    # before and after each of two experiences, and, if asked for, after each epoch but the last
    assert len(figures[1]) == (6 if eval_every else 4)
    assert strategy.model[3].classifier.out_features == 4


@pytest.mark.parametrize(("cls", "options"), STRATEGIES)
def test_several_heads_learn_their_tasks(cls: Any, options: dict[str, Any]) -> None:
    bench = nc(task_labels=True, class_ids_from_zero_in_each_exp=True)
    strategy = made(
        cls,
        lambda: MTSimpleMLP(input_size=64, hidden_size=64),
        **{**options, "augment": ""},
        mem_size=12,
        train_epochs=40,
        rate=0.1,
    )
    run(strategy, bench.train_stream)
    for experience in bench.test_stream:
        x, y, t = next(iter(DataLoader(experience.dataset, batch_size=100)))
        assert (strategy.model.eval()(x, t).argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize("cls", [DistilledReplay, DistilledGDumb])
@pytest.mark.parametrize("boundaries", [True, False])
def test_an_online_stream(cls: Any, boundaries: bool) -> None:
    online = split_online_stream(stream().train_stream, 6, access_task_boundaries=boundaries)
    strategy = run(made(cls, every=2, train_mb_size=6), online)
    assert set(strategy.storage_policy.rows().y.tolist()) == {0, 1, 2, 3}
    assert 0 <= strategy.eval(stream().test_stream[0]).get("none", 0) <= 1


@pytest.mark.parametrize("cls", [DistilledReplay, DistilledGDumb])
def test_the_callers_objects_stay_as_they_are(cls: Any) -> None:
    method = DM(steps=2, pool_size=2, network="convnet:width=4,depth=1")
    before, plugins = asdict(method), [SupervisedPlugin()]
    kept = list(plugins)
    data = toy((12, 12, 12, 12))
    inputs = data.tensors[0].clone()
    bench = nc(2, data=data, fixed_class_order=[0, 1, 2, 3])
    strategy = run(made(cls, distiller=method, plugins=plugins), bench.train_stream)
    assert plugins == kept and strategy.plugins[0] is kept[0]
    assert asdict(method) == before
    assert torch.equal(data.tensors[0], inputs)


@pytest.mark.parametrize("cls", [DistilledReplay, DistilledGDumb])
def test_a_storage_policy_of_the_callers(cls: Any) -> None:
    policy = ClassBalancedBuffer(4)
    model = seeded(mlp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    own = cls(model=model, optimizer=optimizer, storage_policy=policy, train_mb_size=16, evaluator=None)
    strategy = run(own, stream(task_labels=True).train_stream)
    assert strategy.storage_policy is policy
    assert len(policy.buffer) == 4


def test_options_reach_the_memory_and_the_template() -> None:
    options: dict[str, Any] = {
        "mem_size": None,
        "mem_bytes": 300,
        "real_share": 0.5,
        "peval_mode": "iteration",
        "seed": 5,
    }
    strategy = made(DistilledReplay, **options, storage="float32")
    policy = strategy.storage_policy
    assert isinstance(policy, DistilledBuffer)
    assert (policy.max_bytes, policy.options.seed) == (300, 5)


def test_the_signature_shows_the_options_of_the_memory() -> None:
    for cls in (DistilledReplay, DistilledGDumb):
        names = inspect.signature(cls).parameters
        assert set(names) >= {"model", "mem_size", "network", "mem_bytes", "every", "base_kwargs"}

    class Mine(DistilledReplay):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)

    assert made(Mine, real_share=0.5, storage="float32").storage_policy.options.every is None


def scratch(start: Any, memory: Any, rate: float, momentum: float, steps: int) -> Any:
    """A fresh copy of a model, trained on the whole memory."""
    model = copy.deepcopy(start)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
    for _ in range(steps):
        optimizer.zero_grad()
        cross_entropy(model(memory.x), memory.y).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("learning_rate", ["recipe", None])
def test_gdumb_is_training_a_fresh_copy_on_the_memory(momentum: float, learning_rate: str | None) -> None:
    strategy = made(DistilledGDumb, momentum=momentum, learning_rate=learning_rate, train_epochs=5)
    start = copy.deepcopy(strategy.model)
    for number, experience in enumerate(stream().train_stream):
        run(strategy, [experience])
        memory = strategy.storage_policy.rows()
        assert set(memory.y.tolist()) == set(range(2 * number + 2))
        rate = 0.1 if learning_rate is None else strategy.storage_policy.recipe.learning_rate
        hand = scratch(start, memory, rate, momentum, 5)
        for a, b in zip(strategy.model.parameters(), hand.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-6)
        assert strategy.optimizer.param_groups[0]["lr"] == 0.1


class Rates(SupervisedPlugin):
    """Notes the learning rates of the steps, the first weights and the rows of the batches of an experience."""

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.rates: list[float] = []
        self.batches: list[Tensor] = []
        self.first = {name: tensor.clone() for name, tensor in strategy.model.state_dict().items()}

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.rates.append(strategy.optimizer.param_groups[0]["lr"])
        self.batches.append(strategy.mb_x.clone())


def test_gdumb_trains_at_the_recipes_rate_also_under_a_scheduler() -> None:
    spy = Rates()
    strategy = made(DistilledGDumb, plugins=[spy], learning_rate="recipe", train_epochs=3, rate=0.5)
    schedule = torch.optim.lr_scheduler.ExponentialLR(strategy.optimizer, 0.5)
    strategy.plugins.insert(0, LRSchedulerPlugin(schedule, reset_lr=False))
    run(strategy, stream().train_stream)
    rate = strategy.storage_policy.recipe.learning_rate
    assert rate != 0.5
    assert spy.rates == pytest.approx([rate, rate / 2, rate / 4])
    assert strategy.optimizer.param_groups[0]["lr"] == 0.5


def test_gdumb_goes_back_to_the_first_weights_when_the_head_grows() -> None:
    spy = Rates()
    strategy = made(DistilledGDumb, growing, plugins=[spy], train_epochs=60, rate=0.5)
    start = {name: tensor.clone() for name, tensor in strategy.model.state_dict().items()}
    for experience, width in zip(stream().train_stream, (2, 4), strict=True):
        run(strategy, [experience])
        assert all(torch.equal(spy.first[name], start[name]) for name in ("1.weight", "1.bias"))
        assert torch.equal(spy.first["3.classifier.weight"][:2], start["3.classifier.weight"])
        assert strategy.model[3].classifier.out_features == width
        memory = strategy.storage_policy.rows()
        assert torch.equal(strategy.model(memory.x).argmax(1), memory.y)


def test_gdumb_repeats_the_memory_and_augments_each_sample() -> None:
    spy = Rates()
    strategy = made(DistilledGDumb, plugins=[spy], augment="rotate", mem_size=4, train_mb_size=10)
    # ours comes last, so the spy, which looks before the forward pass, sees what it did
    run(strategy, stream().train_stream, drop_last=True)
    (batch,) = spy.batches
    assert len(batch) == 10  # 4 rows, three times over, in one full batch
    memory = strategy.storage_policy.rows().x
    assert not any(torch.equal(row, image) for row in batch for image in memory)
    assert len({tuple(row.flatten().tolist()) for row in batch}) == 10
    assert strategy.plugins[1]._rng is None


@pytest.fixture(scope="module")
def digit_stream() -> Any:
    """Five experiences of two digits each, in their order."""
    from ddplug.data.datasets import load

    def part(split: str) -> Any:
        data: LabeledData = load("digits", split=split)
        return dataset(data.inputs.float() / 255, data.targets)

    order = list(range(10))
    return nc_benchmark(part("train"), part("test"), 5, task_labels=False, fixed_class_order=order)


def final_accuracy(cls: Any, bench: Any, **options: Any) -> float:
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), loggers=[])
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = mlp(10, 64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        options = {"train_mb_size": 20, "train_epochs": 2, "eval_mb_size": 512, "evaluator": evaluator, **options}
        strategy = cls(model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), **options)
        strategy.train(bench.train_stream)
        return float(strategy.eval(bench.test_stream)["Top1_Acc_Stream/eval_phase/test_stream/Task000"])


def test_ten_images_keep_what_naive_training_and_stock_replay_forget(digit_stream: Any) -> None:
    naive = final_accuracy(Naive, digit_stream)
    stock = final_accuracy(Replay, digit_stream, mem_size=10)
    ours = final_accuracy(DistilledReplay, digit_stream, mem_size=10, distiller="class-mean")
    assert naive < 0.3
    assert ours > stock + 0.2
    assert ours > naive + 0.5


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (DistilledReplay, {"mode": "mix"}, "unknown mode 'mix'"),
        (DistilledReplay, {"mem_size": 0}, "max_size is 0; it must be at least 1"),
        (DistilledReplay, {"distiller": "dmm"}, "unknown distiller 'dmm'; did you mean 'dm'?"),
        (DistilledGDumb, {"learning_rate": "own"}, "unknown learning_rate 'own'; did you mean 'None'?"),
        (DistilledGDumb, {"augment": "crop_spin"}, "unknown augmentation 'spin'"),
        (DistilledGDumb, {"real_share": 2.0}, "real_share is 2.0; it must lie between 0 and 1"),
        (DistilledGDumb, {"storage_policy": 3}, "storage_policy is a int; it must be an avalanche ExemplarsBuffer"),
    ],
)
def test_bad_options_are_one_clear_line(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        made(cls, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("cls", [DistilledReplay, DistilledGDumb])
def test_an_option_that_nobody_knows_is_named(cls: Any) -> None:
    with pytest.raises(TypeError, match="max_sise"):
        made(cls, max_sise=3)
