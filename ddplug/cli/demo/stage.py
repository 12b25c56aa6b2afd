"""What the chapters of the demo share, and what each of them gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ddplug.data.labeled import LabeledData
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.files import write_file
from ddplug.utils.page import Chapter
from ddplug.utils.pictures import file_of

__all__ = ["Part", "Size", "Stage"]


@dataclass(frozen=True)
class Size:
    """How much the demo does.

    Attributes:
        budgets: images per class -> epochs of training on them.
        network: to distill with, and to evaluate with.
        methods: options of each method.
        repeats: networks trained on each set, and on the stream with each strategy.
        whole_steps: steps of training on all real data.
        memories: images in a replay memory.
        epochs: passes over each experience of the stream.
        replayed: distiller of a replay memory -> its options.
        candidates: networks of the architecture search.
        space: choices that they are drawn from, by the plural of their names in :func:`ddplug.search.convnets`.
        searched: distiller of a set to rank them by -> its options; the distilled set comes first.
        search_epochs: of full training of each of them.
        search_rate: learning rate of all training in the search.
        search_batch: images a step of all training in the search.
        share: cost of a cheap score, as a share of full training.
    """

    budgets: Mapping[int, int] = field(default_factory=lambda: {1: 120, 10: 50})
    network: str = "convnet:width=32,depth=2"
    methods: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {
            "dm": {"steps": 150, "pool_size": 20, "batch_real": 128, "init_from": "kmeans", "learning_rate": 0.3},
            "dc": {"steps": 25, "batch_real": 64, "init_from": "kmeans", "outer_loop": 5, "inner_loop": 5},
        }
    )
    repeats: int = 3
    whole_steps: int = 300
    memories: Sequence[int] = (10, 50)
    epochs: int = 4
    replayed: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {
            "random": {},
            "kmeans-centroid": {},
            "dm": {"steps": 50, "pool_size": 20, "learning_rate": 0.3, "batch_real": 256},
        }
    )
    candidates: int = 16
    space: Mapping[str, Sequence[Any]] = field(default_factory=lambda: {"widths": (4, 8), "depths": (1, 2)})
    searched: Mapping[str, Mapping[str, Any]] = field(
        default_factory=lambda: {
            "dm": {
                "network": "convnet:width=32,depth=2",
                "steps": 100,
                "pool_size": 20,
                "batch_real": 128,
                "init_from": "kmeans",
                "learning_rate": 0.3,
            },
            "random": {},
            "kmeans": {},
        }
    )
    search_epochs: int = 6
    search_rate: float = 0.02
    search_batch: int = 32
    share: float = 0.1


@dataclass(frozen=True)
class Stage:
    """What the chapters share.

    Attributes:
        folder: to write into.
        seed: of everything.
        size: how much to do.
        say: takes a line of progress.
        train: real training data.
        test: real test data.
        sets: the sets made so far, by name; later chapters find them here.
        show: takes a chapter as far as it is written; the page shows it.
    """

    folder: Path
    seed: int
    size: Size
    say: Callable[[str], None]
    train: LabeledData
    test: LabeledData
    sets: dict[str, SyntheticSet] = field(default_factory=dict)
    show: Callable[[Chapter], None] = lambda chapter: None

    def write(self, name: str, content: bytes | Figure) -> bytes:
        """Write a file, or a figure as PNG; give its bytes."""
        content = file_of(content) if isinstance(content, Figure) else content
        write_file(self.folder / name, content)
        return content


@dataclass(frozen=True)
class Part:
    """What a chapter gives.

    Attributes:
        chapter: for the report.
        values: for ``results.json``.
        summary: rows for the terminal, the head first; none where there is only a line to say.
        note: the line.
    """

    chapter: Chapter
    values: Mapping[str, Any]
    summary: Sequence[Sequence[str]] = field(default_factory=list)
    note: str = ""
