"""Gradients of the losses of several classes in one pass, with those of the weights in closed form.

The gradient of a loss in the weight of a layer is a product of what goes into the layer and of the gradient in what
comes out. So one pass forward and one back through the images of all classes give each class's gradients, where
automatic differentiation makes the two passes for each class. On a CPU that pays where a class has few images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import conv2d, cross_entropy, linear, unfold
from torch.overrides import TorchFunctionMode

from ddplug.functional.types import Tensors
from ddplug.networks.batching import PIECE_BYTES, activation_bytes
from ddplug.networks.layers import Classifier
from ddplug.networks.precision import reduced

__all__ = ["class_gradients", "classes_together"]

CLASS_BYTES = {"cpu": 5 * 2**19, "cuda": 2**26}
"""Activations of a class's images up to which classes go together.

Measured on a CPU, first and second derivative, ConvNet-3 on 28x28 images: 1.7 times less time at 1 image of each of 10
classes and width 32 (0.5 MiB), 3 times at 40 classes, 1.4 at 4 images or at width 128 (2.1 MiB), but 0.8 times at 10
images (5 MiB). The limit for CUDA is estimated from the cost of launching a kernel, not measured.
"""

Rule: TypeAlias = Callable[[Tensor, int], Tensor]
"""From the gradient in the output of a layer's call, ``(n, ...)``, to each class's in the weight, ``(C, *shape)``."""


def _convolved(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Rule | None:
    if groups != 1 or isinstance(padding, str):
        return None

    def rule(out: Tensor, classes: int) -> Tensor:
        columns = unfold(x, weight.shape[2:], dilation, padding, stride)
        products = torch.bmm(out.flatten(2), columns.transpose(1, 2))
        return products.view(classes, -1, *weight.shape).sum(1)

    return rule


def _multiplied(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Rule | None:
    def rule(out: Tensor, classes: int) -> Tensor:
        sides = [side.view(classes, -1, side.shape[1]) for side in (out, x)]
        return torch.bmm(sides[0].transpose(1, 2), sides[1])

    return rule if x.ndim == 2 else None


_RULES: Mapping[Any, Callable[..., Rule | None]] = {conv2d: _convolved, linear: _multiplied}
"""Functions that a weight may go into, their second argument, and the rule of a call of theirs."""


class _Calls(TorchFunctionMode):
    """Notes for every weight the calls that it goes into: the rule, ``None`` where there is none, and the output."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = {id(weight): name for name, weight in weights.items()}
        self.found: dict[str, list[tuple[Rule | None, Tensor]]] = {name: [] for name in weights}

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        for name in (self.names[id(given)] for given in (*args, *kwargs.values()) if id(given) in self.names):
            plain = function in _RULES and len(args) > 1 and self.names.get(id(args[1])) == name
            self.found[name].append((_RULES[function](*args, **kwargs) if plain else None, output))
        return output


def class_gradients(
    module: nn.Module, network: Mapping[str, Tensor], names: Sequence[str], images: Tensor, labels: Tensor
) -> Tensors:
    """Gradients of the mean cross-entropy of each class's images, in one pass; differentiable in the images.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits; :func:`classes_together` must allow it.
        network: its parameters and buffers.
        names: of the parameters that are differentiated in.
        images: ``(n, *shape)``, as many of each class, sorted by class.
        labels: ``(C,)`` the classes.

    Returns:
        For each name ``(C, *shape)``.
    """
    weights = {name: network[name].detach().requires_grad_() for name in names}
    with _Calls(weights) as calls:
        logits = functional_call(module, {**network, **weights}, (images,))
    each = len(images) // len(labels)
    loss = cross_entropy(logits, labels.to(images.device).repeat_interleave(each), reduction="sum") / each
    found = [calls.found[name][0] for name in names]
    outputs = torch.autograd.grad(loss, [output for _, output in found], create_graph=True, materialize_grads=True)
    ways = zip(names, found, outputs, strict=True)
    return {name: rule(output, len(labels)) for name, (rule, _), output in ways if rule is not None}


_SUITED: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], int]] = WeakKeyDictionary()
"""Bytes of a structure's activations for one input of a shape, 0 without closed form: finding out takes two passes."""


def classes_together(module: nn.Module, names: Sequence[str], sample: Tensor, each: int, device: torch.device) -> int:
    """Tell how many classes are best passed through :func:`class_gradients` at once.

    Args:
        module: from :func:`ddplug.networks.stateless`, with logits, whose images do not depend on each other.
        names: of the parameters that are differentiated in.
        sample: ``(1, *shape)``, on the CPU.
        each: images of each class.
        device: where the images are.

    Returns:
        The number; 1 where one class at a time is better, or where there is no closed form: nothing is known of what
        others' modules do with a batch, and it is there for the weights of convolutions and linear layers, used once,
        in float32.
    """
    if reduced():
        return 1
    known, kind = _SUITED.setdefault(module, {}), (sample.shape, sample.dtype, tuple(names))
    if kind not in known:
        known[kind] = activation_bytes(module, sample) if _has_rules(module, names, sample) else 0
    size = each * known[kind]
    limit = CLASS_BYTES.get(device.type, 0)
    return max(1, limit // CLASS_BYTES["cpu"] * PIECE_BYTES // size) if 0 < size <= limit else 1


def _has_rules(module: nn.Module, names: Sequence[str], sample: Tensor) -> bool:
    if not isinstance(module, Classifier):
        return False
    weights = {name: weight for name, weight in module.named_parameters() if name in names}
    with torch.no_grad(), _Calls(weights) as calls:
        module(sample)
    return all(len(found) == 1 and found[0][0] is not None for found in calls.found.values())
