"""A figure of what a cheap score says of candidates, and what full training finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ddplug.errors import DataError

__all__ = ["scatter"]

_COLUMNS = 4


def scatter(
    truth: Sequence[float], scores: Mapping[str, Sequence[float]], notes: Mapping[str, str] | None = None
) -> Figure:
    r"""Draw one panel a score: each candidate's score, and its accuracy after full training.

    Args:
        truth: accuracy of each candidate in [0, 1].
        scores: name -> a score of each candidate, in the same order; at least one.
        notes: name -> a line for its title, such as a rank correlation.

    Returns:
        The figure; the candidates that a score would choose among are ringed.

    Raises:
        DataError: a score has not one value a candidate, or there are no scores.

    Example:
        >>> figure = scatter([0.5, 0.9, 0.7], {"early": [0.1, 0.3, 0.2]}, {"early": "Spearman 1.00"})
        >>> figure.axes[0].get_title()
        'early\nSpearman 1.00'
    """
    if not scores:
        raise DataError("there are no scores to draw; give at least one")
    for name, own in scores.items():
        if len(own) != len(truth):
            raise DataError(f"score {name!r} has {len(own)} values for {len(truth)} candidates; give one each")
    columns = min(_COLUMNS, len(scores))
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(3.0 * columns, 3.1 * rows), dpi=120, facecolor="white", layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    percent = [100 * value for value in truth]
    for axes, (name, own) in zip(panels, scores.items(), strict=False):
        axes.scatter(own, percent, s=16, color="#0072B2", alpha=0.75, linewidths=0)
        chosen = [n for n, value in enumerate(own) if value == max(own)]
        axes.scatter(
            [own[n] for n in chosen],
            [percent[n] for n in chosen],
            s=80,
            facecolors="none",
            edgecolors="#D55E00",
            linewidths=1.4,
        )
        title = "\n".join(filter(None, [name, (notes or {}).get(name, "")]))
        axes.set_title(title, fontsize="medium", parse_math=False)
        axes.set_xlabel("score")
        axes.grid(alpha=0.3)
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("accuracy after full training (%)")
    return figure
