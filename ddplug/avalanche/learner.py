"""Which network a distiller matches with: the learner, fresh copies of its architecture, or a network of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

import torch
from avalanche.models import DynamicModule, MultiTaskModule
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from torch import Tensor, nn

from ddplug.errors import OptionError
from ddplug.functional.resize import enlarge
from ddplug.networks.factory import Network, linear_input
from ddplug.utils.devices import pick_device
from ddplug.utils.randomness import temporary_seed

__all__ = [
    "LearnerCopy",
    "in_chunks",
    "labels_of",
    "losses",
    "networks_for",
    "outputs",
    "probabilities",
    "with_heads_for",
    "working_device",
]

_CHUNK = 256
"""Samples passed through the learner at once."""


class LearnerCopy(nn.Module):
    """A float32 copy of a learner, on the CPU, as a distiller sees it: no task labels, no dropout.

    Args:
        learner: any module; it is left as it is.
        task: task label to call it with, if it takes any.
        labels: class labels whose outputs to give, in this order; all outputs if there are none.
        shape: ``(C, H, W)`` to enlarge images to before the learner sees them.
    """

    def __init__(
        self, learner: nn.Module, task: int, labels: Sequence[int] = (), shape: tuple[int, ...] | None = None
    ) -> None:
        super().__init__()
        self.learner = copy.deepcopy(learner).cpu().float()
        self.frozen = {name for name, parameter in self.learner.named_parameters() if not parameter.requires_grad}
        self.learner.requires_grad_(True)
        for parameter in self.learner.parameters():
            parameter.grad = None
        self.task = task
        self.labels = list(labels)
        self.shape = shape
        self.train()

    def train(self, mode: bool = True) -> LearnerCopy:
        """Let batch normalization alone be in training mode: dropout would make every call another network."""
        super().train(False)
        for layer in self.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return the ``(n, K)`` outputs, or the ``(n, len(labels))`` of some labels."""
        outputs = self._call(x)
        return outputs[:, self.labels] if self.labels else outputs

    def embed(self, x: Tensor) -> Tensor:
        """Return the ``(n, D)`` input of the last linear layer called, or the outputs if there is none."""
        received = linear_input(self, x)
        return self._call(x).flatten(1) if received is None else received

    def _call(self, x: Tensor) -> Tensor:
        x = x if self.shape is None else enlarge(x, self.shape)
        takes_task = isinstance(self.learner, MultiTaskModule)
        outputs: Tensor = self.learner(x, self.task) if takes_task else self.learner(x)
        return outputs


@torch.no_grad()
def _redraw(model: nn.Module, frozen: AbstractSet[str]) -> None:
    """Initialize every module anew, by its own ``reset_parameters`` or else with its present mean and deviation.

    Args:
        model: the network.
        frozen: names of parameters that are not trained; modules that have one stay as they are.
    """
    for prefix, module in model.named_modules():
        own = dict(module.named_parameters(prefix, recurse=False))
        if not frozen.isdisjoint(own) or (frozen and not own):
            continue
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            continue
        for parameter in own.values():
            if parameter.is_floating_point() and parameter.numel():
                parameter.normal_(float(parameter.mean()), float(parameter.std(correction=0)))


