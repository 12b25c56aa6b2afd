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
from ddplug.data.preprocess import Identity
from ddplug.distillation.config import config_of
from ddplug.distillers.dm import DM
from ddplug.distillers.ncfm import NCFM
from ddplug.distillers.selection.base import Selection
from ddplug.distillers.selection.difficulty import Difficulty
from ddplug.errors import OptionError
from ddplug.synthetic.dataset import SyntheticSet


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
        each = seconds[distiller.name]
        return auto.Pace(each, dict.fromkeys(distiller.work(), each), each)

    return pace


@pytest.mark.parametrize(
    ("seconds", "name", "steps"),
    [(0.5, "random", 0), (3.5, "kmeans-centroid", 0), (180, "dm", 100), (450, "dm", 300), (2e4, "ncfm", 500)],
)
def test_the_last_level_that_fits_is_taken(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: float, name: str, steps: int
) -> None:
    monkeypatch.setattr(auto, "pace_of", costing({"kmeans-centroid": 1, "dm": 1, "ncfm": 1}))
    choice = auto.choose(images(16, each=10), seconds=seconds, nbytes=3000, device="cpu")
    assert (choice.distiller.name, choice.distiller.steps) == (name, steps)
    assert clock.now + choice.seconds <= max(1.0, seconds)
    assert (choice.declined is None) == (seconds == 2e4)


def test_photographs_get_a_better_teacher_where_there_is_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images(16, 3, each=200)
    small, large = (level for level in auto.REAL if isinstance(level, Difficulty))
    seconds = {small.teacher: 10.0, large.teacher: 100.0}

    def pace(level: Any, data: LabeledData) -> auto.Pace:
        return auto.Pace(seconds[level.teacher], dict.fromkeys(level.work(), 0.0))

    monkeypatch.setattr(auto, "pace_of", pace)
    short, long = (auto.choose(data, seconds=most, nbytes=20_000, device="cpu") for most in (60, 600))
    assert short.declined == ("difficulty --teacher convnet:width=64,norm=batch --teacher-epochs 10", 100.0)
    chosen: list[Any] = [short.distiller, long.distiller]
    assert [level.teacher for level in chosen] == [small.teacher, large.teacher]
    drawings = replace(data, inputs=data.inputs.round())
    assert [choice.distiller.name for choice in auto.candidates(drawings, 20_000)] == ["random", "difficulty"]


def test_what_does_not_fit_in_memory_is_not_taken(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "pace_of", lambda *_: auto.Pace(0, {"views": 0, "training steps": 0}))
    monkeypatch.setattr("ddplug.distillation.memory.available", lambda device: 10_000)
    assert auto.choose(images(16, each=10), nbytes=3000, device="cpu").distiller.name == "kmeans-centroid"


def test_levels_become_dearer() -> None:
    pace = auto.Pace(1, {"views": 1, "training steps": 0.1}, 0.1)
    costs = [pace.seconds(level) if level.steps else 0 for level in auto.LEARNED]
    assert costs == sorted(costs)


@pytest.mark.parametrize("level", [*auto.REAL, *auto.LEARNED])
def test_each_part_of_the_work_is_tried_apart(level: Any) -> None:
    for part in level.work():
        little, more = (level.trial(**{part: number}) for number in (0, 4))
        assert config_of(little) != config_of(more)
    assert level.trial().steps == level.steps


def test_many_real_images_are_selected_and_few_are_learned() -> None:
    data = images(16, each=200)
    many, few = (auto.candidates(data, nbytes) for nbytes in (20_000, 400))
    assert [choice.distiller.name for choice in many] == ["random", "difficulty", "difficulty"]
    assert [choice.distiller.name for choice in few] == ["random", "kmeans-centroid", "dm", "dm", "ncfm"]
    assert many[0].distiller.images_per_class > auto.FEW >= few[0].distiller.images_per_class
    assert {choice.nbytes for choice in few} == {400}


@pytest.mark.parametrize("nbytes", [600, 20_000])
def test_sets_without_real_images(nbytes: int) -> None:
    choices = auto.candidates(images(16, each=200), nbytes, real=False)
    assert choices
    assert not any(choice.distiller.real_images for choice in choices)


@pytest.mark.parametrize(("side", "channels"), [(6, 1), (16, 1), (29, 3)])
def test_sets_fill_the_bytes_and_no_more(side: int, channels: int) -> None:
    data = images(side, channels)
    for choice in auto.candidates(data, 2500):
        distiller: Any = choice.distiller
        assert getattr(distiller, "factor", 1) == (2 if side >= 16 and distiller.steps else 1)
        if distiller.name in ("dm", "ncfm"):
            distiller = replace(distiller, steps=0, pool_size=1, network="convnet:width=2,depth=1")
        if distiller.name == "ncfm":
            distiller = replace(distiller, networks=1, train_steps=0)
        if distiller.name == "difficulty":
            distiller = replace(distiller, teacher="convnet:width=2,depth=1", teacher_epochs=1, window=(0.0, 1.0))
        made = distill(data, distiller, nbytes=choice.nbytes, codec=choice.codec, device="cpu")
        assert made.shape == data.shape
        assert made.nbytes <= 2500
        if distiller.name == "random":
            assert made.nbytes > 1700 or len(made) == len(data)


