"""What a page shows of sets: pictures beside real ones, what the file says, and how they were judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ddplug import registry
from ddplug.data.labeled import LabeledData
from ddplug.distillation.loop import distill
from ddplug.evaluation.figures import comparison
from ddplug.evaluation.protocols import described
from ddplug.evaluation.row import HEAD, Row, protocols
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.export import inspect
from ddplug.synthetic.pictures import grid
from ddplug.synthetic.statement import in_words, privacy_statement
from ddplug.utils.page import Block, Chapter, Picture, Table
from ddplug.utils.pictures import drawable, file_of
from ddplug.utils.text import one_line

__all__ = ["judged", "picture", "pictures", "real_beside", "sheet"]

_CLASSES = 20
"""Classes of which pictures are shown."""

_IMAGES = 10
"""Images of a class that are shown."""

_WIDEST = 440
"""CSS pixels of a picture of a set, so that two stand beside each other."""

_CHARACTERS = 300
"""Of a value that a file gives, which may be anybody's."""

_ENTRIES = 40
"""Entries of the provenance that are shown."""


def _width(png: bytes) -> int:
    """Read the width that a PNG file states."""
    return int.from_bytes(png[16:20], "big")


def picture(synthetic: SyntheticSet, caption: str, what: str, png: bytes | None = None) -> Picture:
    """Draw the images of a set as a grid, a class a row.

    Args:
        synthetic: a set of images.
        caption: what they are.
        what: the same, for somebody who does not see them.
        png: the grid, if it was drawn already.
    """
    png = file_of(grid(_few(synthetic), _IMAGES)) if png is None else png
    more = f"; the first {_CLASSES} of {synthetic.num_classes} classes" if synthetic.num_classes > _CLASSES else ""
    names = ", ".join(one_line(name, most=30) for name in synthetic.class_names[:_CLASSES])
    return Picture(png, f"{caption}{more}", min(_width(png), _WIDEST), f"{what}, in rows by class: {names}{more}")


def _few(synthetic: SyntheticSet) -> SyntheticSet:
    """Keep the first classes."""
    labels = sorted(set(synthetic.hard_targets.tolist()))
    return synthetic if len(labels) <= _CLASSES else synthetic.select(labels[:_CLASSES])


def real_beside(synthetic: SyntheticSet, train: LabeledData, seed: int) -> Picture:
    """Draw as many real images of each class as the set shows, at most as many as there are."""
    shown = min(_IMAGES, int(synthetic.hard_targets.bincount().max()), *map(len, train.class_indices))
    drawn = distill(train, registry.resolve("distiller", "random")(images_per_class=shown), seed=seed, device="cpu")
    return picture(drawn, "real images, drawn at random", "Real images")


def pictures(synthetic: SyntheticSet, train: LabeledData | None, seed: int) -> Block:
    """Draw the set and, where there are real data, real images beside it."""
    if not drawable(synthetic.shape):
        return f"Samples of shape {_by(synthetic.shape)} are not pictures; `ddplug export --to npz` gives the numbers."
    drawn = [picture(synthetic, "the set, one row per class", "Images of the set")]
    return tuple(drawn if train is None else [*drawn, real_beside(synthetic, train, seed)])


def sheet(name: str, synthetic: SyntheticSet, train: LabeledData | None, seed: int, file_bytes: int) -> Chapter:
    """Write the chapter of one set: pictures, what it holds, how it was made and is to be trained on.

    Args:
        name: of the file.
        synthetic: the set.
        train: real data to show beside it.
        seed: to draw real images by.
        file_bytes: size of the file.
    """
    made = synthetic.provenance
    entries = [(key, _value(value)) for key, value in list(made.items())[:_ENTRIES]]
    if len(made) > _ENTRIES:
        entries.append(("and more", f"{len(made) - _ENTRIES} entries; `ddplug inspect` shows them"))
    facts = Table("What it holds", ("what", "value"), _facts(synthetic, file_bytes))
    blocks: list[Block] = [pictures(synthetic, train, seed), facts]
    if train is not None and privacy_statement(made):
        blocks.append(
            "What the set promises about single records does not hold for this page, which shows real images."
        )
    told = synthetic.recipe.to_json()
    if synthetic.recipe.steps:
        del told["epochs"]  # they do not count then
    recipe = [(key.replace("_", " "), _value(value)) for key, value in told.items()]
    blocks.append(Table(f"How to train on it: {described(synthetic.recipe)}", ("option", "value"), recipe))
    if entries:
        blocks.append(Table("How it was made, as the file says", ("entry", "value"), entries))
    return Chapter(one_line(name, most=_CHARACTERS), blocks)


