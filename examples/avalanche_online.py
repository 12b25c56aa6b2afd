"""An online stream: digits come ten at a time, each once, and the memory fills as they come."""

from __future__ import annotations

from avalanche.benchmarks import nc_benchmark, split_online_stream
from avalanche_replay import compared, perceptron, report, split


def main(images: int = 10, pieces: int | None = None) -> None:
    """Train three strategies on pieces of ten digits, and print a line for each."""
    benchmark = nc_benchmark(split("train"), split("test"), 5, task_labels=False, fixed_class_order=list(range(10)))
    stream = list(split_online_stream(benchmark.train_stream, experience_size=10, seed=0))[:pieces]
    report(compared(perceptron, benchmark, stream, images))


if __name__ == "__main__":
    main()
