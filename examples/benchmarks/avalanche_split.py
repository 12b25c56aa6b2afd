"""Compare distilled memories with stock replay on real images, class after class.

Class-incremental, five experiences of two classes in the order 0 to 9, mean accuracy on the test data over the five
experiences after the last one. Runs that the result file already has are kept, so that it can be stopped and continued.

    python examples/benchmarks/avalanche_split.py mnist --data-root DIR
    python examples/benchmarks/avalanche_split.py mnist --data-root DIR --row Replay --row "DistilledReplay, defaults"
    python examples/benchmarks/avalanche_split.py cifar10 --data-root DIR

Options of the distilled memories were chosen with ``--validate`` (a held-out tenth of the training data takes the place
of the test data); the test data are touched once a run, at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.results import (
    add_row_options,
    chosen,
    each_in_its_process,
    machine,
    peak_memory,
    read,
    say_what_is_there,
    time_and_memory,
    versions,
    write,
)

EXPERIENCES = 5


@dataclass(frozen=True)
class Entry:
    """A row: a strategy, its memory in images, epochs an experience, and options."""

    strategy: str
    memory: int = 0
    epochs: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    seeds: int = 5

    @property
    def key(self) -> str:
        """Names the row in the result file."""
        return json.dumps({name: value for name, value in asdict(self).items() if name != "seeds"}, sort_keys=True)


@dataclass(frozen=True)
class Benchmark:
    """A table: its title, what was to be shown, what the learner is, and the rows."""

    title: str
    claim: str
    data: str
    model: str
    learning_rate: float
    rows: tuple[Entry, ...]


def _rows(memories: tuple[int, ...], ours: Callable[[int], list[Entry]], seeds: int) -> tuple[Entry, ...]:
    """The rows of a class-incremental table: bounds, stock strategies, and our strategy with several memories."""
    rows = [Entry("Naive", seeds=seeds), Entry("joint training", seeds=seeds)]
    for memory in memories:
        rows += [Entry("Replay", memory, seeds=seeds), Entry("GDumb", memory, 50, seeds=seeds)]
        rows += [Entry("DistilledReplay", memory, seeds=3), *ours(memory)]  # first by its defaults
    return tuple(rows)


def _digits(memory: int) -> list[Entry]:
    return [
        *(_ours(memory, distiller, 1) for distiller in ("random", "kmeans-centroid", "dm")),
        *(_ours(memory, distiller, 2) for distiller in ("kmeans-centroid", "dm")),
    ]


def _photographs(memory: int) -> list[Entry]:
    """DM loses here from ten images on, and takes longest: one seed, and none with 500 images.

    Four to an image is better, and has five seeds; one to an image has three.
    """
    options = {"finetune_steps": 300, "batch_size_mem": 200}
    # from 500 images on the defaults are just that
    drawn = [Entry("DistilledReplay", memory, 1, {"window": (0.0, 1.0)}, 3)] if memory < 500 else []

    def ours(distiller: str, factor: int, seeds: int) -> Entry:
        return Entry("DistilledReplay", memory, 1, {"distiller": distiller, "factor": factor, **options}, seeds)

    distilled = [ours("dm", factor, 1) for factor in (1, 2)] if memory <= 100 else []
    full = [ours(distiller, 1, 3) for distiller in ("random", "kmeans-centroid")]
    return [*drawn, *full, *(ours(distiller, 2, 5) for distiller in ("random", "kmeans-centroid")), *distilled]


def _ours(memory: int, distiller: str, factor: int, epochs: int = 1) -> Entry:
    """Our strategy with a memory; the fine-tuning is longer where there is more to fit."""
    options = {"distiller": distiller, "factor": factor, "finetune_steps": 300 if memory < 100 else 1000}
    return Entry("DistilledReplay", memory, epochs, options)


BENCHMARKS = {
    "mnist": Benchmark(
        "Split-MNIST, class-incremental",
        "Wanted of the defaults, in the bytes of 10, 100 and 500 images: 92.5, 95 and 96 %; of distilled whole images: "
        "90, 94 and 95.5 % after one epoch an experience, and 88 % with 10 images after four.",
        "mnist",
        "SimpleMLP",
        0.05,
        (
            *_rows((10, 100, 500), _digits, 5),
            Entry("Replay", 1000),
            Entry("Naive", 0, 4),
            Entry("Replay", 10, 4),
            _ours(10, "dm", 1, 4),
            _ours(10, "dm", 2, 4),
            Entry("DistilledGDumb", 10, 240, {"distiller": "dm", "factor": 2, "model": "convnet:width=32"}, 2),
        ),
    ),
    "cifar10": Benchmark(
        "Split-CIFAR-10 (a slightly lossy JPEG copy), class-incremental",
        "Wanted of the defaults, in the bytes of 10, 100 and 500 images: 43, 48 and 49.5 %; of distilled whole images: "
        "8 points above the best stock policy.",
        "cifar10",
        "convnet:width=16",
        0.05,
        _rows((10, 100, 500), _photographs, 5),
    ),
}


@cache
def _tensors(data: str, root: str, cache_folder: str | None, validate: bool) -> list[tuple[Any, Any]]:
    """Training and judging data in model space, grouped into experiences by nothing yet."""
    from ddplug.data.datasets import load

    name = "mnist" if data == "mnist" else f"imagefolder:{root}"
    where = root if data == "mnist" else None
    train, test = (load(name, split=split, root=where, cache=cache_folder) for split in ("train", "test"))
    if validate:
        train, test = train.split(0.1)
    import torch

    return [(part.batch(torch.arange(len(part))), part.targets) for part in (train, test)]


def _stream(pair: list[tuple[Any, Any]], whole: bool = False) -> Any:
    """Make the benchmark, as one experience if it is for joint training."""
    from avalanche.benchmarks import nc_benchmark
    from torch.utils.data import TensorDataset

    sets = []
    for x, y in pair:
        data: Any = TensorDataset(x, y)
        data.targets = y.tolist()
        sets.append(data)
    order = list(range(10))
    return nc_benchmark(*sets, n_experiences=1 if whole else EXPERIENCES, task_labels=False, fixed_class_order=order)


def _model(name: str, shape: tuple[int, ...], seed: int) -> Any:
    import torch
    from avalanche.models import SimpleMLP

    from ddplug.networks import build

    torch.manual_seed(seed)
    return (
        SimpleMLP(num_classes=10)
        if name == "SimpleMLP"
        else build(name, shape, 10, torch.Generator().manual_seed(seed))
    )


def _replay(common: dict[str, Any], entry: Entry, seed: int) -> Any:
    from avalanche.training.plugins import ReplayPlugin
    from avalanche.training.storage_policy import ClassBalancedBuffer
    from avalanche.training.supervised import Naive

    policy = ClassBalancedBuffer(entry.memory)
    plugin = ReplayPlugin(entry.memory, batch_size_mem=100, storage_policy=policy)
    return Naive(**common, plugins=[plugin])


def _distilled(common: dict[str, Any], entry: Entry, seed: int) -> Any:
    from ddplug.avalanche import DistilledReplay

    return DistilledReplay(**common, mem_size=entry.memory, seed=seed, **entry.options)


def _naive(common: dict[str, Any], entry: Entry, seed: int) -> Any:
    from avalanche.training.supervised import Naive

    return Naive(**common)


def _gdumb(common: dict[str, Any], entry: Entry, seed: int) -> Any:
    from avalanche.training.supervised import GDumb

    return GDumb(**common, mem_size=entry.memory)


def _from_scratch(common: dict[str, Any], entry: Entry, seed: int) -> Any:
    """A network trained from scratch on the memory, as the papers train on a distilled set: momentum, one decay."""
    import torch
    from avalanche.training.plugins import LRSchedulerPlugin

    from ddplug.avalanche import DistilledGDumb
    from ddplug.distillers.dm import DM

    optimizer = torch.optim.SGD(common["model"].parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    decay = torch.optim.lr_scheduler.StepLR(optimizer, entry.epochs * 2 // 3, 0.1)
    return DistilledGDumb(
        **{**common, "optimizer": optimizer},
        mem_size=entry.memory,
        distiller=DM(batch_real=128),
        factor=entry.options["factor"],
        augmentation="auto",
        augment="auto",
        seed=seed,
        plugins=[LRSchedulerPlugin(decay, reset_scheduler=True, reset_lr=True)],
    )


STRATEGIES: Mapping[str, Callable[[dict[str, Any], Entry, int], Any]] = {
    "Naive": _naive,
    "joint training": _naive,
    "Replay": _replay,
    "GDumb": _gdumb,
    "DistilledReplay": _distilled,
    "DistilledGDumb": _from_scratch,
}


def measure(name: str, entry: Entry, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and judge one strategy with one seed, in this process, on one thread."""
    warnings.simplefilter("ignore")
    import torch
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.logging import BaseLogger
    from avalanche.training.plugins import EvaluationPlugin

    torch.set_num_threads(1)
    benchmark = BENCHMARKS[name]
    pair = _tensors(benchmark.data, arguments.data_root, arguments.cache, arguments.validate)
    stream = _stream(pair, entry.strategy == "joint training")
    judged = _stream(pair).test_stream
    model = _model(entry.options.get("model", benchmark.model), tuple(pair[0][0].shape[1:]), seed)
    common = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=benchmark.learning_rate),
        "criterion": torch.nn.CrossEntropyLoss(),
        "train_mb_size": 100,
        "train_epochs": entry.epochs,
        "eval_mb_size": 256,
        "evaluator": EvaluationPlugin(accuracy_metrics(experience=True), loggers=[BaseLogger()]),
    }
    torch.manual_seed(seed)
    strategy = STRATEGIES[entry.strategy](common, entry, seed)
    began, matrix, distilling = time.monotonic(), [], []
    for experience in stream.train_stream:
        strategy.train(experience)
        found = strategy.eval(judged)
        row = [100 * value for key, value in sorted(found.items()) if key.startswith("Top1_Acc_Exp/eval_phase")]
        matrix.append([round(value, 2) for value in row])
        distilling.append(getattr(getattr(strategy, "storage_policy", None), "seconds", 0.0))
    x = pair[0][0]
    nbytes = getattr(getattr(strategy, "storage_policy", None), "nbytes", entry.memory * (x[0].numel() + 1))
    return {
        "accuracy": statistics.fmean(matrix[-1]),
        "matrix": matrix,
        "bytes": nbytes,
        "distilling": max(distilling),
        "seconds": time.monotonic() - began,
        "peak": peak_memory(),
    }


