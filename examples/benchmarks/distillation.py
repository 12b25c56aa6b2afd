"""Distill real data with the methods of the table, evaluate as the papers do.

Every row is distilled and evaluated in a process of its own, so that its peak memory is its own; rows that the result
file already has are kept, so that the benchmark can be stopped and continued. The file is written into a folder of its
own; ``--out docs/benchmarks`` goes on with the figures of the documentation. ``--row`` measures a few rows only.

    python examples/benchmarks/distillation.py mnist-1 --data mnist --data-root DIR --row dm --row random
    python examples/benchmarks/distillation.py mnist-1 --data mnist --data-root DIR
    python examples/benchmarks/distillation.py cifar10-10 --data imagefolder:DIR
    python examples/benchmarks/distillation.py cross --data mnist --data-root DIR

Everything here was chosen on a held-out part of the training data; the test set is touched once a row, at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.results import (
    add_row_options,
    chosen,
    machine,
    read,
    say_what_is_there,
    source,
    versions,
    write,
)

NETWORK = "convnet"
"""ConvNet-3 of width 128: what the papers evaluate with."""


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        method: registered name.
        options: of the method.
        networks: that judge it, of each architecture.
        augment: what they are trained with, if not the set's own.
        reduced: factor by which a selection's images are stored smaller.
        quantized: whether a number takes ``bits``, or four bytes.
        bits: that a number takes.
        epochs: of training the judges, where not those of the recipe.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    networks: int = 5
    augment: str | None = None
    reduced: int = 1
    quantized: bool = True
    bits: int = 8
    epochs: int | None = None

    @property
    def key(self) -> str:
        """The row's name in the result file, and its way into a process of its own."""
        values = asdict(self)
        for name in ("reduced", "quantized", "bits", "epochs"):
            if values[name] == getattr(Entry, name):
                del values[name]
        return json.dumps(values, sort_keys=True)


@dataclass(frozen=True)
class Benchmark:
    """A table.

    Attributes:
        title: of the table.
        claim: what was to be shown.
        rows: of the table.
        judges: architectures; with several, labels are made hard and every set is trained on in the same way.
        epochs: of training the judges, where not those of the recipe.
        as_learned: whether distilled sets are trained on by the steps and learning rates that were learned with them.
        published: accuracies in the literature by name of the method, with where they were read.
    """

    title: str
    claim: str
    rows: tuple[Entry, ...]
    judges: tuple[str, ...] = (NETWORK,)
    epochs: int | None = None
    as_learned: bool = False
    published: dict[str, str] = field(default_factory=dict)


def _baselines(n: int, networks: int) -> tuple[Entry, ...]:
    names = ("random", "kmeans-centroid", "kmeans")
    return tuple(Entry(name, {"images_per_class": n}, networks) for name in names)


_BANK = {"network": "convnet:width=32", "batch_real": 64, "init_from": "kmeans", "pool_size": 60}
_GRADIENTS = {
    **_BANK,
    "images_per_class": 1,
    "batch_real": 256,
    "init_from": "noise",
    "learning_rate": 1.0,
    "steps": 2000,
}

_ONE = {"images_per_class": 1}
_SMALL = {**_ONE, "batch_real": 128, "pool_size": 20, "steps": 500, "learning_rate": 1.0}

_UNROLLED = {
    "initialization": "fixed",
    "epochs": 5,
    "batch_real": 256,
    "learning_rate": 0.02,
    "halve_every": 3000,
    "steps": 20_000,
}

_ANNEALED = {**_UNROLLED, "batch_real": 1024, "halve_every": 0}
"""Soft labels want the published real batch: 95.4 % of the training data with 256 images, 96.6 with 1,024."""

