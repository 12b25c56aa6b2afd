"""How long until a set is as good as the published loop makes it, from the same start: CPU time of one thread.

    python examples/benchmarks/speed_accuracy.py --mnist DIR --row dm-1
    python examples/benchmarks/speed_accuracy.py --mnist DIR --row dc-10-default --seconds 900

Both sides begin with the same images and work for as many CPU seconds. They are judged in between, after the same
seconds, on a held-out tenth of the training data, by networks that are trained quickly; that does not count, nor does
making the first images. The published side is a plain loop written from the paper (`published.py`); where networks are
trained between the steps it is the library in the published setting, which is no slower. Rows that are there are kept.

Judging is a matter of luck: networks that are trained on the same images differ. The best of a dozen judgments is the
luckiest of them, by 1.6 standard errors on average, and whoever must be as good would wait for as much luck. So the
target is that best less a margin of two standard errors of a judgment, from the spread of the networks over all
judgments of both sides. *Both* sides are timed by their first judgment that is as good as the target, the published one
too, which gets there before its best. Two equal courses are thus equally fast, whatever their noise; and as a slow side
is looked at more often before it is there, luck helps it rather than a fast one. Each look comes half as much again
later than the one before, so that a ratio is known to a factor of 1.5. A target that the published side has not left
behind when its seconds are over would be higher with more seconds: a row is about that many.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import ddplug
from ddplug import registry
from ddplug.data.labeled import LabeledData
from ddplug.networks.functional import initial_parameters, prefixed

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.published import STEPS
from examples.benchmarks.results import ResultFile, add_row_options, chosen, in_order_of, machine

_CLAIM = (
    "MNIST, ConvNet-3 of width 32, the same first images on both sides, judged on a held-out tenth of the training "
    "data by 2 networks trained quickly. The target of both is the best that the published loop came to in the seconds "
    "that each side had, less a margin: two standard errors of a judgment, from the spread of the networks. Wanted: DM "
    "20 times, DC and DSA at one image a class 3 times; the default of `dc` at ten images a class, `dc-10-default`, "
    "within 15 minutes no worse than the published setting."
)

NETWORK = "convnet:width=32"

LATER = 1.5
"""How much later each look at the images is than the one before."""
ERRORS = 2
"""Standard errors of a judgment that the target is below the best one."""


@dataclass(frozen=True)
class Row:
    """What is compared.

    Attributes:
        method: name of the method, whose defaults are the library's side.
        images_per_class: on both sides.
        start: images that both sides begin with.
        published: options of the published side.
        seconds: of CPU time that each side gets.
        plain: whether the published side is the plain loop.
    """

    method: str
    images_per_class: int
    start: str
    published: Mapping[str, Any]
    seconds: float
    plain: bool = True


_DM = {"pool_size": 0, "batch_real": 256}
_DC = {"pool_size": 0, "batch_real": 256, "learning_rate": 0.1}

ROWS: Mapping[str, Row] = {
    "dm-1": Row("dm", 1, "kmeans", {**_DM, "learning_rate": 1.0}, 60),
    "dm-10": Row("dm", 10, "kmeans", {**_DM, "learning_rate": 0.1}, 90),
    "dc-1": Row("dc", 1, "kmeans", _DC, 90),
    "dsa-1": Row("dsa", 1, "kmeans", _DC, 90),
    "dc-10-default": Row(
        "dc", 10, "kmeans", {**_DC, "inner_loop": 50, "network_learning_rate": 0.01}, 900, plain=False
    ),
}


class Point(NamedTuple):
    """Where a side stands.

    Attributes:
        seconds: of CPU time so far.
        accuracies: of the networks, in percent.
        steps: so far.
    """

    seconds: float
    accuracies: tuple[float, ...]
    steps: int

    @property
    def accuracy(self) -> float:
        """Mean of the networks, in percent."""
        return statistics.fmean(self.accuracies)


Stepped = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def plain_step(method: Any, data: LabeledData, rng: torch.Generator) -> Stepped:
    """Return a step of the published loop: from the state to the next, with a new network where one is kept."""
    times = method.learning_rate * (1 if method.name in ("dc", "dsa") else method.images_per_class)

    def step(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        moved = STEPS[method.name](method, data, state, rng)
        after = {**state, "inputs": moved, "velocity": (state["inputs"] - moved) / times}
        if any(name.startswith("network.") for name in state):
            after |= prefixed("network.", initial_parameters(method.network, data, rng))
        return after

    return step


def library_step(method: Any, data: LabeledData, rng: torch.Generator) -> Stepped:
    """Return a step of the library."""
    return lambda state: method.step(state, data, rng)[0]


def judged(method: Any, state: Mapping[str, Tensor], data: LabeledData, held: LabeledData) -> tuple[float, ...]:
    """Return the accuracies of networks trained on a state's images, in percent."""
    made = method.result(state, data)
    found = ddplug.evaluate(made, held, network=method.network, recipe="quick", repeats=2, seed=1, device="cpu")
    return tuple(100 * accuracy for accuracy in found.accuracies)


