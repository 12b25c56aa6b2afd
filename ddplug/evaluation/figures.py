"""Figures: the images of a set as a grid, and accuracy over budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ddplug.errors import DataError, OptionError
from ddplug.evaluation.row import Row
from ddplug.utils.text import one_line

__all__ = ["accuracy_curve", "comparison", "scatter"]

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")

_BUDGETS = {"nbytes": "stored bytes of the set", "images_per_class": "images per class"}


def accuracy_curve(
    rows: Iterable[Mapping[str, Any]],
    *,
    budget: Literal["nbytes", "images_per_class"] = "nbytes",
    whole: float | None = None,
    title: str = "",
) -> Figure:
    """Draw test accuracy over budget: one line a method, mean and standard deviation, budget on a log scale.

    Args:
        rows: mappings with ``method``, the budget, and ``mean`` and ``std`` of the accuracy in ``[0, 1]``.
        budget: the key to plot over.
        whole: accuracy of training on all the real data, drawn as a dashed bound.
        title: shown above.

    Returns:
        The figure.

    Raises:
        OptionError: there is no row, or the budget is not one of the two.

    Example:
        >>> rows = [{"method": "dm", "nbytes": 100, "mean": 0.8, "std": 0.01}]
        >>> accuracy_curve(rows, whole=0.97).axes[0].get_xscale()
        'log'
    """
    if budget not in _BUDGETS:
        raise OptionError(f"budget is {budget!r}; it must be {' or '.join(_BUDGETS)}")
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(row["method"], []).append(row)
    if not lines:
        raise OptionError("there is no row to plot; give at least one accuracy")
    figure = Figure(figsize=(7.2, 4.5), dpi=150, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for place, (method, points) in enumerate(lines.items()):
        _line(axes, place, method, sorted(points, key=lambda row: row[budget]), budget)
    if whole is not None:
        axes.axhline(100 * whole, color="black", linestyle="--", linewidth=1.2, label=f"all real data ({whole:.1%})")
    axes.set_title(title, parse_math=False)
    _dress(axes, budget, sorted({row[budget] for points in lines.values() for row in points}))
    return figure


def _line(
    axes: Axes, place: int, method: str, points: Sequence[Mapping[str, Any]], budget: str, *, thin: bool = False
) -> None:
    """Draw one method; color and marker both tell it apart, and the line style where the colors run out."""
    axes.errorbar(
        [row[budget] for row in points],
        [100 * row["mean"] for row in points],
        yerr=[100 * row["std"] for row in points],
        label=method,
        color=_COLORS[place % len(_COLORS)],
        marker=_MARKERS[place % len(_MARKERS)],
        linestyle="-" if place < len(_COLORS) else ":",
        markersize=3.5 if thin else 6,
        linewidth=1.1 if thin else 1.8,
        capsize=2 if thin else 3,
    )


def _dress(axes: Axes, budget: str, values: list[float]) -> None:
    """Label the axes; ticks stand at the budgets that were measured, while they are few."""
    _scale(axes, budget, values)
    axes.grid(True, color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _scale(axes: Axes, budget: str, values: Sequence[float]) -> None:
    """Label the axes, and put the ticks."""
    axes.set_xscale("log")
    axes.set_xlabel(_BUDGETS[budget])
    axes.set_ylabel("test accuracy (%)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _size(value, budget)))
    # methods differ by a few bytes in labels or levels: one tick serves them
    ticks = [value for place, value in enumerate(values) if place == 0 or value > 1.25 * values[place - 1]]
    if len(ticks) <= 6:
        axes.set_xticks(ticks)
        axes.xaxis.set_minor_locator(NullLocator())
    if len(ticks) == 1:
        axes.set_xlim(ticks[0] / 2, ticks[0] * 2)


def _size(value: float, budget: str) -> str:
    """Write a budget shortly: 7,850 bytes as 7.9 kB."""
    if budget != "nbytes":
        return f"{value:g}"
    power = min(max(int(math.log10(max(value, 1))) // 3, 0), 3)
    return f"{value / 1000**power:.3g} {('B', 'kB', 'MB', 'GB')[power]}"


_WIDTHS = {1: 3.4, 2: 7.0}
"""Columns of a page of two -> inches that a figure fills."""

_POINTS = 8
"""Size of the letters of a figure for a paper."""


def comparison(rows: Sequence[Row], columns: int = 1) -> Figure:
    """Draw the rows of a comparison for a paper of two columns.

    Sets of several sizes are drawn as accuracy over bytes, a line a method; of one size, a row below the other. Bars
    are standard deviations, a dashed line is the whole data.

    Args:
        rows: of a comparison.
        columns: that the figure is to fill, 1 or 2.

    Returns:
        The figure, letters of 8 points.

    Raises:
        OptionError: ``columns`` is neither, or there is no row of a set.
    """
    if columns not in _WIDTHS:
        raise OptionError(f"columns is {columns!r}; it must be 1 or 2")
    own, bounds = [row for row in rows if row.budget is not None], [row for row in rows if row.budget is None]
    if not own:
        raise OptionError("there is no row to plot; give at least one set")
    several = len({row.budget for row in own}) > 1
    height = 2.7 if several else 0.7 + 0.24 * len(own)
    figure = Figure(figsize=(_WIDTHS[columns], height), dpi=300, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    draw, line = (_over_bytes, axes.axhline) if several else (_one_below_the_other, axes.axvline)
    draw(axes, own)
    for bound in bounds:
        line(100 * bound.mean, color="black", linestyle="--", linewidth=0.9, label=f"whole data ({bound.mean:.1%})")
    axes.tick_params(labelsize=_POINTS)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(_POINTS)
    axes.grid(True, color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if several or bounds:
        figure.legend(loc="outside lower center", ncols=columns * 2, fontsize=_POINTS - 1, frameon=False)
    return figure


def _over_bytes(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw accuracy over bytes."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(row.method, []).append(row)
    for place, (method, points) in enumerate(lines.items()):
        values = [{"nbytes": row.nbytes, "mean": row.mean, "std": row.std} for row in points]
        label = one_line(method, most=30).replace("$", r"\$")  # which would begin a formula
        label = f" {label}" if label.startswith("_") else label  # which would hide it from the legend
        _line(axes, place, label, sorted(values, key=lambda value: value["nbytes"]), "nbytes", thin=True)
    _scale(axes, "nbytes", sorted({row.budget or 0 for row in rows}))


def _one_below_the_other(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw accuracies of as many bytes, the first on top."""
    for place, row in enumerate(rows):
        color = _COLORS[0] if row.kind == "set" else _COLORS[-1]
        axes.errorbar(
            100 * row.mean, -place, xerr=100 * row.std, color=color, marker="o", markersize=4, linewidth=1.2, capsize=2
        )
    names = [one_line(row.method, most=30) for row in rows]
    axes.set_yticks([-place for place in range(len(rows))], names, parse_math=False)
    axes.set_ylim(0.5 - len(rows), 0.5)
    axes.set_xlabel(f"test accuracy (%), in {_size(rows[0].budget or 0, 'nbytes')}")


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
