"""The command line: every command on real digits, every mistake one line and status 2, Ctrl-C and closed pipes."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddplug
from ddplug import registry
from ddplug.cli.commands import COMMANDS
from ddplug.cli.program import main
from ddplug.distillers import presets
from ddplug.evaluation.learned import evaluate_as_learned
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.ready import READY
from ddplug.testing import toy_table
from ddplug.utils.forecast import Forecast

DM = ["distill", "dm", "--data", "digits", "--network", "convnet:width=4,depth=1", "--pool", "1", "--device", "cpu"]
RANDOM = ["distill", "random", "--data", "digits", "--device", "cpu"]
NETWORK = ["--network", "convnet:width=4,depth=1", "--device", "cpu", "--protocol", "quick", "--repeats", "1"]


def process(*argv: str, code: str = "", **settings: Any) -> subprocess.Popen[str]:
    """Start ``ddplug`` as a process of its own, after some code."""
    command = [sys.executable, "-m", "ddplug", *argv]
    if code:
        command = [
            sys.executable,
            "-c",
            f"{code}\nimport sys; from ddplug.cli.program import main; sys.exit(main())",
            *argv,
        ]
    return subprocess.Popen(
        command, text=True, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, **settings
    )


def run(*argv: str, code: str = "") -> tuple[int, str, str]:
    started = process(*argv, code=code, stdout=subprocess.PIPE)
    out, err = started.communicate(timeout=600)
    return started.returncode, out, err


@pytest.mark.skipif(os.name == "nt", reason="a folder that is in use stays")
def test_a_folder_that_is_gone_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gone").mkdir()
    before = os.getcwd()
    try:
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        assert main(["inspect", "mnist-8kB"]) == 2
        line = "ddplug: error: the folder that this was started in is not there any more; change to another (cd)\n"
        assert capsys.readouterr() == ("", line)
    finally:
        os.chdir(before)


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """Run a command in this process and give the one object that it prints with ``--json``."""
    assert main([*argv, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *argv: str) -> str:
    """Run a command that must be refused, with one line and nothing written; give the line."""
    before = snapshot(folder)
    capsys.readouterr()
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ddplug: error: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert snapshot(folder) == before
    return err


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A set of one random digit a class."""
    path = str(tmp_path_factory.mktemp("made") / "random.safetensors")
    assert main([*RANDOM, "--images-per-class", "1", "-o", path]) == 0
    return path


# help, version, list


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", registry.names("distiller"))
def test_help_of_a_method_shows_its_own_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["distill", name, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    cls = registry.resolve("distiller", name)
    assert f"usage: ddplug distill {name} --data NAME -o FILE" in out
    # a switch is followed by its opposite: --learn-images, --no-learn-images
    assert all(re.search(f"--{field.name.replace('_', '-')}[ ,]", out) for field in fields(cls))
    assert f"(default: {cls().images_per_class})" in out


def test_list_names_every_plug_in(capsys: pytest.CaptureFixture[str]) -> None:
    values = answer(capsys, "list")
    assert values.pop("sources")[0]["name"] == "imagefolder:DIR"
    assert {kind: [entry["name"] for entry in entries] for kind, entries in values.items()} == {
        **{f"{kind}s": registry.names(kind) for kind in registry.GROUPS},
        "sets": list(READY),
    }
    assert all(entry["error"] is None and entry["about"] for entries in values.values() for entry in entries)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for kind in registry.GROUPS for name in registry.names(kind))


