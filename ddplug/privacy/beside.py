"""What other ways of passing data on give away, to be held against a set: some of the data, or a trained network."""

from __future__ import annotations

import torch
from torch import Tensor

from ddplug import registry
from ddplug.data.labeled import LabeledData
from ddplug.distillation.loop import distill
from ddplug.evaluation.comparison import WHOLE_RECIPE, WHOLE_STEPS, Sized, sized_like
from ddplug.evaluation.train import train_each
from ddplug.networks.factory import Network
from ddplug.privacy.attacks import ATTACKS, Membership, confidence, judge, signals
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.randomness import nth_generator

__all__ = ["RANDOM", "TRAINED", "Beside"]

RANDOM = "random samples in the set's bytes"
"""Samples of the data as they are, drawn at random, stored as the set is."""

TRAINED = "a network trained on the data"
"""Who has it sees its outputs; no sample is passed on."""


class Beside:
    """Makes both of halves of the data, and attacks them as the set is attacked.

    Args:
        synthetic: the set that they stand beside.
        asked: records that are asked about.
        network: to train on samples, and on the data.
        seed: of the audit.
        halves: how many there will be.
    """

    def __init__(self, synthetic: SyntheticSet, asked: LabeledData, network: Network, seed: int, halves: int) -> None:
        self._synthetic, self._asked, self._network = synthetic, asked, network
        self._seed, self._halves = seed, halves
        self._sized: Sized | None = None
        self._seen: dict[tuple[str, str], list[Tensor]] = {}

    def look(self, half: LabeledData, k: int) -> None:
        """Make both of the half with number ``k``, and look at what they show of the records."""
        if self._sized is None:
            self._sized = sized_like(self._synthetic, registry.resolve("distiller", "random")(), half, self._seed)
        method, store = self._sized
        (drawn,) = store([distill(half, method, seed=self._seed + 1 + k, device=half.device)])
        first = self._halves + 3 + 2 * k  # generators with smaller numbers are those of the attack on the set
        for name, values in signals(drawn, [self._asked], self._network, nth_generator(self._seed, first)).items():
            self._keep(RANDOM, name, values)
        rng = nth_generator(self._seed, first + 1)
        (module,) = train_each([half], self._network, WHOLE_RECIPE, rng=rng, device=half.device, steps=WHOLE_STEPS)
        self._keep(TRAINED, "confidence", confidence(module, [self._asked]))

    def _keep(self, target: str, signal: str, values: Tensor) -> None:
        self._seen.setdefault((target, signal), []).append(values)

    def judged(self, inside: Tensor) -> list[Membership]:
        """Attack each by means of the others.

        Args:
            inside: ``(S, n)`` whether a record is in a half.
        """
        return [
            judge(signal, torch.stack(values), inside, attack, target)
            for (target, signal), values in self._seen.items()
            for attack in ATTACKS
        ]
