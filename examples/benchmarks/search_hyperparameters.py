"""Does the order of hyper-parameters on a small set hold on all data? Writes search-hyperparameters-*.json.

    python examples/benchmarks/search_hyperparameters.py table
    python examples/benchmarks/search_hyperparameters.py digits --out DIR
    python examples/benchmarks/search_hyperparameters.py mnist --data-root DIR --out DIR
    python examples/benchmarks/search_hyperparameters.py cifar10 --data-root DIR --out DIR
    python examples/benchmarks/search_hyperparameters.py cifar10-mlp --data-root DIR --out DIR

Learning rate, weight decay, momentum and augmentation of one network are drawn at random, 60 times. The truth is
training on all data. Sets of three sizes, random samples in their bytes and the beginning of training on all data each
cost a twentieth of it, with steps of the same batch. What a search by each of them loses is simulated 20 times, with 30
of the 60 a search; that by successive halving of all data costs the same in all. ``--row NAME`` measures one row alone;
the same folder goes on where it was.

Proxies are scored on less than full training is, where that would leave little of their cost for training. One row is
scored on a coded set too, so that whoever searches needs no data at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from numpy.random import RandomState
from torch.nn.functional import avg_pool2d

sys.path.insert(0, str(Path(__file__).parents[2]))

import ddplug
from ddplug.data.anything import as_labeled
from ddplug.distillers import KMeansCentroid
from ddplug.evaluation.ranking import agreement, ceiling, difference
from ddplug.search import Journal, Judge, Protocol, Record
from ddplug.search.budget import control_file, data_file, selection_file, steps_within
from examples.benchmarks.search_common import about, by, fresh, halving, interval, known, missing, regrets, text, write

SHARE = 20
"""A proxy costs one part in so many of full training."""
HALVING = (3 * SHARE, SHARE, SHARE / 3)
"""Shares that the rungs of successive halving cost a candidate; 30, 10 and 3 of them cost as much as 30 proxies."""
BATCH = 64
"""Samples a step."""
SIZE = 30
"""Candidates of a simulated search."""
EARLY, HALVED, CHANCE = "early stopping", "successive halving", "chance"


@dataclass(frozen=True)
class Case:
    """A task.

    Attributes:
        title: of the table.
        network: that is trained.
        augment: what is drawn from.
        steps: of full training.
        seeds: of full training.
        sizes: samples a class of the sets, or of whole ones in their bytes.
        scored: share of the data that is kept apart to score on.
        kinds: of sets, names of :data:`SETS`.
        extra: rows besides those of each kind and size.
        few: samples of what is kept apart that the proxies are scored on; ``None`` for all.
        codec: of the coded sets.
    """

    title: str
    network: str
    augment: tuple[str, ...]
    steps: int
    seeds: int
    sizes: tuple[int, ...]
    scored: float
    kinds: tuple[str, ...] = ("k-means", "random")
    extra: tuple[str, ...] = ()
    few: int | None = None
    codec: str = "pixels:bits=1"


AUGMENT = ("", "crop", "crop_scale_rotate")

CASES: dict[str, Case] = {
    "digits": Case("the digits", "convnet:width=4,depth=2", AUGMENT, 300, 1, (7, 20, 60), 0.2),
    "table": Case("the digits as a table of 64 columns", "mlp:width=64", ("",), 600, 2, (7, 20, 60), 0.2),
    "mnist": Case(
        "MNIST, made smaller to 14 x 14",
        "mlp:width=64",
        ("", "affine"),
        300,
        2,
        (1, 4, 10),
        1 / 12,
        kinds=("coded", "whole"),
        extra=("coded to score on too 10",),
        few=500,
    ),
    "cifar10": Case(
        "CIFAR-10 (a slightly lossy JPEG copy), made smaller to 16 x 16",
        "convnet:width=8,depth=2",
        ("", "crop+flip", "crop+flip+color"),
        300,
        2,
        (1, 4, 10),
        0.1,
        kinds=("coded", "whole"),
        extra=("coded to score on too 10",),
        few=500,
        codec="avif:quality=15",
    ),
}
CASES["cifar10-mlp"] = replace(CASES["cifar10"], network="mlp:width=64", augment=("", "crop+flip"))
PICTURES = ("mnist", "cifar10", "cifar10-mlp")
"""Cases of pictures in a folder, made smaller."""


def draw(number: int, augment: tuple[str, ...]) -> list[dict[str, Any]]:
    """Draw hyper-parameters."""
    state = RandomState(0)
    return [
        {
            "learning_rate": float(10 ** state.uniform(-3, 0)),
            "weight_decay": float(10 ** state.uniform(-5, -1)),
            "momentum": float(state.choice([0.0, 0.9])),
            "augment": augment[state.randint(len(augment))],
        }
        for _ in range(number)
    ]


class Bench:
    """A task at work: who judges what, and what they found."""

    def __init__(self, name: str, arguments: argparse.Namespace, folder: Path) -> None:
        self.case, self.folder = CASES[name], folder
        self.train, self.rest = _data(name, arguments.data_root, arguments.cache).split(self.case.scored)
        few = self.case.few
        self.few = self.rest if few is None else self.rest.split(few / len(self.rest))[1]
        self.samples = draw(arguments.number, self.case.augment)
        self.common: dict[str, Any] = {"batch_size": BATCH, "schedule": "cosine", "device": "cpu"}
        # a file is read once, data in memory are looked through by every judge
        self.whole = self.train if few is None else data_file(self.train, folder / "whole.safetensors")
        protocol = Protocol(steps=self.case.steps, seeds=self.case.seeds, **self.common)
        self.full = self._judge(self.whole, self.rest, protocol)
        self.once = self.full.cost / self.case.seeds

    def _judge(self, made: Any, scored: Any, protocol: Protocol) -> Judge:
        about = {"space": "hyper-parameters", "network": self.case.network}
        return Judge(made, scored, protocol, self.folder / "journal.jsonl", about)

    def early(self, share: float) -> Judge:
        """The beginning of training on all data, at a share of its cost."""
        return self.at(self.whole, share)

    def at(self, made: Any, share: float, scored: Any = None) -> Judge:
        """Training on a set at a share of the cost of full training."""
        steps = steps_within(self.once / share, BATCH, len(self.few))
        return self._judge(made, self.few if scored is None else scored, Protocol(steps=steps, **self.common))

    def judge_of(self, name: str) -> Judge:
        """Return who judges a row."""
        kind, _, size = name.rpartition(" ")
        if name == EARLY:
            return self.early(SHARE)
        if name in self.case.extra:
            scored = ddplug.holdout(self.few).compress(self.case.codec)
            return self.at(_coded(self, int(size)), SHARE, scored)
        return self.at(SETS[kind](self, int(size)), SHARE)

    def records(self, judge: Judge, name: str) -> list[Record]:
        """Judge all."""
        print(f"{name}: {judge.protocol.steps} steps of {judge.nbytes} bytes", file=sys.stderr, flush=True)
        return [judge((self.case.network, sample), sample) for sample in self.samples]

    def scores(self, judge: Judge, name: str) -> torch.Tensor:
        """Judge all, and return the accuracy of each; training that diverged has none right."""
        return torch.tensor([record.metric or 0.0 for record in self.records(judge, name)], dtype=torch.float64)


def _data(name: str, root: str | None, cache: Path | None) -> Any:
    """Load the data of a case."""
    if name in PICTURES:
        folders = name.startswith("cifar10")
        options = {"cache": cache} if folders else {"root": root}
        data = ddplug.load_dataset(f"imagefolder:{root}" if folders else name, **options)
        small = avg_pool2d(data.inputs.float(), 2).round().byte()
        return as_labeled((small.numpy(), data.targets.numpy()))
    data = ddplug.load_dataset("digits")
    if name == "table":
        return as_labeled((data.batch(torch.arange(len(data))).flatten(1).numpy(), data.targets.numpy()))
    return data


def _kmeans(bench: Bench, size: int) -> Path:
    path = bench.folder / f"k-means-{size}.safetensors"
    if not path.exists():
        ddplug.distill(bench.train, KMeansCentroid(images_per_class=size), device="cpu").quantize().save(path)
    return path


def _random(bench: Bench, size: int) -> Path:
    return control_file(bench.train, "random", ddplug.SyntheticSet.load(_kmeans(bench, size)), bench.folder)


def _whole(bench: Bench, size: int) -> Path:
    return selection_file(bench.train, "random", size, bench.folder)


def _coded(bench: Bench, size: int) -> Path:
    path = bench.folder / f"coded-{size}.safetensors"
    if not path.exists():
        room = ddplug.SyntheticSet.load(_whole(bench, size)).nbytes
        ddplug.distill(bench.train, "random", nbytes=room, codec=bench.case.codec, device="cpu").save(path)
    return path


SETS: Mapping[str, Callable[[Bench, int], Path]] = {
    "k-means": _kmeans,
    "random": _random,
    "coded": _coded,
    "whole": _whole,
}
"""Kind of a set -> makes the file of one of so many samples a class, or in the bytes of so many."""


def names(case: Case) -> list[str]:
    """Return the names of all rows."""
    sets = [f"{kind} {size}" for size in case.sizes for kind in case.kinds]
    return [*sets, *case.extra, EARLY, HALVED, CHANCE]


def measure(name: str, bench: Bench, truth: torch.Tensor, early: torch.Tensor) -> dict[str, Any]:
    """Measure a row, and say what searches by it lose."""
    judge, score, order = None, None, by(torch.zeros_like(truth))
    if name == HALVED:
        order = halving([bench.scores(bench.early(share), f"{name}, 1/{share:.3g}") for share in HALVING])
    elif name != CHANCE:
        judge = bench.judge_of(name)
        score = bench.scores(judge, name)
        order = by(score)
    row: dict[str, Any] = {
        "score": name,
        "images": None if judge is None else len(judge.sets()[0]),
        "bytes": None if judge is None else judge.nbytes,
        "steps": None if judge is None else judge.protocol.steps,
        "Spearman": None,
        "over early stopping": None,
    }
    if score is not None:
        found = agreement(score.tolist(), truth.tolist(), rng=torch.Generator().manual_seed(0)).to_json()
        row["Spearman"] = text(found["spearman"])
    if score is not None and name != EARLY:
        both = score.tolist(), early.tolist(), truth.tolist()
        row["over early stopping"] = text(difference(*both, rng=torch.Generator().manual_seed(0)).to_json())
    lost = regrets(truth, order, min(SIZE, len(truth)))
    row["regret (points)"] = text(interval(lost))
    row["greatest regret"] = round(max(lost), 2)
    row["best of 3 in full"] = text(interval(regrets(truth, order, min(SIZE, len(truth)), 3)))
    return row


def run(name: str, arguments: argparse.Namespace) -> None:
    """Measure the rows that are missing, and write the file after each."""
    case = CASES[name]
    out = fresh(arguments.out, "search-hyperparameters")
    path = out / f"search-hyperparameters-{name}.json"
    left = missing(path, "score", names(case), arguments.row)
    if not left:
        return
    folder = arguments.folder or out / name
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(name, arguments, folder)
    full = bench.records(bench.full, "full")
    truth = torch.tensor([record.metric or 0.0 for record in full], dtype=torch.float64)
    early = bench.scores(bench.early(SHARE), EARLY)
    done = [record.result.accuracies for record in full if record.metric is not None]
    best = max(ceiling(list(zip(*done, strict=True))) or 0.0, 0.0) if case.seeds > 1 else None
    for row in left:
        rows = [*known(path), measure(row, bench, truth, early)]
        records = Journal(folder / "journal.jsonl").read()
        write(
            path,
            {
                "title": f"Hyper-parameters of a network on {case.title}, at 1/{SHARE} of the cost",
                "claim": f"Wanted: within half a point of the winner by full data. {arguments.number} random settings "
                f"of {case.network}; full training takes {case.steps} steps of {BATCH} "
                f"({case.seeds} seed{'s' * (case.seeds > 1)}). Of "
                f"the simulated searches among {SIZE} of them, means and their 95 % intervals over 20."
                + (f" A perfect score would have a Spearman correlation of {best:.2f}." if best is not None else ""),
                "rows": sorted(rows, key=lambda row: names(case).index(row["score"])),
                "how": f"python examples/benchmarks/search_hyperparameters.py {name}"
                + " --data-root DIR" * (name in PICTURES),
                "samples": bench.samples,
                "truth": truth.tolist(),
                "seconds": round(sum(record.result.seconds for record in records), 1),
                **about(),
            },
        )
        print(row, rows[-1], file=sys.stderr, flush=True)


def main() -> None:
    """Run a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data-root", help="of torchvision's MNIST, or of the image folders")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="for decoded image folders")
    parser.add_argument("--row", metavar="NAME", help="measure one row alone")
    parser.add_argument("--number", type=int, default=60, help="of settings (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="for sets and the journal (default: one within that of --out)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: a new one)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run(arguments.case, arguments)


if __name__ == "__main__":
    main()
