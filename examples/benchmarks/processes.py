"""Time two processes against one on the same work, in pairs, and see that they give the same bits.

    python examples/benchmarks/processes.py --mnist DIR
    python examples/benchmarks/processes.py --mnist DIR --row dm --row ncfm

Each process has one thread. Times are of a whole command by the clock, so they say little on a machine with other work:
the load before each pair is written down. The start of Python, PyTorch and ``torchrun`` and the reading of the data are
timed by a command that does next to nothing else; ``work, times faster`` leaves them out, as for a longer run. Seconds
of the processors are of all processes together: without any loss they would not grow.
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
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.results import ResultFile, add_row_options, chosen, in_order_of, machine

WORK = {
    "dm, 1 image a class": "distill dm --images-per-class 1 --steps 100 -o {0}/set.safetensors",
    "ncfm, 10 images a class": "distill ncfm --images-per-class 10 --steps 20 -o {0}/set.safetensors",
    "experts, 2 of 60 steps": "experts --network convnet:width=32 -n 2 --epochs 1 --epoch-steps 60 -o {0}",
    "evaluate, 4 networks": "evaluate {1} --no-baselines --repeats 4 --protocol quick --json",
}
"""What is done -> the command, of a folder for results and a set."""

START = "distill random --images-per-class 1 -o {0}/set.safetensors"
"""A command that does little else than begin."""


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


def starts(mnist: str) -> tuple[float, float]:
    """Return the seconds that one and that two processes take to begin."""
    with tempfile.TemporaryDirectory() as folder:
        one, two = (min(timed(START, folder, "", mnist, number)[0] for _ in range(2)) for number in (1, 2))
    return one, two


def measure(what: str, given: str, mnist: str, pairs: int, start: tuple[float, float]) -> dict[str, Any]:
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
    seconds = [(one, two) for (one, _), (two, _) in zip(times[1], times[2], strict=True)]
    work = [(one - start[0]) / (two - start[1]) for one, two in seconds]
    (one, one_cpu), (two, two_cpu) = (map(statistics.median, zip(*times[number], strict=True)) for number in times)
    return {
        "work": what,
        "one (s)": round(one, 1),
        "two (s)": round(two, 1),
        "times faster": round(statistics.median(one / two for one, two in seconds), 2),
        "start, one and two (s)": f"{start[0]:.1f} and {start[1]:.1f}",
        "work, times faster": f"{statistics.median(work):.2f} ({min(work):.2f} to {max(work):.2f})",
        "one, processors (s)": round(one_cpu, 1),
        "two, processors (s)": round(two_cpu, 1),
        "same bits": "yes" if same else "no",
        "load before": round(max(loads), 1),
    }


def _claim(rows: Iterable[Mapping[str, Any]]) -> str:
    busy = max(row["load before"] for row in rows) > 2  # of which one or two are the row before
    return "Wanted: 1.6 times faster, with the same bits." + (
        " Other work ran on the machine, so the times say little; the bits do not mind." if busy else ""
    )


def main() -> None:
    """Measure the rows that are missing, and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="folder of MNIST")
    parser.add_argument("--pairs", type=int, default=2, help="of runs for each row (default: %(default)s)")
    add_row_options(parser)
    arguments = parser.parse_args()
    kept = ResultFile(arguments.out / "processes.json", "work")
    missing = kept.missing(chosen(WORK, arguments.row, str), lambda what: (what,))
    if not missing:
        return
    if arguments.mnist is None:
        parser.error("--mnist is missing; give the folder of MNIST")
    with tempfile.TemporaryDirectory() as folder:
        given = str(Path(folder, "set.safetensors"))
        timed("distill random -o {1}", folder, given, arguments.mnist, 1)
        start = starts(arguments.mnist)
        for what in missing:
            found = measure(what, given, arguments.mnist, arguments.pairs, start)
            kept.add(
                found,
                in_order_of(WORK, "work"),
                title="Two processes instead of one",
                claim=_claim([*kept.rows, found]),
                how="python examples/benchmarks/processes.py --mnist DIR",
                machine=machine(", one thread a process"),
            )


if __name__ == "__main__":
    main()
