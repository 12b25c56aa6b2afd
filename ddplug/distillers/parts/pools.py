"""Pools: several networks, and what real data look like through them, stacked in one state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ddplug.functional.types import Tensors
from ddplug.networks.functional import prefixed, unprefixed

__all__ = ["ViewMaker", "after_use", "aged_pool", "replace_view", "stack_views", "staggered", "view_at"]


def stack_views(views: Sequence[Tensors]) -> Tensors:
    """Stack views (a network and what real data look like through it) into the part ``pool.*`` of a state."""
    return prefixed(
        "pool.", {name: torch.stack([view[name] for view in views]) for name in (views[0] if views else ())}
    )


def view_at(state: Mapping[str, Tensor], k: int) -> Tensors:
    """Return the ``k``-th view of a state's pool."""
    return {name: stacked[k] for name, stacked in unprefixed("pool.", state).items()}


def replace_view(state: Mapping[str, Tensor], k: int, view: Tensors) -> Tensors:
    """Return the state with another ``k``-th view in its pool."""
    new = prefixed("pool.", view)
    position = {name: torch.tensor([k], device=tensor.device) for name, tensor in new.items()}
    return {name: t.index_copy(0, position[name], new[name][None]) if name in new else t for name, t in state.items()}


ViewMaker = Callable[[Tensors | None, int], Tensors]
"""Function of a network (``None`` for a new one) and a number of training steps: a view of the network after them."""


def staggered(number: int, max_age: int) -> list[int]:
    """Spread the ages of networks evenly below ``max_age``, as if their pool had been in use for long.

    Example:
        >>> staggered(4, 200)
        [0, 50, 100, 150]
    """
    return [k * max_age // number for k in range(number)]


def aged_pool(views: Sequence[Tensors], ages: Sequence[int]) -> Tensors:
    """Stack views of networks of some ages, in training steps.

    Returns:
        The part ``pool.*`` of a state, with the counts ``age`` and ``used`` of each view.
    """
    return stack_views([_counted(view, age) for view, age in zip(views, ages, strict=True)])


def _counted(view: Tensors, age: int) -> Tensors:
    return {**view, "age": torch.tensor(age), "used": torch.tensor(0)}


def after_use(
    state: Mapping[str, Tensor], k: int, make: ViewMaker, *, reuse: int, advance: int, max_age: int
) -> dict[str, Tensor]:
    """Count a use of a pool's ``k``-th network; after the last in its state train it, or put a new one there.

    Args:
        state: with a pool of :func:`aged_pool`.
        k: position in the pool.
        make: see :data:`ViewMaker`.
        reuse: uses of a network between two trainings.
        advance: steps of a training; with 0 only the real batch is drawn anew.
        max_age: training steps after which a network is replaced by a new one.

    Returns:
        The tensors of the pool that change.
    """
    used, age = int(state["pool.used"][k]) + 1, int(state["pool.age"][k])
    if used < reuse:
        counts = state["pool.used"].clone()
        counts[k] = used
        return {"pool.used": counts}
    pool = {name: tensor for name, tensor in state.items() if name.startswith("pool.")}
    if advance and age >= max_age:
        return replace_view(pool, k, _counted(make(None, 0), 0))
    network = {name: stacked[k] for name, stacked in unprefixed("pool.network.", state).items()}
    return replace_view(pool, k, _counted(make(network, advance), age + advance))
