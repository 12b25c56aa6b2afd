"""Experts against slow loops in float64, and their files: shards, going on, kills, strangers."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ddplug.cli.program import main
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import fit
from ddplug.distillers.parts import experts
from ddplug.distillers.parts.experts import expert_path, open_experts, read_expert, train_experts
from ddplug.distillers.parts.training import ExpertTraining, flatten, structure, trajectory, unflatten
from ddplug.errors import DataError, DivergedError, FormatError, OptionError
from ddplug.functional import augmentation as augment
from ddplug.networks.convnet import ConvNet
from ddplug.networks.factory import build
from ddplug.testing import toy_images, toy_table
from ddplug.utils.files import read_tensors, write_tensors
from tests.exact import exact_images, generator, twin

NETWORK = "convnet:width=4,depth=1"
SHORT = ExpertTraining(epochs=2, epoch_steps=2, batch_size=8)


def double_convnet() -> nn.Module:
    return ConvNet((1, 8, 8), 2, width=4, depth=1).double()


def slow_direction(module: nn.Module, x: Tensor, y: Tensor, rho: float, alpha: float) -> Tensor:
    """The gradient, or GSAM's, over all the parameters as one vector."""

    def gradient(weights: Tensor) -> Tensor:
        vector_to_parameters(weights, module.parameters())
        module.zero_grad()
        cross_entropy(module(x), y).backward()
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    here = parameters_to_vector(module.parameters()).detach().clone()
    plain = gradient(here)
    if rho:
        steep = gradient(here + rho * plain / plain.norm())
        unit = steep / steep.norm()
        plain = steep - alpha * (plain - (plain @ unit) * unit)
        vector_to_parameters(here, module.parameters())
    return plain


@pytest.mark.parametrize(("rho", "alpha"), [(0.0, 0.0), (0.05, 0.0), (0.05, 0.7)])
@pytest.mark.parametrize("strategy", ["", "crop_flip"])
def test_a_trajectory_is_plain_training(strategy: str, rho: float, alpha: float) -> None:
    data, rng = exact_images((9, 12)), generator(3)
    training = ExpertTraining(epochs=3, learning_rate=0.3, batch_size=8, augment=strategy, rho=rho, alpha=alpha)
    other = twin(rng)
    found = list(trajectory(double_convnet, data, training, rng))
    module = build(double_convnet, data.shape, 2, other)
    expected = [parameters_to_vector(module.parameters()).detach().clone()]
    for _ in range(3):
        for index in torch.randperm(21, generator=other).split(8):
            x = augment.augment(data.batch(index), strategy, other)
            before = parameters_to_vector(module.parameters()).detach().clone()
            step = slow_direction(module, x, data.targets[index], rho, alpha)
            vector_to_parameters(before - 0.3 * step, module.parameters())
        expected.append(parameters_to_vector(module.parameters()).detach().clone())
    assert len(found) == 4 and float((found[-1] - found[0]).norm()) > 0.1
    for mine, slow in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, slow, rtol=1e-8, atol=1e-10)


def test_flat_experts_are_flatter() -> None:
    """Both options change where training ends, each by more than rounding."""
    data = exact_images((9, 12))
    ways = [ExpertTraining(epochs=2, learning_rate=0.3, rho=rho, alpha=a) for rho, a in ((0, 0), (0.1, 0), (0.1, 1))]
    plain, steep, gsam = ([*trajectory(double_convnet, data, way, generator())][-1] for way in ways)
    assert float((steep - plain).norm()) > 1e-4 and float((gsam - steep).norm()) > 1e-4


def test_epochs_may_be_counted_in_steps() -> None:
    data, whole = exact_images((9, 12)), ExpertTraining(epochs=2, batch_size=7)
    assert whole.steps(data) == 3
    parts = replace(whole, epochs=6, epoch_steps=1)
    every, third = (list(trajectory(double_convnet, data, way, generator())) for way in (parts, whole))
    assert all(torch.equal(mine, other) for mine, other in zip(every[::3], third, strict=True))


def test_a_vector_holds_the_parameters_in_order() -> None:
    data = toy_images()
    module = structure(NETWORK, data)
    built = dict(build(NETWORK, data.shape, 3, generator()).named_parameters())
    vector = flatten(built, module)
    assert torch.equal(vector, parameters_to_vector(built.values()))
    again = unflatten(vector, module)
    assert list(again) == list(built) and all(torch.equal(again[name], built[name]) for name in built)


