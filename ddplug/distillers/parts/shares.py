"""Parts of a preparation that do not depend on each other's results, shared among processes that work together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import TypeAlias

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.functional.types import Tensors
from ddplug.utils.preparation import kept_each

__all__ = ["PartMaker", "each_part"]

PartMaker: TypeAlias = Callable[[LabeledData, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""Function of real data and a state: a part, such as a network that was trained, or a view of the data."""


def each_part(
    makes: Sequence[PartMaker], data: LabeledData, state: Mapping[str, Tensor], rng: torch.Generator, what: str
) -> list[Tensors]:
    """Make parts one after the other, as they draw from one generator; each is kept, for a run that is stopped.

    Where processes work together each makes a share. A part that another makes is made there of data without values
    (:meth:`ddplug.data.LabeledData.shadow`), which draws the same and takes next to no time. A part whose draws depend
    on values is made in each of them.

    Args:
        makes: one a part; they draw from ``rng`` and take data and state from nowhere else.
        data: real data.
        state: the method's.
        rng: generator on the CPU.
        what: each part is, to show how far it is.

    Returns:
        The parts, the same however many processes there are.
    """

    @cache
    def shadows() -> tuple[LabeledData, Tensors]:
        return data.shadow(), {name: tensor.to("meta") for name, tensor in state.items()}

    def move(make: PartMaker) -> None:
        make(*shadows())

    real, moves = [partial(make, data, state) for make in makes], [partial(move, make) for make in makes]
    return kept_each(rng, real, what, data.device, moves=moves)
