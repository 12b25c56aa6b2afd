"""How far cheap training ranks architectures as full training does; writes nni-ranking-*.json.

    python examples/benchmarks/nni_ranking.py mnist --data-root DIR --folder DIR
    python examples/benchmarks/nni_ranking.py cifar10 --data-root FOLDER_OF_IMAGE_FOLDERS --folder DIR
    python examples/benchmarks/nni_ranking.py cells --data-root FOLDER_OF_IMAGE_FOLDERS --folder DIR

Random architectures of a narrow variant of a published space are trained in full, and judged by proxies that cost a
fiftieth each. Everything goes through one journal in ``--folder``: it may be stopped at any time. ``--row NAME``
trains by one proxy alone, and writes no result file: the rows are compared on the same architectures.
Nothing touches the test data: full training is on nine tenths of the training data, and judged on the other tenth; the
proxies see a fixed 1,000 samples of that tenth. How the proxies are trained was settled on the first 35 architectures
on MNIST; the others, and the other cases, had no part in it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from nni.nas.hub.pytorch import NasBench201

sys.path.insert(0, str(Path(__file__).parents[2]))

import ddplug
from ddplug.data.labeled import LabeledData
from ddplug.distillers.dm import DM
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.selection.kmeans import KMeansCentroid
from ddplug.distillers.selection.random_ import Random
from ddplug.evaluation.ranking import spearman
from ddplug.nni import ConvNetSpace, architectures
from ddplug.nni.spaces import candidates
from ddplug.search import Judge, Protocol, Study
from ddplug.search.agreement import EARLY
from ddplug.search.budget import data_file, steps_within
from ddplug.synthetic import SyntheticSet
from ddplug.utils.text import table
from examples.benchmarks.search_common import fresh, missing, write

SHARE = 1 / 50
SCORED = 1000
FULL_SEEDS = 2
ZERO = ("parameters", "flops", "gradient-norm", "synflow", "nwot")


@dataclass(frozen=True)
class Case:
    """A space, the data, and what counts as full training."""

    title: str
    data: str
    space: Callable[[], Any]
    number: int
    epochs: int
    claim: str
    seen: int = 0
    """Architectures that had a part in settling how the proxies are trained."""


def _narrow(shape: tuple[int, ...]) -> Callable[[], Any]:
    return lambda: ConvNetSpace(shape, 10, widths=(4, 8, 16))


_WANTED = (
    "a Spearman correlation of 0.80 with full training at a fiftieth of its cost, above random, k-means and early "
    "stopping; a regret of at most 1 point."
)
_CELLS = "a Kendall correlation of 0.3 at a fiftieth of the cost, above random, k-means and early stopping."
_JPEG = "on CIFAR-10 (a slightly lossy JPEG copy)"

CASES = {
    "mnist": Case("ConvNets of width 4, 8 and 16 on MNIST", "mnist", _narrow((1, 28, 28)), 50, 2, _WANTED, 35),
    "cifar10": Case(f"ConvNets of width 4, 8 and 16 {_JPEG}", "cifar10", _narrow((3, 32, 32)), 40, 3, _WANTED),
    "cells": Case(
        f"NAS-Bench-201 cells, 4 channels, one cell a stage, {_JPEG}",
        "cifar10",
        lambda: NasBench201(stem_out_channels=4, num_modules_per_stack=1, num_labels=10),
        30,
        2,
        _CELLS,
    ),
}
"""Command -> what is measured. The published space has widths 32 to 256; two cores cannot train these."""

_DM = DM(images_per_class=10, network="convnet:width=16", steps=300, pool_size=30)

METHODS: dict[str, tuple[Any, int]] = {
    "random": (Random(images_per_class=10), 1),
    "k-means": (KMeansCentroid(images_per_class=10), 1),
    "DM": (_DM, 1),
    "random, 4 small": (Random(images_per_class=40), 2),
    "DM, 4 small": (replace(_DM, factor=2), 1),
    "NCFM, 4 small": (NCFM(images_per_class=10, network="convnet:width=16", steps=300, pool_size=30), 1),
}
"""Name -> how the images are made and what they are then reduced by; all are stored as bytes, and take equally many."""

ENDING = ", as in full training"

TRAININGS: dict[str, dict[str, Any]] = {
    "": {"learning_rate": 0.05, "batch_size": 100, "schedule": "constant", "seeds": 2},
    ENDING: {"learning_rate": 0.02, "batch_size": 64, "seeds": 1},
}
"""Ending of a name -> how a proxy is trained."""


def _data(case: Case, root: str) -> tuple[LabeledData, LabeledData]:
    name = "mnist" if case.data == "mnist" else f"imagefolder:{root}"
    train = ddplug.load_dataset(name, split="train", root=root if case.data == "mnist" else None)
    return train.split(0.1)


def _saved(path: Path, make: Callable[[], SyntheticSet]) -> Path:
    if not path.exists():
        make().save(path)
    return path


def _distilled(train: LabeledData, distiller: Any, factor: int) -> SyntheticSet:
    return ddplug.distill(train, distiller, device="cpu").reduced(factor).quantize()


def study(case: Case, arguments: argparse.Namespace) -> Study:
    """Write the files that are missing and plan who is judged by what: all proxies of one training take equal steps."""
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    train, rest = _data(case, arguments.data_root)
    parts = {"whole": train, "validation": rest, "small": rest.split(SCORED / len(rest))[1]}
    whole, validation, small = (data_file(data, folder / f"{name}.safetensors") for name, data in parts.items())
    common: dict[str, Any] = {"device": "cpu", "augment": ""}
    protocol = Protocol(epochs=case.epochs, learning_rate=0.02, batch_size=64, seeds=FULL_SEEDS, **common)
    full = Judge(whole, validation, protocol)
    sets: dict[str, Path] = {EARLY: whole}
    wanted = {EARLY, *METHODS} if arguments.row is None else {arguments.row.removesuffix(ENDING)}
    for name, (distiller, factor) in {} if arguments.full_only else METHODS.items():
        if name not in wanted:
            continue
        sets[name] = _saved(folder / f"{name}.safetensors", partial(_distilled, train, distiller, factor))
    proxies: dict[str, Judge] = {}
    for ending, training in {} if arguments.full_only else TRAININGS.items():
        budget = SHARE * full.cost / (FULL_SEEDS * training["seeds"])
        steps = steps_within(budget, training["batch_size"], SCORED)
        for name, path in sets.items():
            if arguments.row not in (None, name + ending):
                continue
            proxies[name + ending] = Judge(path, small, Protocol(steps=steps, **training, **common))
    samples = architectures(case.space(), case.number)[: arguments.first]
    drawn = candidates(case.space(), samples)
    return Study(drawn, full, proxies, folder, zero=() if arguments.full_only else ZERO)


def _cells(case: Case, done: Study) -> list[dict[str, Any]]:
    """Return flat rows for the table, the best rank correlation first."""
    judged = done.judged()
    truth, unseen = judged["full"], range(case.seen, len(judged["full"]))
    rows = []
    for row in done.rows():
        cost = row["cost"]
        value, low, high = row["spearman"]
        cells = {
            "proxy": row["name"],
            "cost": f"1/{1 / cost:.0f}" if cost else "none",
            "steps": done.proxies[row["name"]].protocol.steps if cost else None,
            "Spearman": value,
            "95 % interval": f"{low:.2f} to {high:.2f}",
            "Kendall": row["kendall"][0],
            "top 5": row["overlap"]["5"][0],
            "regret (points)": 100 * row["regret"][0],
            "CPU s a candidate": row["seconds"],
            "failed": row["failed"],
        }
        if case.seen:
            own = judged[row["name"]]
            cells["Spearman, unseen"] = spearman([own[n] for n in unseen], [truth[n] for n in unseen])
        rows.append(cells)
    return rows


def _ensemble(signals: Sequence[Sequence[float]], truth: Sequence[float], known: int, draws: int = 400) -> float:
    """Correlation, on the other architectures, of the signals' ranks weighed by what a handful of them teach.

    The weights are those of a ridge regression towards equal ones, of the true ranks on the signals' ranks; the figure
    is the mean over random handfuls of ``known`` architectures.
    """
    number = len(truth)
    ranks = torch.stack([torch.tensor(values).argsort().argsort() / number - 0.5 for values in (*signals, truth)], 1)
    rng, equal, found = torch.Generator().manual_seed(0), torch.full((len(signals),), 1 / len(signals)), []
    for _ in range(draws):
        order = torch.randperm(number, generator=rng)
        inputs, targets = ranks[order[:known], :-1], ranks[order[:known], -1]
        gram = inputs.T @ inputs + 0.3 * torch.eye(len(signals))
        weights = equal + torch.linalg.solve(gram, inputs.T @ (targets - inputs @ equal))
        others = order[known:].tolist()
        found.append(spearman((ranks[others, :-1] @ weights).tolist(), [truth[n] for n in others]) or 0.0)
    return sum(found) / len(found)


def _ensembles(judged: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return what ensembles of the proxies come to, and the best of them, fitted on ten architectures."""
    proxies = {name: values for name, values in judged.items() if name not in (*ZERO, "full")}
    groups = {
        "all proxies": list(proxies),
        "proxies of few large steps": [name for name in proxies if not name.endswith(ENDING)],
        "proxies trained as in full": [name for name in proxies if name.endswith(ENDING)],
        "all proxies and untrained scores": [*proxies, *ZERO],
        "early stopping and untrained scores": [f"{EARLY}{ENDING}", *ZERO],
    }
    truth = judged["full"]
    return [
        {"signals": group, "fitted on": known, "Spearman": _ensemble([judged[n] for n in names], truth, known)}
        for group, names in groups.items()
        for known in (5, 10)
    ]


