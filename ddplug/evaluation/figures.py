"""Figures: the images of a set as a grid, and accuracy over budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ddplug.errors import DataError, OptionError

__all__ = ["accuracy_curve", "scatter"]

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


def _line(axes: Axes, place: int, method: str, points: list[Mapping[str, Any]], budget: str) -> None:
    """Draw one method; color and marker both tell it apart, and the line style where the colors run out."""
    axes.errorbar(
        [row[budget] for row in points],
        [100 * row["mean"] for row in points],
        yerr=[100 * row["std"] for row in points],
        label=method,
        color=_COLORS[place % len(_COLORS)],
        marker=_MARKERS[place % len(_MARKERS)],
        linestyle="-" if place < len(_COLORS) else ":",
        markersize=6,
        linewidth=1.8,
        capsize=3,
    )


def _dress(axes: Axes, budget: str, values: list[float]) -> None:
    """Label the axes; ticks stand at the budgets that were measured, while they are few."""
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
    axes.grid(True, color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _size(value: float, budget: str) -> str:
    """Write a budget shortly: 7,850 bytes as 7.9 kB."""
    if budget != "nbytes":
        return f"{value:g}"
    power = min(max(int(math.log10(max(value, 1))) // 3, 0), 3)
    return f"{value / 1000**power:.3g} {('B', 'kB', 'MB', 'GB')[power]}"


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