@contextmanager
def networks_for(
    choice: str | Callable[[], nn.Module],
    learner: nn.Module | None,
    task: int = 0,
    labels: Sequence[int] = (),
    shape: tuple[int, ...] | None = None,
) -> Iterator[Network | None]:
    """Lend what a distiller's field ``network`` is to hold.

    Nothing of the learner is kept when the function is dropped: :mod:`ddplug.networks.functional` remembers structures
    as long as the function that built them.

    Args:
        choice: ``"fresh"`` for copies of the learner, each initialized anew; ``"learner"`` for the learner as it is;
            ``"own"`` for what the distiller has; or a name or function as :func:`ddplug.networks.build` takes it.
        learner: the network being trained.
        task: task label of the data to distill.
        labels: their class labels in the order that the distiller numbers them.
        shape: what the learner takes, where the data are reduced.

    Yields:
        A network's name, or a function that makes one from the global random state it is lent; ``None`` for ``"own"``.

    Raises:
        OptionError: the choice needs a learner, and there is none.
    """
    if choice not in ("fresh", "learner"):
        yield None if choice == "own" else choice
        return
    if learner is None:
        raise OptionError(f"network={choice!r} needs the model being trained as agent.model; set it, or say 'own'")
    template = LearnerCopy(learner, task, labels, shape)

    def make() -> nn.Module:
        made = copy.deepcopy(template)
        if choice == "fresh":
            _redraw(made.learner, made.frozen)
        return made

    yield make


def working_device(device: str, agent: Any, learner: nn.Module | None) -> torch.device:
    """Find the device to work on.

    Args:
        device: as :func:`ddplug.utils.devices.pick_device` takes it, or ``"learner"`` for where the learner is.
        agent: a strategy, whose ``device`` is taken first.
        learner: the network being trained.
    """
    if device != "learner":
        return pick_device(device)
    parameter = None if learner is None else next(learner.parameters(), None)
    return torch.device(getattr(agent, "device", "cpu" if parameter is None else parameter.device))


def with_heads_for(learner: nn.Module, exp: Any) -> nn.Module:
    """Return a learner that has the heads an experience needs.

    A strategy may hand over its model before it has adapted it, as GDumb does.

    Args:
        learner: it is left as it is.
        exp: the experience.

    Returns:
        An adapted copy of a learner that can grow; any other learner itself.
    """
    grows = any(isinstance(module, DynamicModule) for module in learner.modules())
    if not grows or not hasattr(exp, "classes_in_this_experience"):
        return learner
    grown = copy.deepcopy(learner)
    with temporary_seed(0):
        avalanche_model_adaptation(grown, exp)
    return grown


def labels_of(learner: nn.Module, x: Tensor, label: int, task: int, device: torch.device) -> Tensor:
    """Return soft labels of samples of one class: half the known class, half the learner's :func:`probabilities`.

    So the known class is the most probable one, however badly the learner is trained.
    """
    soft = 0.5 * probabilities(learner, x, task, device)
    if len(soft):
        soft[:, label] += 0.5
    return soft


def probabilities(learner: nn.Module, x: Tensor, task: int, device: torch.device) -> Tensor:
    """Return the learner's ``(n, K)`` class probabilities; see :func:`outputs`."""
    return outputs(learner, x, task, device).softmax(1)


@torch.no_grad()
def in_chunks(function: Callable[[Tensor], Tensor], x: Tensor, device: torch.device) -> Tensor:
    """Return what a function makes of ``(n, *shape)`` inputs, some at once, as float32 on the CPU.

    Args:
        function: of a batch.
        x: the inputs, at least one.
        device: where to compute.
    """
    with temporary_seed(0, device):  # should it draw in evaluation mode too
        return torch.cat([function(part.to(device).float()).cpu().float() for part in x.split(_CHUNK)])


def outputs(learner: nn.Module, x: Tensor, task: int, device: torch.device) -> Tensor:
    """Return the learner's ``(n, K)`` outputs in evaluation mode, float32 on the CPU.

    Args:
        learner: it is left as it is, its mode included.
        x: ``(n, *shape)`` inputs.
        task: their task label.
        device: where to compute.
    """
    network = LearnerCopy(learner, task).to(device).eval()
    return in_chunks(network, x, device) if len(x) else torch.zeros(0, 0)


def losses(learner: nn.Module, x: Tensor, label: int, task: int, device: torch.device) -> Tensor:
    """Return the learner's ``(n,)`` cross-entropies for samples of one class; see :func:`probabilities`."""
    return -probabilities(learner, x, task, device)[:, label].clamp_min(1e-30).log()
