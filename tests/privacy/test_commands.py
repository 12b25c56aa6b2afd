"""The commands on a private set: data are taken as they are, and the statement is shown wherever the set is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddplug.cli.program import main
from ddplug.synthetic.dataset import SyntheticSet

SMALL = "--images-per-class 1 --network convnet:width=4,depth=1 --pool-size 2 --steps 1"
STATED = "epsilon 5, delta 1e-05, for one record added or removed"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_from_the_data_to_the_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    data = "--data digits --validation 0.5 --preprocess identity"
    assert main(f"distill dp-dm {data} {SMALL} --epsilon 5 -o made".split()) == 0
    out = capsys.readouterr().out
    assert STATED in out and f"ddplug evaluate made {data[:13]}" in out and " s on cpu" not in out
    assert SyntheticSet.load("made").preprocess.kind == "identity"
    assert main(["inspect", "made"]) == 0
    assert STATED in capsys.readouterr().out
    quick = "--protocol quick --no-baselines --repeats 1 --network convnet:width=4,depth=1"
    assert main(f"evaluate made {data} {quick}".split()) == 0
    out, err = capsys.readouterr()
    assert f"the set: {STATED}; baselines and accuracies: none" in out
    assert "does not tell what it was made from" in err


def test_data_that_would_tell_are_refused_in_a_line_that_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(f"distill dp-dm --data digits {SMALL} -o made".split()) == 2
    err = capsys.readouterr().err
    assert "computed from the data" in err and "--preprocess identity" in err
    assert not Path("made").exists()
    assert main(["distill", "dp-dm", "--data", "digits", "--preprocess", "identity", "--bytes", "9kB", "-o", "x"]) == 2
    assert "must not reveal" in capsys.readouterr().err


def test_other_methods_take_data_as_they_are_too(capsys: pytest.CaptureFixture[str]) -> None:
    data = "--data digits --validation 0.5"
    assert main(f"distill random --images-per-class 1 {data} --preprocess identity -o made".split()) == 0
    assert SyntheticSet.load("made").preprocess.kind == "identity"
    assert "--preprocess identity" in capsys.readouterr().out
    # it was made of other data than those that are prepared as usual
    assert main(f"audit made {data} --shadows 0".split()) == 2
    assert "was not made with --validation 0.5 of these data" in capsys.readouterr().err
