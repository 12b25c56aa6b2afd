"""One run of a continual learner over the class-incremental stream; Avalanche is imported where it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ddplug import registry
from ddplug.cli.demo.quiet import quietly
from ddplug.data.labeled import LabeledData
from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["EXPERIENCES", "HIDDEN", "LEARNING_RATE", "Learner", "Run", "run"]

EXPERIENCES = 5
"""Parts of the stream, with as many classes each."""
HIDDEN = 128
"""Width of the learner's hidden layer."""
LEARNING_RATE = 0.05
"""Of the learner's SGD."""
_BATCH = 32


@dataclass(frozen=True)
class Learner:
    """What learns.

    Attributes:
        strategy: ``"Naive"``, ``"Replay"`` or ``"DistilledReplay"``.
        images: in the memory; 0 for ``"Naive"``.
        distiller: of ``"DistilledReplay"``.
        options: of the distiller.
    """

    strategy: str
    images: int = 0
    distiller: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        memory = [f"{self.images} images"] if self.images else []
        return ", ".join([self.strategy, *([self.distiller] if self.distiller else []), *memory])


@dataclass(frozen=True)
class Run:
    """What one run gives.

    Attributes:
        matrix: accuracy in [0, 1] on each experience's test data (column) after each experience (row).
        accuracy: on all test data at the end, in [0, 1].
        nbytes: of the memory at the end, one byte a pixel and a label, and the levels of distilled images.
        seconds: spent distilling, ``None`` where nothing is distilled.
        memory: what it held at the end, ``None`` without one.
    """

    matrix: list[list[float]]
    accuracy: float
    nbytes: int
    seconds: float | None
    memory: SyntheticSet | None


def run(learner: Learner, train: LabeledData, test: LabeledData, epochs: int, seed: int) -> Run:
    """Train on one experience after the other, and test on all of them after each.

    The classes come in their order, as many in each experience. The learner is a multi-layer perceptron.

    Args:
        learner: what learns.
        train: data of the stream.
        test: data to test on.
        epochs: passes over each experience.
        seed: of everything; equal seeds start from equal weights.

    Returns:
        The run. The global random state stays as it was.
    """
    with quietly(seed):
        return _run(learner, train, test, epochs, seed)


def _run(learner: Learner, train: LabeledData, test: LabeledData, epochs: int, seed: int) -> Run:
    from avalanche.benchmarks import nc_benchmark
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.logging import BaseLogger
    from avalanche.models import SimpleMLP
    from avalanche.training.plugins import EvaluationPlugin

    order = list(range(train.num_classes))
    benchmark = nc_benchmark(_dataset(train), _dataset(test), EXPERIENCES, task_labels=False, fixed_class_order=order)
    model = SimpleMLP(train.num_classes, input_size=train.inputs[0].numel(), hidden_size=HIDDEN)
    strategy, policy = _strategy(
        learner,
        seed,
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=LEARNING_RATE),
        criterion=torch.nn.CrossEntropyLoss(),
        train_mb_size=_BATCH,
        train_epochs=epochs,
        eval_mb_size=len(test),
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True, stream=True), loggers=[BaseLogger()]),
    )
    matrix, accuracy = [], 0.0
    for experience in benchmark.train_stream:
        strategy.train(experience)
        found = strategy.eval(benchmark.test_stream)
        matrix.append([_one(found, "Top1_Acc_Exp/", f"/Exp{n:03}") for n in range(EXPERIENCES)])
        accuracy = _one(found, "Top1_Acc_Stream/")
    memory = None if policy is None else _held(policy, train)
    distilled = learner.distiller is not None
    real = 0 if memory is None else len(memory) * (train.inputs[0].numel() + 1)
    return Run(
        matrix,
        accuracy,
        policy.nbytes if distilled else real,
        policy.total_seconds if distilled else None,
        memory,
    )


def _one(found: Mapping[str, Any], start: str, end: str = "") -> float:
    """Return the one metric whose name starts and ends so; whether it names a task depends on the stream."""
    (value,) = (value for name, value in found.items() if name.startswith(start) and name.endswith(end))
    return float(value)


def _dataset(data: LabeledData) -> Any:
    """Return the data as Avalanche takes them."""
    dataset: Any = torch.utils.data.TensorDataset(data.batch(torch.arange(len(data))), data.targets)
    dataset.targets = data.targets.tolist()
    return dataset


def _strategy(learner: Learner, seed: int, **options: Any) -> tuple[Any, Any]:
    """Make the strategy, and give it with its memory."""
    from avalanche.training.plugins import ReplayPlugin
    from avalanche.training.storage_policy import ClassBalancedBuffer
    from avalanche.training.supervised import Naive

    from ddplug.avalanche import DistilledReplay

    if learner.distiller is not None:
        distiller = registry.resolve("distiller", learner.distiller)(**learner.options)
        strategy = DistilledReplay(**options, mem_size=learner.images, distiller=distiller, seed=seed)
        return strategy, strategy.storage_policy
    if not learner.images:
        return Naive(**options), None
    policy = ClassBalancedBuffer(learner.images)
    return Naive(**options, plugins=[ReplayPlugin(learner.images, storage_policy=policy)]), policy


def _held(policy: Any, data: LabeledData) -> SyntheticSet:
    """Return what a memory holds, class after class."""
    from ddplug.avalanche.schema import read

    rows = read(policy.buffer)[0]
    order = rows.y.argsort(stable=True)
    return SyntheticSet(rows.x[order].float(), rows.y[order], data.num_classes, data.preprocess)
