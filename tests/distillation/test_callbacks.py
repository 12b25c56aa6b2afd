"""Logs that survive a resume, and a bar that shows what it should and reads no more than it must."""

from __future__ import annotations

import csv
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddplug.distillation.callbacks import Callback, CsvLog, ProgressBar, TensorBoardLog
from ddplug.distillation.loop import distill
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.rded import RDED
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import MissingExtraError, OptionError
from ddplug.testing import toy_images
from ddplug.utils.progress import progress
from tests.toy_distillers import MeanMatching


def run(*callbacks: Callback, steps: int = 20, **options: Any) -> None:
    distill(toy_images(), MeanMatching(steps=steps), device="cpu", callbacks=callbacks, **options)


def rows(path: Path) -> list[list[str]]:
    """Return the table without its seconds."""
    with path.open(newline="") as file:
        return [[row[0], *row[2:]] for row in csv.reader(file)]


class Counted(Tensor):
    """A loss that counts how often it is read."""

    reads = 0

    def item(self) -> Any:
        Counted.reads += 1
        return super().item()

    def __float__(self) -> float:
        return float(self.item())


def test_csv_holds_the_losses_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    run(CsvLog(path, every=5))
    data, method = toy_images(), MeanMatching()
    rng = torch.Generator().manual_seed(0)
    state, expected = method.init(data, rng), [["step", "loss"]]
    for step in range(1, 21):
        state, metrics = method.step(state, data, rng)
        if step % 5 == 0:
            expected.append([str(step), repr(metrics["loss"].item())])
    assert rows(path) == expected
    assert path.read_text().startswith("step,seconds,loss\n5,0.")


