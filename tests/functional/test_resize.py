"""Several small images in the place of one."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ddplug import distill
from ddplug.data.preprocess import fit
from ddplug.distillers.dc import DC
from ddplug.distillers.dd import DD
from ddplug.distillers.dm import DM
from ddplug.distillers.dsa import DSA
from ddplug.distillers.frepo import FRePo
from ddplug.distillers.idc import IDC
from ddplug.distillers.idm import IDM
from ddplug.distillers.mtt import MTT
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.soft_label_dd import SoftLabelDD
from ddplug.errors import DataError, OptionError
from ddplug.evaluation.learned import train_as_learned
from ddplug.evaluation.train import train_on
from ddplug.functional.resize import enlarge, reduce, reduce_to, reduced_shape
from ddplug.functional.types import Tensors
from ddplug.synthetic.card import card
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.export import inspect, to_npz
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import check_distiller, toy_images, toy_table
from tests.exact import generator, twin


def test_reduces_by_averaging_blocks() -> None:
    x = torch.rand(3, 2, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = x.reshape(3, 2, 2, 3, 3, 3).mean((3, 5))
    torch.testing.assert_close(reduce(x, 3), expected)


def test_a_linear_ramp_comes_back_inside_the_border() -> None:
    # bilinear interpolation is exact on what is linear, and so are block averages
    ramp = torch.arange(8.0).expand(1, 1, 8, 8)
    back = enlarge(reduce(ramp, 2), (1, 8, 8))
    torch.testing.assert_close(back[..., 1:-1], ramp[..., 1:-1])


def test_factor_one_changes_nothing() -> None:
    x = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    assert reduce(x, 1) is x
    assert enlarge(x, (5,)) is x


@pytest.mark.parametrize(
    ("shape", "factor", "says"),
    [
        ((5,), 2, "needs"),
        ((1, 3, 8), 4, "at most 3"),
        ((1, 64, 64), 17, "between 1 and 16"),
        ((1, 8, 8), 0, "between"),
        ((1, 8, 8), 1.5, "whole number"),
    ],
)
def test_refuses_what_cannot_be_reduced(shape: tuple[int, ...], factor: Any, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        reduced_shape(shape, factor)


@pytest.mark.parametrize(("side", "small"), [((6, 9), (2, 3)), ((32, 20), (4, 2)), ((7, 5), (3, 4)), ((9, 9), (1, 1))])
def test_reduces_to_a_shape_by_the_mean_of_what_a_pixel_overlaps(side: tuple[int, int], small: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *side, dtype=torch.float64, generator=generator())
    expected = torch.empty(2, 3, *small, dtype=torch.float64)
    for row in range(small[0]):
        for column in range(small[1]):
            edges = [
                (k * large // n, -(-(k + 1) * large // n))
                for k, n, large in zip((row, column), small, side, strict=True)
            ]
            (top, bottom), (left, right) = edges
            expected[..., row, column] = x[..., top:bottom, left:right].mean((2, 3))
    torch.testing.assert_close(reduce_to(x, (3, *small)), expected)
    assert reduce_to(x, (3, *side)) is x


@pytest.mark.parametrize("shape", [(3, 4, 9), (1, 4, 4), (3, 16), (3, 9, 4)])
def test_refuses_to_reduce_to_what_is_larger_or_of_another_kind(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match=re.escape(f"inputs of shape (3, 8, 8) cannot be stored as {shape}")):
        reduce_to(torch.zeros(1, 3, 8, 8), shape)


SMALL = "convnet:width=4,depth=1"
METHODS: dict[str, Any] = {
    "dm": DM(images_per_class=1, network=SMALL, pool_size=2, factor=2),
    "dc": DC(images_per_class=1, network=SMALL, pool_size=2, outer_loop=1, factor=2),
    "dc, trained networks": DC(images_per_class=1, network=SMALL, outer_loop=2, inner_loop=2, factor=2),
    "dsa": DSA(images_per_class=1, network=SMALL, pool_size=2, outer_loop=1, factor=2),
    "frepo": FRePo(images_per_class=1, network=SMALL, pool_size=2, max_age=2, advance=1, reuse=1, factor=2),
    "mtt": MTT(images_per_class=1, network=SMALL, num_experts=1, epoch_steps=2, syn_steps=3, augment="", factor=2),
    "dd": DD(network=SMALL, factor=2),
    "soft-label-dd": SoftLabelDD(network=SMALL, factor=2),
    "idm": IDM(images_per_class=1, network=SMALL, pool_size=2, max_age=2, advance=1, reuse=1, factor=2),
    "ncfm": NCFM(images_per_class=1, network=SMALL, networks=1, train_steps=1, pool_size=2, factor=2),
    "idc": IDC(images_per_class=1, network=SMALL, pool_size=2, max_age=2, advance=1, reuse=1, factor=2),
}


def whole(method: Any) -> Any:
    """The same method with as many images, learned whole."""
    more = {"images_per_class": 4 * method.images_per_class, "factor": 1}
    return replace(method, **more, **({"images_per_step": 4} if hasattr(method, "images_per_step") else {}))


def moment(state: Tensors) -> str:
    return next(name for name in ("velocity", "velocity.inputs", "first.inputs") if name in state)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_on_small_images_is_the_chain_rule_through_the_enlargement(name: str) -> None:
    # the first velocity, or the first moment of Adam, is a multiple of the gradient
    method, data = METHODS[name], toy_images((12, 9))
    if hasattr(method, "clip"):
        method = replace(method, clip=0.0)
    rng = generator(1)
    state = dict(method.init(data, rng))
    images = enlarge(state["inputs"], data.shape)
    which = moment(state)
    large = {**state, "inputs": images, which: torch.zeros_like(images)}
    large |= {"second.inputs": torch.zeros_like(images)} if "second.inputs" in state else {}
    expected = whole(method).step(large, data, twin(rng))[0]
    after = method.step(state, data, rng)[0]
    leaf = state["inputs"].clone().requires_grad_()
    (pulled,) = torch.autograd.grad(enlarge(leaf, data.shape), leaf, expected[which])
    assert pulled.abs().max() > 0
    torch.testing.assert_close(after[which], pulled, rtol=1e-4, atol=1e-7)
    others = [key for key in after if not key.endswith("inputs") and key != "velocity"]
    if name != "dc, trained networks" and not name.startswith("frepo"):  # whose networks train on the moved images
        assert all(torch.equal(after[key], expected[key]) for key in others)


@pytest.mark.parametrize("name", METHODS)
def test_methods_with_a_factor_keep_the_contract(name: str) -> None:
    check_distiller(METHODS[name])


@pytest.mark.parametrize("name", METHODS)
def test_sides_that_the_factor_does_not_divide(name: str) -> None:
    data = toy_images((30, 20), channels=3, size=10)
    made = distill(data, replace(METHODS[name], factor=3), steps=1, device="cpu")
    assert made.inputs.shape == (18, 3, 3, 3)
    assert made.shape == (3, 10, 10)


@pytest.mark.parametrize("start", ["noise", "real", "kmeans"])
def test_starts_take_the_room_of_whole_images(start: str) -> None:
    data = toy_images((12, 9))
    made = distill(
        data, DM(images_per_class=2, init_from=start, network=SMALL, pool_size=1, factor=2), steps=0, device="cpu"
    )
    assert made.inputs.shape == (16, 1, 4, 4)
    assert made.targets.tolist() == [0] * 8 + [1] * 8
    if start == "noise":
        assert 0.8 < float(made.inputs.std()) < 1.2
    if start == "real":
        real = reduce(data.batch(torch.arange(len(data))), 2).flatten(1)
        assert torch.cdist(made.inputs.flatten(1), real).amin(1).max() < 1e-5


def test_what_cannot_be_small_is_refused_before_the_run() -> None:
    with pytest.raises(OptionError, match=r"needs \(C, H, W\) images"):
        DM(images_per_class=1, network="mlp", augment="", factor=2).init(toy_table(), generator())
    zca = replace(toy_images(), preprocess=fit("zca", toy_images().inputs))
    with pytest.raises(OptionError, match="cannot be combined with zca"):
        DM(images_per_class=1, factor=2).init(zca, generator())
    with pytest.raises(
        OptionError, match=r"images per class is 4 \(4 small ones .* than 12 samples; ask for at most 3"
    ):
        DM(images_per_class=4, factor=2).init(toy_images(), generator())
    whitened = SyntheticSet(zca.batch(torch.arange(3)), torch.arange(3), 3, zca.preprocess)
    with pytest.raises(DataError, match="zca"):
        whitened.reduced(2)


def small_set() -> SyntheticSet:
    data = toy_images((12, 9))
    return distill(data, DM(images_per_class=1, network=SMALL, pool_size=1, factor=2), steps=1, device="cpu")


def test_every_way_of_reading_samples_gives_whole_images() -> None:
    made = small_set()
    whole_images = enlarge(made.inputs, (1, 8, 8))
    assert made.shape == (1, 8, 8)
    assert torch.equal(made[:][0], whole_images)
    assert torch.equal(made[torch.tensor([5, 2])][0], whole_images[[5, 2]])
    torch.testing.assert_close(made[3][0], whole_images[3])
    (batch,) = DataLoader(made, batch_size=8, generator=generator())
    torch.testing.assert_close(batch[0], whole_images)
    torch.testing.assert_close(made.pixels(), made.preprocess.inverse(whole_images))
    plain = made.enlarged()
    assert torch.equal(plain.inputs, whole_images)
    assert plain.enlarged() is plain
    assert plain.nbytes == 8 * 64 * 4 + 8
    assert made.nbytes == 8 * 16 * 4 + 8
    assert made.quantize().nbytes == 8 * 16 + 8 + 8


def test_networks_train_on_the_enlarged_images() -> None:
    made, recipe = small_set(), Recipe(epochs=3)
    one, other = (
        train_on(some, SMALL, recipe=recipe, rng=generator(), device="cpu")[0] for some in (made, made.enlarged())
    )
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_the_learned_training_takes_small_images() -> None:
    made = distill(toy_images(), DD(network=SMALL, initialization="fixed", factor=2), steps=2, device="cpu")
    one, other = (train_as_learned(some, device="cpu") for some in (made, made.enlarged()))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_exports_say_what_is_stored_and_give_what_is_seen(tmp_path: Path) -> None:
    made = small_set().quantize()
    to_npz(made, tmp_path / "set.npz")
    with np.load(tmp_path / "set.npz") as arrays:
        torch.testing.assert_close(torch.from_numpy(arrays["pixels"]), made.pixels())
    facts = inspect(made)
    assert (facts["shape"], facts["stored_shape"]) == ([1, 8, 8], [1, 4, 4])
    assert "| stored as | `plain` images of 1 x 4 x 4, enlarged when read, class indices |" in card(made)


def test_merging_asks_for_images_stored_alike() -> None:
    made = small_set()
    assert made.merge(made).inputs.shape == (16, 1, 4, 4)
    with pytest.raises(DataError, match="stored shape"):
        made.merge(made.enlarged())