_EVERY = (
    *(Entry(name, _ONE, 3) for name in ("random", "class-mean", "kmeans")),
    *(Entry(name, {"images_per_class": 4}, 3, reduced=2) for name in ("random", "kmeans", "kmeans-centroid")),
    Entry("dm", {**_ONE, "steps": 300}, 3),
    Entry("dm", {**_ONE, "steps": 300, "factor": 2}, 3),
    Entry("ncfm", {**_ONE, "steps": 300, "pool_size": 30}, 3),
    Entry("idm", {**_ONE, "steps": 300}, 3),
    Entry("idc", {**_ONE, "steps": 300}, 3),
    Entry("dc", {**_SMALL, "init_from": "noise"}, 3),
    Entry("dsa", _SMALL, 3),
    Entry("frepo", {**_ONE, "steps": 1000}, 3),
    Entry("mtt", _ONE, 3),
    Entry("dd", {**_ONE, "steps": 500}, 3),
    Entry("soft-label-dd", {**_ONE, "steps": 500}, 3),
    Entry("rded", _ONE, 3),
    Entry("sre2l", _ONE, 3),
    Entry("whole", {"steps": 1000}, 1),
)
"""Every method, in the bytes of one image a class, in a few minutes at most."""


BENCHMARKS = {
    "cross": Benchmark(
        "MNIST, the bytes of 1 image per class, other architectures",
        "Every method, for a few minutes at most, judged with hard labels on two architectures that it was not "
        "distilled with (ConvNets all, but LeNet for dd and soft-label-dd), all trained in the same way.",
        _EVERY,
        ("mlp", "lenet"),
    ),
    "mnist-1": Benchmark(
        "MNIST, 1 image per class",
        "Wanted: DM 88 % after at most 30 s of distilling on two CPU cores, DC and DSA 89 % after at most 10 minutes, "
        "the best method 93 % after as many.",
        (
            Entry("dm", {**_BANK, "images_per_class": 1, "steps": 300}),
            Entry("dc", _GRADIENTS, augment="crop_scale_rotate"),
            Entry("dsa", _GRADIENTS),
            Entry("frepo", {"images_per_class": 1, "steps": 1500}),
            *_baselines(1, 3),
            Entry("whole", {"steps": 1000}, 1),
        ),
        published={
            "dc": "91.7 ± 0.5 [KIP]",
            "dsa": "88.7 ± 0.6 [KIP]",
        },
    ),
    "mnist-10": Benchmark(
        "MNIST, 10 images per class",
        "Wanted: DM 96.5 % after at most 3 minutes of distilling on two CPU cores, the best method 98 %.",
        (
            Entry("dm", {**_BANK, "images_per_class": 10, "steps": 500}, 2),
            *_baselines(10, 1),
            Entry("kmeans", {"images_per_class": 300}, 1, reduced=2, bits=1, epochs=201),
            Entry("whole", {"steps": 1000}, 1),
        ),
    ),
    "mnist-lenet": Benchmark(
        "MNIST, for one initial LeNet",
        "Wanted: DD 94 % with 10 images, soft-label DD 96 % with 10 and 92 % with 5. Their sets are trained on as they "
        "were learned to be, in 5 steps from the initial weights they are for; the others by the papers' evaluation.",
        (
            *(
                Entry(method, options, 1, quantized=quantized)
                for method, options in (
                    ("dd", {**_UNROLLED, "images_per_class": 1}),
                    ("soft-label-dd", {**_ANNEALED, "images": 10}),
                    ("soft-label-dd", {**_ANNEALED, "images": 5}),
                )
                for quantized in (True, False)
            ),
            *(Entry(name, _ONE) for name in ("random", "class-mean", "kmeans")),
            Entry("whole", {"steps": 1000}, 1),
        ),
        ("lenet:init=xavier",),
        as_learned=True,
        published={
            "dd": "94 [README]",
            "soft-label-dd, 10 images": "96 [README]",
            "soft-label-dd, 5 images": "92 [README]",
        },
    ),
    "cifar10-10": Benchmark(
        "CIFAR-10 (a slightly lossy JPEG copy, read as an image folder), 10 images per class",
        "Wanted: DM 40 % after at most 10 minutes of distilling on two CPU cores, the best method 50 % after 30.",
        (
            Entry("dm", {**_BANK, "images_per_class": 10, "init_from": "real", "pool_size": 100, "steps": 2000}, 2),
            Entry("ncfm", {"images_per_class": 10, "steps": 1000, "pool_size": 40}, 1),
            *_baselines(10, 1),
            Entry("whole", {"steps": 3000}, 1),
        ),
        published={
            "random": "26.0 ± 1.2 [NCFM]",
            "dm": "48.9 ± 0.6 [NCFM]",
            "ncfm": "71.8 ± 0.3 [NCFM]",
            "whole": "84.8 ± 0.1 [NCFM]",
        },
    ),
}