def test_learned_photographs_are_not_held_by_a_codec_of_photographs() -> None:
    data = images(16, 3, each=5)
    few = {choice.distiller.name: choice.codec for choice in auto.candidates(data, 350)}
    assert few == {"random": "avif:quality=5", "kmeans-centroid": "avif:quality=5"}  # not all fit
    every = distill(data, "random", images_per_class=5, device="cpu")
    finest = max(q for q in range(5, 95, 5) if every.compress(f"avif:quality={q}").nbytes <= 2000)
    codecs = {choice.distiller.name: choice.codec for choice in auto.candidates(data, 2000)}
    assert codecs == {
        "random": f"avif:quality={finest}",
        "kmeans-centroid": f"avif:quality={finest}",
        "dm": "pixels:bits=2",
        "ncfm": "pixels:bits=2",
    }


def test_tables_get_what_selects() -> None:
    rng = torch.Generator().manual_seed(0)
    table = LabeledData(torch.randn(90, 5, generator=rng), torch.arange(90) % 3, 3, Identity(), ("a", "b", "c"), "t")
    assert {choice.distiller.name for choice in auto.candidates(table, 100)} == {"random", "difficulty"}
    assert {choice.distiller.name for choice in auto.candidates(table, 100, real=False)} == {"kmeans-centroid"}
    assert auto.choose(table, seconds=6000, nbytes=100, device="cpu").distiller.name == "difficulty"


def test_too_few_bytes_name_what_suffices() -> None:
    data = images(20)
    with pytest.raises(
        OptionError, match=r"20 bytes are too few for one image of each of 3 classes, which take (\d+)"
    ) as e:
        auto.choose(data, nbytes=20, device="cpu")
    enough = int(str(e.value).split("which take ")[1].split(" ")[0])
    assert auto.candidates(data, enough)
    with pytest.raises(OptionError):
        auto.candidates(data, enough - 1)


def test_no_time_is_refused() -> None:
    with pytest.raises(OptionError, match="seconds is 0; it must be above 0"):
        auto.choose(images(8), seconds=0, device="cpu")


AUTO = ["distill", "auto", "--data", "digits", "--device", "cpu", "--bytes", "300B"]


def test_command_repeats_itself_by_the_options_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "LEARNED", (DM(steps=3, pool_size=2),))
    first, second = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    assert main([*AUTO, "--budget", "1h", "-o", first]) == 0
    said = capsys.readouterr().err.split("ddplug distill ")[1].split("\n")[0]
    assert said == "dm --steps 3 --pool-size 2 --bytes 300B --codec pixels:bits=2"
    assert main(["distill", *said.split(), "--data", "digits", "--device", "cpu", "-o", second]) == 0
    one, two = SyntheticSet.load(first), SyntheticSet.load(second)
    assert one.nbytes <= 300
    assert torch.equal(one.inputs, two.inputs)


def test_command_without_real_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "a.safetensors")
    assert main([*AUTO, "--no-real", "--budget", "1s", "-o", out]) == 0
    made = SyntheticSet.load(out)
    assert (made.provenance["method"], made.provenance["real_images"]) == ("kmeans-centroid", False)


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


@pytest.mark.parametrize("network", ["convnet:width=4,depth=1", "auto"])
def test_interrupted_choice_goes_on_and_another_one_does_not(
    network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, straight = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    monkeypatch.setattr(auto, "LEARNED", (DM(steps=4, pool_size=2, network=network),))
    data = ddplug.load_dataset("digits")
    choice = auto.candidates(data, 300)[1]

    def run(steps: int | None, path: str | None) -> SyntheticSet:
        options: Any = {"nbytes": choice.nbytes, "codec": choice.codec, "device": "cpu", "checkpoint": path}
        return distill(data, choice.distiller, steps=steps, **options)

    run(2, f"{out}.checkpoint")

    def refuse(*given: Any, **options: Any) -> None:
        raise AssertionError("chosen again")

    with monkeypatch.context() as patched:
        patched.setattr(auto, "choose", refuse)
        assert main([*AUTO[:-1], "400B", "-o", out]) == 2
        assert "dm is not what auto takes for 400 bytes" in capsys.readouterr().err
        assert main([*AUTO, "-o", out]) == 0
    assert "continues with ddplug distill dm" in capsys.readouterr().err
    run(None, None).save(straight)
    assert torch.equal(SyntheticSet.load(out).inputs, SyntheticSet.load(straight).inputs)


@pytest.mark.parametrize(
    ("option", "text"),
    [("--budget", "0s"), ("--budget", "5x"), ("--budget", "-1"), ("--bytes", "1e3"), ("--bytes", "")],
)
def test_quantities_are_checked(capsys: pytest.CaptureFixture[str], option: str, text: str) -> None:
    assert main(["distill", "auto", "--data", "digits", "-o", "x.safetensors", f"{option}={text}"]) == 2
    assert f"argument {option} is {text!r}; it must be a" in capsys.readouterr().err
