"""A latent memory: samples are remembered as what a layer of the learner makes of them, and replayed from there on.

Pellegrini, Graffieti, Lomonaco & Maltoni, "Latent Replay for Real-Time Continual Learning", IROS 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ddplug.avalanche.learner import LearnerCopy, in_chunks
from ddplug.avalanche.schema import Rows
from ddplug.errors import OptionError, unknown

__all__ = ["Latent", "latent_rows"]


@dataclass(frozen=True)
class Latent:
    """Where features enter a learner.

    Attributes:
        layer: name of the module whose output they are, as ``named_modules()`` has it.
        inputs: shape of one input of the learner.
        outputs: shape of the layer's output for it.
        alone: whether one input row before the layer lets any number of rows pass after it, so that what lies before
            costs next to nothing.
    """

    layer: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    alone: bool

    def blanks(self, features: Tensor) -> Tensor:
        """Return inputs that stand before ``n`` features."""
        return features.new_zeros(1 if self.alone else len(features), *self.inputs)

    @contextmanager
    def entered(self, model: nn.Module, features: Tensor) -> Iterator[None]:
        """Let features take the place of the layer's output in the next call of a model.

        What comes before the layer is run on :meth:`blanks`, without gradients and in evaluation mode, so that no
        running statistics move; what comes after it as the model is set.

        Args:
            model: the learner.
            features: ``(n, 1, 1, D)``.
        """
        modes = [(module, module.training) for module in model.modules()]

        def enter(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            for each, mode in modes:
                each.training = mode
            torch.set_grad_enabled(mode=True)
            return features.view(-1, *self.outputs).to(output.dtype)

        hook = model.get_submodule(self.layer).register_forward_hook(enter)
        try:
            with torch.no_grad():
                model.eval()
                yield
        finally:
            hook.remove()
            for each, mode in modes:
                each.training = mode


def latent_rows(learner: nn.Module, layer: str, rows: Rows, device: torch.device) -> tuple[Rows, Latent]:
    """Return the features of samples in the place of the samples.

    Args:
        learner: it is left as it is.
        layer: name of the module whose output is taken.
        rows: samples.
        device: where to compute.

    Returns:
        Rows of ``(n, 1, 1, D)`` float32 features on the CPU, one range for all numbers being stored so, and where they
        enter the learner.

    Raises:
        OptionError: the learner has no such module, does not call it once, or its output is no tensor with a row for
            each sample.
    """
    names = [name for name, _ in learner.named_modules() if name]
    if layer not in names:
        raise unknown("layer of the learner", layer, names)
    parts: list[tuple[Tensor, Tensor]] = []
    latent = Latent(layer, tuple(rows.x.shape[1:]), (), alone=True)
    for task in rows.t.unique().tolist():
        network = LearnerCopy(learner, task).to(device).eval()
        mine = (rows.t == task).nonzero()[:, 0]
        features = in_chunks(partial(_output, network, layer), rows.x[mine], device)
        parts.append((mine, features.reshape(len(mine), 1, 1, -1)))
        latent = replace(latent, outputs=tuple(features.shape[1:]))
        latent = replace(latent, alone=latent.alone and _lets_pass(network, latent, features[:1].to(device)))
    order = torch.cat([mine for mine, _ in parts]).argsort()
    return Rows(torch.cat([features for _, features in parts])[order], rows.y, rows.t), latent


def _output(network: LearnerCopy, layer: str, x: Tensor) -> Tensor:
    """Return what the layer makes of a chunk."""
    seen: list[Any] = []
    hook = network.learner.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    try:
        network(x)
    finally:
        hook.remove()
    if len(seen) != 1 or not isinstance(seen[0], Tensor) or len(seen[0]) != len(x):
        what = f"is called {len(seen)} times" if len(seen) != 1 else "does not give a tensor with a row for each sample"
        raise OptionError(f"features={layer!r}: this layer {what}; name one that is called once and gives features")
    features: Tensor = seen[0]
    return features


@torch.no_grad()
def _lets_pass(network: LearnerCopy, latent: Latent, feature: Tensor) -> bool:
    """Say whether more rows of features than of inputs pass: a model may have counted its inputs before."""
    features = feature.repeat(3, *[1] * (feature.ndim - 1))
    try:
        with latent.entered(network.learner, features):
            return len(network(latent.blanks(features))) == len(features)
    except RuntimeError:
        return False
