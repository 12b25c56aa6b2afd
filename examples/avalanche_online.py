"""An online stream: digits come ten at a time, each once, and the memory fills as they come."""

from __future__ import annotations

import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream
from avalanche.models import SimpleMLP
from avalanche.training.supervised import Naive, Replay
from avalanche_replay import memory_of, split, strategy_of

from ddplug.avalanche import DistilledReplay


def main(images: int = 10, pieces: int | None = None) -> None:
    """Train three strategies on pieces of ten digits, and print a line for each."""
    benchmark = nc_benchmark(split("train"), split("test"), 5, task_labels=False, fixed_class_order=list(range(10)))
    for strategy_class, held in ((Naive, 0), (Replay, images), (DistilledReplay, images)):
        torch.manual_seed(0)
        strategy, accuracy = strategy_of(
            strategy_class, SimpleMLP(10, input_size=64, hidden_size=128), **memory_of(held)
        )
        for piece in list(split_online_stream(benchmark.train_stream, experience_size=10, seed=0))[:pieces]:
            strategy.train(piece)
        print(f"{strategy_class.__name__:16} accuracy {accuracy(benchmark):.3f}")
    print(strategy.storage_policy.memory_report())


if __name__ == "__main__":
    main()
