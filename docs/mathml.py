"""Formulas as MathML, which browsers draw by themselves: a page with formulas fetches nothing."""

from __future__ import annotations

import re
from typing import Any

from docutils.nodes import SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.util import logging

log = logging.getLogger("ddplug.docs")

SPELLINGS = ((r"\\[bB]ig+[lr]?\s*(?=\\[lr]Vert)", ""), (r"\\arg(?![a-z])", r"\\operatorname{arg}"))
"""What the converter does not know -> how it may be said."""


def mathml(formula: str, display: str) -> str:
    """Convert a formula of LaTeX; warn of what is left as it was."""
    said = formula
    for pattern, spelling in SPELLINGS:
        said = re.sub(pattern, spelling, said)
    found = str(convert(said, display=display))
    unknown = re.findall(r">(\\[^<]*)<", found)
    if unknown:
        log.warning("%s of the formula %s is not known to the converter", ", ".join(unknown), formula)
    return found


def inline(writer: Any, node: Any) -> None:
    """Write a formula within a line."""
    writer.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def block(writer: Any, node: Any) -> None:
    """Write a formula on a line of its own, which scrolls where it is too long for the page."""
    writer.body.append(f'<div class="formula" tabindex="0">{mathml(node.astext(), "block")}</div>')
    raise SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Take the place of what would fetch a program to draw formulas."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
