"""A domain-incremental stream: the same ten digits upright, lying, upside down; the memory keeps each domain apart."""

from __future__ import annotations

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche_replay import compared, perceptron, report, split
from torch.utils.data import TensorDataset


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
    report(compared(perceptron, benchmark, benchmark.train_stream, images, train_epochs=epochs))


if __name__ == "__main__":
    main()
