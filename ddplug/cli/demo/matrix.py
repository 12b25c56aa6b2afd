"""A figure for continual learning: what is still known of each experience, as time goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

__all__ = ["accuracy_matrices"]

_INK = 0.6
"""Accuracy below which a cell is dark, and its figure white."""


def accuracy_matrices(matrices: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Draw accuracy on each experience (column) after each experience (row), one matrix next to the other.

    Args:
        matrices: title -> accuracies in [0, 1], a row for each experience trained on; at least one, all of one size.

    Returns:
        The figure, in percent.

    Example:
        >>> figure = accuracy_matrices({"Naive": [[1.0, 0.0], [0.2, 0.9]]})
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['100', '0', '20', '90']
    """
    figure = Figure(figsize=(3.1 * len(matrices), 3.6), dpi=150, facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, matrix) in zip(panels, matrices.items(), strict=True):
        axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                color = "white" if value < _INK else "black"
                axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=color)
        axes.set_title(title, fontsize="medium", parse_math=False)
        axes.set_xlabel("accuracy on experience (%)")
        axes.set_xticks(range(len(matrix[0])), [str(n + 1) for n in range(len(matrix[0]))])
        axes.set_yticks(range(len(matrix)), [str(n + 1) for n in range(len(matrix))])
    panels[0].set_ylabel("after experience")
    return figure
