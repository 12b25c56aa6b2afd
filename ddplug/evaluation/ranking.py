"""How far a cheap score of architectures can be trusted: agreement with their true accuracies, and its uncertainty."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from ddplug.errors import DataError, OptionError
from ddplug.utils.checks import values_at_least, whole

__all__ = [
    "Agreement",
    "Estimate",
    "agreement",
    "ceiling",
    "difference",
    "kendall",
    "mean_rank",
    "regret",
    "spearman",
    "top_k_overlap",
]

Scores: TypeAlias = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its bootstrap interval.

    Attributes:
        value: over all architectures; ``None`` where it is not defined.
        low: 2.5 % percentile over the resamples in which it is defined; ``None`` if there is none.
        high: 97.5 % percentile.
    """

    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> list[float | None]:
        """Return value, low and high."""
        return [self.value, self.low, self.high]


@dataclass(frozen=True)
class Agreement:
    """How a proxy's ranking agrees with the truth.

    Attributes:
        number: architectures compared.
        spearman: see :func:`spearman`.
        kendall: see :func:`kendall`.
        regret: see :func:`regret`.
        overlap: k -> see :func:`top_k_overlap`.
    """

    number: int
    spearman: Estimate
    kendall: Estimate
    regret: Estimate
    overlap: Mapping[int, Estimate]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; an estimate is a list of value, low and high."""
        correlations = {name: getattr(self, name).to_json() for name in ("spearman", "kendall", "regret")}
        return {
            "number": self.number,
            **correlations,
            "overlap": {str(k): e.to_json() for k, e in self.overlap.items()},
        }


def _pair(proxy: Scores, truth: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn both into arrays, and refuse what cannot be ranked."""
    both = []
    for what, values in (("proxy scores", proxy), ("true accuracies", truth)):
        try:
            array = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):  # of an iterator, of text
            raise DataError(f"the {what} are {reprlib.repr(values)}; give a list or an array of numbers") from None
        if array.ndim != 1 or len(array) < 2:
            raise DataError(f"the {what} have the shape {array.shape}; give one number for each of 2 or more")
        bad = np.flatnonzero(~np.isfinite(array))
        if len(bad):
            raise DataError(f"the {what} hold {array[bad[0]]} at position {bad[0]}; leave failed architectures out")
        both.append(array)
    if len(both[0]) != len(both[1]):
        raise DataError(f"{len(both[0])} proxy scores but {len(both[1])} true accuracies; give one of each a candidate")
    return both[0], both[1]


def _constant(values: NDArray[np.float64]) -> bool:
    return bool((values == values[0]).all())


def spearman(proxy: Scores, truth: Scores) -> float | None:
    """Return Spearman's rank correlation; tied values share their mean rank.

    Args:
        proxy: one score an architecture, higher is better.
        truth: one accuracy an architecture, in the same order.

    Returns:
        A number in [-1, 1], or ``None`` where one side is constant and so ranks nothing.

    Raises:
        DataError: the lengths differ or are below 2, or a value is NaN or infinite.

    Example:
        >>> round(spearman([1, 2, 3, 4], [0.1, 0.2, 0.4, 0.3]), 3)
        0.8
    """
    x, y = _pair(proxy, truth)
    if _constant(x) or _constant(y):
        return None
    value = float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])
    return min(max(value, -1.0), 1.0)


def kendall(proxy: Scores, truth: Scores) -> float | None:
    """Return Kendall's tau-b: concordant less discordant pairs, over what it could be given the ties.

    Arguments, result and errors are those of :func:`spearman`.

    Example:
        >>> round(kendall([1, 2, 3, 4], [0.1, 0.2, 0.4, 0.3]), 3)
        0.667
    """
    x, y = _pair(proxy, truth)
    if _constant(x) or _constant(y):
        return None
    if len(x) == 2:  # one pair without ties, for which scipy divides by zero
        return float(np.sign((x[1] - x[0]) * (y[1] - y[0])))
    # asymptotic: the p-value, which is not used, is exact and slow otherwise
    return float(stats.kendalltau(x, y, method="asymptotic").statistic)