def _is_image(synthetic: SyntheticSet) -> bool:
    return len(synthetic.shape) == 3


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _facts(synthetic: SyntheticSet, file_bytes: int) -> list[tuple[str, str]]:
    """List what a set holds."""
    facts = inspect(synthetic)
    counts, data = facts["samples_per_class"], synthetic.provenance.get("data")
    each = str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
    bits = "32-bit numbers" if facts["bits"] == 32 else f"{facts['bits']}-bit numbers"
    small = f", as {_by(facts['stored_shape'])}" if synthetic.network_shape else ""
    origin = data.get("name") if isinstance(data, Mapping) else data
    rows = [
        ("method", synthetic.provenance.get("method")),
        ("made from", origin),
        ("samples", f"{len(synthetic):,} of shape {_by(synthetic.shape)}, {each} per class"),
        ("classes", _classes(synthetic)),
        ("labels", {"soft": "soft: a probability for each class", "hard": "hard: one class"}[facts["labels"]]),
        ("bytes, labels counted", f"{synthetic.nbytes:,}"),
        ("bits per class", f"{synthetic.bits_per_class:,.0f}"),
        ("bytes of the file", f"{file_bytes:,}"),
        ("stored", f"{facts['codec'] or bits}{small}"),
        ("PSNR of storing", f"{facts['psnr']:.1f} dB" if isinstance(facts["psnr"], int | float) else None),
        ("holds real images", {True: "yes, or parts of them", False: "no", None: "not known"}[facts["real_images"]]),
        ("differential privacy", in_words(facts["privacy"]) if facts["privacy"] else None),
        ("values outside black and white", f"{facts['outside_unit_range']:.1%}" if _is_image(synthetic) else None),
        ("preprocessing", synthetic.preprocess.shown),
    ]
    return [(name, one_line(value, most=_CHARACTERS)) for name, value in rows if value is not None]


def _classes(synthetic: SyntheticSet) -> str:
    names = ", ".join(one_line(name, most=40) for name in synthetic.class_names[:_CLASSES])
    more = f" and {synthetic.num_classes - _CLASSES} more" if synthetic.num_classes > _CLASSES else ""
    return f"{synthetic.num_classes}: {names}{more}"


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(text, most=_CHARACTERS) or "-"


def judged(rows: Sequence[Row], tested: str, *, whole: bool) -> Chapter:
    """Write how sets were judged, as far as it is known.

    Args:
        rows: that are measured, in the order of :func:`ddplug.compare`.
        tested: what was tested on.
        whole: whether all are.
    """
    network = rows[0].evaluation.network
    main = [row for row in rows if row.evaluation.network == network]
    across = [row for row in rows if row.evaluation.network != network]
    blocks: list[Block] = [
        f"Fresh networks (`{network}`) were trained on each row alone and tested on {tested}. Protocol: "
        f"{protocols(main)}. The baselines have the same size and are trained in the same way.",
    ]
    if whole:
        figure = Picture(file_of(comparison(main, 1)), "Accuracy; bars are standard deviations.", 510)
        blocks += [_findings(main), (figure,)]
    strong = frozenset(n for n, row in enumerate(main) if row.kind == "set")
    blocks.append(Table("Accuracy at equal bytes", _ordered(HEAD), [_ordered(row.cells()) for row in main], strong))
    if across:
        both = [*(row for row in main if row.kind == "set"), *across]
        head = ("training data", "network", "accuracy (%)", "bytes", "networks")
        cells = [
            (row.method, row.evaluation.network, row.evaluation.text, f"{row.nbytes:,}", row.n)
            for row in sorted(both, key=lambda row: row.nbytes)
        ]
        blocks.append(Table("Across architectures", head, cells))
    return Chapter("Accuracy" if whole else "Accuracy so far", blocks)


def _ordered(cells: Sequence[str]) -> list[str]:
    """Put the accuracy next to the name, where a telephone shows it."""
    name, images, nbytes, bits, accuracy, networks = cells
    return [name, accuracy, nbytes, images, bits, networks]


def _findings(rows: Sequence[Row]) -> str:
    """Write in a sentence how the best set and the best baseline do at each number of bytes."""
    parts = []
    for budget in sorted({row.budget for row in rows if row.budget is not None}):
        own = [row for row in rows if row.budget == budget]
        kinds = ([row for row in own if row.kind == kind] for kind in ("set", "baseline"))
        best = [max(kind, key=_mean) for kind in kinds if kind]
        said = [f"`{one_line(row.method, most=40)}` gives {row.evaluation.text} %" for row in best]
        parts.append(f"With {budget:,} bytes {' and the best baseline, '.join(said)}.")
    bounds = [row for row in rows if row.kind == "whole data"]
    parts += [f"All real data give {row.evaluation.text} % in {row.steps} steps." for row in bounds]
    return " ".join(parts)


def _mean(row: Row) -> float:
    return row.mean