def test_shards_and_going_on_give_the_files_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_images()
    once = train_experts(data, tmp_path / "once", NETWORK, SHORT, number=5, seed=3, device="cpu")
    trained = []

    def counted(*arguments: Any, **options: Any) -> Any:
        trained.append(arguments[0])
        return trajectory(*arguments, **options)

    monkeypatch.setattr(experts, "trajectory", counted)
    shards = partial(train_experts, data, tmp_path / "shards", NETWORK, SHORT, number=5, seed=3, device="cpu")
    assert [path.name for path in shards(shard=(2, 3))] == ["expert-00001.safetensors", "expert-00004.safetensors"]
    assert len(shards(shard=(1, 3))) == 2 and len(trained) == 4
    assert len(shards()) == 5 and len(trained) == 5  # only the missing one
    assert len(shards()) == 5 and len(trained) == 5
    for path in once:
        assert path.read_bytes() == (tmp_path / "shards" / path.name).read_bytes()
    rows = [read_expert(path).at(2) for path in once]
    assert all(not torch.equal(rows[0], row) for row in rows[1:])
    other = train_experts(data, tmp_path / "seed", NETWORK, SHORT, number=1, seed=4, device="cpu")
    assert not torch.equal(read_expert(other[0]).at(0), rows[0])


KILLED = """
import os, sys
from ddplug.utils import files
from ddplug.distillers.parts.experts import train_experts
from ddplug.distillers.parts.training import ExpertTraining
from ddplug.testing import toy_images
writes = []
def die(descriptor):
    writes.append(descriptor)
    if len(writes) == 2:
        os._exit(9)
files.os.fsync = die
training = ExpertTraining(epochs=2, epoch_steps=2, batch_size=8)
train_experts(toy_images(), sys.argv[1], "convnet:width=4,depth=1", training, number=3, device="cpu")
"""


def test_a_kill_while_writing_leaves_no_half_expert(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")], capture_output=True, timeout=120)
    assert done.returncode == 9, done.stderr
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names.pop() == "expert-00000.safetensors"
    assert sorted(name.rpartition(".")[2] for name in names) == ["lock", "tmp"]
    data = toy_images()
    paths = train_experts(data, tmp_path / "a", NETWORK, SHORT, number=3, device="cpu")
    whole = train_experts(data, tmp_path / "b", NETWORK, SHORT, number=3, device="cpu")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in whole]
    assert sorted((tmp_path / "a").iterdir()) == paths  # what the killed process left is gone


