"""Audit sets of ten methods in equal bytes: what a network learns of them, and what an attack finds of single records.

    python examples/benchmarks/privacy_audit.py --data mnist --data-root DIR
    python examples/benchmarks/privacy_audit.py --data mnist --data-root DIR --row dm --row dp-dm-1

A row that is in the file already is not measured again; the file is written into a folder of its own, with a picture of
accuracy over what was found. Networks are narrow, data and shadow sets few and runs short, so that all rows take
minutes: rows are compared with each other, not with figures elsewhere.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[2]))

import ddplug
from ddplug import registry
from ddplug.networks import build
from ddplug.privacy import Membership, audit, beside
from ddplug.synthetic import Recipe, SyntheticSet
from ddplug.utils.files import write_file
from ddplug.utils.pictures import file_of
from examples.benchmarks.results import ResultFile, add_row_options, chosen, in_order_of, machine, source

__all__ = ["ROWS", "TRAINED", "Row", "measure", "measure_trained", "picture"]


@dataclass(frozen=True)
class Row:
    """A way to make a set.

    Attributes:
        method: registered name.
        options: of the method.
        codec: that fills the bytes with real images; "" for one image a class, a byte a number.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    codec: str = ""


_NETWORK = "convnet:width=8"
_ONE = {"images_per_class": 1}
_LEARNED = {**_ONE, "network": _NETWORK}
_PRIVATE = {**_ONE, "steps": 400, "pool_size": 20}

TRAINED = "a trained network"
"""What the sets are held against: nothing is stored but the weights of a network that was trained on the records."""

ROWS: Mapping[str, Row] = {
    "random": Row("random", _ONE),
    "coded": Row("random", codec="pixels:bits=1"),
    "kmeans-centroid": Row("kmeans-centroid", _ONE),
    "dm": Row("dm", {**_LEARNED, "pool_size": 10, "batch_real": 32, "steps": 100}),
    "dc": Row("dc", {**_LEARNED, "pool_size": 5, "batch_real": 32, "steps": 100}),
    "mtt": Row("mtt", {**_LEARNED, "num_experts": 1, "expert_epochs": 1, "steps": 40}),
    "frepo": Row("frepo", {**_LEARNED, "pool_size": 2, "batch_real": 32, "steps": 100}),
    "ncfm": Row("ncfm", {**_LEARNED, "pool_size": 4, "train_steps": 30, "batch_real": 32, "steps": 100}),
    "rded": Row("rded", {**_ONE, "teacher": _NETWORK, "train_epochs": 2, "candidates": 50}),
    "dp-dm-1": Row("dp-dm", {**_PRIVATE, "epsilon": 1.0}),
    "dp-dm-10": Row("dp-dm", {**_PRIVATE, "epsilon": 10.0}),
}
"""Name of a row -> how its set is made."""

_CALLED = {"digits": "the 8 x 8 digits", "mnist": "MNIST"}
"""Name of data -> what titles call them."""

NAMES = (*ROWS, TRAINED)
"""Names of all rows, in the order of the table."""


def made_by(row: Row, data: ddplug.LabeledData, nbytes: int) -> SyntheticSet:
    """Make the set of a row."""
    if row.codec:
        return ddplug.distill(data, row.method, nbytes=nbytes, codec=row.codec)
    return ddplug.distill(data, registry.resolve("distiller", row.method)(**row.options)).quantize()


def _row(
    attacks: Sequence[Membership],
    every: Sequence[Membership],
    began: float,
    *,
    nbytes: int,
    accuracy: float,
    images: int = 0,
    near: str | None = None,
    canaries: float | None = None,
    stated: float | None = None,
    making: float = 0.0,
) -> dict[str, Any]:
    """Write up a row.

    Args:
        attacks: of which those are told that found most.
        every: all, canaries too.
        began: CPU seconds at the beginning.
        nbytes: that are passed on.
        accuracy: of a network, in [0, 1].
        images: that are passed on.
        near: how many of them are near training images.
        canaries: what they say of epsilon.
        stated: epsilon of the guarantee.
        making: CPU seconds of the set.
    """
    area = max(attacks, key=lambda each: each.area)
    most = max(attacks, key=lambda each: each.found.get(0.001, (0.0,))[0])
    share, low, high = most.found.get(0.001, (None, None, None))
    return {
        "images": images,
        "bytes": nbytes,
        "accuracy (%)": round(100 * accuracy, 1),
        "near training images, of all": near,
        "AUC": round(area.area, 3),
        "AUC by": f"{area.signal}, {area.attack}",
        "found at 0.1 % false alarms (%)": None if share is None else round(100 * share, 2),
        "95 % interval": None if low is None or high is None else f"{100 * low:.2f} to {100 * high:.2f}",
        "found by": f"{most.signal}, {most.attack}",
        "epsilon at least": round(max(each.epsilon or 0.0 for each in every), 2),
        "of canaries": canaries,
        "stated epsilon": stated,
        "CPU s of the set": round(making),
        "CPU s in all": round(time.process_time() - began),
    }


