"""What bfloat16 is worth on a machine: time of a step, and time and accuracy of an evaluation.

    python examples/benchmarks/precision.py
    python examples/benchmarks/precision.py --row width-128

Time is that of the processor, with one thread, which other work on the machine hardly moves. Steps are taken in pairs,
one in each precision; the ratio is the median over the pairs, with the smallest and largest one. Rows that are there
are kept.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import ddplug
from ddplug.networks.factory import build
from ddplug.networks.functional import loss_gradient
from ddplug.networks.precision import PRECISIONS, computing

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.results import ResultFile, add_row_options, chosen, in_order_of, machine

STEPS = {
    "width-32": "convnet:width=32",
    "width-128": "convnet:width=128",
    "batch-norm-64": "convnet:width=64,norm=batch",
}
"""Name of a row -> network that takes the steps."""

DIGITS = "digits-32"
"""Name of the row of accuracies."""

_PAIRS, _BATCH, _SHAPE = 7, 128, (3, 32, 32)
_SEEDS = 3


def _units() -> str:
    """Say which units for bfloat16 the processor has, where the system tells."""
    file = Path("/proc/cpuinfo")
    flags = set(file.read_text().split()) if file.exists() else set()
    known = [said for flag, said in {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}.items() if flag in flags]
    return f"with {' and '.join(known)}" if known else "without units for bfloat16 that are known of"


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _row(what: str, network: str, cells: list[str], ratios: list[float]) -> dict[str, Any]:
    return {
        "measured": what,
        "network": network,
        **dict(zip(PRECISIONS, cells, strict=True)),
        "times as fast": round(statistics.median(ratios), 2),
        "between": f"{min(ratios):.2f} and {max(ratios):.2f}",
    }


def step(network: str) -> dict[str, Any]:
    """Time forward and backward passes of a network, in pairs."""
    rng = torch.Generator().manual_seed(0)
    module = build(network, _SHAPE, 10, rng).train()
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    x, y = torch.randn(_BATCH, *_SHAPE, generator=rng), torch.randint(10, (_BATCH,), generator=rng)
    found: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(_PAIRS + 1):
        for precision, seconds in found.items():
            with computing(precision):
                seconds.append(_seconds(partial(loss_gradient, module, tensors, x, y)))
    exact, rounded = (seconds[1:] for seconds in found.values())  # the first pair warms up
    cells = [f"{statistics.median(seconds):.3f} s" for seconds in (exact, rounded)]
    ratios = [one / other for one, other in zip(exact, rounded, strict=True)]
    return _row("a step on 128 images of 3x32x32", network, cells, ratios)


def digits(network: str = "convnet:width=32", seeds: int = _SEEDS) -> dict[str, Any]:
    """Evaluate sets of ten real digits a class, one of each seed, in both; the error is that of the mean difference."""
    data = [ddplug.load_dataset("digits", split=split) for split in ("train", "test")]
    accuracies: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    ratios = []
    for seed in range(seeds):
        made = ddplug.distill(data[0], "random", images_per_class=10, seed=seed, device="cpu")
        times = []
        for precision, own in accuracies.items():
            began = time.process_time()
            found = ddplug.evaluate(
                made, data[1], network=network, repeats=2, recipe="quick", seed=seed, precision=precision, device="cpu"
            )
            times.append(time.process_time() - began)
            own += [100 * accuracy for accuracy in found.accuracies]
        ratios.append(times[0] / times[1])
    exact, rounded = accuracies.values()
    # both precisions train the same networks on the same sets
    more = [other - one for one, other in zip(exact, rounded, strict=True)]
    error = statistics.stdev(more) / len(more) ** 0.5
    cells = [f"{statistics.fmean(exact):.2f} %", f"{statistics.fmean(more):+.2f} ± {error:.2f} points"]
    return _row(f"evaluating {seeds} sets of ten real digits a class, 2 networks each", network, cells, ratios)


ROWS: dict[str, Callable[[], dict[str, Any]]] = {
    **{name: partial(step, network) for name, network in STEPS.items()},
    DIGITS: digits,
}


def main() -> None:
    """Measure the rows that are missing, and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_row_options(parser)
    arguments = parser.parse_args()
    kept = ResultFile(arguments.out / "precision.json", "row", clock=time.process_time)
    missing = kept.missing(chosen(ROWS, arguments.row, str), lambda name: (name,))
    torch.set_num_threads(1)
    ddplug.keep_memory()
    for name in missing:
        kept.add(
            {"row": name, **ROWS[name]()},
            in_order_of(ROWS, "row"),
            title="Networks in bfloat16",
            claim="What a step and an evaluation cost in bfloat16 beside float32, in CPU time, and what becomes of the "
            "accuracy. Another processor gives another ratio: without units for bfloat16 it is slower.",
            how="python examples/benchmarks/precision.py",
            machine=machine(f" {_units()}, threads used: 1"),
        )


if __name__ == "__main__":
    main()
