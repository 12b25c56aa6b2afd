"""Run the notebooks of this folder, cell by cell in one process, and keep what they show.

    python examples/notebooks/run.py digits
    python examples/notebooks/run.py

It does what a notebook's server does, without one: a cell's last expression is shown, as text, HTML or picture; lines
of the shell (``%pip``) are left out.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["NOTEBOOKS", "execute", "page", "read"]

FOLDER = Path(__file__).parent
NOTEBOOKS = ("digits", "own_photos", "avalanche")
"""In the order in which they are to be read."""

Cell = dict[str, Any]


def read(name: str) -> dict[str, Any]:
    """Return a notebook by its name."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return found


def execute(cells: list[Cell], edit: Callable[[str], str] = str) -> Iterator[Cell]:
    """Run the code of a notebook in the current folder.

    Args:
        cells: of the notebook.
        edit: changes the source of a cell before it is run.

    Yields:
        Each cell, with its outputs and number where it has code.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    number = 0
    for cell in cells:
        if cell["cell_type"] != "code":
            yield cell
            continue
        number += 1
        source = re.sub(r"^(\s*)%.*", r"\1pass", edit("".join(cell["source"])), flags=re.MULTILINE)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            shown = _run(source, namespace)
        outputs: list[dict[str, Any]] = []
        if printed.getvalue():
            outputs.append(
                {"name": "stdout", "output_type": "stream", "text": printed.getvalue().splitlines(keepends=True)}
            )
        if shown is not None:
            data = _data(shown)
            outputs.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
        yield {**cell, "execution_count": number, "outputs": outputs}


def _run(source: str, namespace: dict[str, Any]) -> Any:
    """Run a cell, and return the value of its last line if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), namespace)
    if not isinstance(last, ast.Expr):
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)


def _data(value: Any) -> dict[str, Any]:
    """Return what a notebook shows of a value, by type of content."""
    data: dict[str, Any] = {}
    if hasattr(value, "_repr_png_"):
        data["image/png"] = base64.b64encode(value._repr_png_()).decode() + "\n"
    if hasattr(value, "_repr_html_"):
        data["text/html"] = value._repr_html_().splitlines(keepends=True)
    data["text/plain"] = re.sub(r" at 0x\w+", "", repr(value)).splitlines(keepends=True)
    return data


def page(name: str, folder: Path) -> str:
    """Return a notebook as a page of the documentation, and write its pictures.

    Args:
        name: of the notebook.
        folder: for the pictures.
    """
    parts: list[str] = []
    for number, cell in enumerate(read(name)["cells"]):
        # a badge would be fetched
        text = re.sub(r"\[!\[(.*?)\]\(.*?\)\]", r"[\1]", "".join(cell["source"]))
        if cell["cell_type"] != "code":
            parts.append(text)
            continue
        language = "text" if re.search(r"^\s*%", text, re.MULTILINE) else "python"
        parts.append(f"```{{code-block}} {language}\n{text}\n```")
        parts += [_shown(output, folder / f"{name}-{number}.png") for output in cell["outputs"]]
    return "\n\n".join(parts) + "\n"


def _shown(output: Mapping[str, Any], picture: Path) -> str:
    """Return an output in Markdown."""
    if output["output_type"] == "stream":
        return "```{code-block} text\n" + "".join(output["text"]) + "```"
    data = output["data"]
    if "image/png" in data:
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(base64.b64decode(data["image/png"]))
        return f"![What the cell above shows]({picture.name})"
    if "text/html" in data:
        return '```{raw} html\n<div class="output">' + "".join(data["text/html"]) + "</div>\n```"
    return "```{code-block} text\n" + "".join(data["text/plain"]) + "\n```"


def main(names: list[str]) -> None:
    """Run notebooks, each in a folder of its own, and write what they show into them."""
    before = os.getcwd()
    for name in names or NOTEBOOKS:
        notebook = read(name)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                notebook["cells"] = list(execute(notebook["cells"]))
            finally:
                os.chdir(before)
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        (FOLDER / f"{name}.ipynb").write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
