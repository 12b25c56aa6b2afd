"""Sets in a number of bytes: what is stored, by which codec, and how well networks that are trained on it do.

    python examples/benchmarks/stored_bytes.py mnist-8kB --data mnist --data-root DIR
    python examples/benchmarks/stored_bytes.py cifar10-31kB --data imagefolder:DIR --cache DIR

Every row of a benchmark has the same bytes, the same recipe and the same steps; nothing is chosen on the test data. A
row that is in the file already is not measured again; ``--row METHOD`` measures those of one method alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import ddplug
from examples.benchmarks.results import ResultFile, add_set_options, chosen, judged, machine, source

__all__ = ["BENCHMARKS", "WHOLE", "Benchmark", "Row"]


@dataclass(frozen=True)
class Row:
    """A way to fill the bytes.

    Attributes:
        method: registered name.
        codec: its name with options.
        options: of the method.
        called: in the table; the method and its options if not given.
    """

    method: str
    codec: str
    options: Mapping[str, Any] = field(default_factory=dict)
    called: str = ""

    @property
    def name(self) -> str:
        """What the row is called in the table."""
        if self.called:
            return self.called
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.method} ({options})" if options else self.method


@dataclass(frozen=True)
class Benchmark:
    """Rows of the same bytes.

    Attributes:
        title: of the table.
        claim: what was to be shown.
        nbytes: that each set may take.
        rows: the ways to fill the bytes.
        held_out: whether a tenth of the training data judges, and the test data are left alone: what is found there
            becomes a rule.
    """

    title: str
    claim: str
    nbytes: int
    rows: tuple[Row, ...]
    held_out: bool = False


def _few(nbytes: int, title: str, real: str, learned: str) -> Benchmark:
    """Real images and learned ones where only few fit."""
    return Benchmark(
        f"{title} in {nbytes:,} bytes ({8 * nbytes // 10:,} bits a class)",
        "Do learned images serve better where few real ones fit? Judged on a held-out tenth of the training data.",
        nbytes,
        (
            Row("random", real),
            Row("kmeans-centroid", learned),
            Row("dm", learned.split(",")[0], {"steps": 300, "pool_size": 30, "factor": 2}),
            Row("ncfm", learned.split(",")[0], {"steps": 500, "pool_size": 30, "factor": 2}),
        ),
        held_out=True,
    )


WHOLE = Row("whole data", "none")
"""Nothing is left out: all the real data, a byte a number."""


_LEARNED = {"init_from": "real", "network": "convnet:width=16", "steps": 80, "pool_size": 10}
"""Options of what is learned through the codec, from real images of the same codec: minutes of a core."""


_TAUGHT_BETTER = {"teacher": "convnet:width=64,norm=batch", "teacher_epochs": 10}
"""Options of ``difficulty`` that ``auto`` takes for photographs where there is half an hour."""


def _ways(codec: str, *more: Row) -> tuple[Row, ...]:
    """Random images, the nearest to k-means centroids, these themselves, the best found, and learned ones."""
    selected = (Row(method, codec) for method in ("random", "kmeans", "kmeans-centroid", "difficulty"))
    return (*selected, Row("dm", codec, _LEARNED), *more)


def _of_photographs(codec: str, *more: Row) -> tuple[Row, ...]:
    """The same, and the best found by a better teacher."""
    return _ways(codec, Row("difficulty", codec, _TAUGHT_BETTER, "difficulty, better teacher"), *more)


BENCHMARKS: Mapping[str, Benchmark] = {
    "digits-1kB": Benchmark(
        "The 8 x 8 digits in 1,000 bytes (800 bits a class)",
        "Does learning through the codec improve on the coded images that it starts from? Judged on a held-out tenth.",
        1000,
        _ways("pixels:bits=2"),
        held_out=True,
    ),
    "mnist-2kB": Benchmark(
        "MNIST in 2 kB (1,600 bits a class)",
        "What do twelve coded images a class give?",
        2000,
        (Row("random", "pixels:bits=1"),),
    ),
    "mnist-8kB": Benchmark(
        "MNIST in 7.8 kB (6,272 bits a class)",
        "Wanted: 98.6 % in the bytes of ten whole images.",
        7840,
        _ways(
            "pixels:bits=1",
            Row("random", "pixels:bits=1,side=14"),
            Row("kmeans-centroid", "pixels:bits=1,side=14"),
            WHOLE,
        ),
    ),
    "mnist-78kB": Benchmark(
        "MNIST in 78 kB (62,720 bits a class)",
        "Wanted: 99.3 % in the bytes of a hundred whole images.",
        78_400,
        _ways("pixels:bits=1"),
    ),
    "cifar10-31kB": Benchmark(
        "CIFAR-10 (JPEG copy) in 30.7 kB (24,576 bits a class)",
        "Wanted: 53 % in the bytes of ten whole images.",
        30_720,
        _of_photographs("avif:quality=5"),
    ),
    "cifar10-123kB": Benchmark(
        "CIFAR-10 (JPEG copy) in 123 kB (98,304 bits a class)",
        "Wanted: 63 % in the bytes of forty whole images.",
        122_880,
        _of_photographs("avif:quality=15"),
    ),
    "cifar10-307kB": Benchmark(
        "CIFAR-10 (JPEG copy) in 307 kB (245,760 bits a class)",
        "Wanted: 70 % in the bytes of a hundred whole images.",
        307_200,
        _of_photographs("avif:quality=25", WHOLE),
    ),
    **{f"mnist-{n}B": _few(n, "MNIST", "pixels:bits=1,side=14", "pixels:bits=1,side=14") for n in (500, 1200)},
    **{
        f"cifar10-{n}B": _few(n, "CIFAR-10 (JPEG copy)", "avif:quality=5", "pixels:bits=2,side=16")
        for n in (2500, 6000)
    },
}
"""Name -> what is measured."""


def sets_of(row: Row, benchmark: str, train: Any, seeds: int, folder: Path) -> list[Any]:
    """Fill the bytes once a seed; what is in the folder already is loaded."""
    from ddplug import SyntheticSet, distill, registry

    method, found = registry.resolve("distiller", row.method)(**row.options), []
    for seed in range(seeds):
        path = folder / f"{benchmark}-{row.name}-{row.codec}-{seed}.safetensors"
        if not path.exists():
            distill(train, method, nbytes=BENCHMARKS[benchmark].nbytes, codec=row.codec, seed=seed).save(path)
        found.append(SyntheticSet.load(path))
    return found


def measure(row: Row, sets: list[Any], test: Any, network: str, precision: str) -> dict[str, Any]:
    """Train a network on each set, as the set itself says, and test it."""
    return {
        "stored": row.name,
        "codec": row.codec,
        "images": round(statistics.fmean(map(len, sets))),
        "bytes": round(statistics.fmean(made.nbytes for made in sets)),
        "bits per class": round(statistics.fmean(made.bits_per_class for made in sets)),
        "making (s)": round(statistics.fmean(made.provenance["seconds"] for made in sets), 1),
        **judged([(made, made.recipe) for made in sets], test, network, precision),
    }


def measure_whole(train: Any, test: Any, network: str, seeds: int, steps: int, precision: str) -> dict[str, Any]:
    """Train networks on all the data, as those of a set are trained: what the rows can be held against."""
    from ddplug.functional.augmentation import joint
    from ddplug.synthetic import Recipe

    recipe = Recipe.by_steps(steps, joint(train.augmentation))
    return {
        "stored": WHOLE.name,
        "codec": WHOLE.codec,
        "images": len(train),
        "bytes": train.inputs.nbytes + len(train),
        "bits per class": round(8 * (train.inputs.nbytes + len(train)) / train.num_classes),
        "making (s)": 0.0,
        **judged([(train, recipe)] * seeds, test, network, precision),
    }


def run(name: str, arguments: argparse.Namespace) -> None:
    """Measure the rows that are missing, and write the file after each."""
    from ddplug import load_dataset

    benchmark = BENCHMARKS[name]
    kept = ResultFile(arguments.out / f"stored-{name}.json", "stored", "codec", "network")
    wanted = chosen(benchmark.rows, arguments.row, lambda row: row.called or row.method)
    missing = kept.missing(wanted, lambda row: (row.name, row.codec, arguments.network))
    if not missing:
        return
    where = {"root": arguments.data_root, "cache": arguments.cache}
    train = load_dataset(arguments.data, split="train", **where)
    train, test = (
        train.split(0.1) if benchmark.held_out else (train, load_dataset(arguments.data, split="test", **where))
    )
    for row in missing:
        with tempfile.TemporaryDirectory() as temporary:
            if row is WHOLE:
                steps = max((known["steps"] for known in kept.rows), default=1500)
                found = measure_whole(train, test, arguments.network, arguments.seeds, steps, arguments.precision)
            else:
                sets = sets_of(row, name, train, arguments.seeds, arguments.sets or Path(temporary))
                found = measure(row, sets, test, arguments.network, arguments.precision)
        kept.add(
            found,
            lambda known: (known["network"], known["accuracy (%)"]),
            title=benchmark.title,
            claim=f"{benchmark.claim} Networks are trained as the sets say.",
            how=f"python examples/benchmarks/stored_bytes.py {name} --data {source(arguments.data)}",
            machine=machine(),
            **{"held out": benchmark.held_out},
        )


def main() -> None:
    """Run a benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_set_options(parser, BENCHMARKS)
    arguments = parser.parse_args()
    ddplug.keep_memory()
    run(arguments.benchmark, arguments)


if __name__ == "__main__":
    main()
