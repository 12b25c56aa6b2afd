r"""Canaries: records made to be found, each put among the data by the toss of a coin, or not.

What an audit finds of ordinary records says little of the one record that is unlike all others. Canaries are such
records: *mislabeled* ones, which a method cannot explain but by keeping them, and *shuffled* ones, whose numbers are
those of a real record in another order, so that nothing like them is among the data. A method that promises
differential privacy promises it of them too; what is guessed of them right bounds its epsilon from below.

Half of the shadow sets are there to compare with. In each of the others every canary has a coin of its own; it is
guessed to be in where its score is in the upper quarter of the canaries' scores, and out where it is in the lower; the
rest is passed over. So no answer has a part in what is guessed, and the bound of Steinke, Nasr & Jagielski (NeurIPS
2023) holds, without the guesses being independent.

References: Carlini et al., "The Secret Sharer", USENIX Security 2019 (exposure); Nasr et al., "Adversary
Instantiation", IEEE S&P 2021; Aerni, Zhang & Tramer, "Evaluations of Machine Learning Privacy Defenses are Misleading",
CCS 2024 (mislabeled samples as the worst case).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import to_pixels
from ddplug.privacy.attacks import ATTACKS, Membership, counted
from ddplug.privacy.intervals import area, epsilon_of_guesses, mean_interval

__all__ = ["KINDS", "coins", "joined", "judge_canaries", "plant"]

KINDS = ("mislabeled", "shuffled")
"""Of canaries: every other one is of the first."""

_CONFIDENCE = 1 - 0.05 / (2 * (1 + len(KINDS)))
"""Of each bound, so that those of both signals, of all canaries and of each kind, hold together with 95 %."""


def plant(held_out: LabeledData, number: int, rng: torch.Generator) -> tuple[LabeledData, LabeledData]:
    """Make canaries of records that had no part in a set.

    Args:
        held_out: real data; canaries are made of some, and these are asked about no more.
        number: of canaries.
        rng: generator on the CPU.

    Returns:
        The canaries, kinds in turn, and the other records.
    """
    if number == 0:
        return held_out.subset(torch.arange(0)), held_out
    order = torch.randperm(len(held_out), generator=rng)
    chosen, rest = held_out.subset(order[:number]), held_out.subset(order[number:].sort().values)
    inputs = chosen.inputs.clone()
    for k in range(1, number, 2):
        own = inputs[k].flatten()
        inputs[k] = own[torch.randperm(len(own), generator=rng).to(own.device)].view_as(inputs[k])
    away = torch.randint(1, held_out.num_classes, (number,), generator=rng).to(chosen.targets.device)
    return replace(chosen, inputs=inputs, targets=(chosen.targets + away) % held_out.num_classes), rest


def coins(inside: Tensor, rng: torch.Generator) -> Tensor:
    """Toss a coin of each canary for each set that guesses are counted at.

    Args:
        inside: ``(S, m)`` halves in pairs, as of other records.
        rng: generator on the CPU.

    Returns:
        ``(S, m)`` whether a canary is in: those of the first, third, ... pair as they were, which are compared with.
    """
    tossed = torch.rand(inside.shape, generator=rng) < 0.5
    return torch.where(_compared(len(inside))[:, None], inside, tossed)


def _compared(sets: int) -> Tensor:
    return torch.arange(sets) // 2 % 2 == 0


def joined(data: LabeledData, canaries: LabeledData) -> LabeledData:
    """Put canaries, if there are any, behind data."""
    if len(canaries) == 0:
        return data
    inputs = [data.inputs, canaries.inputs.to(data.device)]
    if inputs[0].dtype != inputs[1].dtype:
        inputs = [to_pixels(each) for each in inputs]
    targets = torch.cat([data.targets, canaries.targets.to(data.device)])
    return replace(data, inputs=torch.cat(inputs), targets=targets, scratch=None, persons=())


def judge_canaries(signal: str, seen: Tensor, inside: Tensor, delta: float) -> list[Membership]:
    """Guess which canaries are in shadow sets, of all and of each kind.

    Args:
        signal: name of what was seen.
        seen: ``(S, m)`` at each set.
        inside: ``(S, m)`` whether a canary is in; see :func:`coins`.
        delta: of the guarantee whose epsilon is to be bounded.
    """
    compared = _compared(len(seen))
    known, truth = (values[compared] for values in (seen, inside))
    scores = np.stack([ATTACKS["online"](own, known, truth).numpy() for own in seen[~compared]])
    coin = inside[~compared].numpy()
    kinds: Mapping[str, slice] = {
        "canaries": slice(None),
        **{f"{kind} canaries": slice(k, None, len(KINDS)) for k, kind in enumerate(KINDS)},
    }
    return [_judged(name, signal, scores[:, own], coin[:, own], delta) for name, own in kinds.items()]


def _judged(target: str, signal: str, scores: np.ndarray, coin: np.ndarray, delta: float) -> Membership:
    both = [(row[known], row[~known]) for row, known in zip(scores, coin, strict=True)]
    areas = [area(*each) for each in both if all(map(len, each))]
    exposures = np.concatenate([_exposures(*each) for each in both])
    return Membership(
        target,
        signal,
        "online",
        float(np.mean(areas)) if areas else 0.5,
        mean_interval(areas) if len(areas) > 1 else (0.0, 1.0),
        *counted(scores[coin], scores[~coin]),
        epsilon=_epsilon(scores, coin, delta),
        # few coins may all say that a canary is out
        exposure=float(exposures.mean()) if len(exposures) else 0.0,
    )


def _epsilon(scores: np.ndarray, coin: np.ndarray, delta: float) -> float:
    number = scores.shape[1]
    quarter = number // 4
    right = 0
    for row, known in zip(scores, coin, strict=True):
        order = row.argsort(kind="stable")
        right += int(known[order[number - quarter :]].sum() + (~known[order[:quarter]]).sum())
    return epsilon_of_guesses(right, 2 * quarter * len(scores), scores.size, delta, _CONFIDENCE)


def _exposures(members: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the bits by which each rank among those that are not in is better than the last."""
    ranks = 1 + len(others) - np.searchsorted(np.sort(others), members)
    exposures: np.ndarray = np.log2(len(others) + 1) - np.log2(ranks)
    return exposures
