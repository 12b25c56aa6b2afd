"""Choosing for a budget: what fits the bytes, what fits the time by a clock that only work moves, and going on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import ddplug
from ddplug import auto, distill
from ddplug.cli.program import main
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity, fit
from ddplug.distillers.dm import DM
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.selection.base import Selection
from ddplug.errors import CheckpointError, OptionError
from ddplug.functional.packing import BITS
from ddplug.synthetic.budget import bytes_of, rows_within
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.testing import toy_images


def images(side: int, channels: int = 1, each: int = 40) -> LabeledData:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.rand(3 * each, channels, side, side, generator=rng)
    return LabeledData(inputs, torch.arange(3 * each) % 3, 3, Identity(), ("a", "b", "c"), "noise")


class Clock:
    """A clock that stands still unless somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


CLOCK = Clock()


@dataclass(frozen=True)
class Worker(NCFM):
    """A method whose every part takes its own time."""

    name: ClassVar[str] = "worker"
    images_per_class: int = 1
    steps: int = 7
    init_from: str = "noise"
    pool_size: int = 5
    networks: int = 3
    train_steps: int = 11
    factor: int = 1

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, torch.Tensor]:
        CLOCK.now += 1 + 2 * self.pool_size + 0.25 * self.networks * self.train_steps
        return {}

    def step(self, state: Any, data: LabeledData, rng: torch.Generator) -> tuple[Any, Any]:
        CLOCK.now += 16
        return {}, {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    CLOCK.now = 0.0
    monkeypatch.setattr(auto, "time", CLOCK)
    yield CLOCK


def test_estimate_is_the_sum_of_the_parts(clock: Clock) -> None:
    data = images(8)
    pace = auto.pace_of(Worker(), data)
    assert (pace.parts, pace.step) == ({"views": 2, "training steps": 0.25}, 16)
    before = clock.now
    Worker().init(data, torch.Generator())
    whole = clock.now - before + 7 * 16
    # what is done once is counted with the one view that it cannot be separated from
    assert pace.seconds(Worker()) == whole + 2


def test_time_of_a_selection_grows_with_the_data(clock: Clock) -> None:
    class Slow(Selection):
        def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, torch.Tensor]:
            CLOCK.now += 0.01 * len(data)
            return {}

    assert auto.pace_of(Slow(), images(4, each=700)).seconds(Slow()) == pytest.approx(21)


def costing(seconds: dict[str, float]) -> Any:
    def pace(distiller: Any, data: LabeledData) -> auto.Pace:
        CLOCK.now += 1
        parts = {"views": 0.0, "training steps": 0.0}
        return auto.Pace(seconds[distiller.name], parts, seconds[distiller.name])

    return pace


@pytest.mark.parametrize(
    ("seconds", "name", "steps"),
    [(0.5, "random", 0), (3.5, "kmeans-centroid", 0), (180, "dm", 100), (400, "dm", 300), (2e4, "ncfm", 500)],
)
def test_the_last_level_that_fits_is_taken(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: float, name: str, steps: int
) -> None:
    monkeypatch.setattr(auto, "pace_of", costing({"kmeans-centroid": 1, "dm": 1, "ncfm": 10}))
    choice = auto.choose(images(16), seconds=seconds, nbytes=5000, device="cpu")
    assert (choice.distiller.name, choice.distiller.steps) == (name, steps)
    assert clock.now + choice.seconds <= max(1.0, seconds)
    assert (choice.declined is None) == (seconds == 2e4)


def test_what_does_not_fit_in_memory_is_not_taken(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "pace_of", lambda *_: auto.Pace(0, {"views": 0, "training steps": 0}))
    monkeypatch.setattr("ddplug.distillation.memory.available", lambda device: 10_000)
    assert auto.choose(images(16), nbytes=5000, device="cpu").distiller.name == "kmeans-centroid"


def test_levels_become_dearer() -> None:
    pace = auto.Pace(1, {"views": 1, "training steps": 0.1}, 0.1)
    costs = [pace.seconds(level) if level.steps else 0 for level in auto.LEVELS]
    assert costs == sorted(costs)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (15, 3), (16, 1), (29, 3)])
