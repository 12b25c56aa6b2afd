"""Memory rows moved by how present samples vary."""

from __future__ import annotations

import torch

from ddplug.avalanche.translation import differences, translated


def _rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_differences_have_the_covariance_within_classes() -> None:
    spread = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    centers = torch.tensor([[50.0, 0.0], [-50.0, 9.0]])
    y = torch.arange(3000) % 2
    x = centers[y] + torch.randn(3000, 2, generator=_rng()) @ spread.T
    moves = differences(x, y, 1, _rng())
    assert len(moves) == 3000
    torch.testing.assert_close(moves.T.cov(), spread @ spread.T, rtol=0.1, atol=0.15)


def test_with_more_candidates_differences_are_smaller_and_never_across_classes() -> None:
    y = torch.arange(200) % 2
    x = torch.randn(200, 3, generator=_rng()) + 20.0 * y[:, None]
    sizes = [float(differences(x, y, among, _rng()).norm(dim=1).mean()) for among in (1, 5, 50)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < 10
    nearest = differences(x, y, 200, _rng())
    apart = torch.cdist(x, x) + 1e6 * torch.eye(200)
    torch.testing.assert_close(nearest.norm(dim=1) * 2**0.5, apart.min(1).values, rtol=1e-3, atol=1e-3)


def test_a_class_with_one_sample_is_left_out() -> None:
    moves = differences(torch.tensor([[0.0], [1.0], [7.0]]), torch.tensor([3, 3, 4]), 9, _rng())
    assert moves.shape == (2, 1)
    assert differences(torch.zeros(1, 2), torch.tensor([0]), 1, _rng()).shape == (0, 2)


def test_rows_move_by_a_difference_each() -> None:
    rows, moves = torch.zeros(50, 1, dtype=torch.float64), torch.tensor([[1.0], [-3.0]])
    moved = translated(rows, moves, 0.5, _rng())
    assert moved.dtype == torch.float64
    assert set(moved.flatten().tolist()) == {0.5, -1.5}
    assert translated(rows, moves[:0], 0.5, _rng()) is rows
