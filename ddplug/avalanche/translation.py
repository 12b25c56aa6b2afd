r"""Let a few memory images stand for whole classes: add to them how samples of the present classes vary.

A memory of one image a class says where a class lies, not how wide it is. Within a class, samples of the present
experience vary much as those of past classes did; so a memory row is moved by the difference of two present samples of
one class,

.. math:: \tilde s = s + \tfrac{\alpha}{\sqrt 2}\,(x_i - x_j), \qquad y_i = y_j,

which has, for :math:`\alpha = 1` and random :math:`i, j`, the covariance of the present classes. Where the memory holds
several rows a class, each stands for a part of it only: :math:`x_j` is then the nearest of as many random samples.
Nothing is stored for it.

Translation of present samples to past classes, in feature space and from class means: Petit et al., "FeTrIL: Feature
Translation for Exemplar-Free Class-Incremental Learning", WACV 2023, equation 1. Here it is done to inputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["differences", "translated"]


def differences(x: Tensor, groups: Tensor, among: int, rng: torch.Generator) -> Tensor:
    r"""Return how samples differ from others of their group, divided by :math:`\sqrt 2`.

    Args:
        x: ``(n, *shape)`` samples.
        groups: ``(n,)`` group of each.
        among: each sample is compared with the nearest of this number of random others of its group, at least 1.
        rng: generator on the CPU.

    Returns:
        ``(m, *shape)``, ``m <= n``: samples without another of their group are left out.

    Example:
        >>> x = torch.tensor([[0.0], [2.0], [5.0]])
        >>> differences(x, torch.tensor([0, 0, 1]), 1, torch.Generator())
        tensor([[-1.4142],
                [ 1.4142]])
    """
    n, flat = len(x), x.flatten(1).float()
    others = (groups[:, None] == groups[None]).fill_diagonal_(False)
    order, none = torch.rand(n, n, generator=rng).to(x.device), ~others
    far = torch.cdist(flat, flat).masked_fill_(none, math.inf)
    if among < n:  # candidates: the others with the `among` least random numbers
        order.masked_fill_(none, 2.0)
        far.masked_fill_(order > order.kthvalue(among, 1, keepdim=True).values, math.inf)
    some, own, nearest = others.any(1), x, far.argmin(1)
    if not some.all():
        own, nearest = x[some], nearest[some]
    return (own - x.index_select(0, nearest)).mul_(math.sqrt(0.5))


def translated(rows: Tensor, moves: Tensor, strength: float, rng: torch.Generator) -> Tensor:
    """Move memory rows by random differences.

    Args:
        rows: ``(n, *shape)`` memory rows.
        moves: ``(m, *shape)`` from :func:`differences`; none leave the rows as they are.
        strength: factor of the differences; 1 for the present classes' own spread.
        rng: generator on the CPU.

    Returns:
        ``(n, *shape)``, in the rows' type.
    """
    if not len(moves):
        return rows
    pick = torch.randint(len(moves), (len(rows),), generator=rng).to(moves.device)
    picked = moves.index_select(0, pick).to(rows.dtype)
    return rows + (picked if strength == 1 else strength * picked)
