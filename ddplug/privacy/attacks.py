r"""Membership: can it be told from a set whether a record was among the data?

Sets are made as the audited one was, each of a random half of the data (*shadow sets*). An attacker who sees one of
them and has the others compares what is seen of a record, :math:`\phi`, with what is seen where it had no part:

.. math::  s(x) = \frac{\phi_t(x) - \operatorname{mean}_{k:\, x \notin D_k} \phi_k(x)}{\sigma}

This is the *offline* attack. Who also knows sets that the record had a part in compares both: *online*, with a mean of
each record and a deviation of all records, in and out,

.. math::  s(x) = \log N(\phi_t(x); \mu_{\text{in}}(x), \sigma_{\text{in}})
                  - \log N(\phi_t(x); \mu_{\text{out}}(x), \sigma_{\text{out}})

Two things are looked at: the confidence :math:`\log p_y - \log (1 - p_y)` of a network trained on the set, and how
near the nearest stored sample lies. As it is known who was in each half, errors are counted. Where several records are
of one person, what is seen of them is averaged, and halves are of persons.

Reference: Carlini et al., "Membership Inference Attacks From First Principles" (LiRA), IEEE S&P 2022, sections V and
VI, with one variance for all records, as it advises for few shadow models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddplug.data.labeled import LabeledData
from ddplug.errors import OptionError
from ddplug.evaluation.train import train_on
from ddplug.networks.factory import Network
from ddplug.privacy.intervals import area, area_interval, clopper_pearson, mean_interval
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe

__all__ = [
    "ATTACKS",
    "RATES",
    "Membership",
    "as_of_members",
    "by_person",
    "check_classes",
    "confidence",
    "halves",
    "judge",
    "judge_one",
    "rows",
    "signals",
]

RATES = (0.01, 0.001)
"""Rates of false alarms at which the rate of members that are found is told."""


@dataclass(frozen=True)
class Membership:
    """How well an attack tells members from others.

    Attributes:
        target: what was attacked: ``"shadow sets"``, ``"this set"``, ``"persons"`` (in shadow sets), or a kind of
            canary there.
        signal: what was looked at: ``"confidence"`` or ``"nearness"``.
        attack: ``"offline"`` or ``"online"``.
        area: under the ROC; 0.5 for guessing.
        interval: 95 % interval of it.
        found: rate of false alarms -> share of the members that are found at it, with its 95 % interval; a rate for
            which there are too few others to count is not there.
        members: guesses about members.
        others: guesses about others.
        curve: rates of false alarms and of members that are found at them, from the least that can be counted to 1.
        epsilon: that any guarantee of differential privacy must exceed (of delta 0, if guesses were independent; of
            canaries, which are, of the delta that is stated); 0 where nothing was found, ``None`` where it was not
            computed.
        exposure: of canaries: by how many bits those in a set are more likely than those that are not, on average
            (Carlini et al., "The Secret Sharer", 2019); guessing gives 1.4, or less where few are not.
    """

    target: str
    signal: str
    attack: str
    area: float
    interval: tuple[float, float]
    found: Mapping[float, tuple[float, float, float]]
    members: int
    others: int
    curve: tuple[tuple[float, float], ...]
    epsilon: float | None = None
    exposure: float | None = None

    @property
    def hit(self) -> bool:
        """Whether more was found than chance gives, as far as 95 % intervals tell; of canaries by the bound."""
        return self.interval[0] > 0.5 if self.exposure is None else bool(self.epsilon)

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON-ready values."""
        return {
            "target": self.target,
            "signal": self.signal,
            "attack": self.attack,
            "auc": self.area,
            "auc_interval": list(self.interval),
            "tpr_at_fpr": {
                str(rate): {"tpr": value, "interval": [low, high]} for rate, (value, low, high) in self.found.items()
            },
            "members": self.members,
            "others": self.others,
            "epsilon_at_least": self.epsilon,
            "exposure": self.exposure,
            "roc": [list(point) for point in self.curve],
        }


