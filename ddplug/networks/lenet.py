"""LeNet-5 with rectifiers and max pooling."""

from __future__ import annotations

from torch import nn

from ddplug.errors import OptionError
from ddplug.networks.layers import Classifier, initialize, others_for
from ddplug.utils.checks import image_shape

__all__ = ["lenet"]


def lenet(shape: tuple[int, ...], num_classes: int, *, init: str = "torch") -> Classifier:
    """Make a LeNet-5; one-channel images are padded by 2, so that 28x28 gray and 32x32 color lead to one size.

    Args:
        shape: ``(C, H, W)`` of one input; at least 12x12 with one channel, 16x16 with more.
        num_classes: number of outputs.
        init: ``"torch"`` for PyTorch's own initialization, ``"xavier"`` for that of the dataset-distillation papers,
            from which a few steps of training lead further.

    Returns:
        The network; its features are the 84 units before the last layer.

    Raises:
        OptionError: the images are too small, or the initialization is not known.

    Reference: LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition",
    Proceedings of the IEEE, 1998.
    """
    channels, *sides = image_shape(shape, "lenet", "use mlp")
    padding = 2 if channels == 1 else 0
    least = 16 - 2 * padding
    if min(sides) < least:
        raise OptionError(
            f"lenet needs images of at least {least}x{least} pixels, not {sides[0]}x{sides[1]}; "
            f"use {others_for(*sides)}"
        )
    height, width = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in sides)
    features = nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * height * width, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
    )
    network = Classifier(features, nn.Linear(84, num_classes))
    initialize(network, init)
    return network
