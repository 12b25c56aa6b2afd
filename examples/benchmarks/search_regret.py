"""What a search at a twentieth of the cost loses, simulated from what docs/benchmarks/nni-ranking-*.json hold.

    python examples/benchmarks/search_regret.py

Nothing is trained. Each of 20 searches has a random part of the architectures that were measured. Each was judged in
two ways that cost a fiftieth each, in few large steps and in the steps of full training; the mean rank by both says
which one a search chooses, or which 3 or 5 are trained in full for the best of them. ``--row NAME`` computes one alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from ddplug.evaluation.ranking import mean_rank
from examples.benchmarks.search_common import about, by, fresh, halving, interval, known, missing, regrets, text, write

TABLES = Path(__file__).parents[2] / "docs" / "benchmarks"
TASKS = {"mnist": "ConvNets, MNIST", "cifar10": "ConvNets, CIFAR-10", "cells": "cells, CIFAR-10"}
ENDING = ", as in full training"
EARLY, HALVED, CHANCE = "early stopping", "successive halving", "chance"
SCORES = ("random", "k-means", "DM", EARLY)
UNTRAINED = ("synflow", "nwot")
NAMES = [f"{task}: {score}" for task in TASKS for score in (*SCORES, HALVED, *UNTRAINED, CHANCE)]


def _orders(table: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Return how each score puts candidates in order, and what it costs as a share of full training."""
    own = {name: torch.tensor(values, dtype=torch.float64) for name, values in table["judged"].items()}
    shares = {row["proxy"]: row["cost"] for row in table["rows"]}

    def both(name: str) -> torch.Tensor:
        ranks = mean_rank([own[name].tolist(), own[name + ENDING].tolist()])
        return torch.tensor(ranks, dtype=torch.float64)

    def cost(names: Mapping[str, float]) -> str:
        return f"1/{1 / sum(share / int(shares[name].removeprefix('1/')) for name, share in names.items()):.0f}"

    found = {name: (by(both(name)), cost({name: 1, name + ENDING: 1})) for name in SCORES}
    rungs = [own[EARLY], both(EARLY)]
    found[HALVED] = halving(rungs), cost({EARLY: 1, EARLY + ENDING: 1 / 3})
    found |= {name: (by(own[name]), "none") for name in UNTRAINED}
    return {**found, CHANCE: (by(torch.zeros_like(own["full"])), "none")}


def rows_of(task: str) -> dict[str, dict[str, Any]]:
    """Simulate the searches of a task."""
    table = json.loads((TABLES / f"nni-ranking-{task}.json").read_text(encoding="utf-8"))
    truth = torch.tensor(table["judged"]["full"], dtype=torch.float64)
    size, orders = (30 if len(truth) > 30 else 20), _orders(table)
    early = regrets(truth, orders[EARLY][0], size)
    rows = {}
    for name, (order, cost) in orders.items():
        lost = {top: regrets(truth, order, size, top) for top in (1, 3, 5)}
        less = [mine - theirs for mine, theirs in zip(lost[1], early, strict=True)]
        rows[f"{task}: {name}"] = {
            "row": f"{task}: {name}",
            "task": f"{TASKS[task]}, {size} of {len(truth)}",
            "cost": cost,
            "regret (points)": text(interval(lost[1])),
            "less that of early stopping": None if name == EARLY else text(interval(less)),
            "best of 3 in full": text(interval(lost[3])),
            "best of 5 in full": text(interval(lost[5])),
        }
    return rows


def main() -> None:
    """Compute the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", metavar="NAME", help="compute one row alone")
    parser.add_argument("--out", type=Path, help="folder for the result (default: a new one)")
    arguments = parser.parse_args()
    path = fresh(arguments.out, "search-regret") / "search-regret.json"
    left = missing(path, "row", NAMES, arguments.row)
    if not left:
        return
    simulated = {name: row for task in TASKS for name, row in rows_of(task).items()}
    rows = sorted([*known(path), *(simulated[name] for name in left)], key=lambda row: NAMES.index(row["row"]))
    result = {
        "title": "Searches for an architecture at a twentieth of the cost",
        "claim": "Wanted: within half a point of the winner by full data. Simulated from the tables above: means and "
        "their 95 % intervals over 20 searches. Successive halving begins with early stopping in few large steps and "
        "judges the best third in the steps of full training too. The best of 3 or 5 in full cost 3 or 5 trainings "
        "more. Intervals are those of the draw of candidates: full training has one seed.",
        "rows": rows,
        "how": "python examples/benchmarks/search_regret.py",
        "seconds": 1.0,
        **about(),
    }
    write(path, result)
    for row in rows:
        if row["row"] in left:
            print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
