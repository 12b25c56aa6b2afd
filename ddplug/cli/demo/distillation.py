"""The chapter on distillation: real digits in a few synthetic ones, and what else fits in the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ddplug import registry
from ddplug.cli.demo.stage import Part, Stage
from ddplug.cli.sheets import picture, real_beside
from ddplug.distillation.loop import distill
from ddplug.evaluation.comparison import compare
from ddplug.evaluation.figures import accuracy_curve
from ddplug.evaluation.row import Row
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.pictures import grid
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.page import Block, Chapter, Picture, Table
from ddplug.utils.text import percent

__all__ = ["distillation"]

_BASELINES = ("random", "class-mean", "kmeans")
"""What the bytes of a distilled set are spent on instead."""


def _distilled(stage: Stage, method: str, number: int) -> SyntheticSet:
    """Distill, keep and picture one set, a byte a number: so its bytes are those of as many real images."""
    name = f"digits-{method}-{number}"
    stage.say(f"distilling {name}")
    options = {"images_per_class": number, "network": stage.size.network, **stage.size.methods[method]}
    distiller = registry.resolve("distiller", method)(**options)
    stage.sets[name] = distill(stage.train, distiller, seed=stage.seed, device="cpu").quantize()
    stage.sets[name].save(stage.folder / f"{name}.safetensors")
    return stage.sets[name]


def _row(row: Row, number: int, seconds: float | None = None) -> dict[str, Any]:
    """Return one measurement, JSON-ready; the budget is that of the sets it is compared with."""
    return {**row.to_json(), "budget": number, "distil_seconds": seconds}


def _compared(stage: Stage, number: int, epochs: int) -> list[dict[str, Any]]:
    """Distill by every method at one budget, and compare with baselines of the same bytes."""
    made = [_distilled(stage, method, number) for method in stage.size.methods]
    recipe = replace(Recipe.quick(stage.train.augmentation), epochs=epochs)
    rows = []
    for place, synthetic in enumerate(made):
        method, seconds = synthetic.provenance["method"], synthetic.provenance["seconds"]
        stage.say(f"training {stage.size.repeats} networks on {method}" + ("" if place else " and on each baseline"))
        found = compare(
            synthetic,
            stage.train,
            stage.test,
            network=stage.size.network,
            repeats=stage.size.repeats,
            recipe=recipe,
            seed=stage.seed,
            device="cpu",
            # all sets of a budget have the same bytes: once is enough for what they are compared with
            baselines=() if place else _BASELINES,
            whole=not place and number == max(stage.size.budgets),
            whole_steps=stage.size.whole_steps,
        ).rows
        rows.append(_row(found[0], number, seconds))
        rows += [_row(row, number) for row in found[1:]]
    return sorted(rows, key=lambda row: row["method"] not in stage.size.methods)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = row["distil_seconds"]
    return (
        _named(row),
        f"{row['images_per_class']:.4g}",
        f"{row['nbytes']:,}",
        percent(row["mean"], row["std"], row["n"]),
        "-" if seconds is None else f"{seconds:.1f}",
    )


def _named(row: Mapping[str, Any]) -> str:
    return f"all real data, {row['steps']} steps" if row["steps"] else str(row["method"])


_HEAD = ("training data", "images per class", "bytes", "test accuracy (%)", "distilled in (s)")


def _table(rows: Sequence[Mapping[str, Any]], number: int, methods: Mapping[str, Any]) -> Table:
    own = [row for row in rows if row["budget"] == number and not row["steps"]]
    bound = [row for row in rows if row["steps"]]
    strong = frozenset(n for n, row in enumerate(own) if row["method"] in methods)
    images = "1 image" if number == 1 else f"{number} images"
    return Table(f"{images} per class: {own[0]['nbytes']:,} bytes", _HEAD, [_cells(row) for row in own + bound], strong)


def _findings(rows: Sequence[Mapping[str, Any]], stage: Stage) -> str:
    """Write in a sentence how the best method, the best baseline and chance do at each budget."""
    parts = []
    for number in stage.size.budgets:
        own = {row["method"]: row["mean"] for row in rows if row["budget"] == number and not row["steps"]}
        method, baseline = (max(names, key=own.__getitem__) for names in (stage.size.methods, _BASELINES))
        nbytes = next(row["nbytes"] for row in rows if row["budget"] == number)
        parts.append(
            f"with {nbytes:,} bytes `{method}` reaches {own[method]:.1%}, the best baseline, `{baseline}`, "
            f"{own[baseline]:.1%} and random images {own['random']:.1%}"
        )
    bound = next(row for row in rows if row["steps"])
    return f"{'; '.join(parts)}; all {len(stage.train):,} images give {bound['mean']:.1%}.".capitalize()


def _listed(numbers: Iterable[int]) -> str:
    return " and ".join(map(str, numbers))


def _pictures(stage: Stage, number: int) -> tuple[Picture, ...]:
    """Draw the sets of one budget."""
    named = {name: made for name, made in stage.sets.items() if name.endswith(f"-{number}")}
    drawn = [
        picture(made, f"{name}, one row per class", f"Images of {name}", stage.write(f"{name}.png", grid(made)))
        for name, made in named.items()
    ]
    return (*drawn, real_beside(next(iter(named.values())), stage.train, stage.seed))


def _sheet(stage: Stage, rows: Sequence[Mapping[str, Any]], number: int) -> list[Block]:
    """Write the table and draw the sets of one budget."""
    return [_table(rows, number, stage.size.methods), _pictures(stage, number)]


def distillation(stage: Stage) -> Part:
    """Distill the digits at every budget and compare with baselines of the same bytes."""
    rows: list[dict[str, Any]] = []
    for number, epochs in stage.size.budgets.items():
        rows += _compared(stage, number, epochs)
        done = (n for n in stage.size.budgets if any(row["budget"] == n for row in rows))
        stage.show(Chapter("Distillation", [block for n in done for block in _sheet(stage, rows, n)]))
    bound = next(row for row in rows if row["steps"])
    small = [row for row in rows if not row["steps"]]
    curve = stage.write("accuracy.png", accuracy_curve(small, whole=bound["mean"], title="digits"))
    blocks: list[Block] = [
        f"{len(stage.train):,} real handwritten digits of 8 x 8 pixels were distilled into a few synthetic ones. Fresh "
        f"networks (`{stage.size.network}`) were trained on each tiny set alone, {stage.size.repeats} on each, and "
        f"tested on {len(stage.test)} other real digits. The baselines take the same bytes and the same training: the "
        f"protocol `quick`, cut to {_listed(stage.size.budgets.values())} epochs.",
        _findings(rows, stage),
        (Picture(curve, "Test accuracy over the bytes kept; bars are standard deviations over the networks.", 720),),
    ]
    for number in stage.size.budgets:
        blocks += _sheet(stage, rows, number)
    summary = [_HEAD, *map(_cells, small), _cells(bound)]
    return Part(Chapter("Distillation", blocks), {"rows": rows}, summary)
