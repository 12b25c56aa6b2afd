r"""NCFM: match the characteristic functions of the features of synthetic and real images.

.. math::  L = \sum_c \mathbb{E}_t \sqrt{\alpha \, (|\Phi_c(t)| - |\Psi_c(t)|)^2
           + 2 (1 - \alpha) \, |\Phi_c(t)| |\Psi_c(t)| (1 - \cos(a_{\Phi_c(t)} - a_{\Psi_c(t)}))} + \lambda \ell(S)

with the characteristic functions :math:`\Phi_c` and :math:`\Psi_c` of the normalized features of real and synthetic
images at random frequencies :math:`t`, and the cross-entropy :math:`\ell` of the synthetic images in a trained network.
The networks that give the features lie between a random network and the one that training made of it. The real side is
kept in a *pool*, as in :mod:`ddplug.distillers.dm`.

Reference: Wang et al., "Dataset Distillation with Neural Characteristic Function: A Minmax Perspective", CVPR 2025.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillation.protocol import State
from ddplug.distillers.base import RenewedPool
from ddplug.distillers.parts.shares import each_part
from ddplug.distillers.parts.training import TRAIN_BATCH, trained_on_real
from ddplug.distillers.parts.views import class_outputs, draw_view, real_statistics
from ddplug.distillers.presets import Preset
from ddplug.errors import OptionError
from ddplug.functional.losses import characteristic_function, characteristic_matching
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.networks.functional import initial_parameters, prefixed, unprefixed
from ddplug.utils.checks import at_least

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["NCFM"]


_PRESETS = {
    "paper": Preset(
        {
            "network": "convnet",
            "networks": 20,
            "pool_size": 0,
            "frequencies": 1024,
            "amplitude": 0.5,
            "init_from": "real",
            "factor": 2,
            "steps": 20_000,
        },
        "Wang et al., CVPR 2025, released code, as far as it was read: learning rates, batches and steps are ours",
    )
}


@dataclass(frozen=True)
class NCFM(RenewedPool):
    """Matching of neural characteristic functions.

    Attributes:
        network: the architecture that gives the features.
        learning_rate: learning rate of the images, for Adam.
        batch_real: real images of each class behind one characteristic function.
        networks: networks trained on the real data in the beginning; 20 in the paper.
        train_steps: SGD steps of each.
        frequencies: number at which the characteristic functions are compared; drawn from a normal distribution.
        amplitude: share of the amplitudes in the distance, the rest being the phases'; within 0 and 1.
        calibration: weight of the cross-entropy in the trained networks; 0 for none.
        network_learning_rate: learning rate of the networks' SGD.

    Raises:
        OptionError: an option is unknown or outside its range.

    Example:
        >>> from ddplug.testing import toy_images
        >>> from ddplug import distill
        >>> method = NCFM(images_per_class=1, network="convnet:width=8,depth=1", networks=1, train_steps=1, pool_size=2)
        >>> distill(toy_images(), method, steps=3, device="cpu").inputs.shape
        torch.Size([12, 1, 4, 4])
    """

    name: ClassVar[str] = "ncfm"
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    small: ClassVar[Mapping[str, Any]] = {**RenewedPool.small, "networks": 2, "train_steps": 2}
    networks: int = 4
    train_steps: int = 300
    frequencies: int = 1024
    amplitude: float = 0.5
    calibration: float = 0.1
    network_learning_rate: float = 0.1
    factor: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, networks=1, train_steps=0, frequencies=1, amplitude=0, calibration=0, network_learning_rate=0)
        if self.amplitude > 1:
            raise OptionError(f"amplitude is {self.amplitude}; it must lie between 0 and 1")

    def view(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Draw a network between one of the random ones and what training made of it, and see a real batch through it.

        Returns:
            What :func:`ddplug.distillers.parts.views.draw_view` gives, the position ``which`` of the trained network,
            the ``seed`` of the frequencies, and the ``real`` characteristic functions ``(C, frequencies, 2)``.
        """
        which, share = torch.randint(self.networks, (), generator=rng), float(torch.rand((), generator=rng))
        network = _between(_stacked_at("begun.", state, which), _stacked_at("trained.", state, which), share)
        view = draw_view(network, self._strategy(data), data.num_classes, rng)
        view |= {"which": which, "seed": torch.randint(2**63 - 1, (), generator=rng)}
        module = self._module(data, embedding=True)
        real = real_statistics(
            module, view, data, self.batch_real, rng, lambda features: self._function(features, view)
        )
        return {**view, "real": real}

    def loss(self, state: State, view: Mapping[str, Any], data: LabeledData) -> Tensor:
        images, labels = enlarge(state["inputs"], data.shape), torch.arange(data.num_classes)
        synthetic = self._function(class_outputs(self._module(data, embedding=True), images, labels, view), view)
        loss = characteristic_matching(view["real"], synthetic, self.amplitude)
        if not self.calibration:
            return loss
        trained = prefixed("network.", _stacked_at("trained.", state, view["which"]))
        logits = class_outputs(self._module(data), images, labels, {**view, **trained}).flatten(0, 1)
        return loss + self.calibration * cross_entropy(logits, self._targets(state, data))

    def memory(self, sizes: Sizes) -> dict[str, dict[str, int]]:
        stages = super().memory(sizes)
        # before and after their training; while they are stacked their parts are there too
        networks, training = 2 * self.networks * sizes.network, sizes.trained(TRAIN_BATCH)
        with_them = {name: {**stages[name], "networks": networks} for name in ("pool", "step")}
        return {**stages, "networks": {"networks": 2 * networks, "train_steps": training}, **with_them}

    def work(self, most: int = sys.maxsize) -> dict[str, int]:
        return {**super().work(most), "training steps": self.networks * self.train_steps}

    def trial(self, **more: int) -> Self:
        return replace(super().trial(**more), networks=1, train_steps=more.get("training steps", 0))

    def _kept(self, state: State, data: LabeledData, rng: torch.Generator) -> Tensors:
        """Train the networks, then fill the pool with views through them."""
        module, strategy, rate = self._module(data), self._strategy(data), self.network_learning_rate

        def new(data: LabeledData, state: State) -> Tensors:
            begun = initial_parameters(self.network, data, rng)
            trained = trained_on_real(module, begun, data, strategy, steps=self.train_steps, rate=rate, rng=rng)
            return {**prefixed("begun.", begun), **prefixed("trained.", trained)}

        found = each_part([new] * self.networks, data, state, rng, "networks")
        networks = {name: torch.stack([network[name] for network in found]) for name in found[0]}
        return {**networks, **super()._kept({**state, **networks}, data, rng)}

    def _view_bytes(self, sizes: Sizes) -> int:
        return sizes.network + sizes.classes * self.frequencies * 8

    def _loss_bytes(self, sizes: Sizes) -> int:
        return (2 if self.calibration else 1) * super()._loss_bytes(sizes)

    def _function(self, features: Tensor, view: Mapping[str, Tensor]) -> Tensor:
        """Characteristic functions ``(classes, frequencies, 2)`` of ``(classes, n, D)`` features of any length."""
        # frequencies are drawn again from their seed: a pool of them would be larger than that of the networks
        rng = torch.Generator().manual_seed(int(view["seed"]))
        frequencies = torch.randn(self.frequencies, features.shape[-1], generator=rng).to(features)
        return characteristic_function(normalize(features, dim=-1), frequencies)


def _stacked_at(prefix: str, state: State, which: Tensor) -> Tensors:
    return {name: stacked[which] for name, stacked in unprefixed(prefix, state).items()}


def _between(begun: Tensors, trained: Tensors, share: float) -> Tensors:
    """Interpolate networks; what is counted in whole numbers, as batches are, comes from the trained one."""
    return {
        name: torch.lerp(begun[name], end, share) if end.is_floating_point() else end for name, end in trained.items()
    }
