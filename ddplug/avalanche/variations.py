"""How a stream varies its own samples in training: steps of its transforms that remembered rows have not been through.

A memory holds what the ``eval`` transforms make of a sample. Of the steps of the ``train`` transforms, those that
``eval`` has too were taken already; the others vary. They are meant for an image before it is normalized (a crop fills
up with black, colors end at white), so a normalization is undone before them and done again in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.transforms import MultiParamTransform
from torch import Tensor

from ddplug.errors import OptionError
from ddplug.utils.randomness import temporary_seed
from ddplug.utils.text import one_line

__all__ = ["STREAM", "own_variation"]

STREAM = "stream"
"""The word for it in ``augment=``."""

_ADVICE = "give augment= a function of one remembered input instead"


def own_variation(dataset: Any) -> Callable[[Tensor], Tensor]:
    """Return what varies a remembered input as a stream varies its own in training.

    Args:
        dataset: of an experience.

    Raises:
        OptionError: nothing in its ``train`` transforms is not in its ``eval`` transforms too; or a step cannot be
            taken on a tensor, or gives another shape.
    """
    flat = getattr(dataset, "_flat_data", None) if isinstance(dataset, AvalancheDataset) else None
    trained, judged = (list(_steps(flat, group)) for group in ("train", "eval"))
    had = {repr(step) for step in judged}
    normal = [step for step in judged if _is_normalization(step)]
    steps = [step for step in trained if repr(step) not in had or _is_normalization(step)]
    if all(map(_is_normalization, steps)):
        raise OptionError(f"augment='stream', but the stream's train transforms have no step beyond eval; {_ADVICE}")
    if len(normal) > 1 or [*map(repr, normal)] != [repr(step) for step in steps if _is_normalization(step)]:
        raise OptionError(f"augment='stream' needs the same one normalization in train and eval, or none; {_ADVICE}")
    variation = _Variation(steps, normal[0] if normal else None)
    with temporary_seed(0):
        variation.check(dataset.eval()[0][0])
    return variation


class _Variation:
    """Steps for one remembered input, one after the other."""

    def __init__(self, steps: Sequence[Callable[[Any], Any]], normal: Any) -> None:
        self.steps = steps
        self.normal = normal

    def __call__(self, row: Tensor) -> Tensor:
        if self.normal is not None:
            mean, std = (torch.as_tensor(value).to(row).view(-1, 1, 1) for value in (self.normal.mean, self.normal.std))
            row = row * std + mean
        for step in self.steps:
            row = step(row)
        return row

    def check(self, row: Any) -> None:
        """Refuse steps that cannot be taken on a remembered input."""
        try:
            made: Any = self(row)
        except Exception as error:  # of anybody's transform
            reason = f"the stream's transforms do not take tensors: {one_line(error)}"
            raise OptionError(f"augment='stream', but {reason}; {_ADVICE}") from None
        if not isinstance(made, Tensor) or made.shape != row.shape:
            what = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise OptionError(f"augment='stream' makes {what} of {tuple(row.shape)}; {_ADVICE}")


def _is_normalization(step: Any) -> bool:
    return type(step).__name__ == "Normalize" and hasattr(step, "mean") and hasattr(step, "std")


def _steps(flat: Any, group: str) -> Iterator[Any]:
    """Yield the steps that an input goes through, in their order; of datasets joined into one those of the first."""
    parts = getattr(flat, "_datasets", None)
    if parts:
        yield from _steps(parts[0], group)
    for own in ("_frozen_transform_groups", "_transform_groups"):
        groups = getattr(getattr(flat, own, None), "transform_groups", {})
        yield from _flattened(groups.get(group))


def _flattened(transform: Any) -> Iterator[Any]:
    """Yield single steps."""
    if transform is None:
        return
    inner: Sequence[Any] | None = None
    if isinstance(transform, MultiParamTransform):
        inner = transform.flat_transforms(0)
    elif type(transform).__name__ == "Compose":
        inner = transform.transforms
    if inner is None:
        yield transform
        return
    for step in inner:
        yield from _flattened(step)
