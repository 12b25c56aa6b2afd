"""Forgetting: choose by how often a sample is unlearned while a network is trained on the real data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillation.settling import Suits, settled
from ddplug.distillers.parts.images import available
from ddplug.distillers.parts.training import POOL, draw_pool, train
from ddplug.distillers.selection.base import Selection, check_keep, pick_pool
from ddplug.networks.factory import build
from ddplug.networks.forms import AUTO
from ddplug.utils.checks import at_least

__all__ = ["Forgetting", "count_forgetting"]


@dataclass(frozen=True)
class Forgetting(Selection):
    """Count forgetting events and keep the samples with the fewest.

    A sample is forgotten when it was classified correctly the last time its batch came up and is not this time. A
    sample that never was correct counts as forgotten infinitely often. Ties are broken at random.

    Few epochs on a pool of the data are enough to tell easy samples from hard ones; the paper trains for 200 on all.

    Args:
        network: specification of the network to train (see :func:`ddplug.networks.build`); ``"auto"`` for
            convnet:width=16 where the data are images, conv1d:width=32 where they are series, mlp where they are rows.
        train_epochs: epochs to train it for, at least 1; SGD, learning rate 0.01, momentum 0.9, batches of 256.
        max_samples_per_class: samples of each class to train on and choose from, at most, drawn at random.
        keep: ``"easy"`` keeps the least forgotten, ``"hard"`` the most, as the paper does for large subsets; at up to
            50 images a class the hard ones are worse than random ones.

    Reference:
        Toneva et al., "An Empirical Study of Example Forgetting during Deep Neural Network Learning", ICLR 2019,
        definition 1 and algorithm 1.

    Example:
        >>> Forgetting(keep="easy").name
        'forgetting'
    """

    name: ClassVar[str] = "forgetting"
    bfloat16: ClassVar[bool] = True
    suits: ClassVar[Suits] = {"network": {"image": "convnet:width=16", "series": "conv1d:width=32", "row": "mlp"}}
    small: ClassVar[Mapping[str, Any]] = {**Selection.small, "network": "convnet:width=8,depth=1"}
    network: str = AUTO
    train_epochs: int = 10
    max_samples_per_class: int = POOL
    keep: Literal["easy", "hard"] = "easy"

    def __post_init__(self) -> None:
        check_keep(self.keep)
        at_least(self, train_epochs=1, max_samples_per_class=1)

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        available(data, self.images_per_class)
        pool = draw_pool(data, max(self.max_samples_per_class, self.images_per_class), rng)
        module = build(settled(self, data.shape).network, data.shape, data.num_classes, rng).to(data.device)
        targets = data.targets.cpu()[pool]
        history = (predictions == targets for predictions in train(module, data, pool, self.train_epochs, rng))
        scores = count_forgetting(history)
        return {"index": pick_pool(data, pool, scores, self.images_per_class, self.keep, rng)}


def count_forgetting(history: Iterable[Tensor]) -> Tensor:
    """Count the changes from correct to wrong.

    Args:
        history: at least one ``(n,)`` bool tensor: whether each sample was classified correctly, in order of time.

    Returns:
        ``(n,)`` float32 counts; infinity where a sample never was correct.

    Example:
        >>> seen = torch.tensor([[True, False, True], [False, False, True], [True, False, False]])
        >>> count_forgetting(seen)
        tensor([1., inf, 1.])
    """
    steps = iter(history)
    before = learned = next(steps)
    count = torch.zeros(len(before))
    for now in steps:
        count += before & ~now
        learned = learned | now
        before = now
    return count.masked_fill(~learned, torch.inf)
