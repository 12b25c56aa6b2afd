"""Compare distilled memories with stock replay on domain, task and online streams.

Permuted digits (domain-incremental) and pairs of digits with zero-based labels and a head each (task-incremental) on
the digits that ship with scikit-learn; Split-MNIST online, in pieces of 10 or 100 samples, each seen once; the small
digits as vectors; Split-MNIST as Mammoth has it (two hidden layers of 100, batches of 10, learning rate 0.01, one
epoch), with the bytes of 200 images; and its Split-CIFAR-10, cut to what a CPU can do: a ResNet-18 of width 20 instead
of 64, one epoch instead of 50, 1,000 images of a class instead of 5,000, and neither flips nor crops (batches of 32
and learning rate 0.1 are Mammoth's). Each run has a process of its own, so that its peak memory is its own.

    python examples/benchmarks/avalanche_scenarios.py digits
    python examples/benchmarks/avalanche_scenarios.py digits --row Replay --seeds 1
    python examples/benchmarks/avalanche_scenarios.py online --data-root DIR
    python examples/benchmarks/avalanche_scenarios.py vectors
    python examples/benchmarks/avalanche_scenarios.py mammoth --data-root DIR
    python examples/benchmarks/avalanche_scenarios.py mammoth-cifar10 --data-root DIR --cache FOLDER
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

PHOTOGRAPHS = 1000
"""Images of a class that a stream of CIFAR-10 is cut to."""


@dataclass(frozen=True)
class Entry:
    """A row: a stream, a strategy, its memory in images, and options."""

    stream: str
    strategy: str
    memory: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Names the row in the result file."""
        return json.dumps([self.stream, self.strategy, self.memory, self.options], sort_keys=True)


def _digits(validate: bool) -> tuple[Any, Any]:
    from ddplug.data.datasets import load

    train, test = load("digits"), load("digits", split="test")
    return train.split(0.2) if validate else (train, test)


def _mnist(root: str, validate: bool) -> tuple[Any, Any]:
    from ddplug.data.datasets import load

    train, test = (load("mnist", split=split, root=root) for split in ("train", "test"))
    return train.split(0.1) if validate else (train, test)


def _photographs(arguments: argparse.Namespace) -> Any:
    """Load some images of each class of CIFAR-10 to train on, and all to judge."""
    import torch

    from ddplug.data.datasets import load

    name = f"imagefolder:{arguments.data_root}"
    train, test = (load(name, split=split, cache=arguments.cache) for split in ("train", "test"))
    train, test = train.split(0.1) if arguments.validate else (train, test)
    rng = torch.Generator().manual_seed(0)
    some = [own[torch.randperm(len(own), generator=rng)[:PHOTOGRAPHS]] for own in train.class_indices]
    return train.subset(torch.cat(some)), test


def _dataset(x: Any, y: Any) -> Any:
    from torch.utils.data import TensorDataset

    data: Any = TensorDataset(x, y)
    data.targets = y.tolist()
    return data


def _tensors(data: Any) -> tuple[Any, Any]:
    import torch

    return data.batch(torch.arange(len(data))), data.targets


def _permuted(arguments: argparse.Namespace) -> Any:
    """Make five domains of the digits: the pixels in another order each time."""
    import torch
    from avalanche.benchmarks import benchmark_from_datasets
    from avalanche.benchmarks.utils import _make_taskaware_classification_dataset as task_aware

    rng = torch.Generator().manual_seed(0)
    orders = [torch.randperm(64, generator=rng) for _ in range(5)]
    streams = {}
    for name, data in zip(("train", "test"), _digits(arguments.validate), strict=True):
        x, y = _tensors(data)
        moved = [x.flatten(1)[:, order].reshape_as(x) for order in orders]
        streams[name] = [task_aware(_dataset(each, y), task_labels=0) for each in moved]
    return benchmark_from_datasets(**streams)


def _vectors(arguments: argparse.Namespace, experiences: int = 5) -> Any:
    """Make pairs of digits, as vectors of 64 numbers."""
    pairs = (_tensors(data) for data in _digits(arguments.validate))
    return _classes([(x.flatten(1), y) for x, y in pairs], experiences)


