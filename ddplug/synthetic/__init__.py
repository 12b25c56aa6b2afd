"""What comes out: small sets that know how they are to be used, their files, and what they cost to store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.synthetic.budget import bytes_of as bytes_of
    from ddplug.synthetic.budget import images_within as images_within
    from ddplug.synthetic.budget import rows_within as rows_within
    from ddplug.synthetic.compat import difference as difference
    from ddplug.synthetic.compat import same_space as same_space
    from ddplug.synthetic.dataset import SyntheticSet as SyntheticSet
    from ddplug.synthetic.held_out import holdout as holdout
    from ddplug.synthetic.learned import LearnedTraining as LearnedTraining
    from ddplug.synthetic.merging import merge as merge
    from ddplug.synthetic.recipe import Recipe as Recipe
    from ddplug.synthetic.statement import privacy_statement as privacy_statement

_HOMES = {
    "LearnedTraining": "learned",
    "Recipe": "recipe",
    "SyntheticSet": "dataset",
    "bytes_of": "budget",
    "difference": "compat",
    "holdout": "held_out",
    "images_within": "budget",
    "merge": "merging",
    "privacy_statement": "statement",
    "rows_within": "budget",
    "same_space": "compat",
}

__all__ = [
    "LearnedTraining",
    "Recipe",
    "SyntheticSet",
    "bytes_of",
    "difference",
    "holdout",
    "images_within",
    "merge",
    "privacy_statement",
    "rows_within",
    "same_space",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
