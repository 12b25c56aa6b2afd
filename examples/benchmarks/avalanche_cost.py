"""Measure what our replay costs beside stock replay: processor seconds of three experiences, side by side.

Split-MNIST, class-incremental, one epoch, batches of 100, the bytes of 10, 100 and 500 images. The strategies take
turns after each experience in one process on one thread, so that whatever else the machine does falls on all;
evaluation is left out.

    python examples/benchmarks/avalanche_cost.py --data-root DIR
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.avalanche_split import STRATEGIES, Entry, _model, _stream, _tensors
from examples.benchmarks.results import OUT, machine, read, versions, write

TITLE = "What replay costs: processor seconds of three experiences of Split-MNIST"

EXPERIENCES = 3
STOCK = "stock Replay"

ROWS: dict[int, dict[str, Entry]] = {
    10: {
        STOCK: Entry("Replay", 10),
        "DistilledReplay, defaults": Entry("DistilledReplay", 10),
        "DistilledReplay, batch_size_mem=50": Entry("DistilledReplay", 10, options={"batch_size_mem": 50}),
        "DistilledReplay, finetune_steps=200": Entry("DistilledReplay", 10, options={"finetune_steps": 200}),
    },
    100: {
        STOCK: Entry("Replay", 100),
        "DistilledReplay, defaults": Entry("DistilledReplay", 100),
        "DistilledReplay, batch_size_mem=100, finetune_steps=400": Entry(
            "DistilledReplay", 100, options={"batch_size_mem": 100, "finetune_steps": 400}
        ),
    },
    500: {STOCK: Entry("Replay", 500), "DistilledReplay, defaults": Entry("DistilledReplay", 500)},
}
"""By images whose bytes the memory may take."""


def seconds(entries: Mapping[str, Entry], experiences: list[Any], seed: int) -> dict[str, float]:
    """Train strategies that take turns, an experience each; return the processor seconds of each."""
    import torch
    from avalanche.training.plugins import EvaluationPlugin

    strategies, spent = {}, dict.fromkeys(entries, 0.0)
    for name, entry in entries.items():
        model = _model("SimpleMLP", (1, 28, 28), seed)
        common = {
            "model": model,
            "optimizer": torch.optim.SGD(model.parameters(), lr=0.05),
            "criterion": torch.nn.CrossEntropyLoss(),
            "train_mb_size": 100,
            "train_epochs": 1,
            "evaluator": EvaluationPlugin(),
        }
        strategies[name] = STRATEGIES[entry.strategy](common, entry, seed)
    for experience in experiences:
        for name, strategy in strategies.items():
            began = time.process_time()
            strategy.train(experience)
            spent[name] += time.process_time() - began
    return spent


def _row(images: int, name: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    ratios = [run[name] / run[STOCK] for run in runs]
    return {
        "strategy": name,
        "bytes of images": images,
        "runs": len(runs),
        "processor time, median (s)": round(statistics.median(run[name] for run in runs), 2),
        "times stock, median": round(statistics.median(ratios), 2),
        "times stock, least and most": f"{min(ratios):.2f} to {max(ratios):.2f}",
    }


def main() -> None:
    """Measure in turns; what was measured is written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="of torchvision's MNIST")
    parser.add_argument("--images", type=int, choices=ROWS, action="append", help="bytes of the memory; all of them")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    path = arguments.out / "replay-cost.json"
    found = read(path, {"runs": {}, "seconds": 0.0})
    wanted = arguments.images or list(ROWS)
    runs = {images: found["runs"].get(str(images), []) if images not in wanted else [] for images in ROWS}
    experiences = list(_stream(_tensors("mnist", arguments.data_root, None, False)).train_stream)[:EXPERIENCES]
    seconds({STOCK: ROWS[10][STOCK]}, experiences[:1], 0)  # what is done once
    began, before = time.monotonic(), found["seconds"] if any(runs.values()) else 0.0
    for seed in range(arguments.runs):
        for images in wanted:
            runs[images].append(seconds(ROWS[images], experiences, seed))
            said = ", ".join(f"{name} {spent:.2f} s" for name, spent in runs[images][-1].items())
            print(f"run {seed}, {images} images: {said}", file=sys.stderr, flush=True)
            done = {images: own for images, own in runs.items() if own}
            result = {
                "title": TITLE,
                "claim": "Wanted: at most 1.5 times stock Replay.",
                "rows": [_row(images, name, own) for images, own in done.items() for name in ROWS[images]],
                "runs": {str(images): own for images, own in done.items()},
                "how": "python examples/benchmarks/avalanche_cost.py --data-root DIR",
                "machine": machine(", one thread"),
                "versions": versions(**{"avalanche-lib": version("avalanche-lib")}),
                "seconds": before + time.monotonic() - began,
            }
            write(path, result)


if __name__ == "__main__":
    main()
