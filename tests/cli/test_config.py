"""``ddplug distill --config``: a set is made again from its own account, and a run from a TOML file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from ddplug.cli.program import main
from ddplug.distillation import distill
from ddplug.distillers.dm import DM
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.testing import toy_images

ACCOUNT = ("method", "config", "seed", "data", "steps", "codec", "nbytes", "quantisation_rmse")

MADE: dict[str, str] = {
    "plain": "random --images-per-class 2 --seed 7",
    "learned, with a factor": "dm --network mlp:width=4 --pool-size 1 --steps 2 --factor 2 --images-per-class 1",
    "bits and reduced": "class-mean --images-per-class 2 --bits 2 --reduced 3",
    "bytes and a codec": "random --bytes 1kB --codec pixels:bits=2",
    "shares": "difficulty --images-per-class 1 --teacher mlp:width=4 --teacher-epochs 1 --max-samples-per-class 5 "
    "--window 0,0.5",
}


def make(path: Path, *words: str) -> SyntheticSet:
    assert main(["distill", *words, "--device", "cpu", "-o", str(path)]) == 0
    return SyntheticSet.load(path)


def line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["distill", *words, "-o", "never.safetensors"]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("case", MADE)
def test_a_set_is_made_again_bit_for_bit(case: str, tmp_path: Path) -> None:
    method, *options = MADE[case].split()
    made = make(tmp_path / "one.safetensors", method, "--data", "digits", *options)
    again = make(tmp_path / "two.safetensors", "--config", str(tmp_path / "one.safetensors"))
    assert torch.equal(made.inputs, again.inputs) and torch.equal(made.targets, again.targets)
    assert (made.nbytes, made.bits, made.network_shape) == (again.nbytes, again.bits, again.network_shape)
    for name in ACCOUNT:
        assert made.provenance.get(name) == again.provenance.get(name)


def test_what_is_typed_wins(tmp_path: Path) -> None:
    one = str(tmp_path / "one.safetensors")
    make(Path(one), "random", "--data", "digits", "--bytes", "1kB")
    other = make(tmp_path / "two.safetensors", "--config", one, "--seed", "3", "--images-per-class", "2")
    assert (len(other), other.provenance["seed"], "nbytes" in other.provenance) == (20, 3, False)
    assert other.provenance["codec"] == SyntheticSet.load(one).provenance["codec"]


def test_other_data_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(tmp_path / "one.safetensors")
    make(Path(one), "random", "--data", "digits", "--images-per-class", "2")
    make(tmp_path / "two.safetensors", "random", "--config", one, "--validation", "0.1")
    assert f"the data differ from those of {one}, so another set comes out" in capsys.readouterr().err


def test_a_toml_file_holds_the_words_of_the_command_line(tmp_path: Path) -> None:
    lines = ['method = "random"', 'data = "digits"', "images-per-class = 2", "seed = 4", "quantize = true"]
    # as editors of Windows write it: with a mark before it, and their ends of lines
    (tmp_path / "run.toml").write_text("\r\n".join(lines), encoding="utf-8-sig", newline="")
    config = ["--config", str(tmp_path / "run.toml")]
    made = make(tmp_path / "one.safetensors", *config, "--seed", "5")
    assert (len(made), made.provenance["seed"], made.bits) == (20, 5, 8)
    (tmp_path / "run.toml").write_text("images_per_class = 1\nwindow = [0.0, 0.5]\nteacher = 'mlp'\nteacher_epochs = 1")
    made = make(tmp_path / "two.safetensors", "difficulty", *config, "--data", "digits")
    assert (len(made), made.provenance["config"]["window"]) == (10, [0.0, 0.5])


WRONG: dict[str, tuple[str, list[str], str]] = {
    "a key": (
        "image_per_class = 2",
        ["random"],
        "unknown option in .*run.toml 'image-per-class'; did you mean 'images-per-class'",
    ),
    "no method": ("seed = 2", [], 'run.toml names no method; add method = "dm"'),
    "another method": ('method = "dm"', ["dc"], "run.toml is for method dm, not dc"),
    "a value": ("seed = {}", ["random"], "option seed is neither a number nor text"),
    "a number": ('seed = "x"', ["random"], "argument --seed is 'x'; it must be a whole number"),
    "no TOML": ("seed 2", ["random"], "run.toml is not valid TOML"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_toml_file_is_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words, message = WRONG[case]
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    said = line(capsys, *words, "--data", "digits", "--config", str(tmp_path / "run.toml"))
    assert said.count("\n") == 1
    assert re.search(message, said), said


def test_sets_that_do_not_say_how_they_were_made_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = distill(toy_images(), "random", images_per_class=1, device="cpu")
    made.merge(made).save(tmp_path / "merged.safetensors")
    assert "was merged from several" in line(capsys, "--config", str(tmp_path / "merged.safetensors"))
    assert "cannot read" in line(capsys, "--config", str(tmp_path / "none.safetensors"))
    assert "names no file" in line(capsys, "--config")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    assert "is not a ddplug file" in line(capsys, "--config", str(tmp_path / "bad.safetensors"))


def network(shape: tuple[int, ...], classes: int) -> Any:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))


def test_a_network_that_was_a_function_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = distill(toy_images(), DM(network=network, images_per_class=1, pool_size=1, steps=1), device="cpu")
    made.save(tmp_path / "own.safetensors")
    said = line(capsys, "--config", str(tmp_path / "own.safetensors"), "--data", "digits")
    assert "unknown network 'tests.cli.test_config.network'" in said


def test_a_file_of_options_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says is then of one moment, and it may be a pipe."""
    place = tmp_path / "run.toml"
    place.write_text('method = "random"\ndata = "digits"\nimages-per-class = 1')
    read, whole = [], Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        read.append(path)
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    make(tmp_path / "one.safetensors", "--config", str(place))
    assert read.count(place) == 1


def test_a_set_is_read_once_for_its_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, loaded, load = tmp_path / "one.safetensors", [], SyntheticSet.load
    make(one, "random", "--data", "digits", "--images-per-class", "1")

    def recorded(path: str) -> SyntheticSet:
        loaded.append(str(path))
        return load(path)

    monkeypatch.setattr(SyntheticSet, "load", recorded)
    assert main(["distill", "--config", str(one), "--device", "cpu", "-o", str(tmp_path / "two.safetensors")]) == 0
    assert loaded.count(str(one)) == 1
