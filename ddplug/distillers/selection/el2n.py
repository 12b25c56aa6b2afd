"""El2n: choose by how far the outputs of networks early in training are from the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ddplug.data.labeled import LabeledData
from ddplug.distillation.settling import Suits, settled
from ddplug.distillers.parts.features import logits
from ddplug.distillers.parts.images import available
from ddplug.distillers.parts.training import POOL, draw_pool, train
from ddplug.distillers.selection.base import Selection, check_keep, pick_pool
from ddplug.networks.factory import build
from ddplug.networks.forms import AUTO
from ddplug.utils.checks import at_least

__all__ = ["El2n", "error_norm"]


@dataclass(frozen=True)
class El2n(Selection):
    r"""Score samples by the error of several networks early in training and keep the lowest.

    .. math:: \mathrm{EL2N}(x, y) = \frac{1}{K} \sum_{k=1}^{K} \lVert \mathrm{softmax}(f_k(x)) - e_y \rVert_2

    Args:
        network: specification of the networks :math:`f_k` (see :func:`ddplug.networks.build`); ``"auto"`` for
            convnet:width=16 where the data are images, conv1d:width=32 where they are series, mlp where they are rows.
        networks: how many of them, :math:`K`, at least 1; the paper takes 10.
        train_epochs: epochs to train each for, at least 1; SGD, learning rate 0.01, momentum 0.9, batches of 256.
        max_samples_per_class: samples of each class to train on and choose from, at most, drawn at random.
        keep: ``"easy"`` keeps the lowest scores, ``"hard"`` the highest, as the paper does for large subsets; at up to
            50 images a class the hard ones are worse than random ones.

    Reference:
        Paul, Ganguli & Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples Early in Training",
        NeurIPS 2021, definition 2.2.

    Example:
        >>> El2n(networks=10).name
        'el2n'
    """

    name: ClassVar[str] = "el2n"
    bfloat16: ClassVar[bool] = True
    suits: ClassVar[Suits] = {"network": {"image": "convnet:width=16", "series": "conv1d:width=32", "row": "mlp"}}
    small: ClassVar[Mapping[str, Any]] = {**Selection.small, "network": "convnet:width=8,depth=1", "networks": 2}
    network: str = AUTO
    networks: int = 3
    train_epochs: int = 3
    max_samples_per_class: int = POOL
    keep: Literal["easy", "hard"] = "easy"

    def __post_init__(self) -> None:
        check_keep(self.keep)
        at_least(self, networks=1, train_epochs=1, max_samples_per_class=1)

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        available(data, self.images_per_class)
        pool = draw_pool(data, max(self.max_samples_per_class, self.images_per_class), rng)
        targets = data.targets.cpu()[pool]
        scores = torch.zeros(len(pool))
        for _ in range(self.networks):
            module = build(settled(self, data.shape).network, data.shape, data.num_classes, rng).to(data.device)
            for _ in train(module, data, pool, self.train_epochs, rng):
                pass
            scores += error_norm(logits(module, data, pool).cpu(), targets) / self.networks
        return {"index": pick_pool(data, pool, scores, self.images_per_class, self.keep, rng)}


def error_norm(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the distance between predicted probabilities and the label.

    Args:
        outputs: ``(n, classes)`` logits.
        targets: ``(n,)`` int64 labels.

    Returns:
        ``(n,)`` norms in ``[0, sqrt(2)]``.

    Example:
        >>> error_norm(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
        tensor([0.7071])
    """
    norms: Tensor = (outputs.softmax(1) - one_hot(targets, outputs.shape[1])).norm(dim=1)
    return norms
