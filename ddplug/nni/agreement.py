"""How far a proxy's ranking of architectures can be trusted: the same candidates judged cheaply and trained in full.

Everything goes through NNI and into one journal, so that a study can be stopped at any time and goes on where it was.
What is compared costs the same: an evaluator's cost is counted in images, ``3 x images trained on + images scored``,
because a training step is a forward and a backward pass of about twice the cost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from nni.nas.space import SimplifiedModelSpace

from ddplug import registry
from ddplug.distillation import distill
from ddplug.errors import DataError, OptionError
from ddplug.evaluation.ranking import agreement
from ddplug.labelled import LabelledData
from ddplug.nni.evaluator import ProxyEvaluator
from ddplug.nni.experiment import ProxyExperiment
from ddplug.nni.journal import Journal, Record
from ddplug.nni.listed import Listed
from ddplug.nni.running import folder_at
from ddplug.nni.sets import load_set
from ddplug.nni.zero_cost import zero_cost
from ddplug.scatter import scatter

__all__ = ["HEAD", "Study", "cost", "early_stopping", "epochs_within", "selection_file", "table"]


def cost(evaluator: ProxyEvaluator) -> float:
    """Give what judging one candidate costs, in forward passes of one image.

    Args:
        evaluator: with nothing left to choose.

    Example:
        A set of 100 images for 30 epochs, scored on 1,000, costs ``3 * 100 * 30 + 1000``.
    """
    train, validation = evaluator.sets()
    protocol = evaluator.protocol
    return float(protocol.seeds * (3 * len(train) * protocol.recipe(train.recipe).epochs + len(validation)))


def epochs_within(budget: float, images: int, scored: int) -> int:
    """Give the epochs of training on a set that a cost allows.

    Args:
        budget: as :func:`cost` counts, for one seed.
        images: in the set.
        scored: images of the validation file.

    Raises:
        OptionError: not even one epoch is allowed.

    Example:
        >>> epochs_within(10_000, images=100, scored=1000)
        30
    """
    epochs = int((budget - scored) // (3 * images))
    if epochs < 1:
        raise OptionError(
            f"a cost of {budget:.0f} image passes does not allow one epoch of {images} images scored on {scored}; "
            "allow a larger share, or take fewer images or a smaller validation file"
        )
    return epochs


def selection_file(data: LabelledData, method: str, images_per_class: int, path: str | Path, seed: int = 0) -> Path:
    """Write a selection of real samples, unless the file holds it already: another file would be judged anew.

    Args:
        data: to select from.
        method: ``"random"``, ``"kmeans"`` or another name of a distiller that needs no steps.
        images_per_class: samples of each class.
        path: of the file.
        seed: of the selection.

    Returns:
        The path.
    """
    place, chosen = Path(path), registry.resolve("distiller", method)(images_per_class=images_per_class)
    if place.exists():
        made = load_set(place)
        known = made.provenance
        data_known = known.get("data")
        fingerprint = data_known.get("fingerprint") if isinstance(data_known, Mapping) else None
        wanted = (method, seed, images_per_class * data.num_classes, data.fingerprint)
        if (known.get("method"), known.get("seed"), len(made), fingerprint) == wanted:
            return place
    distill(data, chosen, seed=seed, device="cpu").quantise().save(place)
    return place


def early_stopping(
    data: LabelledData, path: str | Path, validation: str | Path, budget: float, **options: Any
) -> ProxyEvaluator:
    """Make the evaluator that trains on the whole data, but stops at a cost.

    One pass over as many random samples as the cost allows is how training on all data begins.

    Args:
        data: what full training is on.
        path: where to write these samples.
        validation: file of real validation data.
        budget: as :func:`cost` counts, for one seed.
        options: of :class:`ddplug.nni.evaluator.ProxyEvaluator`, those of full training but for the epochs.

    Raises:
        OptionError: the cost allows not a single image a class.
    """
    number = int((budget - len(load_set(validation))) // 3)
    per_class = number // data.num_classes
    if per_class < 1:
        raise OptionError(f"a cost of {budget:.0f} image passes allows {number} images, less than one a class")
    selection_file(data, "random", per_class, path, options.get("seed", 0))
    return ProxyEvaluator(path, validation, **{"augment": "", **options, "epochs": 1})


@dataclass
class Study:
    """Candidates of a space, judged by several evaluators and trained in full.

    Args:
        space: an NNI model space.
        samples: the candidates, label -> choice each, as :func:`ddplug.nni.spaces.architectures` draws them.
        full: the evaluator whose results count as the truth.
        proxies: name -> evaluator that is to predict them.
        folder: where ``journal.jsonl`` and NNI's own files are kept; made if it is missing.
        zero: names of untrained scores, see :mod:`ddplug.nni.zero_cost`.

    Raises:
        OptionError: there are fewer than 2 candidates, a name is taken, or the folder cannot be written.
    """

    space: Any
    samples: Sequence[Mapping[str, Any]]
    full: ProxyEvaluator
    proxies: Mapping[str, ProxyEvaluator]
    folder: str | Path
    zero: Sequence[str] = ()
    _records: dict[str, list[Record | None]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if len(self.samples) < 2:
            raise OptionError(f"a study of {len(self.samples)} candidates ranks nothing; give at least 2")
        taken = {"full", *self.zero} & set(self.proxies)
        if taken:
            raise OptionError(f"a proxy is named {sorted(taken)[0]!r}, which is taken; choose another name")
        self.folder = folder_at(self.folder)

    @property
    def evaluators(self) -> dict[str, ProxyEvaluator]:
        """All evaluators, the cheap ones first."""
        return {**self.proxies, "full": self.full}

    def run(self, say: Callable[[str], object] = lambda line: None) -> None:
        """Judge every candidate by every evaluator, except what the journal has already.

        Args:
            say: takes a line of progress before each evaluator.

        Raises:
            OptionError: an evaluator finds that the space does not suit its files.
        """
        for name, evaluator in self.evaluators.items():
            say(f"{name}: judging {len(self.samples)} candidates")
            with _quiet():
                experiment = self._experiment(evaluator)
                experiment.run()
            self._records[name] = self._found(evaluator)

    def _experiment(self, evaluator: ProxyEvaluator) -> ProxyExperiment:
        listed = Listed(self.samples)
        return ProxyExperiment(self.space, evaluator, listed, trials=len(self.samples), folder=self.folder)

    def _found(self, evaluator: ProxyEvaluator) -> list[Record | None]:
        """Look up the candidates' successes, in order."""
        journal = Journal(Path(self.folder) / "journal.jsonl")
        known = {record.key: record for record in journal.results()}
        return [known.get(evaluator.key(self._frozen(evaluator, sample))) for sample in self.samples]

    def _frozen(self, evaluator: ProxyEvaluator, sample: Mapping[str, Any]) -> Any:
        return SimplifiedModelSpace.from_model(self.space, evaluator).freeze(dict(sample))

    def records(self, name: str) -> list[Record | None]:
        """Give what an evaluator found for each candidate, in order; ``None`` where it has no result (yet).

        Args:
            name: of a proxy, or ``"full"``.
        """
        if name not in self._records:
            self._records[name] = self._found(self.evaluators[name])
        return self._records[name]

    def scores(self) -> dict[str, list[float | None]]:
        """Give the score of each candidate by each evaluator, ``"full"`` and the untrained scores included."""
        found: dict[str, list[float | None]] = {
            name: [None if record is None else record.metric for record in self.records(name)]
            for name in self.evaluators
        }
        train = self.full.sets()[0]
        index = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:64]
        x, y = train[index]
        for name in self.zero:
            found[name] = [zero_cost(name, partial(self.space.freeze, sample), x, y) for sample in self.samples]
        return found

    def rows(self, *, resamples: int = 1000, seed: int = 0) -> list[dict[str, Any]]:
        """Compare every score with full training, over the candidates that all of them judged.

        Args:
            resamples: of the bootstrap.
            seed: of the bootstrap.

        Returns:
            One JSON-ready row for each score, the best Spearman correlation first, with its name, the figures of
            :meth:`ddplug.evaluation.ranking.Agreement.to_json`, ``cost`` as a share of full training, ``seconds`` a
            candidate and the number of ``failed`` candidates.

        Raises:
            DataError: fewer than 2 candidates have every score.
        """
        scores = self.scores()
        both = [n for n in range(len(self.samples)) if all(own[n] is not None for own in scores.values())]
        if len(both) < 2:
            raise DataError(f"{len(both)} of {len(self.samples)} candidates have every score; run the study first")
        truth = [scores["full"][n] or 0.0 for n in both]
        rows = []
        for name, own in scores.items():
            if name == "full":
                continue
            rng = torch.Generator().manual_seed(seed)
            figures = agreement([own[n] or 0.0 for n in both], truth, resamples=resamples, rng=rng)
            rows.append({"name": name, **figures.to_json(), **self._costs(name)})
        return sorted(rows, key=lambda row: -(row["spearman"][0] or 0.0))

    def _costs(self, name: str) -> dict[str, Any]:
        if name not in self.evaluators:
            return {"cost": 0.0, "seconds": 0.0, "failed": 0}
        records = self.records(name)
        done = [record.seconds for record in records if record is not None]
        share = cost(self.evaluators[name]) / cost(self.full)
        return {"cost": share, "seconds": sum(done) / max(1, len(done)), "failed": records.count(None)}

    def figure(self, rows: Sequence[Mapping[str, Any]] | None = None) -> Figure:
        """Draw every score over the truth, over the candidates that all of them judged.

        Args:
            rows: of :meth:`rows`, in whose order they are drawn; made if not given.
        """
        rows = self.rows() if rows is None else rows
        scores = self.scores()
        both = [n for n in range(len(self.samples)) if all(own[n] is not None for own in scores.values())]
        shown = {row["name"]: [scores[row["name"]][n] or 0.0 for n in both] for row in rows}
        notes = {row["name"]: f"Spearman {_text(row['spearman'][0])}" for row in rows}
        return scatter([scores["full"][n] or 0.0 for n in both], shown, notes)


HEAD = ("score", "cost", "Spearman", "95 % interval", "Kendall", "top 5", "regret (points)", "seconds", "failed")
"""Head of :func:`table`."""


def table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Give the rows of :meth:`Study.rows` as cells, the head first."""
    return [HEAD, *map(_cells, rows)]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    value, low, high = row["spearman"]
    share = row["cost"]
    return (
        row["name"],
        "-" if not share else f"1/{1 / share:.0f}" if share < 1 else f"{share:.1f}",
        _text(value),
        f"{_text(low)} to {_text(high)}",
        _text(row["kendall"][0]),
        _text(row["overlap"].get("5", [None])[0]),
        f"{100 * row['regret'][0]:.2f}",
        f"{row['seconds']:.2f}",
        str(row["failed"]),
    )


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNI's log lines off the screen; they stay in the experiment's own log file."""
    logger = logging.getLogger("nni")
    before = [(handler, handler.level) for handler in logger.handlers]
    for handler, _ in before:
        handler.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for handler, level in before:
            handler.setLevel(level)
