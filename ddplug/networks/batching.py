"""Micro-batches: how much of a batch goes through a network at once, by rules that were measured.

On a CPU the activations of a large batch fall out of the caches, and past a few tens of megabytes they are returned to
the operating system and mapped anew in every step. Micro-batches whose activations stay within 32 MiB were 1.5 to 2
times faster than batches of 256 (ConvNet of width 32 and 128 on 28x28 images, forward and backward); much smaller ones
were slower. On an accelerator the whole batch goes at once.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ddplug.networks.factory import has_batch_norm
from ddplug.networks.layers import Classifier

__all__ = ["activation_bytes", "batch_pieces", "go_together"]

PIECE_BYTES = 32 * 2**20
"""Activations of one micro-batch on a CPU."""

TOGETHER_BYTES = {"cpu": 2**20, "cuda": 2**26}
"""Activations of one network's batch up to which several networks are trained together.

On the CPU stacking saves calls but makes slower convolutions: 1.1 to 1.8 times faster for 10 images of 8x8 at width 32
(0.7 MiB), as fast at 3 MiB and two to three times slower at 200 MiB. The limit for CUDA is estimated from the cost of
launching a kernel, not measured.
"""

_counted: MutableMapping[nn.Module, dict[tuple[torch.Size, torch.dtype], int]] = WeakKeyDictionary()
"""Bytes for an input of a shape and type, of every network that lives: counting takes a forward pass."""


def activation_bytes(module: nn.Module, sample: Tensor) -> int:
    """Count the bytes that the outputs of all layers take for one input; once for each network, shape and type.

    Args:
        module: a network.
        sample: ``(1, *shape)``, on the network's device.

    Returns:
        The bytes, at least 1.

    Example:
        >>> activation_bytes(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.zeros(1, 3))
        32
    """
    known, kind = _counted.setdefault(module, {}), (sample.shape, sample.dtype)
    if kind not in known:
        known[kind] = _count(module, sample)
    return known[kind]


def _count(module: nn.Module, sample: Tensor) -> int:
    """Pass an input through a network and add up what its layers give."""
    sizes: list[int] = []

    def count(layer: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    hooks = [layer.register_forward_hook(count) for layer in module.modules() if not any(layer.children())]
    training = module.training
    try:
        with torch.no_grad():
            module.eval()(sample)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return max(sum(sizes), 1)


def batch_pieces(module: nn.Module, sample: Tensor, n: int) -> list[slice]:
    """Cut a batch into micro-batches of nearly equal size; the whole batch where that is best or has to be.

    Args:
        module: a network. In training mode with batch normalization its batches stay whole.
        sample: ``(1, *shape)``, on the network's device.
        n: samples in the batch.

    Returns:
        Slices that cover ``range(n)`` in order.

    Example:
        >>> batch_pieces(nn.Linear(2**21, 1), torch.zeros(1, 2**21), 3)
        [slice(0, 3, None)]
    """
    number = 1
    if sample.device.type == "cpu" and not (module.training and has_batch_norm(module)):
        number = min(n, -(-n * activation_bytes(module, sample) // PIECE_BYTES))
    edges = [round(k * n / number) for k in range(number + 1)]
    return [slice(first, last) for first, last in pairwise(edges)]


def go_together(modules: Sequence[nn.Module], sample: Tensor, n: int) -> bool:
    """Tell whether several networks are better trained together than one by one.

    Args:
        modules: networks of one kind.
        sample: ``(1, *shape)``, on the networks' device.
        n: samples in a batch of one network.

    Returns:
        Whether to stack them. Only the package's own structure without batch normalization, dropout or frozen
        parameters is stacked: nothing is known of what other modules do in their forward pass.
    """
    first = modules[0]
    plain = isinstance(first, Classifier) and all(p.requires_grad for p in first.parameters())
    odd = has_batch_norm(first) or any(isinstance(layer, nn.modules.dropout._DropoutNd) for layer in first.modules())
    if len(modules) < 2 or not plain or odd:
        return False
    return n * activation_bytes(first, sample) <= TOGETHER_BYTES.get(sample.device.type, 0)
