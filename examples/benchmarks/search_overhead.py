"""What judging costs over a bare training loop, in CPU time; writes search-overhead.json.

    python examples/benchmarks/search_overhead.py

One network on 100 digits, trained and scored by a :class:`ddplug.search.Judge` and by a loop of torch's own optimizer,
in pairs, on one thread. A warm worker's time is that of both processes. ``--row NAME`` measures one way alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

import ddplug
from ddplug.networks.factory import build
from ddplug.search import Judge, Protocol, Workers
from examples.benchmarks.search_common import about, fresh, known, missing, write

NETWORK = "convnet:width=16,depth=2"
STEPS, BATCH, RATE = 300, 50, 0.02


@dataclass(frozen=True)
class Way:
    """A way to judge.

    Attributes:
        steps: of a training.
        journal: whether results are written down.
        place: ``"here"``, ``"worker"`` or ``"new"``, which is a process for each candidate.
        pairs: that are measured.
    """

    steps: int
    journal: bool
    place: str
    pairs: int = 9


WAYS = {
    "this process": Way(STEPS, False, "here"),
    "this process, journal": Way(STEPS, True, "here"),
    "warm worker, journal": Way(STEPS, True, "worker"),
    "warm worker, journal, one step": Way(1, True, "worker", 9),
    "a process for each, journal, one step": Way(1, True, "new", 2),
}


def bare(train: Any, rest: Any, steps: int) -> float:
    """Train and score as a script would."""
    network = build(NETWORK, train.shape, train.num_classes, torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(network.parameters(), RATE, 0.9, weight_decay=5e-4)
    x, y = train.inputs, train.targets
    network.train()
    done = 0
    while done < steps:
        for index in torch.randperm(len(x)).split(BATCH)[: steps - done]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[index]), y[index]).backward()
            optimizer.step()
            done += 1
    network.eval()
    with torch.no_grad():
        parts = zip(rest.inputs.split(256), rest.targets.split(256), strict=True)
        return sum(int((network(a).argmax(1) == b).sum()) for a, b in parts) / len(rest)


def _cpu(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


def _in_new(folder: Path, journal: Path) -> float:
    """Judge in a process of its own, and return what it took."""
    before = psutil.Process().cpu_times()
    command = [sys.executable, __file__, "--judge", str(folder), str(journal)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = psutil.Process().cpu_times()
    return float(after.children_user + after.children_system - before.children_user - before.children_system)


def judged(folder: Path, journal: Path | None, steps: int) -> Judge:
    """Return the judge."""
    protocol = Protocol(steps=steps, batch_size=BATCH, learning_rate=RATE, schedule="constant", augment="")
    files = folder / "train.safetensors", folder / "rest.safetensors"
    return Judge(*files, replace(protocol, device="cpu"), journal)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Measure a way in pairs."""
    way = WAYS[name]
    judge = judged(folder, folder / f"{name}.jsonl" if way.journal else None, way.steps)
    train, rest = judge.sets()
    ours, theirs = [], []
    with ExitStack() as stack:
        workers = stack.enter_context(Workers(threads=1)) if way.place == "worker" else None
        own, worker = replace(judge, workers=workers), os.getpid()
        for pair in range(way.pairs + 1):
            if way.place == "new":
                ours.append(_in_new(folder, folder / f"{name}-{pair}.jsonl"))
            else:
                before = time.process_time() + (_cpu(worker) if worker != os.getpid() else 0.0)
                record = own(NETWORK, {"pair": pair})
                both = time.process_time() + (_cpu(record.pid) if record.pid != os.getpid() else 0.0)
                ours.append(both - before)
                worker = record.pid
            began = time.process_time()
            bare(train, rest, way.steps)
            theirs.append(time.process_time() - began)
    # the first pair warms the processes
    pairs = list(zip(ours, theirs, strict=True))[0 if way.place == "new" else 1 :]
    ratios = [mine / bare for mine, bare in pairs]
    over = [mine - bare for mine, bare in pairs]
    return {
        "where": name,
        "steps": way.steps,
        "judging (CPU s)": round(statistics.median(mine for mine, _ in pairs), 3),
        "bare loop (CPU s)": round(statistics.median(bare for _, bare in pairs), 3),
        "ratio": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "greatest": round(max(ratios), 3),
        "more (CPU s)": round(statistics.median(over), 3),
        "pairs": len(pairs),
    }


def files(folder: Path) -> None:
    """Write the two sets."""
    train, rest = ddplug.load_dataset("digits").split(0.2)
    ddplug.distill(train, "random", images_per_class=10, device="cpu").save(folder / "train.safetensors")
    ddplug.holdout(rest).save(folder / "rest.safetensors")


def main() -> None:
    """Measure the rows that are missing, and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", metavar="NAME", help="measure one way alone")
    parser.add_argument("--out", type=Path, help="folder for the result (default: a new one)")
    parser.add_argument("--judge", nargs=2, type=Path, metavar="PATH", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.judge:
        folder, journal = arguments.judge
        judged(folder, journal, 1)(NETWORK)
        return
    path = fresh(arguments.out, "search-overhead") / "search-overhead.json"
    for name in missing(path, "where", WAYS, arguments.row):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            files(Path(folder))
            rows = [*known(path), measure(name, Path(folder))]
        result = {
            "title": "Judging a candidate beside a bare loop",
            "claim": "Wanted: at most 1.05 times the CPU time of a bare loop, and less than 0.3 s more for a candidate "
            "in a warm process. Medians of pairs; with one step the network is hardly trained, and what is left is the "
            "price of a trial.",
            "rows": sorted(rows, key=lambda row: list(WAYS).index(row["where"])),
            "how": "python examples/benchmarks/search_overhead.py",
            "seconds": round(time.monotonic() - began, 1),
            **about(),
        }
        write(path, result)
        print(*rows[-1].values(), sep="  ", flush=True)


if __name__ == "__main__":
    main()
