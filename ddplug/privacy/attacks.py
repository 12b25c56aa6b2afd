r"""Membership: can it be told from a set whether a record was among the data?

Sets are made as the audited one was, each of a random half of the data (*shadow sets*). An attacker who sees one of
them and has the others compares what is seen of a record, :math:`\phi`, with what is seen where it had no part:

.. math::  s(x) = \frac{\phi_t(x) - \operatorname{mean}_{k:\, x \notin D_k} \phi_k(x)}{\sigma}

Two things are looked at: the confidence :math:`\log p_y - \log (1 - p_y)` of a network trained on the set, and how
near the nearest stored sample lies. As it is known who was in each half, errors are counted.

Reference: Carlini et al., "Membership Inference Attacks From First Principles" (LiRA), IEEE S&P 2022, section V,
offline and with one variance for all records, as it advises for few shadow models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddplug.data.labeled import LabeledData
from ddplug.evaluation.train import train_on
from ddplug.networks.factory import Network
from ddplug.privacy.intervals import area, area_interval, clopper_pearson, mean_interval
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe

__all__ = ["RATES", "Membership", "halves", "judge", "judge_one", "rows", "signals"]

RATES = (0.01, 0.001)
"""Rates of false alarms at which the rate of members that are found is told."""


@dataclass(frozen=True)
class Membership:
    """How well an attack tells members from others.

    Attributes:
        target: what was attacked: ``"shadow sets"`` or ``"this set"``.
        signal: what was looked at: ``"confidence"`` or ``"nearness"``.
        area: under the ROC; 0.5 for guessing.
        interval: 95 % interval of it.
        found: rate of false alarms -> share of the members that are found at it, with its 95 % interval; a rate for
            which there are too few others to count is not there.
        members: guesses about members.
        others: guesses about others.
        epsilon: that any guarantee of differential privacy (of delta 0) must exceed, if guesses were independent; 0
            where nothing was found, ``None`` where it was not computed.
    """

    target: str
    signal: str
    area: float
    interval: tuple[float, float]
    found: Mapping[float, tuple[float, float, float]]
    members: int
    others: int
    epsilon: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON-ready values."""
        return {
            "target": self.target,
            "signal": self.signal,
            "auc": self.area,
            "auc_interval": list(self.interval),
            "tpr_at_fpr": {
                str(rate): {"tpr": value, "interval": [low, high]} for rate, (value, low, high) in self.found.items()
            },
            "members": self.members,
            "others": self.others,
            "epsilon_at_least": self.epsilon,
        }


