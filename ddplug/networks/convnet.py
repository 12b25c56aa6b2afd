"""ConvNet-D, the network that most condensation papers distill and evaluate with, in all its published variants."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from ddplug.errors import OptionError
from ddplug.networks.layers import ACTIVATIONS, POOLS, Classifier, norm_layer, pick
from ddplug.utils.checks import image_shape, values_at_least

__all__ = ["SPACE", "ConvNet", "convnet"]

SPACE: Mapping[str, tuple[int | str, ...]] = {
    "width": (32, 64, 128, 256),
    "depth": (1, 2, 3, 4),
    "norm": ("none", "batch", "layer", "instance", "group"),
    "act": ("sigmoid", "relu", "leakyrelu"),
    "pool": ("none", "max", "avg"),
}
"""The 720 architectures of the published architecture-search experiments: every combination of these."""


class ConvNet(Classifier):
    """``depth`` blocks of 3x3 convolution, normalization, activation and 2x2 pooling, then one linear layer.

    One-channel images are padded by 3 before the first convolution, so that 28x28 becomes 32x32 (30x30 elsewhere).
    The features are the flattened last map.

    Args:
        shape: ``(C, H, W)`` of one input.
        num_classes: number of outputs.
        width: channels of every block, at least 1.
        depth: number of blocks, at least 1; 3 suits 28 and 32 pixels, 4 suits 64.
        act: a key of :data:`ddplug.networks.layers.ACTIVATIONS`.
        norm: a key of :data:`ddplug.networks.layers.NORMS`.
        pool: a key of :data:`ddplug.networks.layers.POOLS`.

    Raises:
        OptionError: an option is unknown or out of range, or pooling leaves less than one pixel.

    Example:
        >>> sum(p.numel() for p in ConvNet((3, 32, 32), 10).parameters())
        320010

    Reference: Gidaris & Komodakis, "Dynamic Few-Shot Visual Learning without Forgetting", CVPR 2018; as set in
    Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, section 4.1.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        width: int = 128,
        depth: int = 3,
        act: str = "relu",
        norm: str = "instance",
        pool: str = "avg",
    ) -> None:
        values_at_least(1, width=width, depth=depth)
        channels, *sides = image_shape(shape, "convnet", "use mlp")
        blocks: list[nn.Module] = []
        for block in range(depth):
            padding = 3 if block == 0 and channels == 1 else 1
            height, breadth = (side + 2 * padding - 2 for side in sides)
            sides = [height, breadth] if pool == "none" else [height // 2, breadth // 2]
            if min(sides) < 1:
                less = f"depth={block} or pool=none" if block else "pool=none"
                instead = "mlp" if math.prod(shape[1:]) == 1 else less  # a single pixel is no picture
                raise OptionError(f"convnet depth={depth} pools {shape[1]}x{shape[2]} images below 1x1; use {instead}")
            blocks += [
                nn.Conv2d(channels, width, 3, padding=padding),
                norm_layer(norm, width, height, breadth),
                pick("act", act, ACTIVATIONS)(),
                pick("pool", pool, POOLS)(),
            ]
            channels = width
        super().__init__(nn.Sequential(*blocks), nn.Linear(width * sides[0] * sides[1], num_classes))


convnet = ConvNet
"""What the name ``"convnet"`` stands for."""
