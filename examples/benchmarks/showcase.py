"""Draw the pictures of the README and of the landing page from committed results and the sets of the package.

    python examples/benchmarks/showcase.py

Each is written twice to docs/images, for light pages and for dark ones, with a transparent ground. A picture says of
which inputs it was made; a test compares that with the inputs as they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

import ddplug
from ddplug.synthetic.pictures import image_bytes
from ddplug.synthetic.ready import READY
from examples.benchmarks.figures import PUBLISHED, over_bytes

__all__ = ["PICTURES", "SCHEMES", "draw", "inputs", "made_of", "tiles"]

ROOT = Path(__file__).parents[2]

SCHEMES: Mapping[str, Mapping[str, str]] = {
    "light": {
        "ink": "#1f2328",
        "quiet": "#59636e",
        "line": "#d1d9e0",
        "ours": "#0969da",
        "other": "#bc4c00",
        "third": "#1a7f37",
    },
    "dark": {
        "ink": "#f0f6fc",
        "quiet": "#9198a1",
        "line": "#3d444d",
        "ours": "#4493f8",
        "other": "#db6d28",
        "third": "#3fb950",
    },
}
"""Color scheme of a page -> colors of what is drawn on it."""

_KEY = "inputs"
"""Where a picture says what it was made of."""

_COLORS = 96
"""Of a picture; as many as look like all."""

Inputs = Mapping[str, Any]
Colors = Mapping[str, str]


def _result(name: str) -> Any:
    return json.loads((ROOT / "docs" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def _stored() -> Inputs:
    """Return every result in bytes that was judged on test data, and what is published."""
    names = sorted(path.stem for path in (ROOT / "docs" / "benchmarks").glob("stored-*.json"))
    results = [result for result in map(_result, names) if not result["held out"]]
    return {"results": [{key: result[key] for key in ("title", "rows")} for result in results], "published": PUBLISHED}


def _row(name: str, **wanted: Any) -> Any:
    (row,) = (row for row in _result(name)["rows"] if all(row.get(key) == value for key, value in wanted.items()))
    return row


def _same_bytes() -> Inputs:
    return {
        "sets": ["mnist-10", "mnist-8kB"],
        "whole": _row("distillation-mnist-1", **{"training data": "random"}),
        "coded": _row("stored-mnist-8kB", stored="random", codec="pixels:bits=1", network="convnet:width=32"),
    }


def _learned() -> Inputs:
    return {"sets": ["digits-dm"]}


def _replay() -> Inputs:
    kept = ("Replay", "DistilledReplay, defaults", "joint training")
    rows = [row for row in _result("avalanche-mnist")["rows"] if row["epochs"] == 1 and row["strategy"] in kept]
    return {"rows": [{key: row[key] for key in ("strategy", "bytes", "accuracy (%)", "deviation")} for row in rows]}


def tiles(images: Tensor, columns: int) -> Tensor:
    """Lay ``(n, H, W)`` images out in rows of ``columns``; what does not fill a row is left out."""
    rows = len(images) // columns
    grid = images[: rows * columns].unflatten(0, (rows, columns))
    sheet: Tensor = grid.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    return sheet


def _image(axes: Any, pixels: Tensor) -> None:
    axes.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_axis_off()


def _percent(row: Mapping[str, Any]) -> str:
    digits = 1 if row["deviation"] >= 1 else 2
    return f"{row['accuracy (%)']:.{digits}f} ± {row['deviation']:.{digits}f} %"


def same_bytes(given: Inputs, colors: Colors) -> Figure:
    """Draw ten whole images beside those that a codec holds in the same bytes."""
    figure = Figure(figsize=(8, 3.7))
    for name, what, columns, x, width, row, color in (
        (given["sets"][0], "10 images", 2, 0.0, 0.15, given["whole"], colors["other"]),
        (given["sets"][1], "530 images, coded", 53, 0.2, 0.8, given["coded"], colors["ours"]),
    ):
        made = ddplug.load(name)
        axes = figure.add_axes((x, 0.14, width, 0.7))
        _image(axes, tiles(image_bytes(made), columns))
        axes.set_anchor("W")
        figure.text(x, 0.94, what, color=colors["ink"], weight="bold", fontsize=12)
        figure.text(x, 0.87, f"{made.nbytes:,} bytes", color=colors["quiet"], fontsize=11)
        figure.text(x, 0.03, _percent(row), color=color, weight="bold", fontsize=14)
    return figure


def learned(given: Inputs, colors: Colors) -> Figure:
    """Draw real digits above learned ones."""
    made, real = ddplug.load(given["sets"][0]), ddplug.load_dataset("digits")
    rows = {
        f"real: {len(real):,} images": real.inputs[[int(index[0]) for index in real.class_indices], 0],
        f"learned: {len(made)} images": image_bytes(made),
    }
    figure = Figure(figsize=(8, 1.55))
    for k, (name, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            axes = figure.add_axes((0.215 + 0.0787 * column, 0.53 - 0.5 * k, 0.0715, 0.45))
            _image(axes, image)
        figure.text(0, 0.75 - 0.5 * k, name, color=colors["ours" if k else "ink"], weight="bold", va="center")
    return figure


def accuracy_over_bytes(given: Inputs, colors: Colors) -> Figure:
    """Draw accuracy over bytes, ours and published."""
    return over_bytes(given["results"], (8, 3.9))


def replay(given: Inputs, colors: Colors) -> Figure:
    """Draw the accuracy of replay over the bytes of its memory."""
    figure = Figure(figsize=(8, 3.7), layout="constrained")
    axes = figure.subplots()
    for name, called, color, marker in (
        ("DistilledReplay, defaults", "DistilledReplay", colors["ours"], "o"),
        ("Replay", "Replay of Avalanche", colors["other"], "s"),
    ):
        line = [row for row in given["rows"] if row["strategy"] == name]
        sizes, heights = [row["bytes"] / 1000 for row in line], [row["accuracy (%)"] for row in line]
        axes.errorbar(sizes, heights, [row["deviation"] for row in line], color=color, marker=marker, capsize=3, lw=2)
        for size, height in zip(sizes, heights, strict=True):
            place = (0, 8) if name != "Replay" else (24, -4) if size == sizes[0] else (6, -17)
            axes.annotate(f"{height:.1f}", (size, height), place, textcoords="offset points", ha="center", color=color)
        axes.annotate(
            called,
            (sizes[-1], heights[-1]),
            (12, 0),
            textcoords="offset points",
            va="center",
            color=color,
            weight="bold",
        )
    (bound,) = (row["accuracy (%)"] for row in given["rows"] if row["strategy"] == "joint training")
    axes.axhline(bound, color=colors["quiet"], linestyle=":")
    axes.annotate(
        f"all data at once: {bound:.1f}",
        (0.02, bound),
        (0, -14),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        color=colors["quiet"],
    )
    axes.set(xscale="log", xlim=(5.5, 6000), ylim=(30, 102), xlabel="memory, kB", ylabel="final accuracy, %")
    axes.set_xticks([8, 78, 390, 785], ["8\n10 images", "78\n100", "390\n500", "785\n1,000"], minor=False)
    axes.set_xticks([], minor=True)
    return figure


PICTURES: Mapping[str, tuple[Callable[[], Inputs], Callable[[Inputs, Colors], Figure]]] = {
    "same-bytes": (_same_bytes, same_bytes),
    "learned": (_learned, learned),
    "accuracy-over-bytes": (_stored, accuracy_over_bytes),
    "replay": (_replay, replay),
}
"""Name of a picture -> what it is made of, and what draws it."""


def inputs(name: str) -> str:
    """Return the SHA-256 of all that a picture is made of: figures of results, and the files of sets."""
    given = PICTURES[name][0]()
    digest = hashlib.sha256(json.dumps(given, sort_keys=True).encode())
    for each in given.get("sets", ()):
        digest.update(READY[each].path.read_bytes())
    return digest.hexdigest()


def made_of(path: Path) -> str:
    """Return what a picture says that it was made of."""
    with Image.open(path) as image:
        return str(image.info.get(_KEY))


def _style(colors: Colors) -> Any:
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colors["ink"])
    return {
        **ink,
        "axes.prop_cycle": cycler(color=[colors["other"], colors["ours"], colors["third"]]),
        "axes.edgecolor": colors["quiet"],
        "grid.color": colors["line"],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.facecolor": "none",
        "legend.edgecolor": "none",
        "font.family": "DejaVu Sans",
    }


def draw(name: str, folder: Path) -> None:
    """Write one picture in both color schemes."""
    given, figure_of = PICTURES[name]
    note = PngInfo()
    note.add_text(_KEY, inputs(name))
    for scheme, colors in SCHEMES.items():
        with matplotlib.rc_context(_style(colors)):
            content = io.BytesIO()
            figure_of(given(), colors).savefig(content, dpi=200, transparent=True)
        picture = Image.open(content).quantize(_COLORS, method=Image.Quantize.FASTOCTREE)
        picture.save(folder / f"{name}-{scheme}.png", optimize=True, pnginfo=note)


if __name__ == "__main__":
    for every in PICTURES:
        draw(every, ROOT / "docs" / "images")
