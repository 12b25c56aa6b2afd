"""What a run needs at the least: against what the tensors of a run really take, and the refusal that comes of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddplug import distill
from ddplug.distillation import memory
from ddplug.distillation.memory import available, check, needed, peak_bytes, sizes_of
from ddplug.distillation.settling import settled
from ddplug.distillers.dc import DC
from ddplug.distillers.dd import DD
from ddplug.distillers.dm import DM
from ddplug.distillers.frepo import FRePo
from ddplug.distillers.idc import IDC
from ddplug.distillers.idm import IDM
from ddplug.distillers.mtt import MTT
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.rded import RDED
from ddplug.distillers.soft_label_dd import SoftLabelDD
from ddplug.distillers.sre2l import SRe2L
from ddplug.errors import OptionError
from ddplug.testing import toy_images
from tests.exact import generator

NETWORK = "convnet:width=16,depth=2"
DATA = toy_images((30, 25, 20), size=16)
EARLY = ("start", "pool", "experts", "networks", "teacher")
"""Stages that are over before the first step."""
METHODS: dict[str, Any] = {
    "dm": DM(images_per_class=4, network=NETWORK, pool_size=3),
    "dm, small images": DM(images_per_class=4, network=NETWORK, pool_size=3, factor=2),
    "dc": DC(images_per_class=4, network=NETWORK, pool_size=3, outer_loop=1),
    "dc, no pool": DC(images_per_class=4, network=NETWORK, outer_loop=2, inner_loop=1),
    "frepo": FRePo(images_per_class=4, network=NETWORK, pool_size=3, batch_real=8),
    "ncfm": NCFM(images_per_class=2, network=NETWORK, networks=1, train_steps=1, pool_size=3, frequencies=64),
    "idm": IDM(images_per_class=2, network=NETWORK, pool_size=3, max_age=2),
    "idc": IDC(images_per_class=2, network=NETWORK, pool_size=3, max_age=2),
    "mtt": MTT(
        images_per_class=4,
        network=NETWORK,
        num_experts=1,
        epoch_steps=1,
        max_start_epoch=1,
        syn_steps=3,
        gradient="exact",
    ),
    "mtt, unrolled": MTT(
        images_per_class=4, network=NETWORK, num_experts=1, epoch_steps=1, max_start_epoch=1, gradient="unrolled"
    ),
    "dd": DD(images_per_class=4, images_per_step=4, network=NETWORK, batch_real=60, epochs=2),
    "soft-label-dd": SoftLabelDD(images=2, network=NETWORK, batch_real=60),
    "sre2l": SRe2L(images_per_class=4, teacher=f"{NETWORK},norm=batch", train_epochs=1, batch_size=10, jitter=0),
}


def bytes_of(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


@pytest.mark.parametrize("name", METHODS)
def test_what_is_said_is_within_a_factor_of_two_of_what_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CLUSTERING", 0)  # code that is loaded is no tensor
    method = settled(METHODS[name], DATA.shape)
    network = method.teacher if name == "sre2l" else NETWORK
    stages = method.memory(sizes_of(network, DATA))
    made: list[Mapping[str, Tensor]] = []
    before = peak_bytes(lambda: made.append(method.init(DATA, generator())))
    step = bytes_of(made[0]) + peak_bytes(lambda: method.step(made[0], DATA, generator()))
    assert step / 2 <= needed({k: parts for k, parts in stages.items() if k not in EARLY}) <= 2 * step
    # a run ends where a stage needs most
    assert max(before, step) / 2 <= needed(stages) <= 2 * max(before, step)


@pytest.mark.parametrize("name", ["dm", "dc", "frepo", "ncfm", "idm", "idc"])
def test_pools_are_counted_as_they_are(name: str) -> None:
    state = METHODS[name].init(DATA, generator())
    pool = bytes_of({key: tensor for key, tensor in state.items() if key.startswith("pool.")})
    stages = METHODS[name].memory(sizes_of(NETWORK, DATA))
    # the augmentations' few numbers are left out
    assert pool - 2000 <= stages["step"]["pool_size"] <= pool
    assert stages["pool"]["pool_size"] == 2 * stages["step"]["pool_size"]  # parts are there while they are stacked


def test_bytes_are_those_of_tensors_that_live_at_the_same_time() -> None:
    def two_after_each_other() -> None:
        for _ in range(2):
            torch.ones(1000).mul_(2)[:500].view(20, 25)  # in place and views take nothing

    def kept_for_the_way_back() -> None:
        x = torch.ones(1000, requires_grad=True)
        torch.autograd.grad(x.exp().exp().sum(), x)

    assert peak_bytes(two_after_each_other) == 4000
    # x, two exponentials that are kept, and what goes back: gradients of the sum (4 bytes, expanded) and its products
    assert 12_000 <= peak_bytes(kept_for_the_way_back) <= 20_100


def test_a_run_that_cannot_fit_is_refused_with_a_value_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 8_000_000)
    method = DM(images_per_class=1, network=NETWORK, pool_size=100_000, init_from="noise")
    began: list[int] = []
    monkeypatch.setattr(DM, "init", lambda *_: began.append(1))
    with pytest.raises(
        OptionError, match=r"dm needs at least .* GB for pool_size=100000, but cpu has 0\.0 GB left"
    ) as caught:
        distill(DATA, method, device="cpu")
    assert not began
    pool = int(str(caught.value).split("use pool_size=")[1].split()[0])
    check(replace(method, pool_size=pool), DATA, torch.device("cpu"))
    with pytest.raises(OptionError):
        check(replace(method, pool_size=pool + 1), DATA, torch.device("cpu"))
    with pytest.raises(OptionError, match="use a smaller network"):
        check(DC(network="mlp:width=1000", images_per_class=1, outer_loop=2), DATA, torch.device("cpu"))
    bare = replace(method, pool_size=0)
    left = needed(bare.memory(sizes_of(NETWORK, DATA))) + 1
    monkeypatch.setattr(memory, "available", lambda device: left)
    with pytest.raises(OptionError, match=r"use pool_size=0$"):
        check(method, DATA, torch.device("cpu"))
    check(bare, DATA, torch.device("cpu"))


@pytest.mark.parametrize("method", [RDED(images_per_class=5), SRe2L(images_per_class=5)])
def test_images_are_counted_as_they_are(method: Any) -> None:
    sizes = sizes_of(method.teacher, DATA, embedding=False)
    made = distill(DATA, replace(method, teacher=f"{NETWORK},norm=batch", train_epochs=1, steps=0), device="cpu")
    own = made.inputs.numel() * made.inputs.element_size()
    (images,) = (parts["images_per_class"] for parts in method.memory(sizes).values() if "images_per_class" in parts)
    assert images == {"rded": 2, "sre2l": 7}[method.name] * own


def test_a_teacher_is_measured_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.random.fork_rng():
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(256, 3), nn.BatchNorm1d(3)).train()
        other = nn.Linear(9, 3)
    before = copy.deepcopy(teacher.state_dict())
    sizes = sizes_of(teacher, DATA, embedding=False)
    assert sizes.network == 4 * (256 * 3 + 3 + 4 * 3) + 8
    assert teacher.training
    assert all(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    with pytest.raises(OptionError, match="have features"):
        sizes_of(teacher, DATA)
    monkeypatch.setattr(memory, "available", lambda device: 80_000)
    with pytest.raises(OptionError, match=r"sre2l needs at least 0\.0 GB .* for images_per_class=8, .* use images_per"):
        distill(DATA, SRe2L(images_per_class=8, teacher=teacher), device="cpu")
    with pytest.raises(OptionError, match="teacher Linear cannot take an input of shape"):
        distill(DATA, RDED(images_per_class=1, teacher=other), device="cpu")


def test_methods_that_say_nothing_are_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 0)
    check(SimpleNamespace(name="other"), DATA, torch.device("cpu"))
    assert len(distill(DATA, "random", device="cpu")) == 30


def test_nobody_knows_what_other_devices_have() -> None:
    assert available(torch.device("meta")) is None
    check(METHODS["dm"], DATA, torch.device("meta"))


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    whole = available(torch.device("cpu"))
    assert whole is not None
    assert whole > 10**7
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\nfile 300000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert available(torch.device("cpu")) == pytest.approx(whole, rel=0.5)
    (tmp_path / "memory.max").write_text("1000000\n")
    assert available(torch.device("cpu")) == 400000
