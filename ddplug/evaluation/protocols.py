"""By which recipe and in which precision networks are trained to judge a set, and how a result names both."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from ddplug.errors import OptionError
from ddplug.networks.factory import Network
from ddplug.networks.precision import PRECISIONS
from ddplug.networks.probe import faster, precision_for
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import one_of

__all__ = ["PROTOCOLS", "described", "named", "precisions", "settled"]

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


def precisions(
    asked: str,
    networks: Sequence[Network],
    shape: tuple[int, ...],
    num_classes: int,
    device: torch.device,
    begun: Callable[[Network, str], bool],
) -> dict[Network, str]:
    """Return the precision that each of several networks computes in.

    Args:
        asked: one of :data:`ddplug.networks.precision.PRECISIONS`; or ``"auto"`` for what a run that was stopped began
            with, and the faster one here where nothing was done.
        networks: to train.
        shape: of one input.
        num_classes: number of outputs.
        device: to train on.
        begun: tells whether something is done already, with a network in a precision.

    Raises:
        OptionError: the precision is something else.
    """

    def find(network: Network) -> str:
        before = next((precision for precision in PRECISIONS if begun(network, precision)), None)
        return before or faster(network, shape, num_classes, device)

    return {network: precision_for(asked, partial(find, network)) for network in networks}


def described(recipe: Recipe, precision: str = PRECISIONS[0]) -> str:
    """Return what a recipe is called and how long it is, and the precision where it is not float32.

    Example:
        >>> described(Recipe.quick("")), described(Recipe.by_steps(1500, "crop+flip"))
        ('quick (60 epochs)', 'own (1,500 steps with crop+flip)')
        >>> described(Recipe.quick(""), "bfloat16")
        'quick (60 epochs) in bfloat16'
    """
    length = f"{recipe.steps:,} steps" if recipe.steps else f"{recipe.epochs:,} epochs"
    variety = "+".join(filter(None, (recipe.augment, "cutmix" if recipe.cutmix else "")))
    rounded = "" if precision == PRECISIONS[0] else f" in {precision}"
    return f"{named(recipe)} ({length}{f' with {variety}' if variety else ''}){rounded}"
