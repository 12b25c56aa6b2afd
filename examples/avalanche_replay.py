"""Class-incremental digits with Avalanche: a memory in the bytes of ten images, ten exemplars, and no memory at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.logging import BaseLogger
from avalanche.models import SimpleMLP
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive, Replay
from torch.utils.data import TensorDataset

import ddplug
from ddplug.avalanche import DistilledReplay, distillation_metrics

perceptron = partial(SimpleMLP, num_classes=10, input_size=64, hidden_size=128)
"""Makes the network that learns the digits."""


def split(name: str) -> TensorDataset:
    """Load a split of the digits as a torch data set that Avalanche can divide by class."""
    data = ddplug.load_dataset("digits", split=name)
    dataset = TensorDataset(data.batch(torch.arange(len(data))), data.targets)
    dataset.targets = data.targets.tolist()  # type: ignore[attr-defined]
    return dataset


def strategy_of(strategy_class: Any, model: Any, **options: Any) -> tuple[Any, Callable[[Any], float]]:
    """Make a strategy, and a function that gives its accuracy on all test data of a benchmark."""
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), distillation_metrics(), loggers=[BaseLogger()])
    options = {"train_mb_size": 32, "eval_mb_size": 256, "criterion": torch.nn.CrossEntropyLoss(), **options}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    strategy = strategy_class(model=model, optimizer=optimizer, evaluator=evaluator, **options)

    def accuracy(benchmark: Any) -> float:
        metrics = strategy.eval(benchmark.test_stream)
        return float(next(value for name, value in metrics.items() if name.startswith("Top1_Acc_Stream")))

    return strategy, accuracy


def compared(
    make_model: Callable[[], Any], benchmark: Any, stream: Iterable[Any], images: int, **options: Any
) -> Iterator[tuple[Any, int, float]]:
    """Train with no memory, with the stock one and with ours; give each strategy, its images and its accuracy."""
    for strategy_class, held in ((Naive, 0), (Replay, images), (DistilledReplay, images)):
        torch.manual_seed(0)
        memory = {"mem_size": held} if held else {}
        strategy, accuracy = strategy_of(strategy_class, make_model(), **memory, **options)
        for experience in stream:
            strategy.train(experience)
        yield strategy, held, accuracy(benchmark)


def report(found: Iterable[tuple[Any, int, float]]) -> None:
    """Print a line for each strategy, and what the last one's memory holds."""
    for strategy, _, accuracy in found:
        print(f"{type(strategy).__name__:16} accuracy {accuracy:.3f}")
    print(strategy.storage_policy.memory_report())


def main(epochs: int = 4, images: int = 10) -> None:
    """Train three strategies on five experiences of two digits each, and print a line for each."""
    benchmark = nc_benchmark(split("train"), split("test"), 5, task_labels=False, fixed_class_order=list(range(10)))
    found = compared(perceptron, benchmark, benchmark.train_stream, images, train_epochs=epochs)
    for strategy, held, accuracy in found:
        seconds = strategy.evaluator.get_all_metrics()["Distillation_Seconds/train_phase/train_stream"][1]
        shown = f"{type(strategy).__name__:16} {held:3} images"
        print(f"{shown}  accuracy {accuracy:.3f}  storing {sum(seconds):4.1f} s")


if __name__ == "__main__":
    main()