def _label(entry: Entry) -> str:
    if not entry.options:
        return f"{entry.strategy}, defaults" if entry.strategy == "DistilledReplay" else entry.strategy
    if "window" in entry.options:
        return f"{entry.strategy}, random coded images"
    factor = entry.options["factor"]
    model = entry.options.get("model", "").partition(":")[0]
    details = [
        entry.options["distiller"],
        *([f"{factor**2} to an image"] if factor > 1 else []),
        *filter(None, [model]),
    ]
    return f"{entry.strategy}, {', '.join(details)}"


def _row(entry: Entry, runs: Mapping[str, Any]) -> dict[str, Any]:
    done = list(runs.values())
    accuracies = [run["accuracy"] for run in done]
    return {
        "strategy": _label(entry),
        "images": entry.memory or None,
        "bytes": done[0]["bytes"] or None,
        "epochs": entry.epochs,
        "accuracy (%)": round(statistics.fmean(accuracies), 2),
        "deviation": round(statistics.stdev(accuracies), 2) if len(accuracies) > 1 else None,
        "seeds": len(accuracies),
        "distilling, longest (s)": round(max(run["distilling"] for run in done), 1) or None,
        **time_and_memory(done),
    }


def _write(name: str, runs: dict[str, dict[str, Any]], seconds: float, path: Path) -> None:
    benchmark = BENCHMARKS[name]
    known = [entry for entry in benchmark.rows if runs.get(entry.key)]
    result = {
        "title": benchmark.title,
        "claim": benchmark.claim,
        "rows": [_row(entry, runs[entry.key]) for entry in known],
        "runs": {entry.key: runs[entry.key] for entry in known},
        "how": f"python examples/benchmarks/avalanche_split.py {name} --data-root DIR",
        "machine": machine(", one thread a run"),
        "versions": versions(**{"avalanche-lib": version("avalanche-lib")}),
        "seconds": seconds,
    }
    write(path, result)


