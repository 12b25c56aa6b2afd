"""What the benchmarks of searches share: a fresh folder, a file of rows that goes on, and simulated searches."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

import ddplug

__all__ = [
    "SEARCHES",
    "Order",
    "about",
    "by",
    "fresh",
    "halving",
    "interval",
    "known",
    "missing",
    "regrets",
    "text",
    "write",
]

Order: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes the numbers of the candidates of a search, and noise that tells apart what ties; returns them best first."""

SEARCHES = 20
"""Repeated searches, each among a random part of the candidates that were measured."""


def fresh(folder: Path | None, name: str) -> Path:
    """Return the folder that was given, made if it is missing, or a new one, and say which."""
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        print(f"writing to {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def known(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, none where it is not there."""
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    return rows


def missing(path: Path, key: str, names: Iterable[str], only: str | None) -> list[str]:
    """Return the names of rows that a file does not have, or one of them alone; say so where there is none.

    Args:
        path: of the file.
        key: under which a row has its name.
        names: of all rows.
        only: the one that is wanted, ``None`` for all.

    Raises:
        SystemExit: there is no such row.
    """
    names = list(names)
    if only is not None and only not in names:
        raise SystemExit(f"there is no row {only!r}; give one of: {', '.join(names)}")
    there = {row[key] for row in known(path)}
    left = [name for name in names if name not in there and only in (None, name)]
    if not left:
        print(f"all rows are there already: {path}")
    return left


def about() -> dict[str, Any]:
    """Return what figures depend on besides the script."""
    return {
        "machine": f"{os.cpu_count()} CPU cores, one thread",
        "versions": {
            "ddplug": ddplug.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write a benchmark."""
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return a mean and its 95 % interval by the bootstrap."""
    rng = torch.Generator().manual_seed(0)
    own = torch.tensor(values, dtype=torch.float64)
    means = own[torch.randint(len(own), (2000, len(own)), generator=rng)].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=own.dtype)).tolist()
    return statistics.fmean(values), low, high


def by(score: torch.Tensor) -> Order:
    """Return the order of a score."""
    return lambda part, noise: part[(score[part] + noise).argsort(descending=True)]


def halving(rungs: Sequence[torch.Tensor]) -> Order:
    """Return the order of successive halving: the best third by each score is judged by the next."""

    def order(part: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        left, behind = torch.arange(len(part)), torch.arange(0)
        for rung in rungs:
            left = left[(rung[part[left]] + noise[left]).argsort(descending=True)]
            kept = max(1, len(left) // 3)
            left, behind = left[:kept], torch.cat([left[kept:], behind])
        return part[torch.cat([left, behind])]

    return order


def regrets(truth: torch.Tensor, order: Order, size: int, top: int = 1) -> list[float]:
    """Simulate searches: what each loses to the best of its candidates, in points.

    Args:
        truth: accuracy of every candidate after full training.
        order: puts the candidates of a search in order.
        size: candidates of a search.
        top: how many of the first are trained in full, for the best of them.
    """
    rng, found = torch.Generator().manual_seed(0), []
    for _ in range(SEARCHES):
        part = torch.randperm(len(truth), generator=rng)[:size]
        noise = 1e-9 * torch.rand(size, generator=rng, dtype=torch.float64)
        found.append(100 * float(truth[part].max() - truth[order(part, noise)[:top]].max()))
    return found


def text(estimate: Sequence[float | None]) -> str | None:
    """Write a figure and its 95 % interval; nothing where there is none."""
    if None in estimate:
        return None
    value, low, high = (f"{number:.2f}" for number in estimate)
    return f"{value} ({low} to {high})"