def _tasks(arguments: argparse.Namespace) -> Any:
    from avalanche.benchmarks import nc_benchmark

    sets = [_dataset(*_tensors(data)) for data in _digits(arguments.validate)]
    options = {"fixed_class_order": list(range(10)), "class_ids_from_zero_in_each_exp": True}
    return nc_benchmark(*sets, n_experiences=5, task_labels=True, **options)


def _split(arguments: argparse.Namespace, experiences: int = 5) -> Any:
    return _classes([_tensors(data) for data in _mnist(arguments.data_root, arguments.validate)], experiences)


def _cifar10(arguments: argparse.Namespace, experiences: int = 5) -> Any:
    return _classes([_tensors(data) for data in _photographs(arguments)], experiences)


def _classes(pairs: list[tuple[Any, Any]], experiences: int) -> Any:
    """Split ten classes, in their order."""
    from avalanche.benchmarks import nc_benchmark

    sets = [_dataset(*pair) for pair in pairs]
    return nc_benchmark(*sets, n_experiences=experiences, task_labels=False, fixed_class_order=list(range(10)))


def _single(stream: Any) -> Any:
    from avalanche.models import SimpleMLP

    return SimpleMLP(num_classes=10, input_size=stream[0].dataset[0][0].numel(), hidden_size=256)


def _two_layers(stream: Any) -> Any:
    from avalanche.models import SimpleMLP

    return SimpleMLP(num_classes=10, hidden_size=100, hidden_layers=2, drop_rate=0.0)


def _residual(stream: Any) -> Any:
    from avalanche.models import SlimResNet18

    return SlimResNet18(10)


def _heads(stream: Any) -> Any:
    from avalanche.models import MTSimpleMLP

    return MTSimpleMLP(input_size=64, hidden_size=256)


def _replay(entry: Entry, common: dict[str, Any], seed: int) -> Any:
    from avalanche.training.plugins import ReplayPlugin
    from avalanche.training.storage_policy import ClassBalancedBuffer, ExperienceBalancedBuffer, ReservoirSamplingBuffer
    from avalanche.training.supervised import Naive

    policies = {"class": ClassBalancedBuffer, "experience": ExperienceBalancedBuffer, "any": ReservoirSamplingBuffer}
    policy = policies[entry.options["balanced"]](entry.memory)
    return Naive(**common, plugins=[ReplayPlugin(entry.memory, storage_policy=policy)])


def _naive(entry: Entry, common: dict[str, Any], seed: int) -> Any:
    from avalanche.training.supervised import Naive

    return Naive(**common)


def _distilled(entry: Entry, common: dict[str, Any], seed: int) -> Any:
    from ddplug.avalanche import DistilledReplay

    return DistilledReplay(**common, mem_size=entry.memory, seed=seed, **entry.options)


STRATEGIES: Mapping[str, Callable[[Entry, dict[str, Any], int], Any]] = {
    "Naive": _naive,
    "joint training": _naive,
    "Replay": _replay,
    "DistilledReplay": _distilled,
}


@dataclass(frozen=True)
class Stream:
    """How a stream is made, who learns it, and how."""

    make: Callable[..., Any]
    model: Callable[[Any], Any]
    batch: int
    epochs: int
    piece: int = 0
    rate: float = 0.05


STREAMS = {
    "permuted digits": Stream(_permuted, _single, 32, 5),
    "digits by task": Stream(_tasks, _heads, 32, 5),
    "Split-MNIST in pieces of 10": Stream(_split, _single, 10, 1, 10),
    "Split-MNIST in pieces of 100": Stream(_split, _single, 100, 1, 100),
    "digits as vectors": Stream(_vectors, _single, 32, 5),
    "seq-MNIST": Stream(_split, _two_layers, 10, 1, rate=0.01),
    "seq-CIFAR-10, cut": Stream(_cifar10, _residual, 32, 1, rate=0.1),
}


def _ours(stream: str, memory: int, **options: Any) -> tuple[Entry, ...]:
    names = ("random", "kmeans-centroid", "dm")
    return tuple(Entry(stream, "DistilledReplay", memory, {"distiller": name, **options}) for name in names)


