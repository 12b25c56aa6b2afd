"""The training that a set was learned for: its steps, their learning rates and, if there is one, its initial network.

Dataset distillation by unrolled training learns more than images. What else it learns is written into the set's
provenance under ``training``, so that it can be done again: which samples each step takes and at what learning rate,
and for a set that was learned for one initial network the seed that makes it. A seed, because the weights are
often larger than the set; with a fingerprint of the weights, because PyTorch does not promise to draw the same numbers
in every version, and other weights than those learned for give a low accuracy without any sign of an error.
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Sequence

import torch
from torch import nn

from ddplug.data.anything import Data
from ddplug.errors import DivergedError, OptionError
from ddplug.evaluation.results import Evaluation, accuracy
from ddplug.functional.types import Tensors
from ddplug.functional.unrolling import unroll
from ddplug.networks.factory import Network, build, name_of
from ddplug.networks.functional import minibatch_loss, stateless
from ddplug.synthetic.compat import same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.given import AnySet, as_set
from ddplug.synthetic.learned import LearnedTraining
from ddplug.utils.checks import values_at_least, whole
from ddplug.utils.devices import pick_device
from ddplug.utils.fingerprints import fingerprint
from ddplug.utils.randomness import seeded, spawn
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.teams import spread

__all__ = ["evaluate_as_learned", "train_as_learned"]


@own_surroundings()
def train_as_learned(
    synthetic: AnySet,
    *,
    network: Network | None = None,
    rng: torch.Generator | None = None,
    device: str | torch.device = "auto",
) -> nn.Module:
    """Train a network on a set by the very steps and learning rates that were learned with it.

    Args:
        synthetic: made by ``dd`` or ``soft-label-dd``, or the file of one.
        network: another architecture, or the function that builds the network where the set was distilled with one; the
            set's own if not given.
        rng: generator on the CPU, for the initial network of a set that is for any; one number is drawn from it. A
            set for one initial network has its own seed.
        device: see :func:`ddplug.utils.devices.pick_device`.

    Returns:
        The network, in evaluation mode.

    Raises:
        OptionError: the set has no learned training, a generator is missing, or the initial network that the set is for
            cannot be made again.
        DivergedError: a weight became NaN or infinite.

    Example:
        >>> from ddplug import distill
        >>> from ddplug.distillers.dd import DD
        >>> from ddplug.testing import toy_images
        >>> method = DD(network="convnet:width=4,depth=1", initialization="fixed", steps=2)
        >>> train_as_learned(distill(toy_images(), method, device="cpu"), device="cpu").head
        Linear(in_features=144, out_features=3, bias=True)
    """
    synthetic = as_set(synthetic)
    training, place = LearnedTraining.of(synthetic), pick_device(device)
    spec: Network = network or training.network
    module = _initial(training, spec, synthetic, rng).to(place)
    moved = synthetic.enlarged().to(place)
    buffers = dict(module.named_buffers())
    batches = [torch.tensor(batch, device=place) for batch in training.batches]
    structure = stateless(spec, synthetic.shape, synthetic.num_classes, training=False)
    loss = minibatch_loss(structure, buffers, batches)
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
    rates = torch.tensor(training.rates, device=place)
    with torch.no_grad():
        trained = unroll(loss, weights, [moved.inputs, moved.targets], rates, every=max(1, len(rates)))
    _check_finite(trained, training.rates)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(trained[name])
    return module.eval()


def _check_finite(weights: Tensors, rates: Sequence[float]) -> None:
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise DivergedError(
            f"the learned training diverged to NaN or infinity with rates up to {max(rates):.3g}; this network needs "
            "smaller ones: train by a recipe"
        )


@own_surroundings()
def evaluate_as_learned(
    synthetic: AnySet,
    test: Data,
    *,
    network: Network | None = None,
    repeats: int = 5,
    seed: int = 0,
    device: str | torch.device = "auto",
) -> Evaluation:
    """Train networks on a set as it was learned to be trained on, and test them on real data.

    Args:
        synthetic: made by ``dd`` or ``soft-label-dd``, or the file of one.
        test: real data that the set was not made from, see :func:`ddplug.data.as_labeled`.
        network: see :func:`train_as_learned`.
        repeats: initial networks, at least 1, where the set is for any; a set for one is tested with that one.
        seed: of the initial networks.
        device: see :func:`ddplug.utils.devices.pick_device`.

    Returns:
        The accuracies; the recipe in it is the set's, which the learned training takes the place of.

    Raises:
        OptionError: see :func:`train_as_learned`, or ``repeats`` is below 1.
        DataError: set and data do not fit together.
        DivergedError: a weight became NaN or infinite.

    Example:
        >>> from ddplug import distill
        >>> from ddplug.distillers.dd import DD
        >>> from ddplug.testing import toy_images
        >>> made = distill(toy_images(), DD(network="convnet:width=4,depth=1", steps=2), device="cpu")
        >>> len(evaluate_as_learned(made, toy_images(seed=1), repeats=3, device="cpu").accuracies)
        3
    """
    synthetic, repeats = as_set(synthetic), whole("repeats", repeats)
    values_at_least(1, repeats=repeats)
    training, began = LearnedTraining.of(synthetic), time.monotonic()
    test = same_space(synthetic, test, "test", pick_device(device))
    rngs = spawn(seeded(seed), repeats if training.seed is None else 1)

    def judged(k: int) -> Tensors:
        module = train_as_learned(synthetic, network=network, rng=rngs[k], device=device)
        return {"accuracy": torch.tensor(accuracy(module, test), dtype=torch.float64)}

    accuracies = tuple(float(found["accuracy"]) for found in spread(len(rngs), judged))
    return Evaluation(
        accuracies, name_of(network or training.network), synthetic.recipe, time.monotonic() - began, learned=True
    )


def _initial(
    training: LearnedTraining, network: Network, synthetic: SyntheticSet, rng: torch.Generator | None
) -> nn.Module:
    """Make the network to begin with, and make sure that it is the one the set is for, if it is for one."""
    if training.seed is None:
        if rng is None:
            raise OptionError("the set is for any initial network; give a generator: rng=torch.Generator()")
        return build(network, synthetic.shape, synthetic.num_classes, rng)
    module = build(network, synthetic.shape, synthetic.num_classes, seeded(training.seed))
    found = fingerprint({**dict(module.named_parameters()), **dict(module.named_buffers())})
    if found != training.weights:
        made = synthetic.provenance.get("versions", {})
        raise OptionError(
            f"the set is for the initial network {training.network!r} of seed {training.seed} with weights "
            f"{training.weights[:12]}, but {network!r} of that seed has {found[:12]} here; use the same architecture "
            f"and the versions it was made with ({reprlib.repr(made)}), or train by its recipe"
        )
    return module
