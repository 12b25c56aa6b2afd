"""Preprocessing against plain NumPy in float64 and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddplug.data.preprocess import KINDS, Standardize, Zca, fit, from_tensors, pieces, to_pixels
from ddplug.errors import DataError, FormatError, OptionError

SHAPES = [(5,), (3, 7), (1, 4, 4), (3, 5, 6)]


def random_bytes(count: int, shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_standardise_is_numpys_mean_and_deviation(shape: tuple[int, ...], dtype: str) -> None:
    values = random_bytes(50, shape)
    pixels = values.astype(np.float64) / 255
    stored = torch.from_numpy(values if dtype == "uint8" else pixels.astype(np.float32))
    fitted = fit("standardize", stored)
    assert isinstance(fitted, Standardize)
    axes = tuple(axis for axis in range(pixels.ndim) if axis != 1)
    np.testing.assert_allclose(fitted.mean.numpy(), pixels.mean(axes), rtol=1e-6)
    np.testing.assert_allclose(fitted.std.numpy(), pixels.std(axes), rtol=1e-6)
    moved = fitted.forward(to_pixels(stored)).double()
    assert moved.mean(axes).abs().max() < 1e-5
    assert (moved.square().mean(axes) - 1).abs().max() < 1e-5


def test_a_small_deviation_beside_a_large_mean_is_kept() -> None:
    values = np.random.default_rng(0).normal(1e4, 0.1, (5000, 1)).astype(np.float32)
    fitted = fit("standardize", torch.from_numpy(values)).tensors()
    assert fitted["std"].item() == pytest.approx(values.astype(np.float64).std(), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4, -3e-5])
def test_a_constant_channel_becomes_zero(value: float) -> None:
    stored = torch.stack([torch.full((1000,), value), torch.arange(1000.0)], 1)
    fitted = fit("standardize", stored)
    assert fitted.tensors()["std"][0] == 1
    assert fitted.forward(stored)[:, 0].abs().max() <= abs(value) * 1e-6


def test_pieces_do_not_change_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = torch.from_numpy(random_bytes(200, (3, 4, 4)))
    whole = {kind: fit(kind, stored).tensors() for kind in KINDS}
    monkeypatch.setattr("ddplug.data.preprocess.pieces", lambda stored: torch.split(stored, 7))
    for kind, tensors in whole.items():
        for name, tensor in fit(kind, stored).tensors().items():
            torch.testing.assert_close(tensor, tensors[name], msg=f"{kind} {name}")


@given(st.integers(1, 40), st.integers(1, 1 << 20))
def test_pieces_are_the_whole_and_bounded(count: int, width: int) -> None:
    stored = torch.zeros(1).expand(count, width)
    parts = [len(part) for part in pieces(stored)]
    assert sum(parts) == count
    assert all(part * width <= 1 << 20 for part in parts)


@pytest.mark.parametrize("eps", [0.1, 1e-3])
def test_zca_whitens_as_the_closed_form_says(eps: float) -> None:
    rng = np.random.default_rng(0)
    pixels = (rng.normal(size=(400, 12)) @ rng.normal(size=(12, 12))).astype(np.float32)
    fitted = fit("zca", torch.from_numpy(pixels).view(400, 3, 2, 2), eps)
    assert isinstance(fitted, Zca)
    values, vectors = np.linalg.eigh(np.cov(pixels.astype(np.float64), rowvar=False))
    whitening = vectors @ np.diag((values + eps) ** -0.5) @ vectors.T
    np.testing.assert_allclose(fitted.mean.numpy(), pixels.astype(np.float64).mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(fitted.matrix.numpy(), whitening, rtol=1e-5, atol=1e-5)
    white = fitted.forward(torch.from_numpy(pixels).view(400, 3, 2, 2)).flatten(1).double().numpy()
    # covariance S becomes S / (S + eps) along its own axes
    expected = vectors @ np.diag(values / (values + eps)) @ vectors.T
    np.testing.assert_allclose(np.cov(white, rowvar=False), expected, atol=1e-4)


def test_zca_of_fewer_samples_than_numbers_is_finite() -> None:
    stored = torch.from_numpy(random_bytes(4, (1, 6, 6)))
    white = fit("zca", stored).forward(to_pixels(stored))
    assert bool(white.isfinite().all())


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(sorted(KINDS)), st.sampled_from(SHAPES), st.sampled_from(["uint8", "float32"]), st.integers(0, 99)
)
def test_inverse_takes_forward_back(kind: str, shape: tuple[int, ...], dtype: str, seed: int) -> None:
    stored = torch.from_numpy(random_bytes(30, shape, seed))
    stored = stored if dtype == "uint8" else to_pixels(stored)
    fitted = fit(kind, stored)
    pixels = to_pixels(stored)
    torch.testing.assert_close(fitted.inverse(fitted.forward(pixels)), pixels, rtol=1e-5, atol=1e-5)
    assert fitted.forward(pixels).shape == pixels.shape


@pytest.mark.parametrize("kind", KINDS)
def test_fields_rebuild_the_map(kind: str) -> None:
    stored = torch.from_numpy(random_bytes(30, (3, 4, 4)))
    fitted = fit(kind, stored)
    again = from_tensors(kind, fitted.tensors())
    assert type(again) is type(fitted)
    assert torch.equal(again.forward(to_pixels(stored)), fitted.forward(to_pixels(stored)))
    assert all(tensor.dtype == torch.float32 for tensor in fitted.tensors().values())


def test_to_pixels_leaves_its_input_alone() -> None:
    stored = torch.tensor([[0, 255]], dtype=torch.uint8)
    assert to_pixels(stored).tolist() == [[0.0, 1.0]]
    assert stored.tolist() == [[0, 255]]
    assert to_pixels(torch.tensor([[2.0]], dtype=torch.float64)).dtype == torch.float32


def test_refusals() -> None:
    with pytest.raises(OptionError, match="unknown preprocessing 'zac'; did you mean 'zca'"):
        fit("zac", torch.ones(2, 2))
    with pytest.raises(DataError, match="0 samples"):
        fit("standardize", torch.ones(0, 2))
    with pytest.raises(OptionError, match="5000 x 5000 matrix; the limit is 4096"):
        fit("zca", torch.ones(2, 5000))
    with pytest.raises(FormatError, match="unknown preprocessing 'pca'; this version reads identity, standardise, zca"):
        from_tensors("pca", {})
    with pytest.raises(FormatError, match=r"'standardise' is stored with the fields \['mean'\]"):
        from_tensors("standardise", {"mean": torch.ones(1)})
