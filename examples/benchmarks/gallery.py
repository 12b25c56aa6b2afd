"""Make the gallery of the documentation: each set that comes with the package, in a picture and in figures.

python examples/benchmarks/gallery.py OUT
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap

from PIL import Image
from torch.nn.functional import pad

sys.path.insert(0, str(Path(__file__).parents[2]))

import ddplug
from ddplug.synthetic.pictures import image_bytes
from ddplug.synthetic.ready import NOT_READY, READY, SOURCES, Ready
from ddplug.utils.pictures import first_of_each
from examples.benchmarks.showcase import ROOT, tiles

__all__ = ["page"]

_SHOWN = 24
"""Images of a class in a picture, at the most."""

_GRAY = 96
"""Of the lines between images."""

_LINE = 72
"""Characters of a line of code."""

_WIDTH = 640
"""Pixels that a picture is enlarged to, about."""


def page(folder: Path) -> str:
    """Write a picture of each set to a folder, and return the page in Markdown.

    Args:
        folder: named ``gallery``, beside the page's file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = [_summary(), *(_section(each, folder) for each in READY.values())]
    commands = "\n".join(map(_broken, NOT_READY.values()))
    return "\n\n".join(
        [
            *sections,
            "## Sets to make yourself",
            "The images of CIFAR-10 have no clear license, so none is included. One command fetches "
            "the images and makes the set:",
            f"```bash\n{commands}\n```",
            *_measured(),
            "",
        ]
    )


def _measured() -> Iterator[str]:
    """Say of each set that is to be made what was measured, where anything was."""
    for name in NOT_READY:
        path = ROOT / "docs" / "benchmarks" / f"stored-{name}.json"
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
        for row in rows:
            if row["stored"] == "difficulty":
                held = f"{row['images']:,} images in {row['bytes']:,} bytes, {row['bits per class']:,} bits per class"
                sets = "one set" if row["sets"] == 1 else f"{row['sets']} sets"
                how = f"{sets} of a JPEG copy, a network each: {row['network']}, {row['steps']:,} steps"
                spread = "" if row["deviation"] is None else f" ± {row['deviation']}"
                yield f"`{name}`: {held}; {row['accuracy (%)']}{spread} % on test data ({how})."


def _summary() -> str:
    """Return a table of all sets, first thing of the page."""
    rows = ["| set | images | bytes | accuracy on test data (%) |", "|---|---|---|---|"]
    for each in READY.values():
        made = ddplug.load(each.name)
        accuracy = each.accuracy.partition(" %")[0]
        rows.append(f"| [`{each.name}`](#{each.name.lower()}) | {len(made):,} | {made.nbytes:,} | {accuracy} |")
    return "\n".join(rows)


def _broken(command: str) -> str:
    """Break a command into lines that a page shows whole, none of them between an option and its value."""
    kept = re.sub(r"(?<= )(--?\S+) (?!-)", "\\1\0", command)
    return " \\\n  ".join(line.replace("\0", " ") for line in wrap(kept, _LINE, break_on_hyphens=False))


def _section(each: Ready, folder: Path) -> str:
    """Return the part of the page about one set."""
    made, source = ddplug.load(each.name), SOURCES[each.source]
    per_class = len(made) // made.num_classes
    columns = min(per_class, _SHOWN) if per_class > 1 else made.num_classes
    index = first_of_each(made.hard_targets, made.num_classes, columns)
    sheet = tiles(pad(image_bytes(made)[index], (0, 1, 0, 1), value=_GRAY), columns)[:-1, :-1]
    scale = max(1, _WIDTH // sheet.shape[1])
    large = sheet.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    Image.fromarray(large.numpy()).quantize(16).save(folder / f"{each.name}.png", optimize=True)
    shown = f"{len(index)} of {len(made):,}" if len(index) < len(made) else f"all {len(made)}"
    held = f"`{made.stored.codec}`" if made.stored is not None else f"{made.bits} bits per number"
    rows = {
        "images": f"{len(made):,} of {' x '.join(map(str, made.shape))}, {made.num_classes} classes",
        "bytes": f"{made.nbytes:,}, labels counted; {each.path.stat().st_size:,} with recipe and provenance",
        "bits per class": f"{made.bits_per_class:,.0f}",
        "stored as": held,
        "accuracy on test data": each.accuracy,
        "made from": f"[{source.title}]({source.url}), by {source.authors}",
        "license": f"[{source.license}]({source.license_url})",
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
    return "\n\n".join(
        [
            f"## {each.name}",
            f"![{shown} images of {each.name}](_generated/gallery/{each.name}.png)",
            f"*Shown: {shown} images.*",
            table,
            f'```python\nimport ddplug\n\nsynthetic = ddplug.load("{each.name}")\n```',
            f"Made by\n\n```bash\n{_broken(each.command)}\n```",
        ]
    )


if __name__ == "__main__":
    print(page(Path(sys.argv[1]) / "gallery"))
