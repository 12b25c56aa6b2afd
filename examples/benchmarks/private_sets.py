"""Sets of dp-dm: what differential privacy costs, and how well networks that are trained on them do.

    python examples/benchmarks/private_sets.py mnist --data mnist --data-root DIR
    python examples/benchmarks/private_sets.py cifar10 --data imagefolder:DIR --cache DIR

Every set has the pixels of 10 or 50 whole images of each class, as more and smaller images, a byte a number. A row that
is in the file already is not measured again; ``--row "epsilon 1, 10 a class"`` measures one alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.results import ResultFile, add_set_options, chosen, in_order_of, judged, machine, source

__all__ = ["BENCHMARKS", "Benchmark", "Row", "measure", "sets_of", "with_public_preprocessing"]


@dataclass(frozen=True)
class Row:
    """A guarantee and a size.

    Attributes:
        epsilon: of the guarantee; delta is 1e-5.
        images_per_class: whole images whose pixels the set has of each class.
        options: of dp-dm, where they are not the defaults.
    """

    epsilon: float
    images_per_class: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the row is called in the table."""
        options = "".join(f", {name}={value}" for name, value in self.options.items())
        return f"epsilon {self.epsilon:g}, {self.images_per_class} a class{options}"


@dataclass(frozen=True)
class Benchmark:
    """Rows of the same data.

    Attributes:
        title: of the table.
        claim: what was to be shown.
        rows: guarantees and sizes.
    """

    title: str
    claim: str
    rows: tuple[Row, ...]


_SHORTER = {"pool_size": 60, "steps": 2400}
"""Fewer networks, each seen as often: four minutes instead of a quarter of an hour, for the same privacy."""

_HALF = {"steps": 4000}
"""Half of the steps: five times the images are made in half an hour then."""

BENCHMARKS: Mapping[str, Benchmark] = {
    "mnist": Benchmark(
        "Differentially private sets of MNIST",
        "Wanted: at epsilon 1, 96.5 % in the pixels of 10 images a class and 97.2 % in those of 50; 93 % at 0.1.",
        (
            Row(0.1, 10),
            Row(0.1, 10, _SHORTER),
            Row(0.1, 10, {"pool_size": 200}),
            Row(1.0, 10),
            Row(1.0, 10, _SHORTER),
            Row(1.0, 50, _HALF),
        ),
    ),
    "cifar10": Benchmark(
        "Differentially private sets of CIFAR-10 (JPEG copy)",
        "Wanted: at epsilon 1, 40 % in the pixels of 10 images a class and 45 % in those of 50; 50 and 54 % at 10.",
        (
            Row(1.0, 10),
            Row(1.0, 10, _SHORTER),
            Row(1.0, 50, _HALF),
            Row(10.0, 10),
            Row(10.0, 10, _SHORTER),
            Row(10.0, 50),
            Row(10.0, 50, _HALF),
        ),
    ),
}
"""Name -> what is measured."""


def with_public_preprocessing(data: Any) -> Any:
    """Replace a mean and deviation that were computed from the data by those published for CIFAR-10."""
    import torch

    from ddplug.data.datasets import cifar10
    from ddplug.data.preprocess import Standardize

    if not data.preprocess.fitted:
        return data
    assert cifar10.mean is not None and cifar10.std is not None
    return replace(data, preprocess=Standardize(torch.tensor(cifar10.mean), torch.tensor(cifar10.std)))


def sets_of(row: Row, benchmark: str, train: Any, seeds: int, folder: Path) -> tuple[list[Any], list[float]]:
    """Make the sets of a row; what is in the folder already is loaded.

    Returns:
        The sets, a byte a number, and the CPU seconds that those took which were made.
    """
    from ddplug import SyntheticSet, distill
    from ddplug.distillation.storage import with_recipe
    from ddplug.distillers import DPDM

    method = DPDM(epsilon=row.epsilon, images_per_class=row.images_per_class, **row.options)
    found, seconds = [], []
    for seed in range(seeds):
        path = folder / f"private-{benchmark}-{row.name}-{seed}.safetensors"
        if not path.exists():
            began = time.process_time()
            distill(train, method, seed=seed).quantize().save(path)
            seconds.append(time.process_time() - began)
        found.append(with_recipe(SyntheticSet.load(path), train.augmentation))
    return found, seconds


def measure(
    row: Row, sets: list[Any], seconds: list[float], test: Any, network: str, steps: int, precision: str
) -> dict[str, Any]:
    """Train a network on each set, by steps, and test it."""
    return {
        "set": row.name,
        "images": len(sets[0]),
        "side": sets[0].inputs.shape[-1],
        "bytes": sets[0].nbytes,
        "making (CPU s)": round(statistics.fmean(seconds)) if seconds else None,
        **judged([(made, replace(made.recipe, steps=steps)) for made in sets], test, network, precision),
    }


def run(name: str, arguments: argparse.Namespace) -> None:
    """Measure the rows that are missing, and write the file after each."""
    from ddplug import load_dataset

    benchmark = BENCHMARKS[name]
    kept = ResultFile(arguments.out / f"private-{name}.json", "set", "network", "steps")
    wanted = chosen(benchmark.rows, arguments.row, lambda row: row.name)
    missing = kept.missing(wanted, lambda row: (row.name, arguments.network, arguments.steps))
    if not missing:
        return
    where = {"root": arguments.data_root, "cache": arguments.cache}
    train, test = (
        with_public_preprocessing(load_dataset(arguments.data, split=split, **where)) for split in ("train", "test")
    )
    place = in_order_of([row.name for row in benchmark.rows], "set")
    for row in missing:
        with tempfile.TemporaryDirectory() as temporary:
            sets, making = sets_of(row, name, train, arguments.seeds, arguments.sets or Path(temporary))
            found = measure(row, sets, making, test, arguments.network, arguments.steps, arguments.precision)
        kept.add(
            found,
            lambda known: (known["network"], place(known), known["steps"]),
            title=benchmark.title,
            claim=f"{benchmark.claim} Delta is 1e-5, for one record added or removed; options are the defaults, unless "
            "a row says otherwise. Networks are trained by steps.",
            how=f"python examples/benchmarks/private_sets.py {name} --data {source(arguments.data)} "
            f"--seeds {arguments.seeds} --steps {arguments.steps}",
            machine=machine(),
        )


def main() -> None:
    """Run a benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_set_options(parser, BENCHMARKS)
    parser.add_argument("--steps", type=int, default=1500, help="that a network is trained for (default: %(default)s)")
    arguments = parser.parse_args()
    run(arguments.benchmark, arguments)


if __name__ == "__main__":
    main()
