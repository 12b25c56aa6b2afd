"""ResNet-18 for small images: a 3x3 stem of stride one."""

from __future__ import annotations

from torch import Tensor, nn

from ddplug.networks.layers import Classifier, norm_layer
from ddplug.utils.checks import image_shape, values_at_least

__all__ = ["resnet18"]


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut around them, which is projected where the size or the channels change."""

    def __init__(self, channels: int, width: int, stride: int, sides: list[int], norm: str) -> None:
        super().__init__()
        height, breadth = sides
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            norm_layer(norm, width, height, breadth),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm_layer(norm, width, height, breadth),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), norm_layer(norm, width, height, breadth)
            )

    def forward(self, x: Tensor) -> Tensor:
        summed: Tensor = self.body(x) + self.shortcut(x)
        return summed.relu()


def resnet18(shape: tuple[int, ...], num_classes: int, *, width: int = 64, norm: str = "instance") -> Classifier:
    """Make a ResNet-18 with a 3x3 stem of stride one and global average pooling.

    Args:
        shape: ``(C, H, W)`` of one input; above 8x8 with ``norm="instance"``, whose last maps else are single pixels.
        num_classes: number of outputs.
        width: channels of the first stage, at least 1; the last has eight times as many.
        norm: a key of :data:`ddplug.networks.layers.NORMS`.

    Returns:
        The network; its features are the averages of the last maps.

    Raises:
        OptionError: an option is unknown or out of range, or the images are too small.

    Reference: He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
    """
    values_at_least(1, width=width)
    channels, *sides = image_shape(shape, "resnet18", "use mlp")
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        norm_layer(norm, width, sides[0], sides[1]),
        nn.ReLU(),
    ]
    channels = width
    for stage in range(4):
        stride = 1 if stage == 0 else 2
        sides = [-(-side // stride) for side in sides]
        wide = width * 2**stage
        layers += [_Block(channels, wide, stride, sides, norm), _Block(wide, wide, 1, sides, norm)]
        channels = wide
    return Classifier(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)), nn.Linear(channels, num_classes))
