"""Class-incremental digits with Avalanche: a memory in the bytes of ten images, ten exemplars, and no memory at all."""

from __future__ import annotations

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


def train(strategy_class: Any, benchmark: Any, epochs: int, **options: Any) -> list[float]:
    """Train on one experience after the other; return accuracy at the end, and the memory's bytes and seconds."""
    torch.manual_seed(0)
    model = SimpleMLP(num_classes=10, input_size=64, hidden_size=128)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    evaluator = EvaluationPlugin(accuracy_metrics(stream=True), distillation_metrics(), loggers=[BaseLogger()])
    options |= {"model": model, "optimizer": optimizer, "criterion": torch.nn.CrossEntropyLoss()}
    strategy = strategy_class(**options, train_mb_size=32, train_epochs=epochs, eval_mb_size=256, evaluator=evaluator)
    for experience in benchmark.train_stream:
        strategy.train(experience)
    accuracy = strategy.eval(benchmark.test_stream)["Top1_Acc_Stream/eval_phase/test_stream/Task000"]
    seconds = evaluator.get_all_metrics()["Distillation_Seconds/train_phase/train_stream"][1]
    return [accuracy, sum(seconds)]


def main(epochs: int = 4, images: int = 10) -> None:
    """Train three strategies on five experiences of two digits each, and print a line for each."""
    benchmark = nc_benchmark(split("train"), split("test"), 5, task_labels=False, fixed_class_order=list(range(10)))
    for name, strategy, options in (
        ("Naive", Naive, {}),
        ("Replay", Replay, {"mem_size": images}),
        ("DistilledReplay", DistilledReplay, {"mem_size": images}),
    ):
        accuracy, seconds = train(strategy, benchmark, epochs, **options)
        print(f"{name:16} {options.get('mem_size', 0):3} images  accuracy {accuracy:.3f}  storing {seconds:4.1f} s")


if __name__ == "__main__":
    main()
