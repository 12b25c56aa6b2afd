"""A domain-incremental stream: the same ten digits upright, lying, upside down; the memory keeps each domain apart."""

from __future__ import annotations

from functools import partial

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.models import SimpleMLP
from avalanche.training.supervised import Naive, Replay
from avalanche_replay import memory_of, split, strategy_of
from torch.utils.data import TensorDataset

from ddplug.avalanche import DistilledReplay


def turned(name: str, quarters: int) -> TensorDataset:
    """Load a split of the digits, turned by quarters of a circle."""
    data = split(name)
    x, y = data.tensors
    made = TensorDataset(torch.rot90(x, quarters, (2, 3)), y)
    made.targets = y.tolist()  # type: ignore[attr-defined]
    return made


def main(epochs: int = 4, images: int = 30) -> None:
    """Train three strategies on three domains, and print a line for each."""
    domains = [[as_classification_dataset(turned(name, k)) for k in range(3)] for name in ("train", "test")]
    benchmark = benchmark_from_datasets(train=domains[0], test=domains[1])
    model = partial(SimpleMLP, 10, input_size=64, hidden_size=128)
    for strategy_class, held in ((Naive, 0), (Replay, images), (DistilledReplay, images)):
        torch.manual_seed(0)
        strategy, accuracy = strategy_of(strategy_class, model(), train_epochs=epochs, **memory_of(held))
        for experience in benchmark.train_stream:
            strategy.train(experience)
        print(f"{strategy_class.__name__:16} accuracy {accuracy(benchmark):.3f}")
    print(strategy.storage_policy.memory_report())


if __name__ == "__main__":
    main()
