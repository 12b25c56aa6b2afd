"""CutMix: what is pasted is what the labels say, and nothing else moves."""

from __future__ import annotations

import pytest
import torch

from ddplug.functional import cutmix


def test_each_image_is_its_own_but_for_one_rectangle_of_another_and_labels_are_the_shares() -> None:
    n, sides = 7, (9, 6)
    for seed in range(50):
        # an image's pixels tell whose they are, and where
        owner = torch.arange(n, dtype=torch.float64).view(n, 1, 1, 1)
        place = torch.arange(sides[0] * sides[1], dtype=torch.float64).view(1, 1, *sides)
        x, y = (100 * owner + place).expand(n, 2, *sides), torch.eye(n, dtype=torch.float64)
        mixed, labels = cutmix(x, y, torch.Generator().manual_seed(seed))
        assert ((mixed % 100) == place).all()  # nothing moves
        owners = (mixed[:, 0] // 100).long()
        assert bool((mixed[:, 0] // 100 == mixed[:, 1] // 100).all())
        for k in range(n):
            pasted = owners[k] != k
            rows, columns = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
            assert int(pasted.sum()) == len(rows) * len(columns)
            if len(rows):
                assert int(rows[-1] - rows[0]) + 1 == len(rows) and int(columns[-1] - columns[0]) + 1 == len(columns)
                assert len(owners[k][pasted].unique()) == 1
            shares = torch.bincount(owners[k].flatten(), minlength=n).double() / owners[k].numel()
            torch.testing.assert_close(labels[k], shares)


def test_the_share_of_the_area_is_uniform() -> None:
    y = torch.eye(2)
    shares = []
    for seed in range(2000):
        _, labels = cutmix(torch.zeros(2, 1, 64, 64), y, torch.Generator().manual_seed(seed))
        shares.append(1 - float(labels[0, 0]))
    # the other image is the image itself in half of the permutations
    pasted = torch.tensor([share for share in shares if share > 0])
    assert abs(len(pasted) / 2000 - 0.5) < 0.05
    for level in (0.25, 0.5, 0.75):
        assert float((pasted < level).double().mean()) == pytest.approx(level, abs=0.05)