def _offline(stream: str, memory: int) -> tuple[Entry, ...]:
    stock = tuple(Entry(stream, "Replay", memory, {"balanced": name}) for name in ("class", "experience", "any"))
    return (*stock, *_ours(stream, memory))


def _online(stream: str, memory: int, every: int, **options: Any) -> tuple[Entry, ...]:
    stock = Entry(stream, "Replay", memory, {"balanced": "any"})
    return (
        stock,
        *([] if options else [Entry(stream, "DistilledReplay", memory)]),  # by its defaults
        *_ours(stream, memory, every=every, reservoir_size=20, factor=1, **options),
        *_ours(stream, memory, every=every, reservoir_size=20, factor=2, **options)[1:],
    )


def _bounded(stream: str, *memories: int) -> tuple[Entry, ...]:
    """The stock policies and ours by its defaults, between no memory and all data at once."""
    rows = [Entry(stream, "Naive", 0), Entry(stream, "joint training", 0)]
    for memory in memories:
        rows += [Entry(stream, "Replay", memory, {"balanced": name}) for name in ("class", "any")]
        rows.append(Entry(stream, "DistilledReplay", memory))
    return tuple(rows)


_COMMANDS = {
    "digits": "digits",
    "online": "online --data-root DIR",
    "vectors": "vectors",
    "mammoth": "mammoth --data-root DIR",
    "mammoth-cifar10": "mammoth-cifar10 --data-root DIR --cache FOLDER",
}
TITLES = {
    "digits": "Domain- and task-incremental digits",
    "online": "Split-MNIST online",
    "vectors": "Class-incremental digits as vectors",
    "mammoth": "Split-MNIST as Mammoth has it: two hidden layers of 100, batches of 10, one epoch",
    "mammoth-cifar10": "Split-CIFAR-10 (a slightly lossy JPEG copy) as Mammoth has it, cut: a ResNet-18 of width 20 "
    "instead of 64, one epoch instead of 50, 1,000 images of a class instead of 5,000, neither flips nor crops",
}
CLAIMS = {
    "digits": "Wanted: not below the best stock policy with as many images.",
    "online": "Wanted: 15 points above the reservoir of the same size, with 10 and 100 images. Samples that wait for "
    "the next distillation (at most 20 of each class being learned) come on top and are counted in the bytes; by the "
    "defaults nothing comes on top. Wanted of these: 88 and 91 %.",
    "vectors": "Wanted: above the best stock policy in the same bytes.",
    "mammoth": "Wanted of the defaults: 93 %.",
    "mammoth-cifar10": "No figure was wanted: one run beside stock policies.",
}
ROWS = {
    "digits": (
        Entry("permuted digits", "Naive", 0),
        *_offline("permuted digits", 50),
        *_offline("permuted digits", 200),
        Entry("digits by task", "Naive", 0),
        *_offline("digits by task", 10),
        *_offline("digits by task", 50),
    ),
    "online": (
        *_online("Split-MNIST in pieces of 100", 10, 20),
        *_online("Split-MNIST in pieces of 100", 100, 20),
        # a loss of ten rows is too noisy for the default weight
        *_online("Split-MNIST in pieces of 10", 10, 200, weight=1.0),
        *_online("Split-MNIST in pieces of 10", 100, 200, weight=1.0),
    ),
    "vectors": _bounded("digits as vectors", 10, 50),
    "mammoth": _bounded("seq-MNIST", 200),
    "mammoth-cifar10": _bounded("seq-CIFAR-10, cut", 200),
}


