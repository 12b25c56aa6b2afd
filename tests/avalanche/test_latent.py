"""A latent memory: what a layer makes of the samples is remembered, and replayed from there on."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.logging import BaseLogger
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.avalanche import DistilledBuffer, DistilledGDumb, DistilledReplay, DistilledReplayPlugin, hand_over
from ddplug.errors import OptionError
from tests.avalanche.streams import dataset, nc, online, seeded

CLASSES = 6


class Staged(nn.Module):
    """A frozen stage with running statistics and dropout, and one that learns."""

    def __init__(self, counts_rows: bool = False) -> None:
        super().__init__()
        stage = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2))
        self.stage = stage.requires_grad_(requires_grad=False)
        self.head = nn.Linear(36, CLASSES)
        self.counts_rows = counts_rows
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        n = len(x)
        features = self.stage(x)
        out: Tensor = self.head(features.view(n if self.counts_rows else len(features), -1))
        return out


def silent() -> Any:
    return EvaluationPlugin(loggers=[BaseLogger()])


def strategy_with(model: nn.Module, **options: Any) -> Any:
    options = {"mem_size": 12, "features": "stage", "train_mb_size": 8, "finetune_steps": 2, **options}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return DistilledReplay(
        model=model, optimizer=optimizer, evaluator=EvaluationPlugin(loggers=[BaseLogger()]), **options
    )


def run(strategy: Any, stream: Any) -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        for experience in stream:
            strategy.train(experience)
    return strategy


def trained(model: nn.Module, **options: Any) -> Any:
    return run(strategy_with(model, **options), nc().train_stream)


@pytest.mark.parametrize("counts_rows", [False, True])
def test_the_loss_is_that_of_the_samples_themselves(counts_rows: bool) -> None:
    model = seeded(lambda: Staged(counts_rows)).train()
    strategy = strategy_with(model, codec="pixels:bits=8", mem_bytes=100_000, mem_size=None)
    strategy.experience = experience = nc().train_stream[0]
    policy = strategy.storage_policy
    policy.post_adapt(strategy, experience)
    plugin = next(each for each in strategy.plugins if isinstance(each, DistilledReplayPlugin))
    plugin.batch_size_mem = 1000
    statistics = copy.deepcopy(model.stage.state_dict())
    model.rows.clear()
    loss = plugin._loss(strategy, plugin._take(strategy, 0.0, 1.0), None)
    loss.backward()
    assert model.rows == [len(policy.rows()) if counts_rows else 1]
    assert model.training
    assert model.stage.training
    assert all(torch.equal(statistics[name], value) for name, value in model.stage.state_dict().items())

    whole = copy.deepcopy(model).double().eval()
    whole.zero_grad()
    samples = [(x, y) for x, y, _ in experience.dataset.eval()]
    x, y = torch.stack([x for x, _ in samples]).double(), torch.tensor([y for _, y in samples])
    rows = policy.rows()
    assert len(rows) == len(y)  # so many bytes hold all of them, in another order
    distances = torch.cdist(rows.x.flatten(1).double(), whole.stage(x).flatten(1)) + 100.0 * (rows.y[:, None] != y)
    assert distances.argmin(1).unique().numel() == len(y)
    assert distances.min(1).values.max() < 0.05  # eight bits a number
    wanted = cross_entropy(whole.head(rows.x.flatten(1).double()), rows.y)
    wanted.backward()
    assert loss.double().item() == pytest.approx(wanted.item(), rel=1e-5)
    assert whole.head.weight.grad is not None
    assert torch.allclose(model.head.weight.grad.double(), whole.head.weight.grad, atol=1e-6)


def test_a_run_remembers_within_the_bytes_of_inputs() -> None:
    model = seeded(Staged)
    before = copy.deepcopy(model.stage.state_dict())
    strategy = trained(model)
    policy = strategy.storage_policy
    assert policy.max_bytes == 12 * 64
    assert 0.5 * policy.max_bytes < policy.nbytes <= policy.max_bytes
    assert policy.latent.outputs == (4, 3, 3)
    assert policy.rows().x.shape[1:] == (1, 1, 36)
    assert len(policy.groups) == CLASSES
    # the stream alone moved running statistics, and no weight of the frozen stage moved
    assert torch.equal(before["0.weight"], model.stage[0].weight)
    batches = sum(-(-len(experience.dataset) // 8) for experience in nc().train_stream)
    assert int(model.stage[1].num_batches_tracked) == batches
    again = pickle.loads(pickle.dumps(policy))
    assert torch.equal(again.rows().x, policy.rows().x)


def test_it_remembers_what_plain_training_forgets() -> None:
    digits = load_digits(n_class=CLASSES)
    data = dataset(torch.tensor(digits.images[:, None] / 16, dtype=torch.float32), torch.tensor(digits.target))
    stream = nc(2, data=data).train_stream

    def accuracy(model: nn.Module) -> float:
        model.eval()
        first = stream[0].dataset.eval()
        x, y = torch.stack([item[0] for item in first]), torch.tensor([item[1] for item in first])
        return float((model(x).argmax(1) == y).float().mean())

    remembering, plain = seeded(Staged), seeded(Staged)
    run(strategy_with(remembering, mem_size=30, train_epochs=4), stream)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    options = {"train_mb_size": 8, "train_epochs": 4, "evaluator": silent()}
    run(Naive(model=plain, optimizer=optimizer, **options), stream)
    assert accuracy(remembering) > accuracy(plain) + 0.3


@pytest.mark.parametrize("distiller", ["class-mean", "kmeans-centroid"])
def test_vectors_can_be_distilled_too(distiller: str) -> None:
    policy = trained(seeded(Staged), distiller=distiller).storage_policy
    assert len(policy.rows()) == 12
    assert policy.rows().x.shape[1:] == (1, 1, 36)


def test_an_online_stream_waits_with_features() -> None:
    strategy = run(strategy_with(seeded(Staged), every=2), list(online())[:6])
    assert strategy.storage_policy.rows().x.shape[1:] == (1, 1, 36)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: trained(Staged(), features="stagee"), "unknown layer of the learner 'stagee'; did you mean 'stage'"),
        (lambda: strategy_with(Staged(), mode="batch"), "features='stage' is for DistilledReplay and its plugin, not"),
        (lambda: strategy_with(Staged(), logits=True), "logits would give the learner whole inputs"),
        (lambda: strategy_with(Staged(), distiller="dm"), "network='fresh' would give the learner whole inputs"),
        (lambda: DistilledBuffer(max_bytes=99, features="a").post_adapt(None, nc().train_stream[0]), "agent.model"),
        (lambda: hand_over(DistilledBuffer(9, features="a"), SimpleNamespace(plugins=[])), "not for stock strategies"),
        (
            lambda: DistilledGDumb(
                model=Staged(), optimizer=torch.optim.SGD(Staged().parameters(), lr=1.0), features="a"
            ),
            "not for training from scratch",
        ),
    ],
)
def test_what_cannot_be_is_said(make: Any, words: str) -> None:
    with pytest.raises(OptionError, match=r"^features|would|unknown") as caught, torch.random.fork_rng():
        make()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


class Twice(Staged):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(x)


def test_a_layer_that_is_called_twice_is_refused() -> None:
    with pytest.raises(OptionError, match="'stage': this layer is called 2 times"):
        trained(seeded(Twice))