def test_an_interrupt_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["experts", "--data", "digits", "--network", "mlp:width=4", "-n", "3", "--epochs", "1"]
    command += ["--device", "cpu", "-o", str(tmp_path / "e"), "--epoch-steps", "2"]
    begun: list[int] = []

    def stopping(*arguments: Any, **options: Any) -> Any:
        begun.append(1)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return trajectory(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(experts, "trajectory", stopping)
        assert main(command) == 130
    assert f"the same command keeps the finished experts in {tmp_path / 'e'}" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["expert-00000.safetensors"]
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["folder"] == str(tmp_path / "e") and len(answer["experts"]) == 3
    assert answer["bytes"] == sum(path.stat().st_size for path in (tmp_path / "e").iterdir())


def test_the_command_trains_a_shard_and_says_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "e")
    command = [
        "experts",
        "--data",
        "digits",
        "--validation",
        "0.2",
        "--network",
        "mlp:width=4",
        "-n",
        "3",
        "-o",
        folder,
    ]
    command += ["--epochs", "1", "--epoch-steps", "1", "--device", "cpu", "--half"]
    assert main([*command, "--shard", "2/2"]) == 0
    assert (
        "ddplug distill mtt --data digits --validation 0.2 --network mlp:width=4 --experts" in capsys.readouterr().out
    )
    assert [path.name for path in Path(folder).iterdir()] == ["expert-00001.safetensors"]
    for extra, message in (
        (["--shard", "3/2"], "the shard is 3/2; it must be K/N with K between 1 and N"),
        (["--shard", "two"], "is 'two'; give two whole numbers, as 3/8"),
        (["--seed", "1"], "its seed is 0, not 1"),
        (["--network", "batch"], "unknown network 'batch'"),
    ):
        assert main([*command, *extra]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_half_is_half_the_size_and_rounded(tmp_path: Path) -> None:
    data, full = toy_images(), {}
    for half in (False, True):
        train_experts(data, tmp_path / str(half), NETWORK, SHORT, number=1, half=half, device="cpu")
        full[half] = open_experts(tmp_path / str(half), NETWORK, data)[0]
    exact, rounded = (full[half].snapshots for half in (False, True))
    assert rounded.dtype == torch.float16 and full[True].at(1).dtype == torch.float32
    assert 2 * rounded.nbytes == exact.nbytes
    assert torch.equal(rounded, exact.half()) and not torch.equal(rounded.float(), exact)
    with pytest.raises(DataError, match="its stored is 'float32', not 'float16'"):
        train_experts(data, tmp_path / "False", NETWORK, SHORT, number=2, half=True, device="cpu")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_file_is_mapped_not_read(tmp_path: Path) -> None:
    (path,) = train_experts(toy_images(), tmp_path, NETWORK, SHORT, number=1, device="cpu")

    def mapped() -> bool:
        return str(path) in Path("/proc/self/maps").read_text()

    expert = read_expert(path)
    row = expert.at(1)
    assert mapped()
    del expert
    assert not mapped() and bool(row.isfinite().all())


def other_preprocessing(data: LabeledData) -> LabeledData:
    return replace(data, preprocess=fit("identity", data.inputs))


@pytest.mark.parametrize(
    ("network", "data", "message"),
    [
        ("convnet:width=5,depth=1", toy_images(), "its network is 'convnet:width=4,depth=1', not 'convnet:width=5"),
        (NETWORK, toy_images((12, 10, 9)), "its preprocessing's fingerprint is '"),
        (NETWORK, replace(toy_images(), targets=toy_images().targets.flip(0)), "its data's fingerprint is '"),
        (NETWORK, other_preprocessing(toy_images()), "its preprocessing is 'standardise', not 'identity'"),
        (NETWORK, toy_images(channels=3), r"its parameters is \[\['features.0.weight', \[4, 1, 3, 3\]"),
    ],
)
def test_experts_of_something_else_are_refused(tmp_path: Path, network: str, data: LabeledData, message: str) -> None:
    train_experts(toy_images(), tmp_path, NETWORK, SHORT, number=2, device="cpu")
    with pytest.raises(DataError, match=message):
        open_experts(tmp_path, network, data)
    with pytest.raises(DataError, match=message):
        train_experts(data, tmp_path, network, SHORT, number=2, device="cpu")
    with pytest.raises(DataError, match="its training's epochs is 2, not 3"):
        train_experts(toy_images(), tmp_path, NETWORK, replace(SHORT, epochs=3), number=2, device="cpu")


def test_one_folder_holds_one_kind_of_experts(tmp_path: Path) -> None:
    data = toy_images()
    train_experts(data, tmp_path / "a", NETWORK, SHORT, number=2, device="cpu")
    (other,) = train_experts(data, tmp_path / "b", NETWORK, replace(SHORT, rho=0.1), number=1, device="cpu")
    assert len(open_experts(tmp_path / "a", NETWORK, data, 1)) == 1
    with pytest.raises(OptionError, match="has 2 experts, and number 2 is not among them; train it with"):
        open_experts(tmp_path / "a", NETWORK, data, 3)
    # a file by another's name
    expert_path(tmp_path / "a", 2).write_bytes(expert_path(tmp_path / "a", 1).read_bytes())
    with pytest.raises(DataError, match="its number is 1, not 2"):
        open_experts(tmp_path / "a", NETWORK, data)
    expert_path(tmp_path / "a", 2).unlink()
    expert_path(tmp_path / "b", 1).write_bytes(expert_path(tmp_path / "a", 1).read_bytes())
    with pytest.raises(DataError, match=r"its training's rho is 0\.0, not 0\.1"):
        open_experts(tmp_path / "b", NETWORK, data)
    other.unlink()
    with pytest.raises(OptionError, match="number 0 is not among them"):
        open_experts(tmp_path / "b", NETWORK, data)
    with pytest.raises(OptionError, match="cannot read the folder of experts"):
        open_experts(tmp_path / "c", NETWORK, data)


class Harm:
    """A pickle that would leave a trace if it were loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('executed')",))


def pickled() -> bytes:
    file = io.BytesIO()
    torch.save({"snapshots": Harm()}, file, pickle_protocol=2)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", pickle.dumps(Harm()), pickled(), b"\xff" * 4000],
    ids=["empty", "short", "pickle", "pt", "ff"],
)
def test_what_is_no_expert_is_refused_and_never_run(tmp_path: Path, content: bytes) -> None:
    expert_path(tmp_path, 0).write_bytes(content)
    for use in (partial(open_experts, tmp_path, NETWORK, toy_images()), partial(read_expert, expert_path(tmp_path, 0))):
        with pytest.raises(FormatError, match=r"expert-00000\.safetensors"):
            use()
    with pytest.raises(FormatError):
        train_experts(toy_images(), tmp_path, NETWORK, SHORT, number=1, device="cpu")
    assert expert_path(tmp_path, 0).read_bytes() == content


def test_an_altered_or_truncated_file_is_refused(tmp_path: Path) -> None:
    (path,) = train_experts(toy_images(), tmp_path, NETWORK, SHORT, number=1, device="cpu")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(FormatError, match="is not a ddplug file that can be read"):
        read_expert(path)
    path.unlink()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(FormatError, match="altered or damaged: its content has another checksum"):
        read_expert(path)
    expert = read_expert(path, whole=False)
    assert torch.equal(expert.at(1), expert.snapshots[1])
    with pytest.raises(FormatError, match="altered or damaged: its snapshot 2 does not have the checksum"):
        expert.at(2)


def rewritten(path: Path, tensors: Mapping[str, Tensor], **header: Any) -> None:
    """Write a file again with some of it changed, by the library's own writer."""
    old, told = read_tensors(path, "expert")
    write_tensors(path, "expert", {**old, **tensors}, {**told, **header})


@pytest.mark.parametrize(
    ("tensors", "header", "message"),
    [
        ({"more": torch.zeros(1)}, {}, r"it holds the tensors \['more', 'snapshots'\]"),
        ({"snapshots": torch.zeros(3)}, {}, r"its snapshots are torch.float32 of the shape \(3,\)"),
        ({"snapshots": torch.zeros(3, 2, dtype=torch.int64)}, {}, "its snapshots are torch.int64"),
        ({"snapshots": torch.zeros(4, 2)}, {}, "it has 4 snapshots and other checksums"),
        ({"snapshots": torch.zeros(3, 2)}, {}, "its snapshots have 2 numbers, its parameters"),
        ({}, {"sha256": [1, 2, 3]}, "other checksums"),
        ({}, {"parameters": 3}, "its parameters are 3"),
        ({}, {"parameters": [["a", ["b"]]]}, "its parameters are"),
    ],
)
def test_unsound_layouts_are_refused(
    tmp_path: Path, tensors: dict[str, Tensor], header: dict[str, Any], message: str
) -> None:
    (path,) = train_experts(toy_images(), tmp_path, NETWORK, SHORT, number=1, device="cpu")
    rewritten(path, tensors, **header)
    with pytest.raises(FormatError, match=message):
        read_expert(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    (path,) = train_experts(toy_images(), tmp_path, NETWORK, SHORT, number=1, device="cpu")
    rows = read_expert(path).snapshots.clone()
    rows[1, 3] = torch.nan
    rewritten(path, {"snapshots": rows}, sha256=[experts._sum(row) for row in rows])
    assert len(read_expert(path).at(0)) == rows.shape[1]
    with pytest.raises(FormatError, match="its snapshot 1"):
        read_expert(path).at(1)


def test_bad_requests(tmp_path: Path) -> None:
    data = toy_images()
    with pytest.raises(OptionError, match="running statistics of 'convnet:norm=batch'"):
        train_experts(data, tmp_path, "convnet:norm=batch", SHORT, device="cpu")
    with pytest.raises(OptionError, match="the number of experts is 0"):
        train_experts(data, tmp_path, NETWORK, SHORT, number=0)
    with pytest.raises(OptionError, match=r"alpha is 0.3 and rho is 0; flat experts need both"):
        ExpertTraining(alpha=0.3)
    with pytest.raises(OptionError, match="epochs is 0; it must be at least 1"):
        ExpertTraining(epochs=0)
    with pytest.raises(DivergedError, match=r"diverged to NaN or infinity in epoch \d+ with learning_rate=1e\+30"):
        train_experts(
            data, tmp_path, NETWORK, replace(SHORT, learning_rate=1e30, epoch_steps=4), number=1, device="cpu"
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot make the folder"):
        train_experts(data, tmp_path / "file", NETWORK, SHORT, number=1, device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_rows_of_a_table(tmp_path: Path) -> None:
    (path,) = train_experts(toy_table(), tmp_path, "mlp:width=4", SHORT, number=1, device="cpu")
    assert len(open_experts(tmp_path, "mlp:width=4", toy_table())) == 1 and path.exists()
