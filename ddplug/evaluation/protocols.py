"""By which recipe networks are trained to judge a set, and what it is called in the result."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping

import torch

from ddplug.errors import OptionError
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import one_of

__all__ = ["PROTOCOLS", "described", "named", "settled"]

PROTOCOLS: Mapping[str, Callable[[Recipe], Recipe]] = {
    "set": lambda own: own,
    "paper": lambda own: Recipe.paper(own.augment),
    "quick": lambda own: Recipe.quick(own.augment),
}
"""Name of a protocol -> how to train, given the recipe of a set."""


def settled(recipe: Recipe | str | None, own: Recipe, device: torch.device) -> Recipe:
    """Return how to train on a set.

    Args:
        recipe: the recipe, or the name of a protocol. If not given: as the set says; but where it says the published
            protocol, which takes minutes to hours on a CPU, the quick one there.
        own: recipe of the set.
        device: to train on.

    Raises:
        OptionError: the name is none of :data:`PROTOCOLS`, or it is something else.

    Example:
        >>> settled(None, Recipe.paper("crop"), torch.device("cpu")) == Recipe.quick("crop")
        True
        >>> settled(None, Recipe.by_steps(100), torch.device("cpu")).steps
        100
    """
    if isinstance(recipe, Recipe):
        return recipe.on(own.augment)
    if recipe is None:
        recipe = "quick" if device.type == "cpu" and own == Recipe.paper(own.augment) else "set"
    if not isinstance(recipe, str):
        raise OptionError(
            f"recipe is {reprlib.repr(recipe)}; give ddplug.Recipe(epochs=100), say, with the fields that are to "
            f"differ, or the name of a protocol: {', '.join(PROTOCOLS)}"
        )
    one_of("protocol", recipe, PROTOCOLS)
    return PROTOCOLS[recipe](own)


def named(recipe: Recipe) -> str:
    """Return what a recipe is called: ``"quick"``, ``"paper"``, or ``"own"`` for any other.

    Example:
        >>> named(Recipe.quick("crop")), named(Recipe()), named(Recipe(epochs=7))
        ('quick', 'paper', 'own')
    """
    known = {"quick": Recipe.quick(recipe.augment), "paper": Recipe.paper(recipe.augment)}
    return next((name for name, other in known.items() if recipe == other), "own")


def described(recipe: Recipe) -> str:
    """Return what a recipe is called and how long it is.

    Example:
        >>> described(Recipe.quick("")), described(Recipe.by_steps(1500, "crop+flip"))
        ('quick (60 epochs)', 'own (1,500 steps with crop+flip)')
    """
    length = f"{recipe.steps:,} steps" if recipe.steps else f"{recipe.epochs:,} epochs"
    variety = "+".join(filter(None, (recipe.augment, "cutmix" if recipe.cutmix else "")))
    return f"{named(recipe)} ({length}{f' with {variety}' if variety else ''})"
