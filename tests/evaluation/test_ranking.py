"""Figures of agreement: closed forms, brute force, invariances, ties, and intervals that cover the truth."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from ddplug.errors import DataError, OptionError
from ddplug.evaluation.ranking import (
    Estimate,
    agreement,
    ceiling,
    difference,
    kendall,
    mean_rank,
    regret,
    spearman,
    top_k_overlap,
)

ALL: dict[str, Callable[[Sequence[float], Sequence[float]], float | None]] = {
    "spearman": spearman,
    "kendall": kendall,
    "regret": regret,
    "overlap": lambda x, y: top_k_overlap(x, y, 2),
}


def samples(number: int, levels: int | None = None) -> list[tuple[list[float], list[float]]]:
    """Draw pairs of sequences; few levels give many ties."""
    rng = random.Random(0)
    draw = rng.random if levels is None else lambda: rng.randrange(levels) / levels
    sizes = [rng.randrange(3, 9) for _ in range(number)]
    return [([draw() for _ in range(n)], [draw() for _ in range(n)]) for n in sizes]


def rank(values: Sequence[float]) -> list[float]:
    return [sum(v < w for v in values) + (sum(v == w for v in values) + 1) / 2 for w in values]


def slow_spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    a, b = rank(x), rank(y)
    middle = (len(x) + 1) / 2
    spread = math.sqrt(sum((v - middle) ** 2 for v in a) * sum((v - middle) ** 2 for v in b))
    return sum((v - middle) * (w - middle) for v, w in zip(a, b, strict=True)) / spread if spread else None


def slow_kendall(x: Sequence[float], y: Sequence[float]) -> float | None:
    pairs = list(itertools.combinations(range(len(x)), 2))
    sign = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in pairs]
    spread = math.sqrt(sum(a != 0 for a, _ in sign) * sum(b != 0 for _, b in sign))
    return float(sum(a * b for a, b in sign)) / spread if spread else None


def orders(values: Sequence[float]) -> list[tuple[int, ...]]:
    """Return every order from best to worst that the values allow."""
    every = itertools.permutations(range(len(values)))
    return [order for order in every if all(values[i] >= values[j] for i, j in itertools.pairwise(order))]


@pytest.mark.parametrize(("fast", "slow"), [(spearman, slow_spearman), (kendall, slow_kendall)])
@pytest.mark.parametrize("levels", [None, 3])
def test_correlations_equal_the_slow_definition(
    fast: Callable[[Sequence[float], Sequence[float]], float | None],
    slow: Callable[[Sequence[float], Sequence[float]], float | None],
    levels: int | None,
) -> None:
    for x, y in samples(50, levels):
        assert fast(x, y) == pytest.approx(slow(x, y), abs=1e-12)


def test_correlations_without_ties_have_their_closed_forms() -> None:
    x = [1.0, 2.0, 3.0, 4.0, 5.0]
    y = [2.0, 1.0, 4.0, 3.0, 5.0]
    squares = sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    assert spearman(x, y) == pytest.approx(1 - 6 * squares / (5 * (25 - 1)))
    assert kendall(x, y) == pytest.approx((8 - 2) / 10)
    for correlation in (spearman, kendall):
        assert correlation(x, x) == pytest.approx(1.0)
        assert correlation(x, x[::-1]) == pytest.approx(-1.0)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_overlap_and_regret_are_the_mean_over_every_order_of_tied_scores(k: int) -> None:
    for x, y in samples(30, 3):
        truth = [value + 1e-6 * position for position, value in enumerate(y)]  # no ties
        x, truth = x[:6], truth[:6]
        best = sorted(range(len(x)), key=lambda i: -truth[i])[:k]
        kept = [order[:k] for order in orders(x)]
        shares = [len(set(tops) & set(best)) / k for tops in kept]
        assert top_k_overlap(x, truth, k) == pytest.approx(sum(shares) / len(shares))
        losses = [max(truth) - truth[order[0]] for order in orders(x)]
        assert regret(x, truth) == pytest.approx(sum(losses) / len(losses))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("levels", [None, 3])
def test_a_strictly_increasing_map_of_the_scores_and_the_order_of_rows_change_nothing(
    name: str, levels: int | None
) -> None:
    figure = ALL[name]
    for x, y in samples(20, levels):
        value = figure(x, y)
        assert figure([math.exp(3 * v) for v in x], y) == pytest.approx(value)
        order = random.Random(1).sample(range(len(x)), len(x))
        assert figure([x[i] for i in order], [y[i] for i in order]) == pytest.approx(value)


@pytest.mark.parametrize("correlation", [spearman, kendall])
def test_correlations_are_symmetric_and_turn_with_the_sign(
    correlation: Callable[[Sequence[float], Sequence[float]], float | None],
) -> None:
    for x, y in samples(20):
        value = correlation(x, y)
        assert value is not None and -1 <= value <= 1
        assert correlation(y, x) == pytest.approx(value)
        assert correlation([-v for v in x], y) == pytest.approx(-value)


def test_tied_architectures_share_the_last_places() -> None:
    assert top_k_overlap([1, 1, 1, 1], [0.4, 0.3, 0.2, 0.1], 2) == 0.5  # chance
    assert top_k_overlap([2, 1, 0, 0], [0.5, 0.5, 0.1, 0.2], 1) == 0.5  # the other of the best two may be the best
    assert top_k_overlap([2, 2, 0, 0], [0.5, 0.5, 0.1, 0.2], 1) == 1.0
    assert regret([1, 1, 0], [0.5, 0.25, 1.0]) == 0.625


@pytest.mark.parametrize(("x", "y"), [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])])
def test_constant_input_has_no_correlation(x: list[float], y: list[float]) -> None:
    assert spearman(x, y) is None
    assert kendall(x, y) is None
    found = agreement(x, y, top=(1,), resamples=20, rng=torch.Generator().manual_seed(0))
    assert found.spearman == found.kendall == Estimate(None, None, None)
    assert found.regret.value is not None


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, math.nan], [1, 2], "the proxy scores hold nan at position 1; leave failed architectures out"),
        ([1, 2], [math.inf, 2], "the true accuracies hold inf at position 0"),
        ([1, 2, 3], [1, 2], "3 proxy scores but 2 true accuracies"),
        ([1], [1], r"the proxy scores have the shape \(1,\); give one number for each of 2 or more"),
        ([[1, 2]], [1, 2], r"the proxy scores have the shape \(1, 2\)"),
        (["a", "b"], [1, 2], r"the proxy scores are \['a', 'b'\]; give a list or an array of numbers"),
        (iter([1, 2]), [1, 2], "the proxy scores are <list_iter"),
    ],
)
@pytest.mark.parametrize("name", ALL)
def test_what_cannot_be_ranked_is_refused(name: str, x: list[float], y: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ALL[name](x, y)


@pytest.mark.parametrize("k", [0, 4])
def test_a_top_outside_the_sample_is_refused(k: int) -> None:
    with pytest.raises(OptionError, match=f"k is {k}; it must lie between 1 and the 3 architectures"):
        top_k_overlap([1, 2, 3], [1, 2, 3], k)


@pytest.mark.parametrize(("option", "value"), [("resamples", 0), ("k", 0)])
def test_agreement_refuses_options_below_one(option: str, value: int) -> None:
    options = {"resamples": 0} if option == "resamples" else {"top": (0,)}
    with pytest.raises(OptionError, match=f"{option} is {value}; it must be at least 1"):
        agreement([1, 2], [1, 2], rng=torch.Generator(), **options)


def test_agreement_takes_whole_numbers_of_any_kind() -> None:
    options: Any = {"top": np.array([1]), "resamples": np.int64(3)}
    assert agreement([1, 2], [1, 2], rng=torch.Generator(), **options).overlap[1].value == 1
    for wrong in ({"resamples": 2.5}, {"top": (1.5,)}):
        with pytest.raises(OptionError, match="it must be a whole number"):
            agreement([1, 2], [1, 2], rng=torch.Generator(), **wrong)


def test_a_perfect_proxy_is_perfect_in_every_resample() -> None:
    truth = [0.1, 0.3, 0.2, 0.5, 0.4, 0.6]
    found = agreement([10 * t for t in truth], truth, resamples=100, rng=torch.Generator().manual_seed(0))
    for estimate in (found.spearman, found.kendall, *found.overlap.values()):
        assert estimate.to_json() == pytest.approx([1.0, 1.0, 1.0])
    assert found.regret.to_json() == [0.0, 0.0, 0.0]
    assert list(found.overlap) == [1, 5]  # there are no ten


def test_agreement_is_what_the_single_figures_say_and_can_be_written() -> None:
    x, y = samples(1)[0]
    found = agreement(x, y, top=(2,), resamples=50, rng=torch.Generator().manual_seed(0))
    assert found.number == len(x)
    assert found.spearman.value == spearman(x, y)
    assert found.kendall.value == kendall(x, y)
    assert found.regret.value == regret(x, y)
    assert found.overlap[2].value == top_k_overlap(x, y, 2)
    again = agreement(x, y, top=(2,), resamples=50, rng=torch.Generator().manual_seed(0))
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == again.to_json()
    assert found.to_json()["overlap"] == {"2": found.overlap[2].to_json()}


def test_intervals_cover_the_correlation_of_a_normal_population() -> None:
    rho, number, trials = 0.6, 50, 100
    population = 6 / math.pi * math.asin(rho / 2)
    rng = np.random.default_rng(0)
    seeds = torch.Generator().manual_seed(0)
    covered, widths = 0, []
    for _ in range(trials):
        x = rng.standard_normal(number)
        y = rho * x + math.sqrt(1 - rho**2) * rng.standard_normal(number)
        estimate = agreement(x, y, top=(), resamples=100, rng=seeds).spearman
        assert estimate.low is not None and estimate.high is not None
        covered += estimate.low <= population <= estimate.high
        widths.append(estimate.high - estimate.low)
    assert 0.87 <= covered / trials <= 1  # 95 % of 100, less three standard deviations and the bootstrap's own error
    # Fisher's transform: half-width 1.96 sqrt((1 + rho^2 / 2) / (n - 3)) before the inverse hyperbolic tangent
    half = 1.96 * math.sqrt((1 + population**2 / 2) / (number - 3)) * (1 - population**2)
    assert sum(widths) / trials == pytest.approx(2 * half, rel=0.15)


@pytest.mark.parametrize(("truth", "value"), [([0.1, 0.2], 1.0), ([0.2, 0.1], -1.0), ([0.1, 0.1], None)])
def test_two_architectures_can_be_compared(truth: list[float], value: float | None) -> None:
    assert kendall([1.0, 3.0], truth) == value
    assert spearman([1.0, 3.0], truth) == (None if value is None else pytest.approx(value))
    found = agreement([1.0, 3.0], truth, resamples=20, rng=torch.Generator().manual_seed(0))
    assert found.kendall.value == value


def test_mean_rank_counts_who_is_worse() -> None:
    rng = np.random.default_rng(0)
    signals = rng.integers(0, 6, (4, 11)).astype(float)
    worse = [[(own[i] > own).sum() + ((own[i] == own).sum() - 1) / 2 for i in range(11)] for own in signals]
    expected = np.mean(worse, axis=0) / 10
    np.testing.assert_allclose(mean_rank(list(signals)), expected, rtol=0, atol=1e-12)
    # units and scales do not matter, and one signal ranks as it does alone
    np.testing.assert_allclose(mean_rank([10 * own - 3 for own in signals]), expected, rtol=0, atol=1e-12)
    assert spearman(mean_rank([signals[0]]), list(signals[0])) == pytest.approx(1)
    for wrong in ([], [[1.0, 2.0], [1.0, 2.0, 3.0]], [[1.0, math.nan]], [[1.0]]):
        with pytest.raises(DataError):
            mean_rank(wrong)


def test_the_difference_of_two_scores_is_that_of_the_same_resamples() -> None:
    state = np.random.RandomState(0)
    truth = state.rand(12)
    one, two = truth + 0.1 * state.rand(12), np.round(truth + state.rand(12), 1)
    found = difference(one, two, truth, resamples=200, rng=torch.Generator().manual_seed(5))
    draws = torch.randint(12, (200, 12), generator=torch.Generator().manual_seed(5)).numpy()

    def less(index: Any) -> float:
        first, second = (stats.spearmanr(own[index], truth[index]).statistic for own in (one, two))
        return float(first - second)

    assert found.value == pytest.approx(less(slice(None)))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile([less(draw) for draw in draws], [0.025, 0.975])))
    # what is equal differs by nothing, whatever is drawn
    same = difference(one, 3 * one, truth, resamples=50, rng=torch.Generator().manual_seed(0))
    assert (same.value, same.low, same.high) == pytest.approx((0, 0, 0))
    assert difference([1, 1, 1], [1, 2, 3], [1, 2, 3], rng=torch.Generator()).value is None


def test_a_truth_without_noise_has_no_ceiling_below_one() -> None:
    assert ceiling([[1, 2, 3, 4], [1, 2, 3, 4]]) == pytest.approx(1)
    assert ceiling([[1, 2, 3, 4], [4, 3, 2, 1]]) == 0
    assert ceiling([[1, 2, 3, 4]]) is None
    assert ceiling([[1, 2, 3, 4], [5, 5, 5, 5]]) is None
    # of three pairs two agree by a half and one disagrees by it: 1/6 on average, and a mean of three by Spearman-Brown
    assert ceiling([[1, 2, 3], [1, 3, 2], [2, 1, 3]]) == pytest.approx((3 / 6 / (1 + 2 / 6)) ** 0.5)


def test_mean_ranks_that_tie_are_equal_to_the_bit() -> None:
    # in sixths, 1 + 3 and 2 + 2 would differ by rounding
    first, second = [0, 1, 2, 3, 4, 5, 6], [0, 3, 2, 1, 4, 5, 6]
    ranks = mean_rank([first, second, first, second])
    assert ranks[1] == ranks[2] == ranks[3]
