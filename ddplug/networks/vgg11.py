"""VGG-11 for small images."""

from __future__ import annotations

from torch import nn

from ddplug.errors import OptionError
from ddplug.networks.layers import Classifier, norm_layer, others_for
from ddplug.utils.checks import image_shape, values_at_least

__all__ = ["vgg11"]

_BLOCKS = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""Convolutions between poolings, in multiples of the width."""


def vgg11(shape: tuple[int, ...], num_classes: int, *, width: int = 64, norm: str = "instance") -> Classifier:
    """Make a VGG-11 with one linear layer, as the condensation papers use it.

    Args:
        shape: ``(C, H, W)`` of one input, at least 32x32 (28x28 with one channel, which is padded to 32x32).
        num_classes: number of outputs.
        width: channels of the first convolution, at least 1; the last have eight times as many.
        norm: a key of :data:`ddplug.networks.layers.NORMS`.

    Returns:
        The network; its features are the flattened last map.

    Raises:
        OptionError: an option is unknown or out of range, or the images are too small.

    Reference: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
    """
    values_at_least(1, width=width)
    channels, *sides = image_shape(shape, "vgg11", "use mlp")
    padding = 3 if channels == 1 else 1
    least = 34 - 2 * padding
    if min(sides) < least:
        raise OptionError(
            f"vgg11 needs images of at least {least}x{least} pixels, not {sides[0]}x{sides[1]}; "
            f"use {others_for(*sides)}"
        )
    layers: list[nn.Module] = []
    for block in _BLOCKS:
        for factor in block:
            sides = [side + 2 * padding - 2 for side in sides]
            layers += [nn.Conv2d(channels, factor * width, 3, padding=padding)]
            layers += [norm_layer(norm, factor * width, sides[0], sides[1]), nn.ReLU()]
            channels, padding = factor * width, 1
        layers.append(nn.MaxPool2d(2))
        sides = [side // 2 for side in sides]
    return Classifier(nn.Sequential(*layers), nn.Linear(channels * sides[0] * sides[1], num_classes))
