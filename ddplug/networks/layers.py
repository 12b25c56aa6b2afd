"""What the networks share: the layers their options name, and a classifier that shows its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from ddplug.errors import OptionError
from ddplug.utils.checks import one_of

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "NORMS",
    "POOLS",
    "AveragePool",
    "Classifier",
    "initialize",
    "norm_layer",
    "others_for",
    "pick",
]

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leakyrelu": lambda: nn.LeakyReLU(0.01),
    "sigmoid": nn.Sigmoid,
    "swish": nn.SiLU,
}
"""Activations by name."""


class AveragePool(nn.Module):
    """Means of 2x2 pixels, as of ``nn.AvgPool2d(2)``, which takes a CPU two to five times as long."""

    def forward(self, x: Tensor) -> Tensor:
        """Halve the sides of ``(N, C, H, W)`` maps, rounding down."""
        if x.device.type != "cpu":
            return avg_pool2d(x, 2)
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        # unbind, as slices are slow backwards: each fills a map of zeros and adds it to the others
        top, bottom = x[..., : 2 * height, : 2 * width].unflatten(-2, (height, 2)).unbind(-2)
        left, right = (top + bottom).unflatten(-1, (width, 2)).unbind(-1)
        pooled: Tensor = (left + right) * 0.25
        return pooled


POOLS: Mapping[str, Callable[[], nn.Module]] = {
    "avg": AveragePool,
    "max": lambda: nn.MaxPool2d(2),
    "none": nn.Identity,
}
"""Pooling layers by name; all but ``none`` halve the sides, rounding down."""

NORMS: Mapping[str, Callable[[int, int, int], nn.Module]] = {
    "instance": lambda channels, height, width: nn.GroupNorm(channels, channels),
    "batch": lambda channels, height, width: nn.BatchNorm2d(channels),
    "group": lambda channels, height, width: nn.GroupNorm(4, channels),
    "layer": lambda channels, height, width: nn.LayerNorm([channels, height, width]),
    "none": lambda channels, height, width: nn.Identity(),
}
"""Normalization layers by name, for maps of a number of channels, a height and a width; all are affine."""


def _keep(layer: nn.Conv2d | nn.Linear) -> None:
    """Leave PyTorch's own initialization."""


def _xavier(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


INITS: Mapping[str, Callable[[nn.Conv2d | nn.Linear], None]] = {"torch": _keep, "xavier": _xavier}
"""Initializations of convolutions and linear layers by name: PyTorch's own, or Glorot & Bengio's normal one."""


def initialize(module: nn.Module, init: str) -> None:
    """Draw the weights of a network's convolutions and linear layers anew.

    Args:
        module: the network.
        init: a key of :data:`INITS`.

    Raises:
        OptionError: it is not known.
    """
    one_of("value of option 'init',", init, INITS)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            INITS[init](layer)


def pick(option: str, value: str, table: Mapping[str, Callable[..., nn.Module]]) -> Callable[..., nn.Module]:
    """Look an option's value up in its table.

    Raises:
        OptionError: the table does not have it.
    """
    one_of(f"value of option {option!r},", value, table)
    return table[value]


def others_for(height: int, width: int) -> str:
    """Say which networks take images of a size that is too small for another."""
    return "convnet or mlp" if min(height, width) >= 8 else "mlp"


def norm_layer(norm: str, channels: int, height: int, width: int) -> nn.Module:
    """Make a normalization layer.

    Args:
        norm: a key of :data:`NORMS`.
        channels: of the map.
        height: of the map.
        width: of the map.

    Returns:
        The layer.

    Raises:
        OptionError: the name is not known, or four groups do not divide the channels, or instance normalization
            would see a single pixel, which it always turns into zero.
    """
    make = pick("norm", norm, NORMS)
    if norm == "group" and channels % 4:
        raise OptionError(f"norm=group splits channels into 4 groups, which do not divide width={channels}")
    if norm == "instance" and height * width == 1:
        raise OptionError("norm=instance turns a map of 1x1 into zeros; use norm=layer or larger images")
    return make(channels, height, width)


class Classifier(nn.Module):
    """Features, flattened, and a head that classifies them.

    Args:
        features: maps a batch of inputs to a batch of anything.
        head: maps ``(n, D)`` features to ``(n, num_classes)`` logits.
    """

    def __init__(self, features: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def embed(self, x: Tensor) -> Tensor:
        """Return the ``(n, D)`` features of a batch."""
        features: Tensor = self.features(x)
        # .view would fail on channels-last maps, which one-channel inputs can lead to
        return features.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the ``(n, num_classes)`` logits of a batch."""
        logits: Tensor = self.head(self.embed(x))
        return logits