def halves(data: LabeledData, number: int, rng: torch.Generator, persons: Tensor | None = None) -> Tensor:
    """Draw halves of each class, in pairs that share nothing, so that each record is in half of all.

    Args:
        data: real data.
        number: of halves, even.
        rng: generator on the CPU.
        persons: ``(N,)`` int64 whose each record is, from 0 without gaps: all records of a person are in, or none.

    Returns:
        ``(number, N)`` whether a record is in.
    """
    kinds = data.class_indices if persons is None else _kinds(data, persons)
    inside = torch.zeros(number, sum(map(len, kinds)), dtype=torch.bool)
    for k in range(0, number, 2):
        for members in kinds:
            order = members[torch.randperm(len(members), generator=rng)]
            inside[k, order[: len(order) // 2]] = True
        inside[k + 1] = ~inside[k]
    return inside if persons is None else inside[:, persons]


def _kinds(data: LabeledData, persons: Tensor) -> list[Tensor]:
    """Put persons together by the rarest class that each of them has."""
    has = torch.zeros(int(persons.max()) + 1, data.num_classes, dtype=torch.bool)
    has[persons, data.targets.cpu()] = True
    rarity = has.sum(0).argsort(stable=True)
    rarest = rarity[has[:, rarity].int().argmax(1)]
    return [(rarest == label).nonzero()[:, 0] for label in range(data.num_classes)]


def check_classes(data: LabeledData, inside: Tensor, what: str = "records") -> None:
    """Refuse halves without a class, of which no set can be made.

    Args:
        data: real data.
        inside: see :func:`halves`.
        what: they are halves of.

    Raises:
        OptionError: a class is of so few that a half is without it.
    """
    for half in inside:
        there = data.targets.cpu()[half].bincount(minlength=data.num_classes) > 0
        for name, known in zip(data.class_names, there.tolist(), strict=True):
            if not known:
                raise OptionError(
                    f"one half of the {what} has no record of class {name!r}; give at least two {what} of each class, "
                    "or shadows=0 (--shadows 0) to leave membership out"
                )


def as_of_members(number: int, strangers: int, rng: torch.Generator) -> Tensor:
    """Choose the sets that strangers, who are in no half, are compared with: one of each pair, as for members.

    Were they the same for all strangers, what is peculiar to a set would tell these from members.

    Args:
        number: of halves, even.
        strangers: how many.
        rng: generator on the CPU.

    Returns:
        ``(number, strangers)``.
    """
    first = torch.rand(number // 2, strangers, generator=rng) < 0.5
    return torch.stack([first, ~first], 1).flatten(0, 1)


def by_person(values: Tensor, persons: Tensor) -> Tensor:
    """Average what is seen of the records of each person.

    Args:
        values: ``(S, n)``.
        persons: ``(n,)`` int64.

    Returns:
        ``(S, P)`` of those that have a record, in the order of their numbers.
    """
    who, place = persons.unique(return_inverse=True)
    total = torch.zeros(len(values), len(who), dtype=torch.float64).index_add_(1, place, values.double())
    mean: Tensor = total / place.bincount()
    return mean


@torch.no_grad()
def confidence(module: nn.Module, records: Sequence[LabeledData]) -> Tensor:
    """Return ``log p_y - log (1 - p_y)`` of all records, ``(n,)`` float64, on the CPU."""
    logs = []
    for part in records:
        for block in torch.arange(len(part)).split(1000):
            log_p = module(part.batch(block)).double().log_softmax(1)
            own = part.labels(block)[:, None]
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
        "confidence": confidence(module, records),
        "nearness": torch.cat([_nearness(made, part) for part in records]),
    }


def _mean_and_spread(values: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of each record over some of the sets, and one deviation for all records.

    Args:
        values: ``(K, n)`` at sets.
        which: ``(K, n)`` sets to count for a record.
    """
    number = which.sum(0)
    mean = torch.where(which, values, 0.0).sum(0) / number
    spread = torch.where(which, (values - mean).square(), 0.0).sum() / (number.sum() - len(number)).clamp_min(1)
    return mean, spread.sqrt()


def _offline(seen: Tensor, values: Tensor, inside: Tensor) -> Tensor:
    mean, spread = _mean_and_spread(values, ~inside)
    return (seen - mean) / (spread if spread > 0 else 1.0)


def _online(seen: Tensor, values: Tensor, inside: Tensor) -> Tensor:
    (mean_in, spread_in), (mean_out, spread_out) = (_mean_and_spread(values, which) for which in (inside, ~inside))
    # copies may lie at one distance in all sets
    larger = torch.maximum(spread_in, spread_out)
    known = [own if own > 0 else larger if larger > 0 else torch.ones_like(own) for own in (spread_in, spread_out)]
    far = [(seen - mean) / spread for mean, spread in zip((mean_in, mean_out), known, strict=True)]
    return (far[1].square() - far[0].square()) / 2 + (known[1] / known[0]).log()


ATTACKS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"offline": _offline, "online": _online}
"""Scores ``(n,)`` of what is seen ``(n,)``, by what is seen ``(K, n)`` at other sets, and whether a record is in them;
higher for members."""


def judge(
    signal: str, seen: Tensor, inside: Tensor, attack: str = "offline", target: str = "shadow sets"
) -> Membership:
    """Attack each shadow set by means of the others.

    Args:
        signal: name of what was seen.
        seen: ``(S, n)`` at each set.
        inside: ``(S, n)`` whether a record had a part in it.
        attack: one of :data:`ATTACKS`.
        target: what the records are.
    """
    scores = []
    for t in range(len(seen)):
        # not its complement either: each record, member or not, is then compared with one set of each other pair
        rest = torch.arange(len(seen)) // 2 != t // 2
        scores.append(ATTACKS[attack](seen[t], seen[rest], inside[rest]).numpy())
    truth = inside.numpy()
    areas = [area(row[known], row[~known]) for row, known in zip(scores, truth, strict=True)]
    every = np.stack(scores)
    # pairs of complements stay together: a score is chosen on one part, and guesses are counted on the other
    chosen = np.arange(len(every)) // 2 % 2 == 0
    return Membership(
        target,
        signal,
        attack,
        float(np.mean(areas)),
        mean_interval(areas),
        *counted(every[truth], every[~truth]),
        epsilon=_epsilon((every[chosen], truth[chosen]), (every[~chosen], truth[~chosen])),
    )


def judge_one(signal: str, seen: Tensor, without: Tensor, out: Tensor, members: int) -> Membership:
    """Attack one set by means of shadow sets, offline: no set is known that strangers have a part in.

    Args:
        signal: name of what was seen.
        seen: ``(n,)`` at the set: of its members first, of records that had no part in it behind them.
        without: ``(S, n)`` at the shadow sets.
        out: ``(S, n)`` which of these to compare with, as many for each record.
        members: number of those that are first.
    """
    scores = _offline(seen, without, ~out).numpy()
    own, others = scores[:members], scores[members:]
    value = area(own, others)
    return Membership(
        "this set",
        signal,
        "offline",
        value,
        area_interval(value, len(own), len(others)),
        *counted(own, others),
    )


def counted(
    members: np.ndarray, others: np.ndarray
) -> tuple[dict[float, tuple[float, float, float]], int, int, tuple[tuple[float, float], ...]]:
    """Count guesses: what is found at each of the rates, members, others, and the curve."""
    return _found(members, others), len(members), len(others), _curve(members, others)


def _curve(members: np.ndarray, others: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Return points of the ROC, at rates that a log axis shows evenly; the end alone where nobody is on one side."""
    if len(members) == 0 or len(others) == 0:
        return ((1.0, 1.0),)
    ordered = np.sort(others)[::-1]
    allowed = np.unique(np.geomspace(1, len(others), 40).round().astype(int))
    ends = np.append(ordered, -np.inf)[allowed]
    return tuple((int(n) / len(others), float((members > end).mean())) for n, end in zip(allowed, ends, strict=True))


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
    found_at = (f"found at {100 * rate:g} % false alarms" for rate in RATES)
    head = ["attacked", "by", "AUC", *found_at, "epsilon at least"]
    # exposure is of canaries
    exposed = [each.exposure is not None for each in found]
    head += ["exposure in bits (guessing: 1.4 or less)"] * any(exposed)
    return [tuple(head), *((*_row(each), *([_exposure(each)] * any(exposed))) for each in found)]


def _exposure(each: Membership) -> str:
    return "" if each.exposure is None else f"{each.exposure:.1f}"


def _row(each: Membership) -> tuple[str, ...]:
    low, high = each.interval
    cells = [each.target, f"{each.signal}, {each.attack}", f"{each.area:.3f} ({low:.3f} to {high:.3f})"]
    for rate in RATES:
        if rate in each.found:
            value, low, high = (100 * share for share in each.found[rate])
            cells.append(f"{value:.2g} % ({low:.2g} to {high:.2g})")
        else:
            cells.append("too few to count")
    return (*cells, "" if each.epsilon is None else f"{each.epsilon:.2g}")
