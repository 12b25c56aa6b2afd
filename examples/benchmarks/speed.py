"""Time steps of the library against plain ones written from the papers, in pairs within one run, in CPU time.

    python examples/benchmarks/speed.py --row dc-1 --row mtt-10

Data are random pixels: what a step takes does not depend on them. Before a pair counts, both sides have run once. A row
holds medians over the pairs, the spread of the pairs' ratios, and the most bytes that the tensors of a step take. How
much of the machine a step uses is its convolutions' and products' arithmetic over what the fastest of a few
convolutions reached in the same run. Rows that are measured again take the place of those of the same name in the file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ddplug import registry
from ddplug.data.labeled import LabeledData
from ddplug.data.loaders import from_arrays
from ddplug.distillation.memory import peak_bytes

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.published import STEPS
from examples.benchmarks.results import versions

_CLAIM = (
    "ConvNet-3 of width 32, random pixels, float32, in pairs within one run. `-1` and `-10` are images per class. DC "
    "and DSA are compared with one real image of each class (`-real`: 256) and without the training of networks, IDC "
    "without that training. `-pool` and `-default` compare the library's own way with the published one, which is "
    "other work: a pool has to be filled first."
)
OUT = Path(__file__).parents[2] / "docs" / "benchmarks" / "speed.json"


@dataclass(frozen=True)
class Row:
    """What is timed.

    Attributes:
        method: name of the method.
        options: of it.
        published: options in which the plain step differs, where it is not to do the same work.
        classes: of the data.
        side: of the images, in pixels.
        channels: of the images.
    """

    method: str
    options: Mapping[str, Any]
    published: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 10
    side: int = 28
    channels: int = 1


_PLAIN = {"network": "convnet:width=32", "init_from": "noise"}
_DM = {**_PLAIN, "batch_real": 256, "pool_size": 0}
_DC = {**_PLAIN, "batch_real": 256, "pool_size": 0, "inner_loop": 50, "network_learning_rate": 0.01}
_IDC = {**_PLAIN, "factor": 2, "pool_size": 1, "reuse": 1, "advance": 0, "max_age": 0}
_MTT = {**_PLAIN, "num_experts": 1, "epoch_steps": 1, "max_start_epoch": 1}

ROWS: Mapping[str, Row] = {
    "dm-1": Row("dm", {**_DM, "images_per_class": 1}),
    "dm-10": Row("dm", {**_DM, "images_per_class": 10}),
    "dm-1-pool": Row("dm", {**_DM, "images_per_class": 1, "pool_size": 2}, {"pool_size": 0}),
    "dm-10-pool": Row("dm", {**_DM, "images_per_class": 10, "pool_size": 2}, {"pool_size": 0}),
    "dc-1": Row("dc", {**_DC, "images_per_class": 1, "outer_loop": 1, "batch_real": 1}),
    "dc-1-real": Row("dc", {**_DC, "images_per_class": 1, "outer_loop": 1}),
    "dc-10": Row("dc", {**_DC, "images_per_class": 10, "outer_loop": 1, "batch_real": 1}),
    "dc-10-default": Row(
        "dc",
        {**_PLAIN, "images_per_class": 10, "outer_loop": 10, "batch_real": 64},
        {"batch_real": 256, "inner_loop": 50, "network_learning_rate": 0.01},
    ),
    "dc-1-100-classes": Row(
        "dc", {**_DC, "images_per_class": 1, "outer_loop": 1, "batch_real": 1}, classes=100, side=32, channels=3
    ),
    "dsa-1": Row("dsa", {**_DC, "init_from": "noise", "images_per_class": 1, "outer_loop": 1, "batch_real": 1}),
    "idc-10": Row("idc", {**_IDC, "images_per_class": 10}),
    "mtt-1": Row("mtt", {**_MTT, "images_per_class": 1}),
    "mtt-10": Row("mtt", {**_MTT, "images_per_class": 10}),
}
"""What can be timed. A row with one real image a class shows the synthetic side, one with 256 the published step."""


def made_data(row: Row) -> LabeledData:
    """Make random images, 300 of each class of a few, fewer of many."""
    each = max(2, 3000 // row.classes)
    rng = torch.Generator().manual_seed(0)
    shape = (each * row.classes, row.channels, row.side, row.side)
    pixels = torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8)
    return from_arrays(pixels, torch.arange(row.classes).repeat(each))


def convolution_peak(seconds: float = 0.3) -> float:
    """Measure the floating-point operations a second of the fastest of a few convolutions."""
    best = 0.0
    for width, side, number in ((32, 16, 64), (128, 16, 16), (128, 8, 64), (256, 16, 8)):
        x, weight = torch.ones(number, width, side, side), torch.ones(width, width, 3, 3)
        conv2d(x, weight, padding=1)
        began, runs = time.process_time(), 0
        while time.process_time() - began < seconds:
            conv2d(x, weight, padding=1)
            runs += 1
        taken = (time.process_time() - began) / runs
        best = max(best, 2 * 9 * width * width * side * side * number / taken)
    return best


class _Operations(TorchDispatchMode):
    """Counts floating-point operations; torch's own counter watches modules too, and takes no second derivative."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=given) if count else 0
        return given