def _load(arguments: argparse.Namespace) -> tuple[Any, Any]:
    from ddplug.data.datasets import load

    where = {"root": arguments.data_root, "cache": arguments.cache}
    pair = [load(arguments.data, split=split, **where) for split in ("train", "test")]
    if not arguments.validate:
        return pair[0], pair[1]
    train, held = pair[0].split(0.1)
    return train, held


def _made(entry: Entry, train: Any, seed: int, keep: Path | None) -> Any:
    """Distill, or go on where an interrupted run stopped, or take what is kept."""
    from ddplug import SyntheticSet, distill, registry

    method = registry.resolve("distiller", entry.method)(**entry.options)
    if keep is None:
        return distill(train, method, seed=seed)
    what = [train.fingerprint, entry.method, entry.options, seed]
    name = sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    path, checkpoint = keep / f"{name}.safetensors", keep / f"{name}.checkpoint"
    if not path.exists():
        keep.mkdir(parents=True, exist_ok=True)
        distill(train, method, seed=seed, checkpoint=checkpoint).save(path)
        checkpoint.unlink(missing_ok=True)
    return SyntheticSet.load(path)


def measure(entry: Entry, arguments: argparse.Namespace) -> dict[str, Any]:
    """Distill and evaluate one row, in this process."""
    from ddplug import registry
    from ddplug.evaluation.comparison import WHOLE_RECIPE
    from ddplug.evaluation.learned import evaluate_as_learned
    from ddplug.evaluation.results import judge
    from ddplug.synthetic import Recipe
    from ddplug.utils.devices import pick_device

    train, test = _load(arguments)
    benchmark = BENCHMARKS[arguments.benchmark]
    judges = benchmark.judges
    sets: list[Any] = [train]
    seconds: float | None = None
    recipe = WHOLE_RECIPE
    if entry.method != "whole":
        method = registry.resolve("distiller", entry.method)(**entry.options)
        # a method that selects draws anew for each network; a distilled set is one set for all of them
        made = [_made(entry, train, seed, arguments.keep) for seed in range(1 if method.steps else entry.networks)]
        seconds = made[-1].provenance["seconds"]
        form: Any = "uint8" if entry.quantized else "float32"
        sets = [found.reduced(entry.reduced).quantize(form, entry.bits) for found in made]
        recipe = sets[0].recipe if entry.augment is None else Recipe.paper(entry.augment)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    whole = entry.method == "whole"
    judged = sets * entry.networks if len(sets) == 1 else sets
    steps = entry.options["steps"] if whole else None
    if len(judges) > 1 and not whole:
        judged = [replace(made, targets=made.hard_targets, half_labels=False) for made in judged]
        recipe = Recipe.paper(train.augmentation)
    epochs = entry.epochs or benchmark.epochs
    if epochs is not None and not whole:
        recipe = replace(recipe, epochs=epochs)
    found: dict[str, float | None] = {}
    for network in judges:
        if benchmark.as_learned and "training" in getattr(sets[0], "provenance", ()):
            result = evaluate_as_learned(sets[0], test, repeats=entry.networks)
        else:
            result = judge(judged, test, network, recipe, seed=0, device=pick_device(), steps=steps)
        accuracies = [100 * a for a in result.accuracies]
        ending = "" if len(judges) == 1 else f", {network}"
        found[f"accuracy (%){ending}"] = round(statistics.fmean(accuracies), 2)
        found[f"deviation{ending}"] = round(statistics.stdev(accuracies), 2) if len(accuracies) > 1 else None
    return {
        "training data": f"whole data, {steps} steps" if whole else entry.method,
        "bytes": train.inputs.numel() * train.inputs.itemsize if whole else sets[0].nbytes,
        "distilling (s)": None if seconds is None else round(seconds, 1),
        "peak memory (MiB)": round(peak),
        **found,
        "networks": entry.networks,
    }


