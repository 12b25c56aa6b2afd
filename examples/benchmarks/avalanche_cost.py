"""Measure what our replay costs beside stock replay: processor seconds of three experiences, in pairs.

Split-MNIST, class-incremental, one epoch, batches of 100, the bytes of ten images, both by their defaults. The two take
turns in one process on one thread, so that whatever else the machine does falls on both; evaluation is left out.

    python examples/benchmarks/avalanche_cost.py --data-root DIR
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.avalanche_split import STRATEGIES, Entry, _model, _stream, _tensors
from examples.benchmarks.results import OUT, machine, versions, write

EXPERIENCES = 3
IMAGES = 10


def seconds(kind: str, experiences: list[Any], seed: int) -> float:
    """Train one strategy; return the processor seconds."""
    import torch
    from avalanche.training.plugins import EvaluationPlugin

    model = _model("SimpleMLP", (1, 28, 28), seed)
    common = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05),
        "criterion": torch.nn.CrossEntropyLoss(),
        "train_mb_size": 100,
        "train_epochs": 1,
        "evaluator": EvaluationPlugin(),
    }
    strategy = STRATEGIES[kind](common, Entry(kind, IMAGES), seed)
    began = time.process_time()
    for experience in experiences:
        strategy.train(experience)
    return time.process_time() - began


def main() -> None:
    """Measure pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", required=True, help="of torchvision's MNIST")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the result (default: %(default)s)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    experiences = list(_stream(_tensors("mnist", arguments.data_root, None, False)).train_stream)[:EXPERIENCES]
    seconds("Replay", experiences[:1], 0)  # what is done once
    pairs, began = [], time.monotonic()
    for seed in range(arguments.pairs):
        pairs.append([seconds(kind, experiences, seed) for kind in ("Replay", "DistilledReplay")])
        stock, ours = pairs[-1]
        print(f"pair {seed}: {stock:.2f} and {ours:.2f} s, {ours / stock:.2f} times", file=sys.stderr, flush=True)
    ratios = [ours / stock for stock, ours in pairs]
    result = {
        "title": "What replay costs: processor seconds of three experiences of Split-MNIST, the bytes of ten images",
        "claim": "Wanted: at most 1.5 times stock Replay.",
        "rows": [
            {
                "pairs": len(pairs),
                "stock Replay (s)": round(statistics.median(stock for stock, _ in pairs), 2),
                "DistilledReplay (s)": round(statistics.median(ours for _, ours in pairs), 2),
                "times, median": round(statistics.median(ratios), 2),
                "times, least and most": f"{min(ratios):.2f} to {max(ratios):.2f}",
            }
        ],
        "runs": {"pairs": pairs},
        "how": "python examples/benchmarks/avalanche_cost.py --data-root DIR",
        "machine": machine(", one thread"),
        "versions": versions(**{"avalanche-lib": version("avalanche-lib")}),
        "seconds": time.monotonic() - began,
    }
    write(arguments.out / "replay-cost.json", result)


if __name__ == "__main__":
    main()