def counted(function: Callable[[], object]) -> int:
    """Count the floating-point operations of convolutions and products."""
    operations = _Operations()
    with operations:
        function()
    return operations.total


def sides(row: Row) -> tuple[Callable[[], Tensor], Callable[[], Tensor], Mapping[str, Tensor]]:
    """Return a step of the library and a plain one, and the state that both begin with."""
    data, rng = made_data(row), torch.Generator().manual_seed(1)
    method = registry.resolve("distiller", row.method)(**row.options)
    plain = replace(method, **row.published)
    state = method.init(data, rng)
    start = rng.get_state()

    def begun() -> torch.Generator:
        other = torch.Generator()
        other.set_state(start)
        return other

    step = STEPS[row.method]
    return lambda: method.step(state, data, begun())[0]["inputs"], lambda: step(plain, data, state, begun()), state


def _compared(apart: float) -> str:
    """Say how far the images of both sides are apart, as a share of the step: training amplifies float32's rounding."""
    return "yes" if apart <= 0.01 else f"{100 * apart:.1f} % of the step apart"


def measure(name: str, pairs: int) -> dict[str, Any]:
    """Measure one row."""
    row = ROWS[name]
    ours, theirs, state = sides(row)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    alike = not row.published and row.method != "idc"
    first, second = ours(), theirs()
    apart = float((first - second).norm() / (second - state["inputs"]).norm())
    seconds: list[tuple[float, float]] = []
    for _ in range(pairs):
        taken = []
        for step in (ours, theirs):
            began = time.process_time()
            step()
            taken.append(time.process_time() - began)
        seconds.append((taken[0], taken[1]))
    mine, plain = (statistics.median(column) for column in zip(*seconds, strict=True))
    ratios = sorted(there / here for here, there in seconds)
    peak = convolution_peak()
    return {
        "row": name,
        "step (ms)": round(1e3 * mine, 1),
        "plain step (ms)": round(1e3 * plain, 1),
        "times less": round(statistics.median(ratios), 2),
        "from": round(ratios[0], 2),
        "to": round(ratios[-1], 2),
        "memory (MB)": round((size + peak_bytes(ours)) / 1e6, 1),
        "plain memory (MB)": round((size + peak_bytes(theirs)) / 1e6, 1),
        "share of the peak (%)": round(100 * counted(ours) / mine / peak, 1),
        "plain share (%)": round(100 * counted(theirs) / plain / peak, 1),
        "same images": _compared(apart) if alike else "other work" if row.published else "not compared",
    }


def main() -> None:
    """Measure the rows that are asked for and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=tuple(ROWS), help="again for more; all if not given")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    before = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    rows = {row["row"]: row for row in before.get("rows", ())}
    for name in arguments.row or ROWS:
        rows[name] = measure(name, arguments.pairs)
        print(rows[name], flush=True)
        result = {
            "title": "Steps against plain ones written from the papers, CPU time of one thread",
            "claim": _CLAIM,
            "rows": [rows[name] for name in ROWS if name in rows],
            "how": "python examples/benchmarks/speed.py",
            "machine": f"{os.cpu_count()} CPU cores shared with other work, threads used: 1",
            "versions": versions(),
            "seconds": before.get("seconds", 0) + time.process_time() - began,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