def _options(key: str) -> str:
    """Say in words what a row's key holds but the method."""
    entry = json.loads(key)
    options = [f"{name}={value}" for name, value in entry["options"].items() if name != "images_per_class"]
    judged = [] if entry["augment"] is None else [f"judged with {entry['augment']}"]
    stored = [f"stored smaller by {entry['reduced']}"] if "reduced" in entry else []
    stored += [] if entry.get("quantized", True) else ["not quantized"]
    stored += [f"{entry['bits']} bit{'s' * (entry['bits'] > 1)} a pixel"] if "bits" in entry else []
    judged += [f"judged after {entry['epochs']} epochs"] if "epochs" in entry else []
    return ", ".join(options + stored + judged)


def _shown(row: dict[str, Any], key: str, benchmark: Benchmark) -> dict[str, Any]:
    """Return a row with what its key says: the options, and what the literature has for the method."""
    entry = json.loads(key)
    images = f", {entry['options']['images']} images" if "images" in entry["options"] else ""
    # the literature stores whole images in whole bytes
    stored = {"reduced", "bits"} & entry.keys()
    derived: dict[str, Any] = {"published (%)": None if stored else benchmark.published.get(entry["method"] + images)}
    derived = {**(derived if benchmark.published else {}), "options": _options(key)}
    return {**{name: value for name, value in row.items() if name not in derived}, **derived}


def _run(name: str, arguments: argparse.Namespace, path: Path) -> None:
    """Measure the rows that are missing, and write the file after each."""
    benchmark = BENCHMARKS[name]
    keys = [entry.key for entry in benchmark.rows]
    wanted = [entry.key for entry in chosen(benchmark.rows, arguments.row, lambda entry: entry.method)]
    found = read(path, {"keys": [], "rows": [], "seconds": 0.0})
    rows, seconds = dict(zip(found["keys"], found["rows"], strict=True)), found["seconds"]
    missing = [key for key in wanted if key not in rows]
    say_what_is_there(wanted, missing, path)
    for key in missing:
        began = time.monotonic()
        command = [sys.executable, __file__, *sys.argv[1:], "--entry", key]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows[key] = json.loads(answer)
        seconds += time.monotonic() - began
        kept = [known for known in keys if known in rows]
        result = {
            "title": benchmark.title,
            "claim": benchmark.claim,
            "rows": [_shown(rows[known], known, benchmark) for known in kept],
            "keys": kept,
            "how": f"python examples/benchmarks/distillation.py {name} --data {source(arguments.data)}",
            "machine": machine(),
            "versions": versions(),
            "seconds": seconds,
        }
        write(path, result)
        print(name, rows[key], file=sys.stderr)


def main() -> None:
    """Run a benchmark, or one row of it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root")
    parser.add_argument("--cache", help="folder for decoded images")
    add_row_options(parser)
    parser.add_argument("--keep", type=Path, help="folder for distilled sets, and for checkpoints to go on from")
    parser.add_argument("--validate", action="store_true", help="judge on a held-out tenth of the training data")
    parser.add_argument("--entry", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.entry is not None:
        print(json.dumps(measure(Entry(**json.loads(arguments.entry)), arguments)))
    else:
        _run(arguments.benchmark, arguments, arguments.out / f"distillation-{arguments.benchmark}.json")


if __name__ == "__main__":
    main()
