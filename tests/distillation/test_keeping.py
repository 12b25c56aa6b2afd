"""What a run keeps however it ends: its preparation, its last good step, and why a checkpoint is not taken up."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from ddplug import registry
from ddplug.cli.program import main
from ddplug.distillation import callbacks
from ddplug.distillation.checkpoint import KIND, PARTS
from ddplug.distillation.loop import distill
from ddplug.errors import CheckpointError, FormatError, OptionError
from ddplug.testing import made_small, toy_images
from ddplug.utils import files
from ddplug.utils.files import read_tensors, write_tensors
from ddplug.utils.locks import locked
from ddplug.utils.preparation import Keeper, Part, keeping, kept
from ddplug.utils.signals import stoppable
from tests.toy_distillers import MeanMatching

METHOD = MeanMatching(images_per_class=2, steps=10)
PREPARING = ("difficulty", "dm", "el2n", "forgetting", "frepo", "idm", "mtt", "ncfm", "rded", "sre2l")


@dataclass
class At:
    """Raises, or does something else, at a step."""

    number: int
    act: Any

    def start(self, total: int, done: int, name: str) -> None:
        pass

    def step(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        if step == self.number:
            self.act()

    def close(self) -> None:
        pass


def fail(error: BaseException) -> Any:
    def act() -> None:
        raise error

    return act


def run(path: Path | None = None, method: Any = METHOD, **options: Any) -> Tensor:
    return distill(toy_images(), method, device="cpu", checkpoint=path, **options).inputs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own" / "run"


@pytest.fixture(autouse=True)
def folders(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.mark.parametrize("name", PREPARING)
def test_preparation_goes_on_where_it_was_stopped(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = made_small(registry.resolve("distiller", name)())
    method = replace(method, steps=1) if method.steps else method
    made: list[int] = []
    stop = 3
    put = Keeper.put

    def counted(self: Keeper, number: int, part: Part) -> None:
        put(self, number, part)
        made.append(number)
        if len(made) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Keeper, "put", counted)
    with pytest.raises(KeyboardInterrupt):
        run(path, method)
    assert 1 <= read_tensors(path, KIND)[1][PARTS] <= 3
    resumed = run(path, method)
    again, stop = made[stop:], 0
    made.clear()
    assert torch.equal(run(None, method), resumed)
    assert again == made[3:]  # nothing was done twice, nothing was left out
    assert os.listdir(path.parent) == ["run"]


def test_parts_are_written_now_and_then_and_belong_to_a_run(path: Path) -> None:
    method = made_small(registry.resolve("distiller", "forgetting")())
    seen: list[Any] = []
    keeper_put = Keeper.put

    def put(self: Keeper, number: int, part: Part) -> None:
        keeper_put(self, number, part)
        seen.append(path.exists())
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Keeper, "put", put)
        with pytest.raises(KeyboardInterrupt), stoppable(passing_on=False):
            run(path, method, checkpoint_every=0)
    assert seen == [True, True]
    with pytest.raises(CheckpointError, match="its hyper-parameter keep was 'easy' and is now 'hard'"):
        run(path, replace(method, keep="hard"))
    tensors, header = read_tensors(path, KIND)
    write_tensors(path, KIND, {name: t[:1] if t.ndim else t for name, t in tensors.items()}, header)
    with pytest.raises(FormatError, match="is not a valid checkpoint"):
        run(path, method)


def test_what_a_part_calls_is_part_of_it() -> None:
    rng, count = torch.Generator().manual_seed(0), []

    def make() -> dict[str, Tensor]:
        count.append(1)
        return {**kept(rng, lambda: {"inner": torch.rand(1, generator=rng)}), "x": torch.rand(1, generator=rng)}

    first = Keeper(lambda parts: None, 1e9)
    with keeping(first):
        before = [kept(rng, make) for _ in range(2)]
    rng.manual_seed(0)
    with keeping(Keeper(lambda parts: None, 1e9, dict(first.parts))):
        after = [kept(rng, make) for _ in range(3)]
    assert after[:2] == before
    assert len(count) == 3
    assert len(first.parts) == 2


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError(), KeyboardInterrupt(), SystemExit(1)])
def test_any_error_keeps_the_last_good_step(error: BaseException, path: Path) -> None:
    with pytest.raises(type(error)):
        run(path, callbacks=[At(6, fail(error))])
    assert read_tensors(path, KIND)[1]["step"] == 5
    assert torch.equal(run(path), run())


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_save_and_a_second_does_not_tear_that(
    number: signal.Signals, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act() -> None:
        os.kill(os.getpid(), number)

    write = os.fsync

    def again(descriptor: int) -> None:
        act()
        write(descriptor)

    monkeypatch.setattr(os, "fsync", again)
    with pytest.raises(KeyboardInterrupt), stoppable(passing_on=False):
        run(path, callbacks=[At(4, act)])
    monkeypatch.undo()
    assert read_tensors(path, KIND)[1]["step"] == 3
    assert torch.equal(run(path), run())


def test_a_signal_in_the_middle_of_a_save_waits_for_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def send(descriptor: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", send)
    with pytest.raises(KeyboardInterrupt), stoppable(passing_on=False):
        run(path, checkpoint_every=0)
    monkeypatch.undo()
    assert read_tensors(path, KIND)[1]["step"] == 1
    assert torch.equal(run(path), run())


def test_a_folder_that_goes_away_loses_nothing(path: Path, tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"does not exist.*; the run is kept in .*ddplug-.*\.checkpoint: go on"
    ) as told:
        run(path, callbacks=[At(6, lambda: shutil.rmtree(path.parent))], checkpoint_every=0)
    (kept_in,) = (tmp_path / "temporary").iterdir()
    assert str(kept_in) in str(told.value)
    assert read_tensors(kept_in, KIND)[1]["step"] == 6
    assert torch.equal(run(kept_in), run())


def test_two_runs_do_not_share_a_checkpoint(path: Path) -> None:
    with locked(path), pytest.raises(OptionError, match="another run"):
        run(path)


@dataclass(frozen=True)
class Annealed(MeanMatching):
    """Whose updates depend on how many there are to be."""

    anneals: ClassVar[bool] = True


def test_steps_of_an_annealed_run_cannot_be_changed(path: Path) -> None:
    method = Annealed(images_per_class=2, steps=10)
    run(path, method, steps=4)
    with pytest.raises(CheckpointError, match="its hyper-parameter steps was 10 and is now 20"):
        run(path, replace(method, steps=20))
    assert torch.equal(run(path, method), run(None, method))


@pytest.mark.parametrize("name", ["dp-dm", "frepo", "sre2l", "dd", "soft-label-dd"])
def test_the_methods_that_anneal_say_so(name: str) -> None:
    method = registry.resolve("distiller", name)()
    assert method.anneals is (getattr(method, "halve_every", 0) == 0)
    assert not getattr(registry.resolve("distiller", "dm"), "anneals", False)


@pytest.mark.parametrize("images", [torch.zeros(3), torch.zeros(1, 1, 8, 8), torch.zeros(6, 1, 7, 8)])
def test_tensors_that_the_method_does_not_expect_are_refused(images: Tensor, path: Path) -> None:
    run(path, steps=3)
    tensors, header = read_tensors(path, KIND)
    for name in ("state.images", "state.seen"):
        for change in ({name: images}, {}):
            write_tensors(path, KIND, {**{k: t for k, t in tensors.items() if k != name}, **change}, header)
            before = path.read_bytes()
            if name == "state.images" or not change:
                with pytest.raises(FormatError, match="is not a valid checkpoint") as caught:
                    run(path)
                assert "\n" not in str(caught.value)
                assert path.read_bytes() == before


def test_other_versions_and_missing_checksums_are_noted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(path, steps=3)
    assert not caplog.messages
    tensors, header = read_tensors(path, KIND)
    write_tensors(path, KIND, tensors, {**header, "versions": {**header["versions"], "torch": "0.4.1"}})
    assert torch.equal(run(path), run())
    assert caplog.messages == [
        f"{path} is of torch 0.4.1, now {torch.__version__}: the numbers may differ from those of one run"
    ]


@pytest.mark.parametrize(
    ("name", "shown"), [("x" * 256, "256 characters; the limit is 255"), ("caf\udce9", "is not Unicode")]
)
def test_names_that_no_file_holds_are_refused_before(name: str, shown: str, path: Path) -> None:
    data = replace(toy_images(), class_names=("a", "b", name))
    for checkpoint in (path, None):  # a set that cannot be saved is no use, kept or not
        with pytest.raises(OptionError, match=f"{shown}, and cannot be stored; rename the class"):
            distill(data, METHOD, device="cpu", checkpoint=checkpoint, callbacks=[At(1, fail(AssertionError()))])


def test_the_command_ends_as_signals_do(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "distill",
        "dm",
        "--data",
        "digits",
        "--network",
        "convnet:width=4,depth=1",
        "--pool",
        "1",
        "--device",
        "cpu",
    ]
    argv += ["--images-per-class", "1", "--steps", "4", "--checkpoint-every", "0", "-o"]
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.ProgressBar, "step", lambda self, step, metrics: os.kill(os.getpid(), signal.SIGTERM))
        assert main([*argv, str(path)]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == (f"ddplug: stopped by SIGTERM; the same command resumes from {path}.checkpoint\n")
    assert main([*argv, str(path)]) == 0 == main([*argv, str(path.with_name("whole"))])
    assert files.read_tensors(path, "synthetic-set")[0]["inputs"].equal(
        files.read_tensors(path.with_name("whole"), "synthetic-set")[0]["inputs"]
    )
    assert sorted(os.listdir(path.parent)) == ["run", "whole"]
