"""The command that compares rankings: one table, files beside it, nothing trained twice, mistakes in one line."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

import ddplug
from ddplug.cli.program import main
from ddplug.distillers.selection.kmeans import KMeansCentroid
from ddplug.search.journal import Journal
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.fingerprints import file_fingerprint
from tests.cli.test_program import HEEDING, process

SMALL = ["-n", "3", "--widths", "4,8", "--depths", "1", "--poolings", "max", "--norms", "none", "--epochs", "2"]
DATA = ["agreement", "--data", "digits", "--validation", "0.2", "--device", "cpu", "--share", "0.5"]


def test_it_compares_sets_with_their_controls_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ddplug.load_dataset("digits").split(0.2)[0]
    ddplug.distill(train, KMeansCentroid(images_per_class=2)).save(tmp_path / "mine.safetensors")
    folder = tmp_path / "out"
    line = [*DATA, *SMALL, "--folder", str(folder), "--set", f"mine={tmp_path / 'mine.safetensors'}"]
    assert main([*line, "--json"]) == 0
    said = capsys.readouterr()
    values = json.loads(said.out)
    assert values["architectures"] == 3
    names = {"mine", "random", "kmeans", "early stopping"}
    assert {row["name"] for row in values["rows"] if row["cost"]} == names
    # all at one cost, and none above it
    assert all(0.25 < row["cost"] <= 0.5 for row in values["rows"] if row["cost"])
    assert [text.split(":")[0] for text in said.err.splitlines() if text.endswith("candidates")] == [
        "mine", "random", "kmeans", "early stopping", "full"
    ]  # fmt: skip
    # of the same bytes: the distilled set is stored as floats
    sizes = {
        name: len(ddplug.SyntheticSet.load(folder / f"{name}-7-8-bit-1x8x8-seed-0.safetensors"))
        for name in ("random", "kmeans")
    }
    assert sizes == {"random": 70, "kmeans": 70}
    assert 0 <= values["ceiling"] <= 1
    stored = json.loads((folder / "agreement.json").read_text())
    assert stored["rows"] == values["rows"]
    assert set(stored["scores"]) == {row["name"] for row in values["rows"]} | {"full"}
    assert (folder / "agreement.png").read_bytes().startswith(b"\x89PNG")

    lines = len(Journal(folder / "journal.jsonl").read())
    assert lines == 15
    trained = [own.settings for own in Journal(folder / "journal.jsonl").read() if "steps" in own.settings]
    assert len({(own["steps"], own["batch_size"], own["seeds"], own["learning_rate"]) for own in trained}) == 1
    assert main(line) == 0
    assert len(Journal(folder / "journal.jsonl").read()) == lines
    out = capsys.readouterr().out
    assert out.startswith("score")
    assert "mine" in out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--set", "mine"], "is 'mine'; give a name and a file"),
        (["--set", "random=a.safetensors"], "a.safetensors"),
        (["--widths", "4,x"], "argument --widths is '4,x'; give whole numbers"),
        (["--widths", "6", "--norms", "group"], "norm=group"),
        (["--share", "0.0001"], "does not allow one step"),
    ],
)
def test_mistakes_are_one_line(
    extra: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*DATA, *SMALL, "--folder", str(tmp_path / "out"), *extra]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_set_that_saw_the_validation_part_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ddplug.distill(ddplug.load_dataset("digits"), KMeansCentroid(images_per_class=1)).save(tmp_path / "a.safetensors")
    line = [*DATA, *SMALL, "--folder", str(tmp_path / "out"), "--set", f"a={tmp_path / 'a.safetensors'}"]
    assert main(line) == 2
    assert "may have seen what is held out" in capsys.readouterr().err
    assert main([part for part in line if part not in ("--validation", "0.2")]) == 2
    assert "how much to hold out is not given" in capsys.readouterr().err


def test_proxies_are_judged_on_a_thousand_images_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    line = [*DATA, *SMALL, "-n", "2", "--validation", "0.8", "--share", "0.9", "--seeds", "1", "--folder", str(folder)]
    assert main(line) == 0
    sizes = {name: len(SyntheticSet.load(folder / f"{name}.safetensors")) for name in ("validation", "judging")}
    assert sizes["validation"] > 1100
    assert sizes["judging"] == pytest.approx(1000, abs=10)
    judged = {record.settings["validation"] for record in Journal(folder / "journal.jsonl").results()}
    assert judged == {file_fingerprint(folder / f"{name}.safetensors") for name in sizes}


def test_a_folder_of_other_data_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ddplug.holdout(ddplug.load_dataset("digits"))
    (tmp_path / "out").mkdir()
    other.save(tmp_path / "out" / "whole.safetensors")
    before = (tmp_path / "out" / "whole.safetensors").read_bytes()
    assert main([*DATA, *SMALL, "--folder", str(tmp_path / "out")]) == 2
    assert "holds another set, of other data perhaps; choose another folder" in capsys.readouterr().err
    assert (tmp_path / "out" / "whole.safetensors").read_bytes() == before


def test_ctrl_c_says_how_to_go_on_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    line = [*DATA, *SMALL, "--folder", str(folder), "--epochs", "40"]
    with process(*line, code=HEEDING, stdout=subprocess.PIPE) as running:
        while running.poll() is None and not (folder / "journal.jsonl").exists():
            time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, error = running.communicate(timeout=600)
    assert running.returncode == 130, error
    assert error.splitlines()[-1] == f"ddplug: interrupted; the same command resumes from {folder}"
    assert Journal(folder / "journal.jsonl").results()
