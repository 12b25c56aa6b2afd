"""AlexNet for small images."""

from __future__ import annotations

from torch import nn

from ddplug.errors import OptionError
from ddplug.networks.layers import Classifier, others_for
from ddplug.utils.checks import image_shape

__all__ = ["alexnet"]

_CONVOLUTIONS = ((128, 5, True), (192, 5, True), (256, 3, False), (192, 3, False), (192, 3, True))
"""Channels, kernel side, and whether 2x2 max pooling follows."""


def alexnet(shape: tuple[int, ...], num_classes: int) -> Classifier:
    """Make the small-image AlexNet of the condensation papers: five convolutions and one linear layer.

    Args:
        shape: ``(C, H, W)`` of one input, at least 8x8 (4x4 with one channel, which is padded to 32x32 from 28x28).
        num_classes: number of outputs.

    Returns:
        The network; its features are the flattened last map.

    Raises:
        OptionError: the images are too small.

    Reference: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
    NeurIPS 2012; as sized in Zhao, Mopuri & Bilen, ICLR 2021, section 4.1.
    """
    channels, *sides = image_shape(shape, "alexnet", "use mlp")
    extra = 2 if channels == 1 else 0
    least = 8 - 2 * extra
    if min(sides) < least:
        raise OptionError(
            f"alexnet needs images of at least {least}x{least} pixels, not {sides[0]}x{sides[1]}; "
            f"use {others_for(*sides)}"
        )
    layers: list[nn.Module] = []
    for width, kernel, pooled in _CONVOLUTIONS:
        layers += [nn.Conv2d(channels, width, kernel, padding=kernel // 2 + extra), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if pooled else []
        channels, extra = width, 0
    grown = 4 if shape[0] == 1 else 0
    height, width = ((side + grown) // 8 for side in sides)
    return Classifier(nn.Sequential(*layers), nn.Linear(channels * height * width, num_classes))
