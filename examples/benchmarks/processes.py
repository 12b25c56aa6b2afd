"""Time two processes against one on the same work, in pairs, and see that they give the same bits.

python examples/benchmarks/processes.py --mnist DIR

Each process has one thread. Times are of a whole command, start included: by the clock, which says little on a machine
with other work, so the load before each pair is written down; and of the processors, of all processes together, which
other work hardly moves. Were the work cut in two without any loss, that would be the same, and the clock's half.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.distillation import versions

WORK = {
    "dm, 1 image a class": "distill dm --images-per-class 1 --steps 200 -o {0}/set.safetensors",
    "dm, 10 images a class": "distill dm --images-per-class 10 --steps 100 -o {0}/set.safetensors",
    "ncfm, 10 images a class": "distill ncfm --images-per-class 10 --steps 50 -o {0}/set.safetensors",
    "experts, 4 of 200 steps": "experts --network convnet:width=32 -n 4 --epochs 1 --epoch-steps 200 -o {0}",
    "evaluate, 4 networks": "evaluate {1} --no-baselines --repeats 4 --protocol quick --json",
}
"""What is done -> the command, of a folder for results and a set."""


def timed(words: str, folder: str, given: str, mnist: str, number: int) -> tuple[float, float]:
    """Run a command with a number of processes; return its seconds by the clock and of the processors."""
    data = ["--data", "mnist", "--data-root", mnist, "--device", "cpu"]
    start = ["-m", "torch.distributed.run", f"--nproc-per-node={number}"] if number > 1 else []
    command = [sys.executable, *start, "-m", "ddplug", *words.format(folder, given).split(), *data]
    began, spent = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with Path(folder, "out").open("w") as out:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=out, stderr=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    return time.monotonic() - began, processor


def found(folder: str) -> dict[str, Any]:
    """Return the numbers that a command left in a folder."""
    files = sorted(Path(folder).glob("*.safetensors"))
    tensors = {f"{path.name} {name}": t for path in files for name, t in load_file(path).items()}
    text = Path(folder, "out").read_text()
    return tensors or {"accuracies": torch.tensor(json.loads(text)["networks"][0]["accuracies"])}


def measure(what: str, given: str, mnist: str, pairs: int) -> dict[str, Any]:
    """Time pairs of one and two processes."""
    times: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    loads, same = [], True
    for _ in range(pairs):
        loads.append(os.getloadavg()[0])
        results = []
        for number in times:
            with tempfile.TemporaryDirectory() as folder:
                times[number].append(timed(WORK[what], folder, given, mnist, number))
                results.append(found(folder))
        same &= all(torch.equal(results[0][name], results[1][name]) for name in {**results[0], **results[1]})
    ratios = [one / two for (one, _), (two, _) in zip(times[1], times[2], strict=True)]
    (one, one_cpu), (two, two_cpu) = (map(statistics.median, zip(*times[number], strict=True)) for number in times)
    return {
        "work": what,
        "one (s)": round(one, 1),
        "two (s)": round(two, 1),
        "times faster": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        "one, processors (s)": round(one_cpu, 1),
        "two, processors (s)": round(two_cpu, 1),
        "same bits": "yes" if same else "no",
        "load before": round(max(loads), 1),
    }


def main() -> None:
    """Measure every row and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, help="folder of MNIST")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--only", choices=WORK, action="append", help="rows to measure (default: all)")
    home = Path(__file__).parents[2] / "docs" / "benchmarks"
    parser.add_argument("--out", type=Path, default=home / "processes.json")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        given = str(Path(folder, "set.safetensors"))
        timed("distill random -o {1}", folder, given, arguments.mnist, 1)
        rows = [measure(what, given, arguments.mnist, arguments.pairs) for what in arguments.only or WORK]
    cores = os.cpu_count() or 1
    busy = max(row["load before"] for row in rows) > 0.5
    result = {
        "title": "Two processes instead of one",
        "claim": "Wanted: 1.6 times faster, with the same bits."
        + (" Other work ran on the machine, so the times say little; the bits do not mind." if busy else ""),
        "rows": rows,
        "how": "python examples/benchmarks/processes.py --mnist DIR",
        "machine": f"{cores} CPU cores, one thread a process",
        "versions": versions(),
        "seconds": time.monotonic() - began,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