def mean_rank(signals: Sequence[Scores]) -> list[float]:
    """Combine several scores of the same architectures into one: the mean share of architectures that are worse.

    What the scores measure, and in which units, does not matter. One seed that fails to learn moves an architecture by
    a share of the seeds, where it may ruin a mean of accuracies.

    Args:
        signals: for each of them one score an architecture, higher is better; those tied share their mean rank.

    Returns:
        For each architecture a number in [0, 1].

    Raises:
        DataError: there is no signal, their lengths differ or are below 2, or a value is NaN or infinite.

    Example:
        >>> mean_rank([[0.1, 0.5, 0.3], [-7.0, -1.0, -2.0]])
        [0.0, 1.0, 0.5]
    """
    signals = list(signals)
    if not signals:
        raise DataError("there is no signal to combine; give at least one")
    # ranks are halves, whose sums are exact: what ties by them must not be told apart by rounding
    worse = np.sum([stats.rankdata(_pair(own, signals[0])[0]) - 1 for own in signals], axis=0)
    return [float(value) for value in worse / (len(signals) * (len(signals[0]) - 1))]


def _membership(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Return each item's share of the k best places; those tied for the last places share them equally."""
    last = np.sort(values)[-k]
    above, tied = values > last, values == last
    return np.asarray(above + tied * ((k - above.sum()) / tied.sum()), dtype=np.float64)


def top_k_overlap(proxy: Scores, truth: Scores, k: int) -> float:
    """Return the share of the k truly best architectures that are among the proxy's k best.

    Architectures tied for the last places share them equally, and count with the smaller of their two shares. Where the
    truth has no tie there, this is the expectation over a random order of what the proxy ties; a constant proxy has the
    overlap of chance, k over the number.

    Args:
        proxy: one score an architecture, higher is better.
        truth: one accuracy an architecture, in the same order.
        k: size of both tops, from 1 to the number of architectures.

    Returns:
        A number in [0, 1].

    Raises:
        DataError: see :func:`spearman`.
        OptionError: k is out of range.

    Example:
        >>> top_k_overlap([1, 2, 3, 4], [0.4, 0.1, 0.2, 0.3], 2)
        0.5
    """
    x, y = _pair(proxy, truth)
    k = whole("k", k)
    if not 1 <= k <= len(x):
        raise OptionError(f"k is {k}; it must lie between 1 and the {len(x)} architectures")
    return float(np.minimum(_membership(x, k), _membership(y, k)).sum() / k)


def regret(proxy: Scores, truth: Scores) -> float:
    """Return what choosing by the proxy costs: the best true accuracy less that of the architecture it scores highest.

    Where several share the highest score, it is the expectation over a random choice among them.

    Args:
        proxy: one score an architecture, higher is better.
        truth: one accuracy an architecture, in the same order.

    Returns:
        A number of at least 0, in the units of ``truth``.

    Raises:
        DataError: see :func:`spearman`.

    Example:
        >>> regret([1, 3, 2], [0.5, 0.75, 0.875])
        0.125
    """
    x, y = _pair(proxy, truth)
    return float(np.mean(y.max() - y[x == x.max()]))


def _estimate(
    statistic: Callable[[NDArray[np.float64], NDArray[np.float64]], float | None],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    draws: NDArray[np.int64],
) -> Estimate:
    drawn = [statistic(x[draw], y[draw]) for draw in draws]
    defined = [value for value in drawn if value is not None]
    low, high = np.quantile(defined, [0.025, 0.975]).tolist() if defined else (None, None)
    return Estimate(statistic(x, y), low, high)


def _draws(number: int, resamples: int, rng: torch.Generator) -> NDArray[np.int64]:
    """Draw the members of each resample, with repetition."""
    resamples = whole("resamples", resamples)
    values_at_least(1, resamples=resamples)
    drawn: NDArray[np.int64] = torch.randint(number, (resamples, number), generator=rng).numpy()
    return drawn


def agreement(
    proxy: Scores,
    truth: Scores,
    *,
    top: Sequence[int] = (1, 5, 10),
    resamples: int = 1000,
    rng: torch.Generator,
) -> Agreement:
    """Return all figures of agreement with bootstrap 95 % percentile intervals over the architectures.

    Every figure sees the same resamples, of architectures with repetition. The intervals say how far the figures depend
    on which architectures were sampled, not on the seeds these were trained with; for regret and small tops they are
    rough.

    Args:
        proxy: one score an architecture, higher is better.
        truth: one accuracy an architecture, in the same order.
        top: the k of :func:`top_k_overlap`; those above the number of architectures are left out.
        resamples: bootstrap resamples, at least 1.
        rng: generator on the CPU.

    Returns:
        The figures.

    Raises:
        DataError: see :func:`spearman`.
        OptionError: ``resamples`` or a k is below 1.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> found = agreement([1, 2, 3, 5, 4], [0.1, 0.2, 0.3, 0.4, 0.5], top=(1, 2), resamples=50, rng=rng)
        >>> round(found.spearman.value, 2), found.overlap[2].value
        (0.9, 1.0)

    Reference: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
    """
    x, y = _pair(proxy, truth)
    top = [whole("k", k) for k in top]
    values_at_least(1, k=min(top, default=None))
    draws = _draws(len(x), resamples, rng)
    overlap = {k: _estimate(partial(top_k_overlap, k=k), x, y, draws) for k in top if k <= len(x)}
    one, two, three = (_estimate(statistic, x, y, draws) for statistic in (spearman, kendall, regret))
    return Agreement(len(x), one, two, three, overlap)


def difference(proxy: Scores, other: Scores, truth: Scores, *, resamples: int = 1000, rng: torch.Generator) -> Estimate:
    """Return by how much a proxy's Spearman correlation exceeds another's, with its paired bootstrap interval.

    Both see the same resamples, so that what makes a resample easy or hard for both cancels. Whether this interval
    leaves zero out is what decides between two proxies; their own intervals may overlap all the same.

    Args:
        proxy: one score an architecture, higher is better.
        other: one score an architecture by what it is compared with, in the same order.
        truth: one accuracy an architecture, in the same order.
        resamples: bootstrap resamples, at least 1.
        rng: generator on the CPU.

    Returns:
        The difference; ``None`` where one of them is constant and so ranks nothing.

    Raises:
        DataError: see :func:`spearman`.
        OptionError: ``resamples`` is below 1.

    Example:
        >>> rng = torch.Generator().manual_seed(0)
        >>> found = difference([1, 2, 3, 4], [2, 1, 4, 3], [0.1, 0.2, 0.3, 0.4], resamples=50, rng=rng)
        >>> round(found.value, 2)
        0.4

    Reference: Efron & Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3.
    """
    x, y = _pair(proxy, truth)
    z = _pair(other, truth)[0]
    draws = _draws(len(x), resamples, rng)
    # what is drawn comes after the whole
    rows = np.concatenate([np.arange(len(x))[None], draws])
    found = _spearman_rows(x[rows], y[rows]) - _spearman_rows(z[rows], y[rows])
    drawn = found[1:][~np.isnan(found[1:])]
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist() if len(drawn) else (None, None)
    return Estimate(None if np.isnan(found[0]) else float(found[0]), low, high)


def _spearman_rows(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Spearman's correlation of each row of two arrays ``(n, m)``; NaN where one side is constant."""
    a, b = (stats.rankdata(own, axis=1) - (own.shape[1] + 1) / 2 for own in (x, y))
    scale = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.asarray((a * b).sum(1) / np.where(scale == 0, np.nan, scale), dtype=np.float64)


def ceiling(seeds: Sequence[Scores]) -> float | None:
    """Return the correlation that even a perfect proxy reaches with a truth as noisy as this, on average.

    The truth is the mean over trainings with several seeds. How well these agree says how reliable it is (Spearman and
    Brown), and no score that knows nothing of its noise can be expected to do better than the root of that.

    Args:
        seeds: for each seed one accuracy an architecture, in the same order.

    Returns:
        A number in [0, 1]; ``None`` for fewer than two seeds, or where one ranks nothing.

    Raises:
        DataError: see :func:`spearman`.

    Example:
        >>> round(ceiling([[0.1, 0.2, 0.3, 0.4], [0.2, 0.1, 0.3, 0.4]]), 3)
        0.943

    Reference: Spearman, "Correlation calculated from faulty data", British Journal of Psychology 3, 1910.
    """
    found = [spearman(one, two) for n, one in enumerate(seeds) for two in seeds[:n]]
    defined = [value for value in found if value is not None]
    if not found or len(defined) < len(found):
        return None
    mean = max(0.0, sum(defined) / len(defined))
    return float((len(seeds) * mean / (1 + (len(seeds) - 1) * mean)) ** 0.5)