def _write(path: Path, name: str, case: Case, done: Study, rows: list[dict[str, Any]]) -> None:
    records = [record for each in done.judges for record in done.records(each) if record]
    judged = done.judged()
    result = {
        "title": f"Ranking {case.title}",
        "claim": f"Wanted: {case.claim} {len(judged['full'])} random architectures, trained in full for {case.epochs} "
        "epochs of nine tenths of the training data and judged on the other tenth; the cost of distilling, which is "
        "paid once, is not in it.",
        "rows": rows,
        "ensembles": _ensembles(judged),
        "how": f"python examples/benchmarks/nni_ranking.py {name} --data-root DIR --folder DIR",
        "samples": [dict(sample) for sample in done.candidates.samples],
        "scores": done.scores(),
        "ceiling": done.ceiling(),
        "judged": judged,
        "seconds": sum(record.result.seconds for record in records),
        "machine": f"{os.cpu_count()} CPU cores, one thread",
        "versions": {
            "ddplug": ddplug.__version__,
            "nni": version("nni"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }
    write(path, result)


def main() -> None:
    """Train and judge what the folder does not have, and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data-root", required=True, help="of torchvision's MNIST, or of the image folders")
    parser.add_argument("--folder", required=True, type=Path, help="for sets and the journal; the same one goes on")
    parser.add_argument("--row", metavar="NAME", help="one proxy alone, and no result file")
    parser.add_argument("--out", type=Path, help="folder for the result (default: a new one)")
    parser.add_argument("--first", type=int, help="only this many architectures, and no result file")
    parser.add_argument("--full-only", action="store_true", help="only the full trainings, and no result file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    case = CASES[arguments.case]
    path = fresh(arguments.out, "nni-ranking") / f"nni-ranking-{arguments.case}.json"
    names = [name + ending for ending in TRAININGS for name in (*METHODS, EARLY)]
    if not missing(path, "proxy", names, arguments.row):
        return
    done = study(case, arguments)
    done.run(lambda line: print(line, file=sys.stderr, flush=True))
    if not arguments.full_only:
        rows = _cells(case, done)
        if not arguments.first and not arguments.row:
            _write(path, arguments.case, case, done, rows)
        print(table([tuple(rows[0]), *(tuple(map(str, row.values())) for row in rows)]))


if __name__ == "__main__":
    main()
