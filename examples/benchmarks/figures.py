"""Draw the results in docs/benchmarks: stored-*.json, avalanche-*.json and nni-ranking-*.json.

python examples/benchmarks/figures.py docs/benchmarks OUT
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

sys.path.insert(0, str(Path(__file__).parents[2]))

from ddplug.evaluation.figures import scatter
from examples.benchmarks.stored_bytes import WHOLE

__all__ = ["PUBLISHED", "draw", "matrices", "over_bytes", "over_memory"]

PUBLISHED: Mapping[str, Mapping[str, tuple[tuple[int, float], ...]]] = {
    "MNIST": {"FreD": ((25_000, 95.8), (251_000, 97.6))},
    "CIFAR-10": {
        "MTT": ((98_304, 46.3), (983_040, 65.3)),
        "IDC": ((98_304, 50.0), (983_040, 67.5)),
        "FreD": ((98_304, 60.6), (983_040, 70.3)),
        "SPEED": ((98_304, 63.2), (983_040, 73.5)),
        "HMN": ((98_304, 65.7), (983_040, 73.7)),
        "RTP": ((98_304, 66.4), (983_040, 71.2)),
        "DDiF": ((98_304, 66.5), (983_040, 74.0)),
        "NSD": ((98_304, 68.5), (983_040, 73.4)),
        "TM-RUO": ((107_000, 70.3), (770_000, 77.5)),
    },
}
"""Data -> method -> (bits a class, accuracy in %), read off figures of Bao et al., ICCV 2025; width 128, best epoch."""

_GRAY = "#7d8590"
"""What is not ours; it can be read on light and on dark pages."""

_NAMES = 0.45
"""Share of the bytes of the smallest published sets where their names begin, on a logarithmic axis."""

_SHOWN = 3
"""Matrices side by side."""


def over_bytes(results: Sequence[Mapping[str, Any]], size: tuple[float, float] = (10, 4.6)) -> Figure:
    """Draw accuracy on test data over the bytes of a set, with published figures in gray.

    Args:
        results: of ``stored_bytes.py``; those whose titles begin with the same name of data share a panel.
        size: of the figure, in inches.
    """
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    every = [row for result in results for row in result["rows"] if row["stored"] != WHOLE.name]
    methods = sorted({row["stored"] for row in every}, key=lambda name: (name != "random", name))
    networks = sorted({row["network"] for row in every}, key=[row["network"] for row in every].count)
    for axes, data in zip(figure.subplots(1, len(PUBLISHED)), PUBLISHED, strict=True):
        _published(axes, PUBLISHED[data])
        rows = [row for result in results if result["title"].startswith(data) for row in result["rows"]]
        for row in rows:
            if row["stored"] == WHOLE.name:
                axes.axhline(row["accuracy (%)"], color="0.5", linewidth=1, linestyle="-.", label="all the data")
        rows = [row for row in rows if row["stored"] != WHOLE.name]
        for stored, network in dict.fromkeys((row["stored"], row["network"]) for row in rows):
            k = methods.index(stored)
            line = [row for row in rows if (row["stored"], row["network"]) == (stored, network)]
            best = {row["bytes"]: row for row in sorted(line, key=lambda row: row["accuracy (%)"])}
            own = [best[size] for size in sorted(best)]
            axes.errorbar(
                [row["bytes"] for row in own],
                [row["accuracy (%)"] for row in own],
                [row["deviation"] or 0.0 for row in own],
                label=f"ddplug: {stored.partition(' (')[0]}, {network}",  # options are in the table
                color=f"C{k}",  # one method is one color in all panels
                marker="os^DvPX"[k % 7],
                markerfacecolor=f"C{k}" if network == networks[-1] else "none",
                linestyle="--" if stored == "random" else "-",
                capsize=3,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter(lambda nbytes, _: f"{nbytes / 1e3:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(left=min(axes.get_xlim()[0], _NAMES * min(10 * p[0][0] / 8 for p in PUBLISHED[data].values())))
        axes.set_title(data)
        axes.set_xlabel("stored, kB")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy on test data, %")
    drawn = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if drawn:
        figure.legend(drawn.values(), drawn, loc="outside lower center", ncols=2, fontsize="small", framealpha=0)
    return figure


def _published(axes: Any, methods: Mapping[str, tuple[tuple[int, float], ...]]) -> None:
    """Draw published figures, each with its name at the left end; names that would overlap are moved up."""
    heights = [accuracy for points in methods.values() for _, accuracy in points]
    gap, place = (max(heights) - min(heights)) / 16, -math.inf
    for name, points in sorted(methods.items(), key=lambda item: item[1][0][1]):
        sizes = [10 * bits / 8 for bits, _ in points]
        axes.plot(sizes, [accuracy for _, accuracy in points], color=_GRAY, linewidth=0.8, marker=".", linestyle=":")
        place = max(place + gap, points[0][1])
        axes.text(0.85 * sizes[0], place, name, ha="right", va="center", fontsize="small", color=_GRAY)


def over_memory(result: Mapping[str, Any]) -> Figure:
    """Draw final accuracy over the memory, in images and in bytes, after one epoch an experience."""
    figure = Figure(figsize=(10, 4.8), dpi=100, layout="constrained")
    rows = [row for row in result["rows"] if row["epochs"] == 1 or row["strategy"] == "GDumb"]
    with_memory = [row for row in rows if row["images"]]
    for axes, key, label in zip(
        figure.subplots(1, 2, sharey=True), ("images", "bytes"), ("images in memory", "bytes of memory"), strict=True
    ):
        for k, name in enumerate(dict.fromkeys(row["strategy"] for row in with_memory)):
            line = sorted((row for row in with_memory if row["strategy"] == name), key=lambda row: row[key])
            errors = [row["deviation"] or 0.0 for row in line]
            style = {
                "marker": "os^DvPX"[k % 7],
                "linestyle": "--" if name in ("Replay", "GDumb") else "-",
                "capsize": 3,
            }
            heights = [row["accuracy (%)"] for row in line]
            axes.errorbar([row[key] for row in line], heights, errors, label=name, **style)
        for row in rows:
            if not row["images"]:
                axes.axhline(row["accuracy (%)"], color="0.5", linewidth=1, linestyle=":")
                axes.annotate(
                    row["strategy"],
                    (0.01, row["accuracy (%)"]),
                    xycoords=("axes fraction", "data"),
                    ha="left",
                    va="bottom",
                )
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy after the last experience, %")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def matrices(result: Mapping[str, Any]) -> Figure:
    """Draw accuracy on each experience (column) after each experience (row), for the smallest memory."""
    least = min(row["images"] for row in result["rows"] if row["images"])
    entries = [(json.loads(key), runs) for key, runs in result["runs"].items()]
    chosen = [(entry, runs) for entry, runs in entries if entry["memory"] == least and entry["epochs"] == 1]
    stock = [pair for pair in chosen if pair[0]["strategy"] == "Replay"]
    ours = [pair for pair in chosen if pair[0]["options"].get("distiller") == "dm"]
    figure = Figure(figsize=(10, 4.4), dpi=100, layout="constrained")
    shown = [*stock, *ours][:_SHOWN]
    for axes, (entry, runs) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        tables = [run["matrix"] for run in runs.values()]
        size = range(len(tables[0]))
        mean = [[statistics.fmean(table[i][j] for table in tables) for j in size] for i in size]
        axes.imshow(mean, vmin=0, vmax=100, cmap="viridis")
        for i in size:
            for j in size:
                axes.text(
                    j, i, f"{mean[i][j]:.0f}", ha="center", va="center", color="white" if mean[i][j] < 60 else "black"
                )
        options = entry["options"]
        details = [options["distiller"]] if options else []
        details += [f"{options['factor'] ** 2} to an image"] if options.get("factor", 1) > 1 else []
        axes.set_title(f"{entry['strategy']}, {least} images\n{', '.join(details)}", fontsize="medium")
        axes.set_xlabel("accuracy on experience, %")
        axes.set_xticks(list(size), [str(i + 1) for i in size])
        axes.set_yticks(list(size), [str(i + 1) for i in size])
    figure.axes[0].set_ylabel("after experience")
    return figure


def ranking(result: Mapping[str, Any]) -> Figure:
    """Draw what each proxy says of architectures over what full training finds."""
    notes = {row["proxy"]: f"Spearman {row['Spearman']:.2f}" for row in result["rows"]}
    return scatter(result["judged"]["full"], {name: result["judged"][name] for name in notes}, notes)


def draw(folder: Path, out: Path) -> None:
    """Write the figures of every result of a folder as PNG."""
    out.mkdir(parents=True, exist_ok=True)
    stored = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("stored-*.json"))]
    if stored:
        over_bytes([result for result in stored if not result["held out"]]).savefig(out / "stored-bytes.png")
    for path in sorted(folder.glob("avalanche-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        over_memory(result).savefig(out / f"{path.stem}-memory.png")
        matrices(result).savefig(out / f"{path.stem}-matrix.png")
    for path in sorted(folder.glob("nni-ranking-*.json")):
        ranking(json.loads(path.read_text(encoding="utf-8"))).savefig(out / f"{path.stem}.png")


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
