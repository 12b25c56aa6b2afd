"""Class-incremental digits with Avalanche: a memory in the bytes of ten images, ten exemplars, and no memory at all."""

from __future__ import annotations

from collections.abc import Callable
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


def memory_of(images: int) -> dict[str, int]:
    """Return how large a memory is to be; a strategy without one takes no such option."""
    return {"mem_size": images} if images else {}


def main(epochs: int = 4, images: int = 10) -> None:
    """Train three strategies on five experiences of two digits each, and print a line for each."""
    benchmark = nc_benchmark(split("train"), split("test"), 5, task_labels=False, fixed_class_order=list(range(10)))
    for strategy_class, held in ((Naive, 0), (Replay, images), (DistilledReplay, images)):
        torch.manual_seed(0)
        model = SimpleMLP(num_classes=10, input_size=64, hidden_size=128)
        strategy, accuracy = strategy_of(strategy_class, model, train_epochs=epochs, **memory_of(held))
        for experience in benchmark.train_stream:
            strategy.train(experience)
        seconds = strategy.evaluator.get_all_metrics()["Distillation_Seconds/train_phase/train_stream"][1]
        shown = f"{strategy_class.__name__:16} {held:3} images"
        print(f"{shown}  accuracy {accuracy(benchmark):.3f}  storing {sum(seconds):4.1f} s")


if __name__ == "__main__":
    main()