def measure(
    row: Row, train: ddplug.LabeledData, test: ddplug.LabeledData, shadows: int, canaries: int, network: str
) -> dict[str, Any]:
    """Make the set of a row, judge it and attack it."""
    began = time.process_time()
    made = made_by(row, train, train.num_classes * train.inputs[0].numel())
    making = time.process_time() - began
    accuracy = ddplug.evaluate(made, test, network=network, repeats=1, recipe=Recipe.quick()).mean
    found = audit(made, train, test, shadows=shadows, canaries=canaries, network=network, beside=False)
    planted = [each.epsilon or 0.0 for each in found.membership if each.exposure is not None]
    return _row(
        [each for each in found.membership if each.target == "shadow sets"],
        found.membership,
        began,
        nbytes=made.nbytes,
        accuracy=accuracy,
        images=len(made),
        near=f"{found.nearest[0].near} of {len(made)}",
        canaries=round(max(planted, default=0.0), 2),
        stated=(found.provenance["statement"] or {}).get("epsilon"),
        making=making,
    )


def measure_trained(train: ddplug.LabeledData, test: ddplug.LabeledData, shadows: int, network: str) -> dict[str, Any]:
    """Train a network on the records, judge it and attack it; the audit of any set does so beside it."""
    began = time.process_time()
    made = ddplug.distill(train, "random", images_per_class=1).quantize()
    found = audit(made, train, test, shadows=shadows, network=network).beside
    attacks = [each for each in found if each.target == beside.TRAINED]
    whole = ddplug.compare(made, train, test, network=network, recipe="quick", repeats=1, baselines=()).rows[-1]
    weights = build(network, train.shape, train.num_classes, torch.Generator().manual_seed(0)).parameters()
    nbytes = sum(each.nbytes for each in weights)
    return _row(attacks, attacks, began, nbytes=nbytes, accuracy=whole.evaluation.mean)


def picture(rows: Sequence[Mapping[str, Any]], dark: bool = False) -> Figure:
    """Draw accuracy over the share of members that is found; the best place is above on the left."""
    ink = "#e6eaf0" if dark else "#1c2430"
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    colors: dict[Any, Any] = dict.fromkeys(inked, ink)
    with rc_context(colors):
        figure = Figure(figsize=(7.2, 4.6), dpi=120, layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        for row in rows:
            share = row["found at 0.1 % false alarms (%)"]
            if share is None:
                continue
            stated = row["stated epsilon"] is not None
            place = (max(share, 0.01), row["accuracy (%)"])
            axes.plot(*place, "D" if stated else "o", color="#009E73" if stated else "#D55E00", markersize=8)
            beside, side = ((-6, 5), "right") if stated else ((6, 5), "left")  # names of neighbors must not meet
            axes.annotate(row["set"], place, beside, textcoords="offset points", color=ink, ha=side)
        axes.axvline(0.1, color="#7d8590", linestyle=":", linewidth=1)
        axes.annotate("guessing", (0.1, 0.94), (4, 0), ("data", "axes fraction"), "offset points", color="#7d8590")
        axes.set_xscale("log")
        axes.set_xlim(0.05, 150)
        axes.margins(y=0.08)
        axes.set_xlabel("members found at 0.1 % false alarms, %, by the best of four attacks")
        axes.set_ylabel("accuracy of a network trained on the set, %")
        axes.grid(alpha=0.25)
    return figure


def run(arguments: argparse.Namespace) -> None:
    """Measure the rows that are missing, and write the file and the pictures after each."""
    kept = ResultFile(arguments.out / f"audit-{arguments.data}.json", "set")
    missing = kept.missing(chosen(NAMES, arguments.row, str), lambda name: (name,))
    if not missing:
        return
    where = {"root": arguments.data_root}
    every, test = (ddplug.load_dataset(arguments.data, split=split, **where) for split in ("train", "test"))
    train, test = (whole.split(arguments.records / len(whole))[1] for whole in (every, test))
    nbytes = train.num_classes * (train.inputs[0].numel() + 1) + 8 * train.shape[0]
    for name in missing:
        if name == TRAINED:
            told = measure_trained(train, test, arguments.shadows, arguments.network)
        else:
            told = measure(ROWS[name], train, test, arguments.shadows, arguments.canaries, arguments.network)
        kept.add(
            {"set": name, **told},
            in_order_of(NAMES, "set"),
            title=f"What sets of {_CALLED.get(arguments.data, arguments.data)} in {nbytes:,} bytes give away",
            claim=f"{len(train):,} training records and {len(test):,} others; {arguments.shadows} shadow sets of "
            f"halves of them, with half of {arguments.canaries} canaries each; one network ({arguments.network}, the "
            "quick recipe) for each set. Few sets, narrow networks and short runs: a comparison, no measure of the "
            "best that a method or an attack can do.",
            how=f"python examples/benchmarks/privacy_audit.py --data {source(arguments.data)} "
            f"--shadows {arguments.shadows}",
            machine=machine(),
        )
        for shade in ("light", "dark"):
            write_file(arguments.out / f"audit-{shade}.png", file_of(picture(kept.rows, shade == "dark")))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root")
    add_row_options(parser)
    parser.add_argument(
        "--records", type=int, default=4000, help="of the training data, and others beside (default: %(default)s)"
    )
    parser.add_argument("--shadows", type=int, default=4, help="sets of halves (default: %(default)s)")
    parser.add_argument("--canaries", type=int, default=40, help="in shadow sets (default: %(default)s)")
    parser.add_argument("--network", default=_NETWORK, help="trained on each set (default: %(default)s)")
    torch.set_num_threads(1)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
