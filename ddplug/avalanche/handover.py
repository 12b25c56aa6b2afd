"""Hand a memory to a stock strategy, wherever that keeps its own."""

from __future__ import annotations

from typing import Any

from avalanche.training.storage_policy import ExemplarsBuffer
from avalanche.training.supervised import FeatureReplay

from ddplug.avalanche.buffer import DistilledBuffer
from ddplug.avalanche.plugin import refuse_latent
from ddplug.errors import OptionError

__all__ = ["hand_over"]


def hand_over(policy: ExemplarsBuffer, strategy: Any) -> None:
    """Put a storage policy in the place of the one that a stock strategy, or a plugin of it, made for itself.

    ``strategy.storage_policy = policy`` has no effect, and gives no word of it, where a plugin has the policy, as in
    ``GDumb``, ``MIR`` or ``SCR``.

    Args:
        policy: such as :class:`~ddplug.avalanche.buffer.DistilledBuffer`.
        strategy: which has not been trained yet.

    Raises:
        OptionError: it has no storage policy, as ``ICaRL``, or several; the memory holds features; or it is for
            ``FeatureReplay`` and holds fewer rows than a batch of it.

    Example:
        >>> import torch
        >>> from avalanche.training.supervised import MIR
        >>> from ddplug.avalanche import DistilledBuffer
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> strategy = MIR(
        ...     model=model, optimizer=optimizer, criterion=torch.nn.CrossEntropyLoss(),
        ...     mem_size=200, subsample=100, batch_size_mem=10,
        ... )
        >>> hand_over(DistilledBuffer(100), strategy)
        >>> type(strategy.plugins[0].storage_policy).__name__
        'DistilledBuffer'
    """
    refuse_latent(policy, "stock strategies, which take the memory for inputs")
    holders = [each for each in (strategy, *strategy.plugins) if isinstance(_held(each), ExemplarsBuffer)]
    if len(holders) != 1:
        found = ", ".join(type(each).__name__ for each in holders) or "none"
        raise OptionError(
            f"{type(strategy).__name__} has {len(holders)} storage policies ({found}), where one can be replaced; "
            "replay the memory by plugins=[DistilledReplayPlugin(...)] instead"
        )
    if isinstance(strategy, FeatureReplay) and isinstance(policy, DistilledBuffer):
        # its loader leaves out what fills no batch, and begins anew for ever where that is all
        policy.require_rows(strategy.batch_size_mem or strategy.train_mb_size)
    holders[0].storage_policy = policy


def _held(holder: Any) -> Any:
    return getattr(holder, "storage_policy", None)