def measure(entry: Entry, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and judge one strategy with one seed, in this process, on one thread."""
    warnings.simplefilter("ignore")
    import torch
    from avalanche.benchmarks import split_online_stream
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.logging import BaseLogger
    from avalanche.training.plugins import EvaluationPlugin

    torch.set_num_threads(1)
    stream = STREAMS[entry.stream]
    benchmark = stream.make(arguments)
    torch.manual_seed(seed)
    model = stream.model(benchmark.train_stream)
    common = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=stream.rate),
        "criterion": torch.nn.CrossEntropyLoss(),
        "train_mb_size": stream.batch,
        "train_epochs": stream.epochs,
        "eval_mb_size": 256,
        "evaluator": EvaluationPlugin(accuracy_metrics(experience=True), loggers=[BaseLogger()]),
    }
    strategy = STRATEGIES[entry.strategy](entry, common, seed)
    joint = entry.strategy == "joint training"
    train = (stream.make(arguments, 1) if joint else benchmark).train_stream
    began, held = time.monotonic(), 0
    for experience in split_online_stream(train, experience_size=stream.piece) if stream.piece else train:
        strategy.train(experience)
        held = max(held, getattr(getattr(strategy, "storage_policy", None), "nbytes", 0))
    found = strategy.eval(benchmark.test_stream)
    numbers = [100 * value for key, value in found.items() if key.startswith("Top1_Acc_Exp/eval_phase")]
    item = benchmark.train_stream[0].dataset[0][0].numel() + 1
    return {
        "accuracy": statistics.fmean(numbers),
        "bytes": held or entry.memory * item,
        "seconds": time.monotonic() - began,
        "distilling": getattr(getattr(strategy, "storage_policy", None), "total_seconds", 0.0),
        "peak": peak_memory(),
    }


def _label(entry: Entry) -> str:
    options = [entry.options.get("distiller", "defaults")] if entry.strategy == "DistilledReplay" else []
    options += [f"balanced by {entry.options['balanced']}"] if "balanced" in entry.options else []
    options += [f"{entry.options['factor'] ** 2} to an image"] if entry.options.get("factor", 1) > 1 else []
    return ", ".join([entry.strategy, *options]).replace("balanced by any", "reservoir")


def _row(entry: Entry, runs: Mapping[str, Any]) -> dict[str, Any]:
    accuracies = [run["accuracy"] for run in runs.values()]
    return {
        "stream": entry.stream,
        "strategy": _label(entry),
        "images": entry.memory or None,
        "bytes": max(run["bytes"] for run in runs.values()) or None,
        "accuracy (%)": round(statistics.fmean(accuracies), 2),
        "deviation": round(statistics.stdev(accuracies), 2) if len(accuracies) > 1 else None,
        "seeds": len(accuracies),
        **time_and_memory(runs.values()),
    }


def main() -> None:
    """Run what the result file does not have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=ROWS)
    parser.add_argument("--data-root", help="of torchvision's MNIST, or of the image folders of CIFAR-10")
    parser.add_argument("--cache", help="folder for decoded images")
    add_row_options(parser)
    parser.add_argument("--validate", action="store_true", help="judge on a held-out part of the training data")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    path = arguments.out / f"scenarios-{arguments.benchmark}.json"
    found = read(path, {"runs": {}, "seconds": 0.0})
    runs, spent, began = found["runs"], found["seconds"], time.monotonic()
    rows = chosen(ROWS[arguments.benchmark], arguments.row, _label)
    wanted = [(entry, seed) for seed in range(arguments.seeds) for entry in rows]
    missing = [(entry, seed) for entry, seed in wanted if str(seed) not in runs.get(entry.key, {})]
    say_what_is_there(wanted, missing, path)
    for (entry, seed), run in each_in_its_process(measure, missing, arguments, 1):
        runs.setdefault(entry.key, {})[str(seed)] = run
        result = {
            "title": TITLES[arguments.benchmark],
            "claim": CLAIMS[arguments.benchmark],
            "rows": [_row(each, runs[each.key]) for each in ROWS[arguments.benchmark] if each.key in runs],
            "runs": runs,
            "how": f"python examples/benchmarks/avalanche_scenarios.py {_COMMANDS[arguments.benchmark]}",
            "machine": machine(", one thread"),
            "versions": versions(**{"avalanche-lib": version("avalanche-lib")}),
            "seconds": spent + time.monotonic() - began,
        }
        write(path, result)
        print(f"{entry.key} seed {seed}: {run['accuracy']:.2f} % in {run['seconds']:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