def test_list_gives_the_reason_why_a_plug_in_cannot_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "third_party-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text(
        "[ddplug.distillers]\nbroken = third_party_broken:Method\nabsent = third_party_absent:Method\n"
    )
    (tmp_path / "third_party_broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._points.cache_clear()
    try:
        entries = {entry["name"]: entry for entry in answer(capsys, "list")["distillers"]}
        assert "no licence" in entries["broken"]["error"]
        assert "No module named 'third_party_absent'" in entries["absent"]["error"]
        assert entries["dm"]["error"] is None
        assert main(["list"]) == 0
        assert "broken" in capsys.readouterr().out
        assert "no licence" in refusal(capsys, tmp_path, "distill", "broken", "--data", "digits", "-o", "x")
    finally:
        registry._points.cache_clear()


# distill


def test_distill_writes_what_the_library_makes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    values = answer(capsys, *DM, "--images-per-class", "2", "--steps", "3", "--seed", "5", "-o", "a.safetensors")
    assert os.listdir(tmp_path) == ["a.safetensors"]
    found = SyntheticSet.load("a.safetensors")
    method = registry.resolve("distiller", "dm")(
        images_per_class=2, steps=3, network="convnet:width=4,depth=1", pool_size=1
    )
    wanted = ddplug.distill(ddplug.load_dataset("digits"), method, seed=5, device="cpu")
    assert torch.equal(found.inputs, wanted.inputs)
    assert values["file"] == "a.safetensors"
    assert values["samples"] == 20
    assert values["nbytes"] == found.nbytes
    assert values["file_bytes"] == os.path.getsize("a.safetensors")
    assert values["provenance"]["config"]["pool_size"] == 1


def test_distill_foretells_what_takes_long(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr("ddplug.utils.forecast.Forecast", partial(Forecast, clock=lambda: float(next(seconds))))
    assert main([*DM, "--images-per-class", "1", "--steps", "150", "-o", "a.safetensors"]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "takes about" in line]
    assert line.startswith("dm: distilling takes about 3 minutes in all; a smaller --steps, --batch-real, ")
    assert line.endswith(" takes less, and `ddplug distill auto --budget 5m` takes what fits a time")


def test_distill_logs_and_quantizes(tmp_path: Path) -> None:
    argv = [*DM, "--images-per-class", "1", "--steps", "20", "--quantise", "--csv", "a.csv", "--tensorboard", "tb"]
    status, out, err = run(*argv, "-o", "a.safetensors")
    assert (status, err) == (0, "")
    assert "saved" in out
    assert Path("a.csv").read_text().startswith("step,seconds,loss\n10,")
    assert os.listdir("tb")
    assert SyntheticSet.load("a.safetensors").levels is not None


def test_distill_stores_few_bits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {}
    for more in ((), ("--quantise",), ("--bits", "8"), ("--bits", "1", "--quantise", "--reduced", "2")):
        made = answer(capsys, *RANDOM, *more, "--images-per-class", "1", "-o", "a.safetensors")
        sizes[more] = made["storage"], made["bits"], made["nbytes"], SyntheticSet.load("a.safetensors").nbytes
    # 10 images of 64 numbers with a label each, and two levels; or of 16
    assert [found[:3] for found in sizes.values()] == [
        ("uint8", 8, 658),  # as the data are
        ("uint8", 8, 658),
        ("uint8", 8, 658),
        ("uint8", 1, 38),
    ]
    assert all(found[2] == found[3] for found in sizes.values())
    assert main(["inspect", "a.safetensors"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["bits", "1"] in shown and ["nbytes", "38"] in shown

    # what cannot be stored is refused before anything is done
    monkeypatch.setattr("ddplug.distillation.loop.distill", None)
    monkeypatch.setattr("ddplug.cli.distill.load", lambda *_: toy_table())
    assert main([*RANDOM, "--bits", "2", "-o", "b.safetensors"]) == 2
    assert "bits is 2, which is for images, not inputs of shape (6,); use 8" in capsys.readouterr().err
    assert main([*RANDOM, "--bits", "3", "-o", "b.safetensors"]) == 2
    assert "--bits" in capsys.readouterr().err
    assert not Path("b.safetensors").exists()


def test_the_short_names_of_a_codec_fill_a_number_of_bytes_as_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    for short, codec, each in (
        (["--quantize"], "plain", 9),
        (["--bits", "2"], "plain:bits=2", 35),
        (["--bits", "4", "--reduced", "2"], "plain:bits=4,factor=2", 66),
    ):
        made = answer(capsys, *RANDOM, *short, "--bytes", "6000B", "-o", "a.safetensors")
        same = answer(capsys, *RANDOM, "--codec", codec, "--bytes", "6kB", "-o", "b.safetensors")
        # 8 bytes for the levels, and of each image its numbers and a label
        assert made["samples"] == 10 * each and made["nbytes"] == same["nbytes"] <= 6000
        assert (made["codec"], made["provenance"]["codec"]) == (codec.partition(",")[0], codec)
        one, other = map(SyntheticSet.load, ("a.safetensors", "b.safetensors"))
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


def test_distill_fills_a_number_of_bytes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    made = answer(capsys, *RANDOM, "--bytes", "0.6kB", "-o", "a.safetensors")
    assert made["nbytes"] == SyntheticSet.load("a.safetensors").nbytes <= 600
    assert (made["codec"], made["real_images"], made["provenance"]["nbytes"]) == ("pixels:bits=2", True, 600)
    assert made["bits_per_class"] == 8 * made["nbytes"] / 10
    assert main(["inspect", "a.safetensors"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["codec", "pixels:bits=2"] in shown and ["real", "images", "True"] in shown
    values = answer(capsys, "evaluate", "a.safetensors", "--data", "digits", *NETWORK, "--no-baselines")
    assert (values["codec"], values["psnr"]) == ("pixels:bits=2", made["psnr"])

    some = ["--images-per-class", "1", "--codec", "pixels:bits=1", "-o", "b.safetensors"]
    assert main([*RANDOM, *some]) == 0
    out = capsys.readouterr().out
    assert "pixels:bits=1, " in out and " dB" in out and "bits per class" in out
    for argv, message in (
        (["--bytes", "20", "-o", "c"], "20 bytes are too few for one image of each of 10 classes"),
        (["--bytes", "1kB", "--images-per-class", "2", "-o", "c"], "leave one of them out"),
        (
            ["--codec", "avif", "--quantize", "-o", "c"],
            "--quantize does not go with --codec: it is short for",
        ),
        (["--codec", "pixels:bits=5", "-o", "c"], "bits is 5"),
        (["--codec", "gif", "-o", "c"], "gif"),
    ):
        assert message in refusal(capsys, tmp_path, *RANDOM, *argv)


def test_validation_part_is_held_out_and_evaluated_on(capsys: pytest.CaptureFixture[str]) -> None:
    held = ["--validation", "0.25"]
    made = answer(capsys, *RANDOM, *held, "--images-per-class", "1", "-o", "a.safetensors")
    train = ddplug.load_dataset("digits")
    assert made["provenance"]["data"]["size"] == len(train.split(0.25)[0])
    values = answer(capsys, "evaluate", "a.safetensors", "--data", "digits", *held, *NETWORK, "--no-baselines")
    assert values["test"] == {"name": "digits", "size": len(train.split(0.25)[1]), "validation": 0.25}


def test_own_options_win_over_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["distill", "dm", "--data", "digits", "--preset", "mnist-10", "--network", "convnet:width=4,depth=1"]
    more = ["--pool", "1", "--steps", "2", "--images-per-class", "1", "--device", "cpu", "-o", "a.safetensors"]
    config = answer(capsys, *argv, *more)["provenance"]["config"]
    assert (config["steps"], config["pool_size"], config["network"]) == (2, 1, "convnet:width=4,depth=1")
    assert (
        config["learning_rate"]
        == presets.get("dm", "mnist-10")["learning_rate"]
        != registry.resolve("distiller", "dm")().learning_rate
    )


def test_own_images_of_any_size(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for label in range(2):
        folder = tmp_path / "images" / f"class {label}"
        folder.mkdir(parents=True)
        for n in range(4):
            pixels = np.full((9 + n, 9, 3), 60 * n + 40 * label, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.png")
    argv = ["distill", "random", "--data", "imagefolder:images", "--images-per-class", "1", "-o", "a.safetensors"]
    assert "size" in refusal(capsys, tmp_path, *argv)
    assert answer(capsys, *argv, "--size", "8x6")["shape"] == [3, 8, 6]


# evaluate, inspect, export


def test_evaluate_shows_baselines_of_the_same_bytes_and_the_bound(
    made: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = answer(capsys, "evaluate", made, "--data", "digits", *NETWORK, "--whole-steps", "5")
    rows = values["rows"]
    assert Path(made).stem == "random"
    own = "random (file)"  # a set of random images is not called as its baseline, whatever its file is
    assert [row["method"] for row in rows] == [own, "random", "class-mean", "kmeans", "whole data"]
    assert all(0 <= row["mean"] <= 1 for row in rows)
    assert [row["nbytes"] for row in rows[:4]] == [values["nbytes"]] * 4
    assert rows[4]["steps"] == 5


def test_evaluate_trains_as_learned_where_the_set_says_how(
    made: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = str(tmp_path / "dd.safetensors")
    options = [("initialization", "fixed"), ("network", "convnet:width=4,depth=1"), ("steps", "30")]
    settings = [part for name, value in options for part in (f"--{name}", value)]
    answer(capsys, "distill", "dd", "--data", "digits", *settings, "--images-per-class", "1", "-o", file)
    values = answer(capsys, "evaluate", file, "--data", "digits", "--protocol", "learned")
    assert values["rows"] == []
    (network,) = values["networks"]
    # the very network that the library makes, whose accuracy is its own
    test = ddplug.load_dataset("digits", split="test")
    expected = evaluate_as_learned(SyntheticSet.load(file), test, device="cpu").accuracies
    assert network["accuracies"] == list(expected)
    assert (network["network"], network["protocol"]) == ("convnet:width=4,depth=1", "learned")
    assert main(["evaluate", made, "--data", "digits", "--protocol", "learned"]) == 2
    assert "the set's provenance has no 'training'" in capsys.readouterr().err
    # rounding costs such a set far more than others
    for more, careful in ((["--quantise"], True), ([], False)):
        assert main(["distill", "dd", "--data", "digits", *settings, *more, "-o", "again.safetensors"]) == 0
        said = capsys.readouterr().out
        assert ("careful" in said) == careful
        assert "--protocol learned" in said


def test_evaluate_takes_several_networks(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", made, "--data", "digits", *NETWORK, "--network", "mlp:width=8,depth=1", "--no-baselines"]
    values = answer(capsys, *argv)
    assert [row["network"] for row in values["networks"]] == ["convnet:width=4,depth=1", "mlp:width=8,depth=1"]
    assert main(argv) == 0
    assert "mlp:width=8,depth=1" in capsys.readouterr().out


def test_inspect(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    values = answer(capsys, "inspect", made)
    assert (values["samples"], values["shape"], values["provenance"]["method"]) == (10, [1, 8, 8], "random")
    assert main(["inspect", made]) == 0
    out = capsys.readouterr().out
    assert "made: method" in out
    assert "1, 8, 8" in out


def test_names_in_a_file_do_not_reach_the_terminal_as_commands(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"\x1b[31m\u30c6 {n}" for n in range(10))
    replace(SyntheticSet.load(made), class_names=names).save("a.safetensors")
    assert main(["inspect", "a.safetensors"]) == 0
    out = capsys.readouterr().out
    assert "?[31m\u30c6 0" in out
    assert "\x1b" not in out
    assert answer(capsys, "inspect", "a.safetensors")["class_names"] == list(names)
    code = "import sys; sys.stdout.reconfigure(encoding='ascii')"
    status, out, err = run("inspect", "a.safetensors", code=code)
    assert (status, err) == (0, "")
    assert "?[31m? 0" in out


@pytest.mark.parametrize(
    ("kind", "start"), [("png", b"\x89PNG"), ("npz", b"PK"), ("card", b"# Synthetic"), ("imagefolder", None)]
)
def test_export(kind: str, start: bytes | None, made: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert answer(capsys, "export", made, "--to", kind, "out") == {"file": made, "to": kind, "out": "out"}
    if start is None:
        assert len(list(Path("out").glob("*/*.png"))) == 10
        assert "not an empty folder" in refusal(capsys, tmp_path, "export", made, "--to", kind, "out")
    else:
        assert Path("out").read_bytes().startswith(start)


# mistakes


def test_commands_and_options_that_are_not_known(made: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cases = [
        ([], "no command given"),
        (["distil"], "unknown command 'distil'; did you mean 'distill'?"),
        (["list", "dm"], "unexpected argument 'dm'"),
        (["distill"], "the method comes first"),
        (["distill", "--data", "digits", "dm"], "the method comes first"),
        (["distill", "dmm", "--data", "digits", "-o", "a"], "unknown distiller 'dmm'; did you mean 'dm'?"),
        ([*RANDOM, "-o", "a", "--images-per-clas", "1"], "did you mean '--images-per-class'?"),
        ([*RANDOM], "the following arguments are required: -o/--output"),
        (["distill", "random", "--data", "digit", "-o", "a"], "unknown dataset 'digit'; did you mean 'digits'?"),
        ([*DM, "-o", "a", "--network", "convnt"], "unknown network 'convnt'; did you mean 'convnet'?"),
        ([*DM, "-o", "a", "--network", "convnet:widht=3"], "'widht'; did you mean 'width'?"),
        ([*DM, "-o", "a", "--preset", "mnits-1"], "'mnits-1'; did you mean 'mnist-1'?"),
        ([*RANDOM[:-1], "cdua", "-o", "a"], "unknown device 'cdua'"),
        (["export", made, "--to", "pgn", "a"], "unknown kind of export 'pgn'; did you mean 'png'?"),
        (
            ["evaluate", made, "--data", "digits", "--protocol", "papr"],
            "unknown protocol 'papr'; did you mean 'paper'?",
        ),
        (["evaluate", made, "--data", "digits", "--network", "mpl"], "unknown network 'mpl'; did you mean 'mlp'?"),
    ]
    for argv, message in cases:
        assert message in refusal(capsys, tmp_path, *argv)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--images-per-class", "0", "images_per_class is 0; it must be at least 1"),
        ("--images-per-class", "1000", "images per class is 1000, but no class has more than "),
        ("--images-per-class", "two", "--images-per-class is 'two'; it must be a whole number"),
        ("--steps", "-1", "steps is -1"),
        ("--learning-rate", "-1", "learning_rate is -1"),
        ("--learning-rate", "nan", "--learning-rate is nan; it must be finite"),
        ("--batch-real", "0", "batch_real is 0; it must be at least 1"),
        ("--start", "nois", "'nois'; did you mean 'noise'?"),
        ("--augment", "crop_spin", "'spin'"),
        ("--seed", "-1", "--seed is -1; it must be between 0 and"),
        ("--seed", "1e3", "--seed is '1e3'; it must be a whole number"),
        ("--validation", "0", "fraction is 0"),
        ("--validation", "1.5", "--validation is 1.5; it must be between 0 and 1"),
        ("--size", "0x4", "--size is 0; it must be at least 1"),
        ("--size", "8", "size is an option of imagefolder:DIR"),
    ],
)
def test_option_values_outside_their_limits(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = [*DM, "--images-per-class", "1", "--steps", "1", f"{option}={value}", "-o", "a.safetensors"]
    assert message in refusal(capsys, tmp_path, *argv)


def test_evaluation_options_outside_their_limits(made: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for option in ("--repeats", "--whole-steps"):
        line = refusal(capsys, tmp_path, "evaluate", made, "--data", "digits", option, "0")
        assert f"{option} is 0; it must be at least 1" in line


def test_outputs_are_checked_before_the_work(made: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    Path("file").write_text("mine")
    Path("folder").mkdir()
    Path("table.csv").write_text("a,b\n1,2\n")
    # a data set that does not exist would be the next complaint: the outputs come first
    argv = ["distill", "random", "--data", "nowhere", "--images-per-class", "1"]
    cases = [
        (["-o", "none/a.safetensors"], "none does not exist"),
        (["-o", "file/a.safetensors"], "does not exist"),
        (["-o", "folder"], "not a regular file"),
        (["-o", "file"], "file exists and is not a synthetic-set of ddplug"),
        (["-o", "a", "--csv", "none/a.csv"], "cannot write none/a.csv"),
        (["-o", "a", "--csv", "table.csv"], "table.csv exists and is not a log"),
        (["-o", "a", "--csv", "a"], "must differ"),
        (["-o", "a", "--tensorboard", "file"], "cannot write file: it is not a folder"),
        (["-o", "a", "--checkpoint", "none/c"], "cannot write none/c"),
        (["-o", "a", "--checkpoint", "file"], "file exists and is not a checkpoint"),
    ]
    if Path("/proc/self").is_dir():
        cases.append((["-o", "/proc/a"], "cannot write /proc/a: No such file or directory"))
    for more, message in cases:
        assert message in refusal(capsys, tmp_path, *argv, *more)
    assert "is the set itself" in refusal(capsys, tmp_path, "export", made, "--to", "npz", made)
    assert "none" in refusal(capsys, tmp_path, "export", made, "--to", "card", "none/card.md")


def test_folders_of_images_that_are_not_usable(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["distill", "random", "--images-per-class", "1", "-o", "a.safetensors", "--data"]
    assert "missing" in refusal(capsys, tmp_path, *argv, "imagefolder:missing")
    Path("images").mkdir()
    assert "images" in refusal(capsys, tmp_path, *argv, "imagefolder:images")
    Path("images/one").mkdir()
    Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save("images/one/0.png")
    assert "class" in refusal(capsys, tmp_path, *argv, "imagefolder:images")
    Path("images/two").mkdir()
    assert "two" in refusal(capsys, tmp_path, *argv, "imagefolder:images")
    for place in ("one/1", "two/1"):
        Image.fromarray(np.zeros((4, 4), dtype=np.uint8)).save(f"images/{place}.png")
    Path("images/two/0.png").write_bytes(b"no picture")
    assert "0.png" in refusal(capsys, tmp_path, *argv, "imagefolder:images")


def test_data_sets_that_are_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ["distill", "random", "--data", "mnist", "--images-per-class", "1", "-o", "a.safetensors"]
    assert "--data-root" in refusal(capsys, tmp_path, *argv)
    assert "none" in refusal(capsys, tmp_path, *argv, "--data-root", str(tmp_path / "none"))


@pytest.mark.parametrize("command", [["inspect"], ["export", "--to", "npz", "out"], ["evaluate", "--data", "digits"]])
def test_files_that_are_not_sets(
    command: list[str], made: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    content = Path(made).read_bytes()
    files = {
        "empty": b"",
        "text": b"hello, this is no set",
        "cut": content[:-7],
        "longer": content + b"0",
        "newer": content.replace(b"ddplug/1", b"ddplug/7"),
        "pickle": b"\x80\x04\x95" + bytes(40),
    }
    for name, data in files.items():
        Path(name).write_bytes(data)
    for name in (*files, "missing", "."):
        assert name in refusal(capsys, tmp_path, command[0], name, *command[1:])


def test_a_set_of_other_data_is_not_evaluated(made: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for n in range(5):
            Image.fromarray(np.full((4, 4), 50 * n, dtype=np.uint8)).save(tmp_path / "images" / label / f"{n}.png")
    line = refusal(capsys, tmp_path, "evaluate", made, "--data", "imagefolder:images", *NETWORK)
    assert "'images' differ in shape: (1, 8, 8) and (1, 4, 4)" in line


def test_validation_of_a_set_that_saw_it_is_refused(
    made: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    line = refusal(capsys, tmp_path, "evaluate", made, "--data", "digits", "--validation", "0.2", *NETWORK)
    assert "--validation 0.2" in line


def test_full_disk_loses_nothing(made: str, tmp_path: Path) -> None:
    Path("a.safetensors").write_bytes(Path(made).read_bytes())
    before = snapshot(tmp_path)
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    status, out, err = run(*RANDOM, "--images-per-class", "2", "-o", "a.safetensors", code=code)
    assert (status, out) == (2, "")
    assert err.startswith("ddplug: error: cannot write ")
    assert "a.safetensors" in err
    assert err.count("\n") == 1
    assert snapshot(tmp_path) == before


def test_defects_of_ours_are_not_hidden(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("ddplug.synthetic.dataset.SyntheticSet.load", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["inspect", made])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
def test_a_limit_that_leaves_no_room_for_libraries_is_one_line() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))"
    status, out, err = run(*RANDOM, "--images-per-class", "1", "-o", "a", code=code)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"ddplug: error: out of memory.*\n", err)


def test_out_of_memory_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = [*DM, "--images-per-class", "1", "--steps", "1", "--network", "convnet:width=1000000000,depth=1"]
    assert "out of memory" in refusal(capsys, tmp_path, *argv, "-o", "a")


# signals and pipes

# a shell that runs the tests in the background has interrupts ignored, and that is inherited
HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"


def test_interrupted_run_goes_on_to_the_same_result(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = [*DM, "--images-per-class", "1", "--steps", "400", "--csv", "log.csv", "-o", "a.safetensors"]
    started = process(*argv, code=HEEDING, stdout=subprocess.PIPE)
    while started.poll() is None and not (Path("log.csv").exists() and Path("log.csv").stat().st_size > 200):
        time.sleep(0.01)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=600)
    assert (started.returncode, out) == (130, "")
    assert err == "ddplug: interrupted; the same command resumes from a.safetensors.checkpoint\n"
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors.checkpoint", "log.csv"]
    line = refusal(capsys, tmp_path, *argv, "--seed", "1")
    assert "seed was 0 and is now 1" in line
    assert "--no-resume" in line
    assert run(*argv)[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "log.csv"]
    steps = [int(row.partition(",")[0]) for row in Path("log.csv").read_text().splitlines()[1:]]
    assert steps == list(range(10, 401, 10))
    assert run(*argv[:-4], "-o", "b.safetensors")[0] == 0
    assert torch.equal(SyntheticSet.load("a.safetensors").inputs, SyntheticSet.load("b.safetensors").inputs)


def test_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    started = process("list", stdout=writer)
    os.close(writer)
    _, err = started.communicate(timeout=600)
    assert (started.returncode, err) == (141, "")