def test_sets_fill_the_room_and_no_more(side: int, channels: int) -> None:
    data = images(side, channels, each=200)
    factor, bits = auto.factor_for(data), auto.bits_for(data)
    assert factor == (2 if side >= 16 else 1)
    for nbytes in (bytes_of(3, data, factor, bits), bytes_of(3, data), 3 * bytes_of(3, data) + 100):
        for choice in auto.candidates(data, nbytes):
            distiller: Any = choice.distiller
            assert choice.bits == bits
            if distiller.name in ("dm", "ncfm"):
                distiller = replace(distiller, steps=0, pool_size=1, network="convnet:width=2,depth=1")
            if distiller.name == "ncfm":
                distiller = replace(distiller, networks=1, train_steps=0)
            made = choice.stored(distill(data, distiller, device="cpu"))
            assert made.nbytes <= nbytes
            one_more = len(made) + 3 * (factor**2 if choice.reduced == 1 else 1)
            assert bytes_of(one_more, data, factor, bits) > nbytes
            assert made.shape == data.shape


def test_rows_are_the_most_that_fit() -> None:
    data = toy_images()
    for bits in BITS:
        for nbytes in range(8, 400, 7):
            rows = rows_within(nbytes, data, bits=bits)
            assert bytes_of(rows + 1, data, bits=bits) > nbytes
            assert rows == 0 or bytes_of(rows, data, bits=bits) <= nbytes


def test_methods_that_learn_want_the_room_of_a_whole_image() -> None:
    data = images(16)
    bits = auto.bits_for(data)
    names = [choice.distiller.name for choice in auto.candidates(data, bytes_of(9, data, 2, bits))]
    assert names == ["random", "kmeans-centroid"]
    assert len(auto.candidates(data, bytes_of(12, data, 2, bits))) == len(auto.LEVELS)


def test_more_room_than_there_are_samples() -> None:
    data = images(16, each=4)
    for choice in auto.candidates(data, 10**9):
        assert choice.distiller.images_per_class * getattr(choice.distiller, "factor", 1) ** 2 <= 4
        assert choice.bits == 8
    for bits in (2, 4):  # then they need not be so coarse
        for nbytes in (bytes_of(12, data, 2, bits), bytes_of(12, data, 2, 2 * bits) - 1):
            assert {choice.bits for choice in auto.candidates(data, nbytes)} == {bits}


def coarse(*, levels: int, noise: float = 0.0) -> LabeledData:
    """Return images of a few equal levels, each as frequent as the others."""
    data = images(8, each=400)
    rng = torch.Generator().manual_seed(1)
    stray = noise * torch.randn(data.inputs.shape, generator=rng)
    return replace(data, inputs=(data.inputs * levels).floor() / (levels - 1) + stray)


def test_bits_are_the_fewest_that_keep_what_is_there() -> None:
    assert auto.bits_for(coarse(levels=2)) == 1
    # a deviation of 1/2, and so an error of 0.45 of all at a noise of 0.25
    assert [auto.bits_for(coarse(levels=2, noise=noise)) for noise in (0.15, 0.35)] == [1, 2]
    # rounded to two levels even ones keep an error of 1/2 of their deviation, to four of 1/4
    assert auto.bits_for(images(8, each=400)) == 2
    # wherever the values lie, and whatever is done to them before
    moved = replace(coarse(levels=2), inputs=coarse(levels=2).inputs * 4000 - 1000)
    assert auto.bits_for(moved) == auto.bits_for(replace(moved, preprocess=fit("standardize", moved.inputs))) == 1
    assert auto.bits_for(replace(coarse(levels=2), preprocess=fit("zca", coarse(levels=2).inputs))) == 8
    assert auto.bits_for(ddplug.load_dataset("digits")) == 1


def test_too_few_bytes_name_what_suffices() -> None:
    data = images(20)
    with pytest.raises(OptionError, match=r"80 bytes are too few for an image of each of 3 classes; allow (\d+)") as e:
        auto.choose(data, nbytes=80, device="cpu")
    enough = int(str(e.value).split("allow ")[1].split(",")[0])
    assert auto.candidates(data, enough)
    with pytest.raises(OptionError):
        auto.candidates(data, enough - 1)


