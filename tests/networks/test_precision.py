"""Networks that compute in bfloat16: the images that come of it, and what they must not change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddplug.cli.program import main
from ddplug.distillation.loop import distill
from ddplug.distillers.dm import DM
from ddplug.errors import CheckpointError, OptionError
from ddplug.networks.convnet import convnet
from ddplug.networks.functional import forward, initial_parameters, loss_gradient, stateless
from ddplug.networks.precision import computing
from ddplug.registry import resolve
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.testing import made_small, toy_images
from tests.exact import generator

DATA = toy_images()
NETWORK = "convnet:width=8,depth=1"


def test_a_network_rounds_and_gives_float32() -> None:
    module, tensors = stateless(NETWORK, DATA.shape, 3), initial_parameters(NETWORK, DATA, generator())
    x = DATA.sample(0, 8, generator())
    exact, (steep, _) = forward(module, tensors, x), loss_gradient(module, tensors, x, torch.zeros(8).long())
    with computing("bfloat16"):
        rounded, (near, _) = forward(module, tensors, x), loss_gradient(module, tensors, x, torch.zeros(8).long())
    assert rounded.dtype == torch.float32 and all(part.dtype == torch.float32 for part in near.values())
    # eight bits of a number are left, so that a few layers are off by a hundredth or two
    assert 1e-5 < float((rounded - exact).abs().max() / exact.abs().max()) < 0.03
    whole, rest = (torch.cat([own[name].flatten() for name in steep]) for own in (steep, near))
    assert float((rest - whole).norm() / whole.norm()) < 0.05


@pytest.mark.parametrize("name", ["dm", "dc", "frepo", "dd"])
def test_images_move_nearly_alike_and_the_set_says_how(name: str) -> None:
    method: Any = made_small(resolve("distiller", name)())
    exact, rounded = (
        distill(DATA, method, steps=2, device="cpu", precision=precision) for precision in ("float32", "bfloat16")
    )
    start = distill(DATA, method, steps=0, device="cpu").inputs
    moved, near = exact.inputs - start, rounded.inputs - start
    assert not torch.equal(moved, near)
    assert float(torch.cosine_similarity(moved.flatten(), near.flatten(), dim=0)) > 0.9
    assert rounded.provenance["precision"] == "bfloat16" and "precision" not in exact.provenance


def test_a_run_goes_on_in_its_own_precision(tmp_path: Any) -> None:
    method, path = made_small(resolve("distiller", "dm")()), tmp_path / "run"
    distill(DATA, method, steps=1, device="cpu", checkpoint=path, precision="bfloat16")
    with pytest.raises(CheckpointError, match="precision"):
        distill(DATA, method, steps=2, device="cpu", checkpoint=path)
    going_on = distill(DATA, method, steps=2, device="cpu", checkpoint=path, precision="bfloat16")
    assert torch.equal(going_on.inputs, distill(DATA, method, steps=2, device="cpu", precision="bfloat16").inputs)


@pytest.mark.parametrize("name", ["kmeans", "mtt", "sre2l", "dp-dm"])
def test_what_computes_in_float32_only_refuses(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} computes in float32 only; leave precision out"):
        distill(DATA, name, device="cpu", precision="bfloat16")


def test_other_precisions_are_refused() -> None:
    with pytest.raises(OptionError, match=r"unknown precision 'float16'.* Known: auto, bfloat16, float32"):
        distill(DATA, "dm", device="cpu", precision="float16")


def test_a_set_is_made_again_in_its_precision(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["distill", "dm", "--data", "digits", "--network", NETWORK, "--pool-size", "1", "--batch-real", "2"]
    argv += ["--images-per-class", "1", "--steps", "1", "--init-from", "real", "--device", "cpu"]
    assert main([*argv, "--precision", "bfloat16", "-o", "a.safetensors"]) == 0
    again = ["distill", "--config", "a.safetensors", "--data", "digits", "--device", "cpu", "-o", "b.safetensors"]
    assert main(again) == 0
    first, second = (SyntheticSet.load(f"{name}.safetensors") for name in "ab")
    assert second.provenance["precision"] == "bfloat16"
    assert torch.equal(first.inputs, second.inputs)


class Slow(nn.Module):
    """A network that works longer in one precision than in the other, as processors do."""

    def __init__(self, rounds: dict[bool, int]) -> None:
        super().__init__()
        self.rounds, self.own = rounds, convnet(DATA.shape, DATA.num_classes, width=4, depth=1)

    def forward(self, x: Tensor) -> Tensor:
        waste = torch.full((64, 64), 1 / 64)
        for _ in range(self.rounds[torch.is_autocast_enabled("cpu")]):
            waste = waste @ waste
        return self.own(x) + 0 * waste.float().sum()  # type: ignore[no-any-return]


def _slow(exact: int, rounded: int) -> Any:
    def network() -> nn.Module:
        return Slow({False: exact, True: rounded})

    return DM(images_per_class=1, network=network, pool_size=1, batch_real=2, steps=1, init_from="real")


@pytest.mark.parametrize(("exact", "rounded", "chosen"), [(2000, 0, "bfloat16"), (0, 2000, "float32")])
def test_the_faster_precision_is_found_and_told(exact: int, rounded: int, chosen: str) -> None:
    made = distill(DATA, _slow(exact, rounded), device="cpu", precision="auto")
    assert made.provenance.get("precision", "float32") == chosen
    plain = distill(DATA, _slow(exact, rounded), device="cpu", precision=chosen)
    assert torch.equal(made.inputs, plain.inputs)


@pytest.mark.parametrize("begun", ["float32", "bfloat16"])
def test_a_run_keeps_the_precision_that_it_began_with(tmp_path: Any, begun: str) -> None:
    other = _slow(2000, 0) if begun == "float32" else _slow(0, 2000)  # whose trial would say otherwise
    distill(DATA, other, steps=1, device="cpu", checkpoint=tmp_path / "run", precision=begun)
    going_on = distill(DATA, other, steps=2, device="cpu", checkpoint=tmp_path / "run", precision="auto")
    assert going_on.provenance.get("precision", "float32") == begun and going_on.provenance["steps"] == 2


@pytest.mark.parametrize("name", ["kmeans", "dp-dm"])
def test_what_has_one_precision_keeps_it(name: str) -> None:
    method: Any = made_small(resolve("distiller", name)())
    made = distill(DATA, method, steps=0, device="cpu", precision="auto")
    assert "precision" not in made.provenance
