"""Time a step of DM with the pool and with the published loop, in pairs within one run.

python examples/benchmarks/dm_speed.py --data mnist --data-root DIR
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ddplug.data.datasets import load
from ddplug.distillers.dm import DM

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.results import versions

PAIRS = 5
BANKED_STEPS = 10
"""Banked steps timed against one published step."""


def compare(images_per_class: int, width: int, pool: int, data: Any) -> dict[str, Any]:
    """Time both loops in turn with the same network and real batch; give medians and the median of the ratios."""
    options: dict[str, Any] = {"images_per_class": images_per_class, "network": f"convnet:width={width}"}
    banked, published = (DM(**options, batch_real=256, init_from="real", pool_size=size) for size in (pool, 0))
    rng = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    state = banked.init(data, rng)
    filled = time.perf_counter() - began
    other = published.init(data, rng)
    fast, slow = [], []
    for _ in range(PAIRS):
        began = time.perf_counter()
        for _ in range(BANKED_STEPS):
            banked.step(state, data, rng)
        fast.append((time.perf_counter() - began) / BANKED_STEPS)
        began = time.perf_counter()
        published.step(other, data, rng)
        slow.append(time.perf_counter() - began)
    return {
        "images per class": images_per_class,
        "width": width,
        "published step (ms)": round(1e3 * statistics.median(slow), 1),
        "banked step (ms)": round(1e3 * statistics.median(fast), 2),
        "times less": round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 1),
        "networks in the pool": pool,
        "filling it (s)": round(filled, 1),
    }


def main() -> None:
    """Measure every row and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-root")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs" / "benchmarks" / "dm-speed.json")
    arguments = parser.parse_args()
    data = load(arguments.data, root=arguments.data_root)
    began = time.monotonic()
    rows = [compare(n, width, pool, data) for width, pool in ((32, 20), (128, 2)) for n in (1, 10)]
    result = {
        "title": "DM, cost of a step: pool against the published loop (MNIST)",
        "claim": "Wanted: 20 times less once the pool stands, with the same network and a real batch of 256 a class.",
        "rows": rows,
        "how": "python examples/benchmarks/dm_speed.py --data mnist --data-root DIR",
        "machine": f"{os.cpu_count()} CPU cores, threads used: {torch.get_num_threads()}",
        "versions": versions(),
        "seconds": time.monotonic() - began,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