def course(
    state: Mapping[str, Tensor],
    step: Stepped,
    judge: Callable[[Mapping[str, Tensor]], tuple[float, ...]],
    spent: float,
    most: float,
) -> Iterator[Point]:
    """Take steps for some seconds, and look at the images at the beginning, the end and set times in between.

    Args:
        state: to begin with.
        step: to take.
        judge: gives the accuracies of some networks in percent.
        spent: seconds so far, of preparation.
        most: seconds in all.
    """
    steps, look = 0, 1.0
    yield Point(spent, judge(state), steps)
    while spent < most:
        while look <= spent:
            look *= LATER
        began = time.process_time()
        state, steps = step(state), steps + 1
        spent += time.process_time() - began
        if spent >= min(look, most):
            yield Point(spent, judge(state), steps)


def margin(points: Sequence[Point]) -> float:
    """Return by how many points a judgment may be better than the images by luck.

    Args:
        points: all judgments, each by two networks or more.
    """
    spread = statistics.fmean(statistics.variance(point.accuracies) for point in points)
    return ERRORS * math.sqrt(spread / len(points[0].accuracies))


def compared(theirs: Sequence[Point], ours: Sequence[Point]) -> dict[str, Any]:
    """Return when each side was as good as the best of the published one less the margin.

    Args:
        theirs: judgments of the published side, in order.
        ours: those of the library.
    """
    less = margin([*theirs, *ours])
    best, own = (max(side, key=lambda point: point.accuracy) for side in (theirs, ours))
    target = best.accuracy - less
    plain, there = (next((point for point in side if point.accuracy >= target), None) for side in (theirs, ours))
    assert plain is not None  # the best is
    known = there is not None and plain.steps and there.steps
    return {
        "start (%)": round(theirs[0].accuracy, 2),
        "published, best (%)": round(best.accuracy, 2),
        "at (CPU s)": round(best.seconds, 1),
        "margin": round(less, 2),
        "target (%)": round(target, 2),
        "published there (CPU s)": round(plain.seconds, 1),
        "its steps": plain.steps,
        "library there (CPU s)": None if there is None else round(there.seconds, 1),
        "library's steps": None if there is None else there.steps,
        "times less": round(plain.seconds / there.seconds, 1) if known and there is not None else None,
        "library, best (%)": round(own.accuracy, 2),
        "library's best at (CPU s)": round(own.seconds, 1),
    }


def measure(name: str, train: LabeledData, held: LabeledData, seconds: float) -> dict[str, Any]:
    """Let both sides work and be judged."""
    row = ROWS[name]
    kind = registry.resolve("distiller", row.method)
    ours = kind(images_per_class=row.images_per_class, init_from=row.start, network=NETWORK)
    theirs = replace(ours, **row.published)
    states, spent = {}, {}
    for method in (theirs, ours):
        began, rng = time.process_time(), torch.Generator().manual_seed(0)
        states[method] = method.init(train, rng), rng
        spent[method] = time.process_time() - began
    prepared = max(0.0, spent[ours] - spent[theirs])  # a pool; the first images are the same
    found: dict[Any, list[Point]] = {}
    for method, before in ((theirs, 0.0), (ours, prepared)):
        state, rng = states[method]
        step = (plain_step if row.plain and method is theirs else library_step)(method, train, rng)
        judge = partial(_said, judged, name, method, train, held)
        found[method] = list(course(state, step, judge, before, seconds))
    return {"row": name, **compared(found[theirs], found[ours]), "each side had (CPU s)": seconds}


def _said(
    judge: Callable[..., tuple[float, ...]],
    name: str,
    method: Any,
    train: LabeledData,
    held: LabeledData,
    state: Any,
) -> tuple[float, ...]:
    found = judge(method, state, train, held)
    said = " ".join(f"{accuracy:.2f}" for accuracy in found)
    print(f"{name} {method.inner_loop if hasattr(method, 'inner_loop') else ''} {said}", file=sys.stderr)
    return found


def main() -> None:
    """Measure the rows that are missing, and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="folder of MNIST")
    parser.add_argument("--seconds", type=float, help="of CPU time for each side (default: the row's own)")
    add_row_options(parser)
    arguments = parser.parse_args()
    kept = ResultFile(arguments.out / "speed-accuracy.json", "row", clock=time.process_time)
    missing = kept.missing(chosen(ROWS, arguments.row, str), lambda name: (name,))
    if not missing:
        return
    if arguments.mnist is None:
        parser.error("--mnist is missing; give the folder of MNIST")
    torch.set_num_threads(1)
    ddplug.keep_memory()
    train, held = ddplug.load_dataset("mnist", root=arguments.mnist).split(0.1)
    for name in missing:
        kept.add(
            measure(name, train, held, arguments.seconds or ROWS[name].seconds),
            in_order_of(ROWS, "row"),
            title="Time to the accuracy of the published loop",
            claim=_CLAIM,
            how="python examples/benchmarks/speed_accuracy.py --mnist DIR",
            machine=machine(", threads used: 1"),
        )


if __name__ == "__main__":
    main()
