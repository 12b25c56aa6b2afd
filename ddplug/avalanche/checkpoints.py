"""A cure for checkpoints: what lets Avalanche save a strategy with a torch of today."""

from __future__ import annotations

import sys
from types import TracebackType

import torch

__all__ = ["checkpoint_cure"]


class checkpoint_cure:  # noqa: N801 - called like a function
    """Let ``avalanche.checkpointing.save_checkpoint`` pickle torch's optimizers.

    ``torch.optim`` takes its submodules out of its own namespace once they are imported. So dill, which looks a class
    up attribute by attribute, does not find ``torch.optim.sgd.SGD``, tries to store the class by value, and fails. This
    puts the submodules back. It changes a namespace of torch, and therefore never happens by itself: call it once for
    the rest of the program, or put the saving inside ``with``, which undoes it. Loading a checkpoint does not need it.

    Example:
        >>> import torch
        >>> with checkpoint_cure():
        ...     torch.optim.sgd.SGD is torch.optim.SGD
        True
        >>> hasattr(torch.optim, "sgd")
        False
    """

    def __init__(self) -> None:
        package = torch.optim.__name__
        names = {name: name.removeprefix(f"{package}.") for name in sys.modules if name.startswith(f"{package}.")}
        missing = {name: leaf for name, leaf in names.items() if "." not in leaf and not hasattr(torch.optim, leaf)}
        for name, leaf in missing.items():
            setattr(torch.optim, leaf, sys.modules[name])
        self._attached = tuple(missing.values())

    def __enter__(self) -> None:
        """Nothing is left to do: the cure works from the call on."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for leaf in self._attached:
            vars(torch.optim).pop(leaf, None)
        self._attached = ()
