"""Boundaries that are not sharp, and classes of very different sizes: nothing that came is lost."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from ddplug.avalanche import DistilledBuffer
from tests.avalanche.streams import blurry, from_parts
from tests.avalanche.test_coded import BITS, dots

EACH, EVERY, EXPERIENCES = 300, 10, 3


def spotted(labels: Tensor) -> Tensor:
    """Images that say which class and which sample they are of: class ``k`` alone has a dot in the last row."""
    x = dots(len(labels))
    x[:, 0, 7] = 0
    x[torch.arange(len(x)), 0, 7, labels] = 1
    return x


def class_of(x: Tensor) -> Tensor:
    return x[:, 0, 7].argmax(1)


def by_class(memory: DistilledBuffer, what: Any) -> dict[int, int]:
    found: Counter[int] = Counter()
    for group, own in memory.groups.items():
        found[group.label] += what(own)
    return dict(found)


@pytest.mark.parametrize("options", [{}, {"groupby": "class"}, {"groupby": "class", "revisit": "accumulate"}])
@pytest.mark.parametrize("images", [12, 40])
def test_each_class_of_a_blurry_stream_has_its_share(options: dict[str, Any], images: int) -> None:
    y = torch.arange(6).repeat_interleave(EACH)
    stream = blurry(spotted(y), y, EXPERIENCES, EVERY).train_stream
    assert [len(set(experience.dataset.targets)) for experience in stream] == [6] * EXPERIENCES
    made = DistilledBuffer(max_bytes=f"{images} images", codec=BITS, device="cpu", **options)
    came: Counter[int] = Counter()
    for experience in stream:
        made.post_adapt(None, experience)
        came += Counter(experience.dataset.targets)
        rows = made.rows()
        assert torch.equal(class_of(rows.x), rows.y)
        assert 0.8 * made.max_bytes < made.nbytes <= made.max_bytes == 64 * images  # type: ignore[operator]
        numbers = by_class(made, len)
        assert sorted(numbers) == list(range(6))
        assert by_class(made, lambda own: own.seen) == came
        for label, number in numbers.items():  # the fewer that came of it all are there
            assert number >= min(came[label], 0.75 * len(rows) / 6)


def test_samples_of_a_class_stay_in_the_shares_in_which_they_came() -> None:
    y = torch.arange(6).repeat_interleave(EACH)
    x = spotted(y)
    made = DistilledBuffer(max_bytes=2000, codec=BITS, groupby="class", device="cpu")
    for experience in blurry(x, y, EXPERIENCES, EVERY).train_stream:
        made.post_adapt(None, experience)
    rows = made.rows()
    place = torch.cdist(rows.x.flatten(1), x.flatten(1)).argmin(1) % EACH
    home = place % EVERY != 0
    assert len(rows.y) > 60
    assert home.float().mean() == pytest.approx(1 - 1 / EVERY, abs=0.05)


def test_a_large_class_after_a_long_tail_has_what_the_tail_leaves() -> None:
    first = torch.tensor([0] * 600 + [k for k in range(1, 9) for _ in range(3)])
    y = torch.cat([first, torch.full((600,), 9)])
    x = dots(len(y))
    made = DistilledBuffer(max_bytes="30 images", codec=BITS, device="cpu")
    for experience in from_parts((x[:624], first), (x[624:], y[624:])).train_stream:
        made.post_adapt(None, experience)
        numbers = by_class(made, len)
        assert [numbers[label] for label in range(1, 9)] == [3] * 8
        assert 0.8 * 1920 < made.nbytes <= 1920
    assert numbers[9] > 0.8 * numbers[0]
