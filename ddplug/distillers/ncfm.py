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

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ddplug.data.labeled import LabeledData
from ddplug.distillation.memory import Sizes
from ddplug.distillers.parts.images import balanced_labels, initial_images, pick_augmentation, small_images, to_set
from ddplug.distillers.parts.pools import fill, pick, replaced
from ddplug.distillers.parts.training import trained_on_real
from ddplug.distillers.parts.views import class_outputs, draw_view, real_statistics
from ddplug.errors import OptionError
from ddplug.functional import augmentation as augment
from ddplug.functional.losses import characteristic_function, characteristic_matching
from ddplug.functional.optim import adam_start, adam_step
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.networks.factory import Network
from ddplug.networks.functional import initial_parameters, prefixed, stateless, unprefixed
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least
from ddplug.utils.progress import progress

__all__ = ["NCFM"]


@dataclass(frozen=True)
class NCFM:
    """Matching of neural characteristic functions.

    Attributes:
        images_per_class: synthetic images of each class.
        steps: updates of the images.
        network: the architecture that gives the features.
        learning_rate: of the images, for Adam.
        batch_real: real images of each class behind one characteristic function.
        init_from: ``"noise"``, ``"real"`` or ``"kmeans"`` images to start from.
        augment: operations for the Siamese augmentation joined by ``_``, ``"auto"`` for what suits the data, or ``""``.
        networks: networks trained on the real data in the beginning; 20 in the paper.
        train_steps: SGD steps of each.
        frequencies: at which the characteristic functions are compared; drawn from a normal distribution.
        amplitude: share of the amplitudes in the distance, the rest being the phases'; within 0 and 1.
        calibration: weight of the cross-entropy in the trained networks; 0 for none.
        pool_size: networks in the pool; 0 for the published loop (a new network and a new real batch at every step).
        renew: steps after which the oldest network of the pool is replaced by a new one; 0 for never.
        network_learning_rate: of the networks' SGD.
        factor: in the place of one image, ``factor**2`` small ones in the same room (:mod:`ddplug.functional.resize`).

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
    images_per_class: int = 10
    steps: int = 500
    network: Network = "convnet:width=32"
    learning_rate: float = 0.01
    batch_real: int = 64
    init_from: str = "kmeans"
    augment: str = "auto"
    networks: int = 4
    train_steps: int = 300
    frequencies: int = 1024
    amplitude: float = 0.5
    calibration: float = 0.1
    pool_size: int = 60
    renew: int = 0
    network_learning_rate: float = 0.1
    factor: int = 2

    def __post_init__(self) -> None:
        at_least(self, images_per_class=1, steps=0, batch_real=1, pool_size=0, renew=0, learning_rate=0, networks=1)
        at_least(self, train_steps=0, frequencies=1, amplitude=0, calibration=0, network_learning_rate=0)
        if self.amplitude > 1:
            raise OptionError(f"amplitude is {self.amplitude}; it must lie between 0 and 1")

    @property
    def _each(self) -> int:
        return small_images(self.images_per_class, self.factor)

    def init(self, data: LabeledData, rng: torch.Generator) -> Tensors:
        strategy = pick_augmentation(self.augment, data)
        augment.check(strategy, data.shape)
        state = adam_start({"inputs": initial_images(self.init_from, data, self._each, rng, self.factor)})
        module = stateless(self.network, data.shape, data.num_classes)
        begun, trained = [], []
        for _ in progress(range(self.networks), "networks"):
            begun.append(initial_parameters(self.network, data, rng))
            network = trained_on_real(
                module, begun[-1], data, strategy, steps=self.train_steps, rate=self.network_learning_rate, rng=rng
            )
            trained.append(network)
        state |= {**_stacked("begun.", begun), **_stacked("trained.", trained)}
        return {**state, **fill([self._view(state, data, rng) for _ in progress(range(self.pool_size), "pool")])}

    def step(self, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator) -> tuple[Tensors, Tensors]:
        done = int(state["done"])
        if self.pool_size and self.renew and done and done % self.renew == 0:
            state = replaced(state, done // self.renew % self.pool_size, self._view(state, data, rng))
        view = pick(state, self.pool_size, rng) if self.pool_size else self._view(state, data, rng)
        inputs = state["inputs"].detach().requires_grad_()
        loss = self._loss(inputs, state, view, data)
        (gradient,) = torch.autograd.grad(loss, inputs)
        return {**state, **adam_step(state, {"inputs": gradient}, self.learning_rate)}, {"loss": loss.detach()}

    def result(self, state: Mapping[str, Tensor], data: LabeledData) -> SyntheticSet:
        recipe = Recipe.paper(pick_augmentation(self.augment, data))
        return to_set(data, state["inputs"], balanced_labels(data, self._each), recipe)

    def memory(self, sizes: Sizes) -> dict[str, int]:
        """Return the bytes that options need at the least; see :mod:`ddplug.distillation.memory`."""
        images, graphs = sizes.classes * self._each, 2 if self.calibration else 1
        view = sizes.network + sizes.classes * self.frequencies * 8
        # while networks are stacked their parts are there too
        return {
            "networks": 4 * self.networks * sizes.network,
            "pool_size": 2 * self.pool_size * view,
            "images_per_class": graphs * images * sizes.activations,
        }

    def _loss(self, inputs: Tensor, state: Mapping[str, Tensor], view: Tensors, data: LabeledData) -> Tensor:
        images, labels = enlarge(inputs, data.shape), torch.arange(data.num_classes)
        module = stateless(self.network, data.shape, data.num_classes, embedding=True)
        synthetic = self._function(class_outputs(module, images, labels, view), view)
        loss = characteristic_matching(view["real"], synthetic, self.amplitude)
        if not self.calibration:
            return loss
        trained = {name: stacked[view["which"]] for name, stacked in unprefixed("trained.", state).items()}
        classifier = stateless(self.network, data.shape, data.num_classes)
        logits = class_outputs(classifier, images, labels, {**view, **prefixed("network.", trained)}).flatten(0, 1)
        return loss + self.calibration * cross_entropy(logits, balanced_labels(data, self._each))

    def _view(self, state: Mapping[str, Tensor], data: LabeledData, rng: torch.Generator) -> Tensors:
        """Draw a network between one of the random ones and what training made of it, and see a real batch through it.

        Returns:
            What :func:`ddplug.distillers.parts.views.draw_view` gives, the position ``which`` of the trained network,
            the ``seed`` of the frequencies, and the ``real`` characteristic functions ``(C, frequencies, 2)``.
        """
        which, share = torch.randint(self.networks, (), generator=rng), float(torch.rand((), generator=rng))
        begun, trained = (
            {name: stacked[which] for name, stacked in unprefixed(end, state).items()} for end in ("begun.", "trained.")
        )
        network = _between(begun, trained, share)
        view = draw_view(network, pick_augmentation(self.augment, data), data.num_classes, rng)
        view |= {"which": which, "seed": torch.randint(2**63 - 1, (), generator=rng)}
        module = stateless(self.network, data.shape, data.num_classes, embedding=True)
        real = real_statistics(
            module, view, data, self.batch_real, rng, lambda features: self._function(features, view)
        )
        return {**view, "real": real}

    def _function(self, features: Tensor, view: Mapping[str, Tensor]) -> Tensor:
        """Characteristic functions ``(classes, frequencies, 2)`` of ``(classes, n, D)`` features of any length."""
        # frequencies are drawn again from their seed: a pool of them would be larger than that of the networks
        rng = torch.Generator().manual_seed(int(view["seed"]))
        frequencies = torch.randn(self.frequencies, features.shape[-1], generator=rng).to(features)
        return characteristic_function(normalize(features, dim=-1), frequencies)


def _stacked(prefix: str, networks: list[Tensors]) -> Tensors:
    return prefixed(prefix, {name: torch.stack([network[name] for network in networks]) for name in networks[0]})


def _between(begun: Tensors, trained: Tensors, share: float) -> Tensors:
    """Interpolate networks; what is counted in whole numbers, as batches are, comes from the trained one."""
    return {
        name: torch.lerp(begun[name], end, share) if end.is_floating_point() else end for name, end in trained.items()
    }
