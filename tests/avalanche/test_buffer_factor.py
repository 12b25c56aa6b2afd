"""Memories that store several small images in the place of one."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import interpolate

from ddplug.avalanche.buffer import DistilledBuffer
from ddplug.avalanche.replay import stored_rows
from ddplug.distillers.dm import DM
from ddplug.errors import OptionError
from tests.avalanche.streams import learner, nc, toy


def _filled(policy: DistilledBuffer, *, vectors: bool = False) -> DistilledBuffer:
    stream = nc(3, data=toy(vectors=vectors)).train_stream
    agent = SimpleNamespace(model=learner(stream))
    for experience in stream:
        policy.post_adapt(agent, experience)
    return policy


def test_the_factor_is_the_memorys() -> None:
    with pytest.raises(OptionError, match="has factor=2, but the memory itself stores images smaller"):
        DistilledBuffer(6, distiller=DM(factor=2))


@pytest.mark.parametrize("distiller", ["random", "kmeans-centroid", "dm"])
def test_a_budget_of_images_holds_four_times_as_many_rows(distiller: str) -> None:
    whole = _filled(DistilledBuffer(6, distiller="random"))
    small = _filled(DistilledBuffer(6, distiller=distiller, factor=2))
    assert len(small.buffer) == 4 * len(whole.buffer) == 24
    assert tuple(small.buffer[0][0].shape) == (1, 8, 8)
    # the images take the same bytes; labels are one for each row
    assert small.nbytes == whole.nbytes + 18
    assert len(pickle.dumps(small)) < len(pickle.dumps(whole)) + 500


def test_rows_are_what_bilinear_interpolation_makes_of_half_the_resolution() -> None:
    stream = nc(3).train_stream
    policy = DistilledBuffer(600, distiller="random", factor=2, storage="float32")  # every sample is kept
    policy.post_adapt(SimpleNamespace(model=learner(stream)), stream[0])
    kept = policy.rows()
    x = torch.stack([item[0] for item in stream[0].dataset.eval()])
    small = interpolate(x.float(), scale_factor=0.5, mode="area")
    expected = interpolate(small, size=(8, 8), mode="bilinear", align_corners=False)
    in_order, wanted = (rows[rows.flatten(1)[:, 27].argsort()] for rows in (kept.x, expected))
    torch.testing.assert_close(in_order, wanted)


def test_bytes_count_the_small_images() -> None:
    policy = _filled(DistilledBuffer(max_bytes=6 * 68 + 6 * 8, distiller="random", factor=2))
    assert policy.images_allowed == 6
    assert policy.nbytes == 6 * 68 + 6 * 8


def test_soft_labels_are_one_for_each_row() -> None:
    policy = _filled(DistilledBuffer(6, distiller="kmeans", factor=2, soft_labels=True))
    rows, soft = stored_rows(policy)
    assert soft is not None
    assert len(soft) == len(rows) == 24


def test_vectors_cannot_be_reduced() -> None:
    with pytest.raises(OptionError, match="needs \\(C, H, W\\) images"):
        _filled(DistilledBuffer(6, distiller="random", factor=2), vectors=True)
