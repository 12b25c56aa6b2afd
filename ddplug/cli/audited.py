"""What a page tells of the attacks on a set."""

from __future__ import annotations

from ddplug.cli.sheets import picture
from ddplug.privacy.pictures import roc
from ddplug.privacy.report import Audit
from ddplug.synthetic.pictures import grid
from ddplug.utils.page import Block, Chapter, Picture, Table
from ddplug.utils.pictures import drawable, file_of

__all__ = ["audited"]

_PAIRS = "stored images that lie nearest to training images, each followed by that real one"


def audited(found: Audit) -> Chapter:
    """Write what was tried on a set to learn of its data, and what was found; never that it is private.

    Args:
        found: by :func:`ddplug.privacy.audit`.
    """
    blocks: list[Block] = [*found.conclusion.splitlines()]
    blocks += [Table(caption, rows[0], rows[1:]) for caption, rows in found.tables.items()]
    if drawable(found.pairs.shape):
        # sixteen beside each other are too small to be compared
        drawn = file_of(grid(found.pairs, per_row=12))
        blocks.append((picture(found.pairs, _PAIRS, "Pairs of a stored and a real image", drawn),))
    if found.membership:
        what = "members found over false alarms; what leads above the diagonal tells members from others"
        blocks.append((Picture(file_of(roc(found.membership)), what, 640),))
    return Chapter("What attacks found", blocks)
