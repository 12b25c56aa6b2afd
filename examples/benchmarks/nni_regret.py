"""What a search loses that trains its best few in full, simulated from what docs/benchmarks/nni-ranking-*.json hold.

    python examples/benchmarks/nni_regret.py

Each of 2,000 searches has a random part of the architectures that were measured. A proxy, at a fiftieth of the cost,
says which 1, 3 or 5 of them are trained in full, and the best of these is compared with the best of all.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ddplug.utils.text import table

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
NAMES = ("random", "DM", "DM, 4 small", "early stopping")
ENDING = ", as in full training"
SEARCHES = 2000
TOPS = (1, 3, 5)


def regrets(proxy: torch.Tensor, truth: torch.Tensor, size: int) -> list[str]:
    """Return the mean regret and its 95 % range in points, for each number of candidates that are trained in full."""
    rng = torch.Generator().manual_seed(0)
    drawn = [torch.randperm(len(truth), generator=rng)[:size] for _ in range(SEARCHES)]
    cells = []
    for k in TOPS:
        # the noise tells apart what ties, and stands for choosing by chance where all do
        noise = torch.rand(len(drawn), size, generator=rng) * 1e-9
        lost = torch.stack(
            [
                truth[part].max() - truth[part[(proxy[part] + own).topk(k).indices]].max()
                for part, own in zip(drawn, noise, strict=True)
            ]
        )
        low, high = (100 * lost).quantile(torch.tensor([0.025, 0.975], dtype=lost.dtype)).tolist()
        cells.append(f"{100 * lost.mean():.2f} ({low:.2f} to {high:.2f})")
    return cells


def main() -> None:
    """Print a table for each measured space."""
    for path in sorted(FOLDER.glob("nni-ranking-*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        scores = {name: torch.tensor(own, dtype=torch.float64) for name, own in stored["judged"].items()}
        truth = scores.pop("full")
        scores["chance"] = torch.zeros_like(truth)
        size = 30 if len(truth) > 30 else 25
        names = [name + ending for ending in ("", ENDING) for name in NAMES] + ["synflow", "chance"]
        rows = [(name, *regrets(scores[name], truth, size)) for name in names]
        print(f"{stored['title']}: searches of {size} of {len(truth)}, regret in points")
        print(table([("score", *(f"best {k} in full" for k in TOPS)), *rows]), end="\n\n")


if __name__ == "__main__":
    main()
