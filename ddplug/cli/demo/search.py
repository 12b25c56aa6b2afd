"""The chapter on architecture search: whether a few images rank networks as training on all of them does."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddplug import registry
from ddplug.cli.demo.quiet import unmoved
from ddplug.cli.demo.stage import Part, Stage
from ddplug.data.labeled import LabeledData
from ddplug.distillation.loop import distill
from ddplug.synthetic.held_out import holdout
from ddplug.utils.page import Block, Chapter, Picture, Table

if TYPE_CHECKING:
    from ddplug.search.agreement import Study

__all__ = ["search"]

_TITLE = "Architecture search"

_HELD_OUT = 0.2
_UNTRAINED = ("parameters", "synflow")
_RESAMPLES = 200
"""Of the bootstrap: enough for intervals of so few networks, and a fifth of the time."""


def search(stage: Stage) -> Part:
    """Rank networks by small sets and by full training."""
    with unmoved(stage.seed), tempfile.TemporaryDirectory() as folder:
        from ddplug.search.agreement import table

        study = _study(stage, Path(folder))
        study.run(lambda line: stage.say(f"architecture search: {line}"))
        rows, scores, figure = study.rows(resamples=_RESAMPLES, seed=stage.seed), study.scores(), study.figure()
    picture = stage.write("search.png", figure)
    head, *cells = table(rows)
    distilled = next(iter(stage.size.searched))
    strong = frozenset(n for n, row in enumerate(rows) if row["name"] == distilled)
    caption = f"{len(study.candidates.samples)} networks: how well each score ranks them"
    blocks: list[Block] = [
        *_text(stage),
        _findings(rows, scores["full"], distilled),
        Table(caption, head, cells, strong),
        (Picture(picture, "Each network: its score, and its accuracy after full training. Ringed: the choice.", 900),),
    ]
    samples = [dict(sample) for sample in study.candidates.samples]
    values = {"skipped": None, "share": stage.size.share, "rows": rows, "samples": samples, "scores": scores}
    return Part(Chapter(_TITLE, blocks), values, [head, *cells])


def _study(stage: Stage, folder: Path) -> Study:
    """Plan who is judged by what: every set, and the beginning of full training, at one cost."""
    from ddplug.search import Judge, Protocol, Study, convnets

    # the test data are for other chapters; and no set has seen what judges it
    train, rest = stage.train.split(_HELD_OUT)
    held_out = folder / "validation.safetensors"
    holdout(train).save(folder / "whole.safetensors")
    holdout(rest).save(held_out)
    training: dict[str, Any] = {
        "learning_rate": stage.size.search_rate,
        "batch_size": stage.size.search_batch,
        "seed": stage.seed % 2**31,
        "device": "cpu",
    }
    full = Judge(folder / "whole.safetensors", held_out, Protocol(epochs=stage.size.search_epochs, **training))
    sets = {name: _made(stage, name, train, folder) for name in stage.size.searched}
    choices = {name.removesuffix("s"): own for name, own in stage.size.space.items()}
    seed = stage.seed % 2**32
    drawn = convnets(stage.train.shape, stage.train.num_classes, stage.size.candidates, seed, **choices)
    judged: dict[str, Any] = {"share": stage.size.share, "validation": held_out, "zero": _UNTRAINED}
    return Study.at_one_cost(drawn, full, sets, folder, protocol=Protocol(**training), **judged)


def _images(stage: Stage) -> int:
    """Count the images of every set."""
    return max(stage.size.budgets) * stage.train.num_classes


def _made(stage: Stage, name: str, train: LabeledData, folder: Path) -> Path:
    """Make a set without the images that are held out; the sets of the first chapter have seen them."""
    stage.say(f"architecture search: making a set by {name}, without the images that judge")
    chosen = registry.resolve("distiller", name)(images_per_class=max(stage.size.budgets), **stage.size.searched[name])
    path = folder / f"{name}.safetensors"
    distill(train, chosen, seed=stage.seed, device="cpu").quantize().save(path)
    return path


def _text(stage: Stage) -> list[Block]:
    """Write what is done."""
    first, *others = stage.size.searched
    epochs = "1 epoch" if stage.size.search_epochs == 1 else f"{stage.size.search_epochs} epochs"
    return [
        f"{stage.size.candidates} networks were drawn from a small variant of the published space of ConvNets (width, "
        "depth, normalization, activation and pooling vary). Each was trained in full, for "
        f"{epochs} on four fifths of the training data, and judged on the other fifth; the test data were not "
        "touched. Then each was judged on that fifth after cheap training: on "
        f"{_images(stage)} images distilled by `{first}`, on as many real ones chosen by {_quoted(others)}, and on as "
        "many samples of all as one pass may see, which is full training stopped early. None of these costs more than "
        f"{stage.size.share:.0%} of full training (three passes a training image, one a scored image). `parameters` "
        "and `synflow` train nothing.",
        "A score is of use if it ranks the networks as full training does (Spearman and Kendall correlation, 1 is "
        "perfect), or at least chooses one that is nearly the best (regret: how many points of accuracy that choice "
        "loses). The intervals are of a bootstrap over the networks. So few of them say little; `ddplug agreement` "
        "does the same for your own data and sets.",
    ]


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _findings(rows: Sequence[Mapping[str, Any]], truth: Sequence[float | None], distilled: str) -> str:
    """Write in a sentence or two how the scores rank and what they choose."""
    from ddplug.search.agreement import EARLY

    own = {row["name"]: row for row in rows}
    trained = [row for row in rows if row["cost"]]
    parts = [f"`{row['name']}` {_correlation(row['spearman'])}" for row in trained]
    done = [value for value in truth if value is not None]
    return (
        f"Full training gives between {min(done):.1%} and {max(done):.1%}. Spearman correlation with it: "
        f"{', '.join(parts)}. The network that `{distilled}` chooses is {100 * own[distilled]['regret'][0]:.1f} "
        f"points below the best, that of early stopping {100 * own[EARLY]['regret'][0]:.1f}."
    )


def _correlation(estimate: Sequence[float | None]) -> str:
    """Write a correlation and its interval; it is not defined where all scores are equal."""
    value, low, high = estimate
    if value is None or low is None or high is None:
        return "none"
    return f"{value:.2f} (95 % interval {low:.2f} to {high:.2f})"