def main() -> None:
    """Run what the result file does not have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--data-root", required=True, help="of torchvision's MNIST, or of the image folders")
    parser.add_argument("--cache", help="folder for decoded images")
    add_row_options(parser)
    parser.add_argument("--validate", action="store_true", help="judge on a held-out tenth of the training data")
    parser.add_argument("--seeds", type=int, default=5, help="how many seeds at most")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    path = arguments.out / f"avalanche-{arguments.benchmark}.json"
    found = read(path, {"runs": {}, "seconds": 0.0})
    runs, spent, began = found["runs"], found["seconds"], time.monotonic()
    rows = chosen(BENCHMARKS[arguments.benchmark].rows, arguments.row, _label)
    wanted = [(entry, seed) for seed in range(arguments.seeds) for entry in rows if seed < entry.seeds]
    todo = [(entry, seed) for entry, seed in wanted if str(seed) not in runs.get(entry.key, {})]
    say_what_is_there(wanted, todo, path)
    jobs = [(arguments.benchmark, *job) for job in todo]
    for (_, entry, seed), run in each_in_its_process(measure, jobs, arguments, arguments.processes):
        runs.setdefault(entry.key, {})[str(seed)] = run
        _write(arguments.benchmark, runs, spent + time.monotonic() - began, path)
        print(
            f"{_label(entry):50} {entry.memory:5} images {entry.epochs:2} epochs seed {seed}: "
            f"{run['accuracy']:.2f} % in {run['seconds']:.0f} s, distilling {run['distilling']:.1f} s",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