def test_tables_and_no_time_are_refused() -> None:
    table = LabeledData(torch.eye(20)[:, :5], torch.arange(20) % 2, 2, Identity(), ("a", "b"), "table")
    with pytest.raises(OptionError, match=r"rules for images only, not for inputs of shape \(5,\)"):
        auto.choose(table, device="cpu")
    with pytest.raises(OptionError, match="seconds is 0; it must be above 0"):
        auto.choose(images(8), seconds=0, device="cpu")


def test_whitened_images_stay_whole() -> None:
    data = images(20)
    assert auto.factor_for(data) == 2
    assert auto.factor_for(replace(data, preprocess=fit("zca", data.inputs))) == 1


AUTO = ["distill", "auto", "--data", "digits", "--device", "cpu", "--bytes", "1kB"]


def test_command_repeats_itself_by_the_options_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "LEVELS", (auto.LEVELS[0], auto.LEVELS[1], DM(steps=3, pool_size=2)))
    first, second = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    assert main([*AUTO, "--budget", "1h", "-o", first]) == 0
    said = capsys.readouterr().err.split("ddplug distill ")[1].split("\n")[0]
    assert said == "dm --images-per-class 11 --steps 3 --pool-size 2 --bits 1"
    assert main(["distill", *said.split(), "--data", "digits", "--device", "cpu", "-o", second]) == 0
    one, two = SyntheticSet.load(first), SyntheticSet.load(second)
    assert one.nbytes <= 1000
    assert torch.equal(one.inputs, two.inputs)


def test_command_reduces_what_selections_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "a.safetensors")
    argv = ["distill", "kmeans-centroid", "--images-per-class", "2", "--reduced", "2", "--quantise", "--data", "digits"]
    assert main([*argv, "--device", "cpu", "-o", out, "--json"]) == 0
    made = SyntheticSet.load(out)
    assert (made.inputs.shape, made.shape) == (torch.Size([20, 1, 4, 4]), (1, 8, 8))
    assert json.loads(capsys.readouterr().out)["nbytes"] == made.nbytes
    assert main([*argv[:4], "--reduced", "17", *argv[6:], "--device", "cpu", "-o", out]) == 2
    assert "--reduced is 17; it must be between 1 and 16" in capsys.readouterr().err
    monkeypatch.setattr(
        "ddplug.distillation.loop.distill", None
    )  # too large a factor is refused before the work is done
    assert main([*argv[:4], "--reduced", "9", *argv[6:], "--device", "cpu", "-o", out]) == 2
    assert "factor is 9, but images are 8x8; use at most 8" in capsys.readouterr().err


def test_interrupted_choice_goes_on_and_another_one_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, straight = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    level = DM(steps=4, pool_size=2, network="convnet:width=4,depth=1")
    monkeypatch.setattr(auto, "LEVELS", (auto.LEVELS[0], level))
    data = ddplug.load_dataset("digits")
    choice = auto.candidates(data, 1000)[1]
    distiller = choice.distiller
    distill(data, distiller, steps=2, device="cpu", checkpoint=f"{out}.checkpoint")

    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("chosen again")

    with monkeypatch.context() as patched:
        patched.setattr(auto, "choose", refuse)
        assert main([*AUTO[:-1], "2kB", "-o", out]) == 2
        assert "dm is not what auto takes for 2000 bytes" in capsys.readouterr().err
        assert main([*AUTO, "-o", out]) == 0
    assert "goes on with ddplug distill dm" in capsys.readouterr().err
    choice.stored(distill(data, distiller, device="cpu")).save(straight)
    assert torch.equal(SyntheticSet.load(out).inputs, SyntheticSet.load(straight).inputs)
    with pytest.raises(CheckpointError):
        distill(data, distiller, steps=1, device="cpu", checkpoint=f"{straight}.checkpoint")
        auto.resumed(f"{straight}.checkpoint", data, 3000)


@pytest.mark.parametrize(
    ("option", "text"),
    [("--budget", "0s"), ("--budget", "5x"), ("--budget", "-1"), ("--bytes", "1e3"), ("--bytes", "")],
)
def test_quantities_are_checked(capsys: pytest.CaptureFixture[str], option: str, text: str) -> None:
    assert main(["distill", "auto", "--data", "digits", "-o", "x.safetensors", f"{option}={text}"]) == 2
    assert f"argument {option} is {text!r}; it must be a" in capsys.readouterr().err
