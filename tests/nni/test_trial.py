"""Trials of hyper-parameter experiments: by hand, with mistakes, and tuned by the example's own configuration."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddplug
from ddplug.networks.factory import build
from ddplug.nni import trial
from ddplug.nni.running import free_port
from ddplug.nni.trial import main, results
from ddplug.search.candidate import train_and_score
from ddplug.search.journal import Journal
from ddplug.search.protocol import CandidateError, Protocol
from ddplug.search.sets import load_set
from tests.nni.toy_experiments import ROOT, run
from tests.nni.toy_space import SHAPE, files

NETWORK = "convnet:width=4,depth=1"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return files(tmp_path_factory.mktemp("sets"))


def argv(pair: tuple[Path, Path], *more: str) -> list[str]:
    return ["--train", str(pair[0]), "--validation", str(pair[1]), "--network", NETWORK, "--device", "cpu", *more]


def test_by_hand_it_runs_once_and_prints_the_accuracy(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "j.jsonl"
    assert main(argv(pair, "--epochs", "5", "--seeds", "2", "--journal", str(journal))) == 0
    expected = train_and_score(
        lambda rng: build(NETWORK, SHAPE, 3, rng),
        load_set(pair[0]),
        load_set(pair[1]),
        Protocol(epochs=5, seeds=2, device="cpu"),
    )
    assert capsys.readouterr() == (f"accuracy {expected.metric:.4f}\n", "")
    assert results(journal) == [({}, expected.metric)]
    assert main(argv(pair, "--epochs", "5", "--seeds", "2", "--journal", str(journal))) == 0
    assert len(Journal(journal).read()) == 1  # known, not trained again


def test_tuned_values_have_precedence_and_may_be_whole_floats(pair: tuple[Path, Path], tmp_path: Path) -> None:
    values = {"epochs": 3.0, "batch_size": 8.0, "network.width": 6.0, "network.norm": "none", "momentum": 0.5}
    metric = trial.run(argv(pair, "--epochs", "50", "--journal", str(tmp_path / "j.jsonl")), values)
    expected = train_and_score(
        lambda rng: build("convnet:width=6,depth=1,norm=none", SHAPE, 3, rng),
        load_set(pair[0]),
        load_set(pair[1]),
        Protocol(epochs=3, batch_size=8, momentum=0.5, device="cpu"),
    )
    assert metric == expected.metric
    assert results(tmp_path / "j.jsonl") == [(values, metric)]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"learning_rat": 0.1}, "learning_rate"),
        ({"epochs": 2.5}, "epochs is 2.5"),
        ({"network.widht": 8}, "width"),
        ({"network.depth": 9}, "depth=9"),
    ],
)
def test_values_that_no_network_takes_are_journalled_failures(
    values: dict[str, Any], words: str, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(CandidateError, match=words) as caught:
        trial.run(argv(pair, "--journal", str(tmp_path / "j.jsonl")), values)
    assert "\n" not in str(caught.value)
    (record,) = Journal(tmp_path / "j.jsonl").read()
    assert record.sample == values
    assert words in (record.failure or "")


def test_mistakes_in_the_command_are_one_line(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        "--epochz": ["--epochz", "3"],
        "epochs is 0": ["--epochs", "0"],
        "missing": ["--train", "missing"],
        "threads is 0; it must be at least 1": ["--threads", "0"],
        "error: the candidate failed: unknown network 'convnett'; did you mean 'convnet'": ["--network", "convnett"],
    }
    for words, more in cases.items():
        assert main(argv(pair, *more)) in (1, 2)
        line = capsys.readouterr().err
        assert words in line
        assert line.count("\n") == 1


def test_a_table_has_a_network_that_suits_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ddplug.from_arrays(np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32), np.arange(40) % 2)
    train, rest = data.split(0.5)
    ddplug.distill(train, "random", images_per_class=3, seed=0, device="cpu").save(tmp_path / "train.safetensors")
    ddplug.holdout(rest).save(tmp_path / "rest.safetensors")
    files = ["--train", str(tmp_path / "train.safetensors"), "--validation", str(tmp_path / "rest.safetensors")]
    assert main([*files, "--steps", "3", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("accuracy ")
    assert 0 <= trial.run([*files, "--steps", "3", "--device", "cpu"], {"network.width": 6}) <= 1


def test_a_file_that_is_no_journal_is_left_as_it_is(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "results.csv"
    other.write_text("rate,accuracy\n")
    assert main(argv(pair, "--epochs", "1", "--journal", str(other))) == 2
    assert "results.csv is not a journal: see line 1; choose another path" in capsys.readouterr().err
    assert other.read_text() == "rate,accuracy\n"


def test_the_example_tunes_and_every_trial_journals_its_own(pair: tuple[Path, Path], tmp_path: Path) -> None:
    listed = run("tuning", tmp_path, *pair)
    records = Journal(tmp_path / "journal.jsonl").read()
    assert len(records) == 4
    assert all(record.failure is None for record in records)
    space = json.loads((ROOT / "examples" / "nni_trial" / "search_space.json").read_text())
    assert all(set(record.sample) == set(space) for record in records)
    assert len({record.trial for record in records}) == 4
    # NNI may pair them wrongly: metrics and parameters are the same, each for itself
    truth = results(tmp_path / "journal.jsonl")
    assert [metric for _, metric in truth] == sorted((value for _, value in listed), reverse=True)
    assert sorted(str(parameters) for parameters, _ in truth) == sorted(str(parameters) for parameters, _ in listed)
    for record in records:
        tuned = record.sample
        spec = f"convnet:depth=2,width={tuned['network.width']},norm={tuned['network.norm']}"
        again = train_and_score(
            partial(build, spec, SHAPE, 3),
            load_set(pair[0]),
            load_set(pair[1]),
            Protocol(epochs=20, device="cpu", **{name: value for name, value in tuned.items() if "." not in name}),
        )
        # most networks get everything right: the operations tell whether it was this one
        assert (again.metric, again.flops) == (record.metric, record.result.flops)


def test_the_pages_trial_of_ones_own_runs_in_an_experiment(pair: tuple[Path, Path], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "nni.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"\{testcode\}\n(import nni\n.*?get_next_parameter.*?)print\(", page, re.DOTALL)
    (tmp_path / "my_trial.py").write_text(code.replace(", 10))", ", 3))"))  # as many classes as the toys have
    space = {
        "hidden": {"_type": "choice", "_value": [8, 16]},
        "rate": {"_type": "loguniform", "_value": [0.001, 0.1]},
    }
    (tmp_path / "search_space.json").write_text(json.dumps(space))
    for source, name in zip(pair, ("train", "validation"), strict=True):
        shutil.copy(source, tmp_path / f"{name}.safetensors")
    listed = run("own", tmp_path)
    found = results(tmp_path / "own.jsonl")
    assert len(found) == 2
    assert all(set(parameters) == set(space) for parameters, _ in found)
    assert sorted(accuracy for _, accuracy in found) == sorted(value for _, value in listed)


def test_nnictl_runs_the_example_as_its_page_says(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    shutil.copytree(ROOT / "examples" / "nni_trial", folder)
    for source, name in zip(pair, ("train", "validation"), strict=True):
        shutil.copy(source, folder / f"{name}.safetensors")
    config = (folder / "config.yml").read_text().replace("maxTrialNumber: 20", "maxTrialNumber: 2")
    (folder / "config.yml").write_text(config.replace("--epochs 30", "--epochs 2"))
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}

    def nnictl(*words: str) -> str:
        command = [str(scripts / "nnictl"), *words]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        for attempt in range(4):  # it gives its manager three seconds
            try:
                nnictl("create", "--config", "config.yml", "--port", str(free_port()))
                break
            except AssertionError as error:
                if attempt == 3 or "check-status" not in str(error):
                    raise
        for _ in range(240):
            found = results(folder / "journal.jsonl")
            if len(found) == 2:
                break
            time.sleep(0.5)
    finally:
        nnictl("stop", "--all")
    assert len(found) == 2
    space = json.loads((folder / "search_space.json").read_text())
    assert all(set(parameters) == set(space) and 0 <= accuracy <= 1 for parameters, accuracy in found)
