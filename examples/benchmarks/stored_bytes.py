"""Sets in a number of bytes: what is stored, by which codec, and how well networks that are trained on it do.

    python examples/benchmarks/stored_bytes.py mnist-8kB --data mnist --data-root DIR
    python examples/benchmarks/stored_bytes.py cifar10-31kB --data imagefolder:DIR --cache DIR

Every row of a benchmark has the same bytes, the same recipe and the same steps; nothing is chosen on the test data. A
row that is in the file already is not measured again; ``--row METHOD`` measures one alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.distillation import source, versions

__all__ = ["BENCHMARKS", "Benchmark", "Row"]


@dataclass(frozen=True)
class Row:
    """A way to fill the bytes.

    Attributes:
        method: registered name.
        codec: its name with options.
        options: of the method.
    """

    method: str
    codec: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the row is called in the table."""
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.method} ({options})" if options else self.method


@dataclass(frozen=True)
class Benchmark:
    """Rows of the same bytes.

    Attributes:
        title: of the table.
        claim: what was to be shown.
        nbytes: that each set may take.
        steps: of SGD that networks take.
        rows: the ways to fill the bytes.
        networks: architectures that judge.
        seeds: sets and networks of each row.
    """

    title: str
    claim: str
    nbytes: int
    steps: int
    rows: tuple[Row, ...]
    networks: tuple[str, ...] = ("convnet:width=32",)
    seeds: int = 3


def _ways(codec: str, *more: Row) -> tuple[Row, ...]:
    return (Row("random", codec), Row("kmeans", codec), Row("difficulty", codec), *more)


BENCHMARKS: Mapping[str, Benchmark] = {
    "mnist-8kB": Benchmark(
        "MNIST in 7.8 kB (6,272 bits a class)",
        "Wanted: 98.6 % in the bytes of ten whole images. Affine augmentation, 800 steps.",
        7840,
        800,
        _ways("pixels:bits=1", Row("random", "pixels:bits=1,side=14")),
    ),
    "mnist-78kB": Benchmark(
        "MNIST in 78 kB (62,720 bits a class)",
        "Wanted: 99.3 % in the bytes of a hundred whole images. Affine augmentation, 1,500 steps.",
        78_400,
        1500,
        _ways("pixels:bits=1"),
    ),
    "cifar10-31kB": Benchmark(
        "CIFAR-10 (JPEG copy) in 30.7 kB (24,576 bits a class)",
        "Wanted: 53 % in the bytes of ten whole images. Crop and flip, 1,000 steps.",
        30_720,
        1000,
        _ways("avif:quality=5"),
        seeds=2,
    ),
    "cifar10-307kB": Benchmark(
        "CIFAR-10 (JPEG copy) in 307 kB (245,760 bits a class)",
        "Wanted: 70 % in the bytes of a hundred whole images. Crop and flip, 1,500 steps.",
        307_200,
        1500,
        _ways("avif:quality=25"),
        ("convnet:width=32", "convnet:width=128"),
        seeds=3,
    ),
}
"""Name -> what is measured."""


def measure(row: Row, benchmark: Benchmark, train: Any, test: Any) -> dict[str, Any]:
    """Fill the bytes once a seed, and train a network of each architecture on each set."""
    from ddplug import distill, registry
    from ddplug.evaluation.results import judge
    from ddplug.functional.augmentation import joint
    from ddplug.synthetic import Recipe
    from ddplug.utils.devices import pick_device

    method = registry.resolve("distiller", row.method)(**row.options)
    sets = [
        distill(train, method, nbytes=benchmark.nbytes, codec=row.codec, seed=seed) for seed in range(benchmark.seeds)
    ]
    recipe = Recipe.by_steps(benchmark.steps, joint(train.augmentation))
    found: dict[str, Any] = {}
    for network in benchmark.networks:
        accuracies = []
        for seed, made in enumerate(sets):  # sets of other sizes cannot be trained on together
            result = judge([made], test, network, recipe, seed=seed, device=pick_device())
            accuracies.append(100 * result.mean)
        found[f"{network} (%)"] = round(statistics.fmean(accuracies), 2)
        found[f"deviation, {network}"] = round(statistics.stdev(accuracies), 2) if len(accuracies) > 1 else None
    return {
        "stored": row.name,
        "codec": row.codec,
        "images": round(statistics.fmean(map(len, sets))),
        "bytes": round(statistics.fmean(made.nbytes for made in sets)),
        "bits per class": round(statistics.fmean(made.bits_per_class for made in sets)),
        "making (s)": round(statistics.fmean(made.provenance["seconds"] for made in sets), 1),
        **found,
        "sets": len(sets),
    }


def run(name: str, arguments: argparse.Namespace) -> None:
    """Measure the rows that are missing, and write the file after each."""
    from ddplug import load_dataset

    benchmark, path = BENCHMARKS[name], arguments.out / f"stored-{name}.json"
    where = {"root": arguments.data_root, "cache": arguments.cache}
    train, test = (load_dataset(arguments.data, split=split, **where) for split in ("train", "test"))
    known: dict[str, Any] = {}
    seconds = 0.0
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        known, seconds = {row["stored"] + row["codec"]: row for row in before["rows"]}, before["seconds"]
    for row in benchmark.rows:
        key = row.name + row.codec
        if key in known or arguments.row not in (None, row.method):
            continue
        began = time.monotonic()
        known[key] = measure(row, benchmark, train, test)
        seconds += time.monotonic() - began
        result = {
            "title": benchmark.title,
            "claim": benchmark.claim,
            "rows": [known[each.name + each.codec] for each in benchmark.rows if each.name + each.codec in known],
            "how": f"python examples/benchmarks/stored_bytes.py {name} --data {source(arguments.data)}",
            "machine": f"{os.cpu_count()} CPU cores",
            "versions": versions(),
            "seconds": round(seconds, 1),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(name, known[key], file=sys.stderr)


def main() -> None:
    """Run a benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root")
    parser.add_argument("--cache", help="folder for decoded images")
    parser.add_argument("--row", metavar="METHOD", help="measure the rows of one method alone")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs" / "benchmarks")
    arguments = parser.parse_args()
    run(arguments.benchmark, arguments)


if __name__ == "__main__":
    main()