def halves(data: LabeledData, number: int, rng: torch.Generator) -> Tensor:
    """Draw halves of each class, in pairs that share nothing, so that each record is in half of all.

    Args:
        data: real data.
        number: of halves, even.
        rng: generator on the CPU.

    Returns:
        ``(number, N)`` whether a record is in.
    """
    inside = torch.zeros(number, len(data), dtype=torch.bool)
    for k in range(0, number, 2):
        for members in data.class_indices:
            order = members[torch.randperm(len(members), generator=rng)]
            inside[k, order[: len(order) // 2]] = True
        inside[k + 1] = ~inside[k]
    return inside


@torch.no_grad()
def _confidence(module: nn.Module, records: LabeledData) -> Tensor:
    logs = []
    for block in torch.arange(len(records)).split(1000):
        log_p = module(records.batch(block)).double().log_softmax(1)
        own = records.targets[block.to(records.device)][:, None]
        rest = log_p.scatter(1, own, -math.inf).logsumexp(1)
        logs.append(log_p.gather(1, own)[:, 0] - rest)
    return torch.cat(logs).cpu()


@torch.no_grad()
def _nearness(made: SyntheticSet, records: LabeledData) -> Tensor:
    stored = made.pixels().flatten(1).to(records.device)
    least = [
        torch.cdist(
            records.preprocess.inverse(records.batch(block)).flatten(1),
            stored,
            compute_mode="donot_use_mm_for_euclid_dist",
        ).amin(1)
        for block in torch.arange(len(records)).split(1000)
    ]
    return -torch.cat(least).double().cpu()


def signals(
    made: SyntheticSet, records: Sequence[LabeledData], network: Network, rng: torch.Generator
) -> dict[str, Tensor]:
    """Look at what a set shows of records.

    Args:
        made: the set.
        records: real data in its model space, of which all are asked about.
        network: to train on the set.
        rng: generator on the CPU.

    Returns:
        ``confidence`` and ``nearness``, ``(n,)`` float64 each, on the CPU; higher for what looks like a member.
    """
    recipe = Recipe.quick(made.recipe.augment)
    (module,) = train_on(made, network, recipe=recipe, rng=rng, device=records[0].device)
    return {
        "confidence": torch.cat([_confidence(module, part) for part in records]),
        "nearness": torch.cat([_nearness(made, part) for part in records]),
    }


def _scores(seen: Tensor, without: Tensor, out: Tensor) -> np.ndarray:
    """Compare what is seen of records with what is seen where they had no part.

    Args:
        seen: ``(n,)`` at the target.
        without: ``(K, n)`` at other sets.
        out: ``(K, n)`` whether a record had no part in them.
    """
    number = out.sum(0)
    mean = torch.where(out, without, 0.0).sum(0) / number
    spread = torch.where(out, (without - mean).square(), 0.0).sum() / (number.sum() - len(number)).clamp_min(1)
    scores: np.ndarray = ((seen - mean) / (spread.sqrt() if spread > 0 else 1.0)).numpy()
    return scores


def judge(signal: str, seen: Tensor, inside: Tensor) -> Membership:
    """Attack each shadow set by means of the others.

    Args:
        signal: name of what was seen.
        seen: ``(S, n)`` at each set.
        inside: ``(S, n)`` whether a record had a part in it.
    """
    scores = []
    for t in range(len(seen)):
        # not its complement either: each record, member or not, is then compared with one set of each other pair
        rest = torch.arange(len(seen)) // 2 != t // 2
        scores.append(_scores(seen[t], seen[rest], ~inside[rest]))
    truth = inside.numpy()
    areas = [area(row[known], row[~known]) for row, known in zip(scores, truth, strict=True)]
    every = np.stack(scores)
    # pairs of complements stay together: a score is chosen on one part, and guesses are counted on the other
    chosen = np.arange(len(every)) // 2 % 2 == 0
    return Membership(
        "shadow sets",
        signal,
        float(np.mean(areas)),
        mean_interval(areas),
        _found(every[truth], every[~truth]),
        int(truth.sum()),
        int((~truth).sum()),
        _epsilon((every[chosen], truth[chosen]), (every[~chosen], truth[~chosen])),
    )


def judge_one(signal: str, seen: Tensor, without: Tensor, out: Tensor, members: int) -> Membership:
    """Attack one set by means of shadow sets.

    Args:
        signal: name of what was seen.
        seen: ``(n,)`` at the set: of its members first, of records that had no part in it behind them.
        without: ``(S, n)`` at the shadow sets.
        out: ``(S, n)`` which of these to compare with, as many for each record.
        members: number of those that are first.
    """
    scores = _scores(seen, without, out)
    value = area(scores[:members], scores[members:])
    others = len(scores) - members
    found = _found(scores[:members], scores[members:])
    return Membership("this set", signal, value, area_interval(value, members, others), found, members, others)


def _found(members: np.ndarray, others: np.ndarray) -> dict[float, tuple[float, float, float]]:
    """Count the members above the score that few enough others exceed."""
    found = {}
    ordered = np.sort(others)[::-1]
    for rate in RATES:
        allowed = int(rate * len(others))
        if allowed >= 1:
            hits = int((members > ordered[allowed]).sum())
            found[rate] = (hits / len(members), *clopper_pearson(hits, len(members)))
    return found


def _epsilon(chosen: tuple[np.ndarray, np.ndarray], counted: tuple[np.ndarray, np.ndarray]) -> float:
    """Bound epsilon from below: choose a score on some guesses, count on others.

    With the probability 95 % members are found at least this, and others at most that often, whose ratio a guarantee
    bounds by the exponential of epsilon.
    """
    scores, truth = chosen
    steps = np.quantile(scores, np.linspace(0.5, 0.999, 100))
    best = max(steps, key=lambda step: _log_ratio(scores, truth, step))
    return max(0.0, _log_ratio(*counted, best))


def _log_ratio(scores: np.ndarray, truth: np.ndarray, step: float) -> float:
    hits, alarms = ((scores[known] > step).sum() for known in (truth, ~truth))
    low = clopper_pearson(int(hits), int(truth.sum()))[0]
    high = clopper_pearson(int(alarms), int((~truth).sum()))[1]
    return math.log(low / high) if low > 0 else -math.inf


def rows(found: Sequence[Membership]) -> list[tuple[str, ...]]:
    """Return the rows of a table, the head first."""
    head = ("attacked", "by", "AUC", *(f"found at {100 * rate:g} % false alarms" for rate in RATES), "epsilon at least")
    return [head, *(_row(each) for each in found)]


def _row(each: Membership) -> tuple[str, ...]:
    low, high = each.interval
    cells = [each.target, each.signal, f"{each.area:.3f} ({low:.3f} to {high:.3f})"]
    for rate in RATES:
        if rate in each.found:
            value, low, high = (100 * share for share in each.found[rate])
            cells.append(f"{value:.2g} % ({low:.2g} to {high:.2g})")
        else:
            cells.append("too few to count")
    return (*cells, "" if each.epsilon is None else f"{each.epsilon:.2g}")
