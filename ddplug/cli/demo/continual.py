"""The chapter on continual learning: digits come two at a time, and a memory of a few images is kept of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from ddplug.cli.demo.matrix import accuracy_matrices
from ddplug.cli.demo.stage import Part, Size, Stage
from ddplug.cli.demo.streams import EXPERIENCES, HIDDEN, LEARNING_RATE, Learner, Run, run
from ddplug.synthetic.pictures import grid
from ddplug.utils.packages import install_extra
from ddplug.utils.page import Block, Chapter, Picture, Table
from ddplug.utils.text import percent

__all__ = ["MISSING", "continual"]

MISSING = f"Continual learning was left out: `{install_extra('avalanche')}` adds it."
"""What is said where Avalanche is not installed."""

_TITLE = "Continual learning"

_HEAD = ("strategy", "distiller", "images", "bytes", "test accuracy (%)", "distilled in (s)")


def continual(stage: Stage) -> Part:
    """Learn the digits two at a time with and without memories; where Avalanche is not installed, name its extra."""
    if find_spec("avalanche") is None:
        return Part(Chapter(_TITLE, [MISSING]), {"skipped": MISSING}, note=MISSING)
    results = [(learner, _runs(stage, learner)) for learner in _learners(stage.size)]
    rows = [_row(learner, runs) for learner, runs in results]
    cells = [_cells(row) for row in rows]
    made = frozenset(n for n, row in enumerate(rows) if row["distiller"] not in (None, "random"))
    head = f"After {EXPERIENCES} experiences, all digits"
    blocks: list[Block] = [*_text(stage), _findings(rows), Table(head, _HEAD, cells, made), *_pictures(stage, results)]
    values = {"skipped": None, "epochs": stage.size.epochs, "experiences": EXPERIENCES, "rows": rows}
    return Part(Chapter(_TITLE, blocks), values, [_HEAD, *cells])


def _learners(size: Size) -> list[Learner]:
    """Return everything that is compared: no memory, and each kind of memory at each size."""
    learners = [Learner("Naive")]
    for images in size.memories:
        learners.append(Learner("Replay", images))
        learners += [Learner("DistilledReplay", images, name, options) for name, options in size.replayed.items()]
    return learners


def _runs(stage: Stage, learner: Learner) -> list[Run]:
    """Run one learner from as many first weights as there are repeats."""
    stage.say(f"learning {EXPERIENCES} experiences: {learner}")
    seeds = range(stage.seed, stage.seed + stage.size.repeats)
    return [run(learner, stage.train, stage.test, stage.size.epochs, seed) for seed in seeds]


def _row(learner: Learner, runs: Sequence[Run]) -> dict[str, Any]:
    """Return the runs of one learner, JSON-ready; the matrix is their mean."""
    accuracies = [each.accuracy for each in runs]
    seconds = [each.seconds for each in runs if each.seconds is not None]
    return {
        "strategy": learner.strategy,
        "distiller": learner.distiller,
        "options": dict(learner.options),
        "images": learner.images,
        "nbytes": runs[0].nbytes,
        "n": len(runs),
        "accuracies": accuracies,
        "mean": statistics.fmean(accuracies),
        "std": statistics.pstdev(accuracies),
        "distil_seconds": statistics.fmean(seconds) if seconds else None,
        "matrix": _mean(runs),
    }


def _mean(runs: Sequence[Run]) -> list[list[float]]:
    """Average the accuracy matrices."""
    tables = zip(*(each.matrix for each in runs), strict=True)
    return [[statistics.fmean(cells) for cells in zip(*rows, strict=True)] for rows in tables]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = row["distil_seconds"]
    return (
        row["strategy"],
        row["distiller"] or "-",
        str(row["images"]),
        f"{row['nbytes']:,}",
        percent(row["mean"], row["std"], row["n"]),
        "-" if seconds is None else f"{seconds:.1f}",
    )


def _text(stage: Stage) -> list[Block]:
    """Say what is done, and what was chosen how."""
    epochs = "1 epoch" if stage.size.epochs == 1 else f"{stage.size.epochs} epochs"
    return [
        f"The same digits come in {EXPERIENCES} experiences, 0 and 1 first, 8 and 9 last. One network (Avalanche's "
        f"`SimpleMLP` with {HIDDEN} hidden units, SGD at {LEARNING_RATE}, {epochs} per experience) learns them one "
        "after the other. At the end it must tell all ten apart, without being told which experience a digit is "
        f"from. Each strategy is run {stage.size.repeats} times. `Naive` keeps nothing. `Replay` is Avalanche's own, "
        "with real images and a class-balanced buffer. `DistilledReplay` keeps as many images, distilled after each "
        "experience.",
        "It differs from `Replay` in what it keeps and in how that is replayed: with a loss of its own, and varied as "
        "the present classes vary. With the distiller `random` it keeps real images but replays them in the same way, "
        "which separates the two effects. Bytes count one byte per pixel and per label, for real images too, and two "
        "levels per class for those of `DistilledReplay`.",
        "The epochs, and the steps and networks of `dm`, were chosen on a fifth of the training data that was held "
        "out, and the learning rate and batch of `dm` on a held-out part of MNIST's training data; nothing was chosen "
        "on test data. Other options are the defaults.",
    ]


def _findings(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say in a sentence how the best distilled memory, stock replay and no memory at all do."""
    parts = []
    for images in dict.fromkeys(row["images"] for row in rows if row["images"]):
        own = [row for row in rows if row["images"] == images]
        best = max((row for row in own if row["distiller"]), key=lambda row: row["mean"])
        stock = next(row for row in own if not row["distiller"])
        parts.append(
            f"with {images} images `DistilledReplay` by `{best['distiller']}` ends at {best['mean']:.1%} and `Replay` "
            f"at {stock['mean']:.1%}"
        )
    return f"Without memory, `Naive` ends at {rows[0]['mean']:.1%}; {'; '.join(parts)}."


def _pictures(stage: Stage, results: Sequence[tuple[Learner, Sequence[Run]]]) -> list[Block]:
    """Draw what is forgotten with the smallest memory, and what the largest holds after the first run."""
    last, least, most = list(stage.size.replayed)[-1], min(stage.size.memories), max(stage.size.memories)
    drawn = [
        (learner, runs)
        for learner, runs in results
        if learner.images in (0, least) and learner.distiller in (None, last)
    ]
    titles = {str(learner).replace(", ", "\n", 1): _mean(runs) for learner, runs in drawn}
    figure = stage.write("continual.png", accuracy_matrices(titles))
    pictures = []
    for learner, runs in results:
        if learner.images == most and runs[0].memory is not None:
            name = f"memory-{learner.distiller or 'replay'}-{most}.png"
            caption = f"`{learner.distiller}`" if learner.distiller else "`Replay`: real images"
            pictures.append(Picture(stage.write(name, grid(runs[0].memory)), caption, 200))
    return [
        (Picture(figure, "Accuracy on each experience, also on those to come, after each; mean of the runs.", 860),),
        f"What the memories of {most} images held in the end, one row per class:",
        tuple(pictures),
    ]
