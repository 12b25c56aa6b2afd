r"""Scores of a network that is not trained at all: the controls that any proxy has to beat.

======================= ============================================================================================
``"parameters"``        number of trainable weights
``"flops"``             floating-point operations of a forward pass of one input; 0 where they cannot be counted
``"gradient-norm"``     Euclidean norm of the loss gradient over one batch (Abdelfattah et al. 2021, section 3.1)
``"synflow"``           :math:`\sum_\theta |\theta|\,\partial R/\partial|\theta|`, with :math:`R` the sum of the outputs
                        for an input of ones, all weights positive and no normalization (Tanaka et al. 2020, eq. 1);
                        its logarithm, which ranks equally
``"nwot"``              log-determinant of how often two inputs switch the same units on (Mellor et al. 2021, eq. 2)
======================= ============================================================================================

References: Abdelfattah et al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021. Tanaka et al., "Pruning neural
networks without any data by iteratively conserving synaptic flow", NeurIPS 2020. Mellor et al., "Neural Architecture
Search without Training", ICML 2021.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.search.candidate import forward_flops
from ddplug.utils.checks import one_of
from ddplug.utils.randomness import temporary_seed
from ddplug.utils.surroundings import own_surroundings

__all__ = ["SCORES", "zero_cost"]

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
_SWITCHES = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Tanh)
_LEAST = 1e-6
"""Eigenvalues below it count as zero, and zero as this."""


def _parameters(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return float(sum(p.numel() for p in network.parameters() if p.requires_grad))


def _flops(network: nn.Module, x: Tensor, y: Tensor) -> float:
    return forward_flops(network, x[:1]) or 0.0


def _gradient_norm(network: nn.Module, x: Tensor, y: Tensor) -> float:
    weights = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(cross_entropy(network(x), y), weights, allow_unused=True)
    return math.sqrt(sum(float(g.double().square().sum()) for g in gradients if g is not None))


def _bare(network: nn.Module) -> nn.Module:
    """Copy a network with positive weights in float64 and without normalization."""
    copied = copy.deepcopy(network).double()
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _NORMS):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for weight in copied.parameters():
            weight.abs_()
    return copied


def _synflow(network: nn.Module, x: Tensor, y: Tensor) -> float:
    positive = _bare(network)
    weights = [p for p in positive.parameters() if p.requires_grad]
    flow = positive(torch.ones_like(x[:1], dtype=torch.float64)).sum()
    gradients = torch.autograd.grad(flow, weights, allow_unused=True)
    total = sum(float((w.detach() * g).abs().sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
    # no flow at all is the worst, overflow the best
    return math.log(min(max(total, sys.float_info.min), sys.float_info.max))


@torch.no_grad()
def _nwot(network: nn.Module, x: Tensor, y: Tensor) -> float:
    kernel = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        # sums of zeros and ones are exact in float32 up to 16 million units
        on = (inputs[0] > 0).flatten(1).float()
        both, count = (on @ on.T).double(), on.double().sum(1)
        kernel.add_(2 * both - count[:, None] - count + on.shape[1])

    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, _SWITCHES)]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    # inputs that switch alike make it singular: a low score, but one that can be drawn with others
    return float(torch.linalg.eigvalsh(kernel).clamp(min=_LEAST).log().sum())


SCORES: Mapping[str, Callable[[nn.Module, Tensor, Tensor], float]] = {
    "parameters": _parameters,
    "flops": _flops,
    "gradient-norm": _gradient_norm,
    "synflow": _synflow,
    "nwot": _nwot,
}
"""Name -> score of a fresh network on a batch ``(n, *shape)`` with labels ``(n,)``; higher is better."""


@own_surroundings()
def zero_cost(name: str, build: Callable[[], Any], x: Tensor, y: Tensor, seed: int = 0) -> float:
    """Score a network as it comes from its constructor.

    Args:
        name: a key of :data:`SCORES`.
        build: makes the network, with weights from the global random state, which is lent to it and put back.
        x: ``(n, *shape)`` inputs in model space.
        y: ``(n,)`` int64 labels.
        seed: of the weights.

    Returns:
        The score; higher should be better.

    Raises:
        OptionError: the name is not known.

    Example:
        >>> x, y = torch.zeros(2, 3), torch.tensor([0, 1])
        >>> zero_cost("parameters", lambda: nn.Linear(3, 2), x, y)
        8.0
    """
    one_of("zero-cost score", name, SCORES)
    with temporary_seed(seed, x.device):
        network = build().to(x.device).train()
        return SCORES[name](network, x, y)
