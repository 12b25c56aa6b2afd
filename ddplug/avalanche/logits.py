"""The learner's outputs for the images of a memory, which are kept beside them where a strategy distills logits."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from ddplug.avalanche.groups import GroupKey, GroupMemory
from ddplug.avalanche.learner import outputs
from ddplug.errors import OptionError

__all__ = ["bytes_of_logits", "logits_of"]


def bytes_of_logits(samples: Mapping[GroupKey, Tensor], learner: nn.Module | None, device: torch.device) -> int:
    """Return the bytes that the outputs for an image take.

    Args:
        samples: ``(N, *shape)`` of each group, of which one has some.
        learner: that is asked.
        device: to work on.

    Raises:
        OptionError: there is no learner.
    """
    if learner is None:
        raise OptionError("logits=True needs the model being trained as agent.model; set it, or leave logits out")
    group, x = next((group, x) for group, x in samples.items() if len(x))
    return 2 * outputs(learner, x[:1], group.task, device).shape[1]


def logits_of(groups: Collection[GroupMemory], learner: nn.Module, device: torch.device) -> Tensor:
    """Ask a learner for its outputs for all images.

    Args:
        groups: memories of which one holds images.
        learner: that is asked.
        device: to work on.

    Returns:
        ``(N, K)`` float16, in the order of the groups.

    Raises:
        OptionError: the learner has outputs of different widths for them.
    """
    parts = [outputs(learner, own.images(), own.group.task, device) for own in groups if len(own)]
    if len({part.shape[1] for part in parts}) > 1:
        raise OptionError(
            "logits=True needs a model with one head; this one has outputs of different widths: leave logits out"
        )
    return torch.cat(parts).half()
