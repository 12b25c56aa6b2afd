"""How far a number that was counted can be trusted."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from ddplug.errors import OptionError
from ddplug.utils.checks import real, whole

__all__ = ["area", "area_interval", "clopper_pearson", "epsilon_of_guesses", "lowest_by_chance", "mean_interval"]


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the exact interval of a share that was counted in independent trials.

    Args:
        hits: at most ``trials``.
        trials: at least 0; of none, nothing is known.
        confidence: that the true share lies inside, above 0 and below 1.

    Raises:
        OptionError: a number is out of range.

    Reference: Clopper & Pearson, "The use of confidence or fiducial limits", Biometrika 1934.

    Example:
        >>> [round(end, 4) for end in clopper_pearson(0, 100)]
        [0.0, 0.0362]
    """
    hits, trials = _share("hits", hits, "trials", trials)
    tail = (1 - _within("confidence", confidence)) / 2
    low = float(stats.beta.ppf(tail, hits, trials - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def _share(name: str, part: int, whose: str, of: int) -> tuple[int, int]:
    """Return two counts, of which one is a part of the other."""
    part, of = whole(name, part), whole(whose, of)
    if not 0 <= part <= of:
        raise OptionError(f"{name} is {part} of {of} {whose}; it must be between 0 and their number")
    return part, of


def _within(name: str, value: float) -> float:
    number = float(real(name, value))
    if not 0 < number < 1:
        raise OptionError(f"{name} is {value}; it must be above 0 and below 1")
    return number


def lowest_by_chance(lowest: int, number: int, others: int) -> float:
    """Compute how likely so many of some numbers are below all others, if all of them are drawn alike.

    The smallest of the others is as random as the rest: a binomial distribution, which takes it for known, calls far
    too much unlikely where the others are few.

    Args:
        lowest: how many at least are below all others.
        number: of those that they are among.
        others: how many there are.

    Example:
        Of two and two in any order, the first two are the lowest in one case of six.

        >>> round(1 / lowest_by_chance(2, 2, 2))
        6
    """
    # the lowest of all, the second lowest, ... are none of the others
    return math.prod((number - k) / (number + others - k) for k in range(lowest))


def area(members: np.ndarray, others: np.ndarray) -> float:
    """Compute the area under the ROC: how often a member has the higher score, equal ones counted half.

    Example:
        >>> area(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
        0.875
    """
    ranks = stats.rankdata(np.concatenate([members, others]))[: len(members)]
    least = len(members) * (len(members) + 1) / 2
    return float((ranks.sum() - least) / (len(members) * len(others)))


def area_interval(value: float, members: int, others: int) -> tuple[float, float]:
    """Estimate the 95 % interval of an area under the ROC of independent scores.

    Reference: Hanley & McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 1982.
    """
    one, two = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (members - 1) * (one - value**2) + (others - 1) * (two - value**2)
    reach = 1.96 * math.sqrt(max(variance, 0.0) / (members * others))
    return max(0.0, value - reach), min(1.0, value + reach)


def mean_interval(values: list[float]) -> tuple[float, float]:
    """Compute the 95 % interval of a mean by Student's distribution."""
    mean = float(np.mean(values))
    reach = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return max(0.0, mean - reach), min(1.0, mean + reach)


def epsilon_of_guesses(right: int, guesses: int, canaries: int, delta: float = 0.0, confidence: float = 0.95) -> float:
    """Bound epsilon from below by guesses of which canaries, each in by the toss of a coin, are in.

    One run with many canaries is enough, and they need not be independent of each other.

    Args:
        right: guesses that were right, at most ``guesses``.
        guesses: that were made; the others were passed over, as was decided without the answers.
        canaries: that there were.
        delta: of the guarantee, at least 0 and below 1.
        confidence: that epsilon is larger, above 0 and below 1.

    Raises:
        OptionError: a number is out of range.

    Reference: Steinke, Nasr & Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, theorem 5.2 and
    appendix D.

    Example:
        >>> round(epsilon_of_guesses(100, 100, 100), 2), epsilon_of_guesses(55, 100, 100)
        (3.49, 0.0)
    """
    right, guesses = _share("right", right, "guesses", guesses)
    guesses, canaries = _share("guesses", guesses, "canaries", canaries)
    delta = 0.0 if delta == 0 else _within("delta", delta)
    confidence = _within("confidence", confidence)

    def excluded(epsilon: float) -> bool:
        return _chance(right, guesses, canaries, epsilon, delta) <= 1 - confidence

    if not excluded(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while excluded(high) and high < 100:
        low, high = high, 2 * high
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if excluded(middle) else (low, middle)
    return low


def _chance(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Compute how likely a method with a guarantee lets as many guesses be right."""
    share = 1 / (1 + math.exp(-epsilon))
    found = float(stats.binom.sf(right - 1, guesses, share))
    if delta == 0:
        return found
    # P[right > X >= right - i] / i, at its largest
    below = np.cumsum(stats.binom.pmf(right - np.arange(1, right + 1), guesses, share))
    worst = float((below / np.arange(1, right + 1)).max(initial=0.0))
    return found + 2 * canaries * delta * worst