def test_csv_of_a_resumed_run_is_that_of_a_whole_one(tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole.csv", tmp_path / "parted.csv"
    run(CsvLog(whole, every=2), steps=10)
    run(CsvLog(parted, every=2), steps=5, checkpoint=tmp_path / "run")
    # what a killed run leaves: rows beyond its checkpoint, the last one cut off
    with parted.open("a") as file:
        file.write("6,0.100,77.0\n8,0.200,88.0\n10,0.3")
    run(CsvLog(parted, every=2), steps=10, checkpoint=tmp_path / "run")
    assert rows(parted) == rows(whole)
    seconds = [float(line.split(",")[1]) for line in parted.read_text().splitlines()[1:]]
    assert seconds == sorted(seconds)


def test_csv_of_a_run_that_begins_anew_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("something else\n")
    run(CsvLog(path, every=1), steps=2)
    assert [row[0] for row in rows(path)] == ["step", "1", "2"]


@pytest.mark.parametrize("steps", [3, 6])
def test_csv_of_a_short_first_part_has_its_header_once(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "log.csv"
    run(CsvLog(path, every=5), steps=steps, checkpoint=tmp_path / "run")
    run(CsvLog(path, every=5), steps=10, checkpoint=tmp_path / "run")
    assert [row[0] for row in rows(path)] == ["step", "5", "10"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,age\nx,3\n", "its columns are 'name,age'"),
        ("step,seconds,loss\nx,3,4\n", "invalid literal"),
        ("step,seconds,accuracy\n5,0.1,0.5\n", r"has the columns \['step', 'seconds', 'accuracy'\], not \['step'"),
    ],
)
def test_a_csv_that_is_not_the_log_of_the_run_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "log.csv"
    run(steps=5, checkpoint=tmp_path / "run")
    path.write_text(content)
    with pytest.raises(OptionError, match=message) as caught:
        run(CsvLog(path), steps=10, checkpoint=tmp_path / "run")
    assert str(path) in str(caught.value)
    assert path.read_text() == content


def test_logs_refuse_bad_options(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="every is 0; it must be at least 1"):
        CsvLog(tmp_path / "log.csv", every=0)
    with pytest.raises(OptionError, match=r"folder .*nowhere does not exist"):
        CsvLog(tmp_path / "nowhere" / "log.csv")


def test_bar_shows_steps_and_loss_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    run(ProgressBar(force=True, interval=0.0))
    out, err = capsys.readouterr()
    assert out == ""
    assert "mean-matching" in err
    assert "20/20" in err
    assert "loss " in err


def test_bar_goes_on_where_a_resumed_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(steps=15, checkpoint=tmp_path / "run")
    run(ProgressBar(force=True, interval=0.0), checkpoint=tmp_path / "run")
    err = capsys.readouterr().err
    assert "15/20" in err
    assert "14/20" not in err
    assert "20/20" in err


def test_bar_is_quiet_without_a_terminal_and_without_steps(capsys: pytest.CaptureFixture[str]) -> None:
    run(ProgressBar(), steps=3)
    run(ProgressBar(force=True), steps=0)
    assert capsys.readouterr() == ("", "")


def test_bar_is_closed_after_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar(force=True)
    bar.close()
    with pytest.raises(OptionError, match="images per class is 99"):
        distill(toy_images(), MeanMatching(images_per_class=99), device="cpu", callbacks=[bar])
    assert capsys.readouterr().err == ""


HALF = type("Half", (), {"start": print, "step": print})()


@pytest.mark.parametrize(("wrong", "lacking"), [(print, "start and no step and no close"), (HALF, "close")])
def test_what_is_no_callback_is_refused_before_the_run(wrong: Any, lacking: str) -> None:
    with pytest.raises(OptionError, match=f"has no {lacking}; give an object with start, step and close"):
        distill(toy_images(), MeanMatching(), device="cpu", callbacks=[wrong])


def test_metrics_are_read_only_when_shown(tmp_path: Path) -> None:
    loss = torch.tensor(1.5).as_subclass(Counted)
    Counted.reads = 0
    log, bar, board = CsvLog(tmp_path / "log.csv", every=10), ProgressBar(interval=1e9), board_log(tmp_path / "tb", 10)
    for callback in (log, bar, board):
        callback.start(30, 0, "x")
        for step in range(1, 31):
            callback.step(step, {"loss": loss})
        callback.close()
    assert Counted.reads == 6  # three rows and three entries; a bar that is not shown reads nothing


SMALL: dict[str, Any] = {"images_per_class": 1, "network": "convnet:width=4,depth=1"}


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize(
    ("method", "parts"),
    [
        (
            NCFM(**SMALL, networks=2, train_steps=1, pool_size=3, factor=1),
            ("preparing: networks:   0%|          | 0/2", "preparing: pool:   0%|          | 0/3", "ncfm: 100%"),
        ),
        (
            RDED(images_per_class=1, teacher=SMALL["network"], train_epochs=2, tiles=1),
            ("preparing: epochs:   0%|          | 0/2", "preparing: classes:   0%|          | 0/3"),
        ),
    ],
    ids=["ncfm", "rded"],
)
def test_bar_begins_before_the_first_step(
    method: Any, parts: tuple[str, ...], shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = [ProgressBar(force=True)] if shown else []
    made = distill(toy_images(), method, steps=method.steps and 1, device="cpu", callbacks=bars)
    said = capsys.readouterr().err
    for what in parts:
        assert (what in said) is shown
    assert list(progress(range(3), "pool_size")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    quiet = distill(toy_images(), method, steps=method.steps and 1, device="cpu")
    assert torch.equal(made.inputs, quiet.inputs)


def board_log(directory: Path, every: int) -> TensorBoardLog:
    with warnings.catch_warnings():  # TensorBoard's own imports
        warnings.simplefilter("ignore")
        return TensorBoardLog(directory, every=every)


def scalars(directory: Path) -> list[tuple[int, float]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
        events = module.EventAccumulator(str(directory))
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars("loss")]


def test_tensorboard_of_a_resumed_run_is_that_of_a_whole_one(tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    run(board_log(whole, 2), steps=10)
    assert [step for step, _ in scalars(whole)] == [2, 4, 6, 8, 10]
    run(board_log(parted, 2), steps=5, checkpoint=tmp_path / "run")
    late = board_log(parted, 2)  # entries beyond the checkpoint, as a killed run leaves them
    late.start(10, 5, "x")
    late.step(6, {"loss": torch.tensor(77.0)})
    late.close()
    run(board_log(parted, 2), steps=10, checkpoint=tmp_path / "run")
    assert scalars(parted) == scalars(whole)


def test_missing_tensorboard_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"TensorBoard cannot be used: .*; run `pip install tensorboard`"):
        TensorBoardLog(tmp_path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, r"^callbacks is a NoneType; give a list of them, \[\] for none$"),
        (ProgressBar(), "^callbacks is a ProgressBar; give a list"),
        ([ProgressBar], r"^a callback is the class ProgressBar; give an object, ProgressBar\(\.\.\.\)$"),
    ],
)
def test_what_is_no_list_of_callbacks_is_refused(given: Any, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        distill(toy_images(), "random", callbacks=given, device="cpu")


@pytest.mark.parametrize("method", [None, 3, Random])
def test_what_is_no_method_is_named_before_its_options(method: Any) -> None:
    with pytest.raises(OptionError, match="is not an instance of a dataclass; pass a distiller such as"):
        distill(toy_images(), method, images_per_class=1, device="cpu")


def test_a_method_before_the_data_is_told_of() -> None:
    data: Any = toy_images()
    with pytest.raises(OptionError, match=r"a LabeledData is no distiller; give the data first and then the method"):
        distill("random", data, images_per_class=1, device="cpu")
    assert len(distill(data, "random", images_per_class=1, device="cpu")) == data.num_classes  # as it says
