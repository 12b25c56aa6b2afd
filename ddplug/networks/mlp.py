"""A multi-layer perceptron: for inputs of any shape, the rows of a table included."""

from __future__ import annotations

import math

from torch import nn

from ddplug.networks.layers import ACTIVATIONS, Classifier, pick
from ddplug.utils.checks import values_at_least

__all__ = ["mlp"]


def mlp(shape: tuple[int, ...], num_classes: int, *, width: int = 128, depth: int = 3, act: str = "relu") -> Classifier:
    """Make a multi-layer perceptron; the features are the last hidden layer.

    Args:
        shape: of one input, which is flattened.
        num_classes: number of outputs.
        width: of the hidden layers, at least 1.
        depth: linear layers, the last one included, at least 1 (a linear classifier).
        act: a key of :data:`ddplug.networks.layers.ACTIVATIONS`.

    Returns:
        The network.

    Raises:
        OptionError: an option is unknown or out of range.

    Example:
        >>> mlp((5,), 2).head
        Linear(in_features=128, out_features=2, bias=True)
    """
    values_at_least(1, width=width, depth=depth)
    activation = pick("act", act, ACTIVATIONS)
    layers: list[nn.Module] = [nn.Flatten()]
    features = math.prod(shape)
    for _ in range(depth - 1):
        layers += [nn.Linear(features, width), activation()]
        features = width
    return Classifier(nn.Sequential(*layers), nn.Linear(features, num_classes))
