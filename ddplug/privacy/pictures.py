"""Curves of attacks, on axes that show what is found at few false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from matplotlib.figure import Figure

from ddplug.privacy.attacks import Membership

__all__ = ["roc"]

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

_LINES = ("-", "--", "-.", ":")


def roc(found: Sequence[Membership]) -> Figure:
    """Draw the share of members that are found over the rate of false alarms, both axes logarithmic.

    Guessing lies on the diagonal. What is below the reach of an axis, as none found, is not drawn.

    Args:
        found: attacks, at least one.

    Returns:
        The figure.

    Example:
        >>> curve = ((0.01, 0.2), (1.0, 1.0))
        >>> one = Membership("this set", "nearness", "offline", 0.6, (0.5, 0.7), {}, 100, 100, curve)
        >>> roc([one]).axes[0].get_xscale()
        'log'
    """
    figure = Figure(figsize=(7.2, 4.8), dpi=100, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    least = min(each.curve[0][0] for each in found)
    low = min(least, *(1 / max(each.members, 1) for each in found)) / 1.5
    for each, color, line in zip(found, cycle(_COLORS), cycle(_LINES)):
        points = [point for point in each.curve if point[1] > 0]
        label = f"{each.target} by {each.signal}, {each.attack}"
        axes.plot(*zip(*points, strict=True), color=color, linestyle=line, label=label)
    axes.plot([low, 1], [low, 1], color="#7F7F7F", linewidth=1, label="guessing")
    axes.set(xscale="log", yscale="log", xlim=(low, 1.1), ylim=(low, 1.1))
    axes.set_xlabel("false alarms: share of others that are called members")
    axes.set_ylabel("members that are found")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small", framealpha=0)
    return figure
