"""Rows of the distillation benchmark: what judges them, and going on where a long one stopped."""

from __future__ import annotations

import argparse
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddplug import distill, load_dataset
from ddplug.evaluation.learned import evaluate_as_learned
from ddplug.registry import resolve
from examples.benchmarks import distillation, stored_bytes
from examples.benchmarks.distillation import BENCHMARKS, Benchmark, Entry, measure
from examples.benchmarks.results import OUT, ResultFile, add_set_options, chosen, in_order_of

ROOT = Path(__file__).parents[1]
NETWORK = "convnet:width=4,depth=1"
DD = Entry("dd", {"network": NETWORK, "initialization": "fixed", "steps": 2, "epochs": 1, "images_per_class": 1}, 1)


def arguments(keep: Path | None = None, **changes: Any) -> Namespace:
    given = {"benchmark": "x", "data": "digits", "data_root": None, "cache": None, "validate": False, "keep": keep}
    return Namespace(**{**given, **changes})


def use(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    monkeypatch.setitem(BENCHMARKS, "x", Benchmark("x", "x", (DD,), (NETWORK,), **changes))


def test_learned_sets_are_judged_as_learned_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use(monkeypatch, as_learned=True)
    row = measure(DD, arguments(tmp_path))
    made = distill(load_dataset("digits"), resolve("distiller", "dd")(**DD.options), seed=0).quantize()
    expected = evaluate_as_learned(made, load_dataset("digits", split="test")).mean
    assert row["accuracy (%)"] == pytest.approx(100 * expected, abs=0.006)
    assert row["bytes"] == made.nbytes
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    monkeypatch.setattr("ddplug.distill", None)  # what is kept is not made again
    assert measure(DD, arguments(tmp_path)) | {"peak memory (MiB)": 0} == row | {"peak memory (MiB)": 0}
    exact = replace(DD, quantized=False)
    assert measure(exact, arguments(tmp_path))["bytes"] == made.quantize("float32").nbytes == 4 * 640 + 10
    assert distillation._options(exact.key).endswith("steps=2, not quantized")


def test_held_out_data_judge_what_is_to_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def judge(judged: Any, test: Any, *given: Any, **options: Any) -> Any:
        sizes.append((len(test), given[1].epochs))
        return Namespace(accuracies=(0.5,))

    monkeypatch.setattr("ddplug.evaluation.results.judge", judge)
    row = Entry("random", {"images_per_class": 4}, 1, reduced=2)
    use(monkeypatch)
    assert measure(row, arguments())["bytes"] == 40 * 17 + 8
    use(monkeypatch, epochs=7)
    measure(row, arguments(validate=True))
    few = replace(row, bits=1, epochs=5)
    assert measure(few, arguments(validate=True))["bytes"] == 40 * 3 + 8
    test = len(load_dataset("digits", split="test"))
    held = len(load_dataset("digits").split(0.1)[1])
    assert sizes == [(test, 1001), (held, 7), (held, 5)]


def test_rows_find_their_way_into_a_process_of_their_own() -> None:
    keys = [entry.key for benchmark in BENCHMARKS.values() for entry in benchmark.rows]
    assert all(Entry(**json.loads(key)).key == key for key in keys)
    for benchmark in BENCHMARKS.values():
        own = [entry.key for entry in benchmark.rows]
        assert len(own) == len(set(own))
    assert distillation._options(DD.key) == f"epochs=1, initialization=fixed, network={NETWORK}, steps=2"


def test_published_figures_stand_beside_ours_however_often_a_file_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, published={"dm": "97.5 [paper]", "soft-label-dd, 5 images": "92 [README]"})
    cases = (
        (Entry("dm", {"images_per_class": 1, "steps": 3}), "97.5 [paper]", "steps=3"),
        (Entry("soft-label-dd", {"images": 5}), "92 [README]", "images=5"),
        (Entry("soft-label-dd", {"images": 6}), None, "images=6"),
        (Entry("dm", bits=2), None, "2 bits a pixel"),
        (Entry("dm", reduced=2, bits=1, epochs=5), None, "stored smaller by 2, 1 bit a pixel, judged after 5 epochs"),
    )
    for entry, published, options in cases:
        once = distillation._shown({"accuracy (%)": 1.0}, entry.key, BENCHMARKS["x"])
        assert once == {"accuracy (%)": 1.0, "published (%)": published, "options": options}
        again = distillation._shown(once, entry.key, BENCHMARKS["x"])
        assert list(again) == list(once)  # a table wants the same columns in the same order
    use(monkeypatch)
    assert distillation._shown({"accuracy (%)": 1.0}, DD.key, BENCHMARKS["x"]).keys() == {"accuracy (%)", "options"}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_published_table_has_the_rows_of_the_script(name: str) -> None:
    """Else the printed command measures again what is there, and drops what it does not know."""
    found = json.loads((ROOT / "docs" / "benchmarks" / f"distillation-{name}.json").read_text(encoding="utf-8"))
    assert found["keys"] == [entry.key for entry in BENCHMARKS[name].rows]
    assert found["rows"] == [
        distillation._shown(row, key, BENCHMARKS[name]) for row, key in zip(found["rows"], found["keys"], strict=True)
    ]


def test_the_folder_of_sets_is_made_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_set_options(parser, ["mnist"])
    given = ["mnist", "--data", "mnist", "--sets"]
    assert parser.parse_args([*given, str(tmp_path / "a" / "b")]).sets == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        parser.parse_args([*given, str(tmp_path / "file")])
    assert f"cannot make the folder {tmp_path / 'file'}: File exists" in capsys.readouterr().err


def test_rows_are_chosen_by_name() -> None:
    labels = ["Replay", "DistilledReplay, dm", "DistilledReplay, dm, 4 to an image", "pixels:bits=1"]
    assert chosen(labels, None, str) == labels
    assert chosen(labels, ["DistilledReplay"], str) == labels[1:3]
    assert chosen(labels, ["DistilledReplay, dm", "pixels"], str) == [labels[1], labels[3]]
    with pytest.raises(SystemExit, match="--row is dm; it must be one of Replay, DistilledReplay, dm"):
        chosen(labels, ["dm"], str)


def test_rows_that_are_measured_join_those_of_the_file_in_order(tmp_path: Path) -> None:
    now, path = iter((0.0, 5.0, 100.0, 107.0)), tmp_path / "rows.json"
    about = {"title": "t", "claim": "c", "how": "h", "machine": "m"}
    for name in ("b", "a"):
        kept = ResultFile(path, "row", "n", clock=lambda: next(now))
        (missing,) = kept.missing([("b", 1), ("a", 1)][: 1 + (name == "a")], lambda row: row)
        assert missing == (name, 1)
        kept.add({"row": name, "n": 1}, in_order_of([("a", 1), ("b", 1)], "row", "n"), **about, held=True)
    written = json.loads(path.read_text())
    assert list(written) == ["title", "claim", "held", "rows", "how", "machine", "versions", "seconds"]
    assert written["rows"] == [{"row": "a", "n": 1}, {"row": "b", "n": 1}]
    assert written["seconds"] == 12.0
    places = in_order_of(["x", "y"], "row")
    assert [places({"row": name}) for name in "xyz"] == [0, 1, 2]


def test_sets_in_bytes_are_not_measured_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = {"stored": "random", "codec": "pixels:bits=1", "network": "mlp", "accuracy (%)": 1.0}
    path = tmp_path / "stored-mnist-8kB.json"
    path.write_text(json.dumps({"rows": [there], "seconds": 1.0}))
    monkeypatch.setattr("ddplug.load_dataset", lambda *given, **options: None)
    monkeypatch.setattr(stored_bytes, "sets_of", lambda row, *given: [row])
    monkeypatch.setattr(
        stored_bytes,
        "measure",
        lambda row, sets, test, network, precision: {**there, "codec": row.codec},
    )
    given = {"data": "x", "data_root": None, "cache": None, "network": "mlp", "seeds": 1, "sets": None}
    given["precision"] = "float32"
    found = []
    for row in (["random"], ["random"]):
        stored_bytes.run("mnist-8kB", Namespace(**given, row=row, out=tmp_path))
        found.append(path.read_text())
    assert found[0] == found[1]
    assert [row["codec"] for row in json.loads(found[0])["rows"]] == ["pixels:bits=1", "pixels:bits=1,side=14"]


@pytest.mark.parametrize("words", [[], ["--row", "ROW"]])
@pytest.mark.parametrize(
    ("script", "result", "row"),
    [
        ("distillation.py mnist-1 --data mnist", "distillation-mnist-1", "dm"),
        ("codec_speed.py", "codec-speed", "pixels"),
        ("precision.py", "precision", "width-32"),
        ("privacy_audit.py --data mnist", "audit-mnist", "dm"),
        ("avalanche_scenarios.py digits", "scenarios-digits", "Replay"),
        ("avalanche_split.py mnist --data-root x", "avalanche-mnist", "Replay"),
    ],
)
def test_a_benchmark_whose_rows_are_there_says_so(
    words: list[str],
    script: str,
    result: str,
    row: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = OUT / f"{result}.json"
    path.parent.mkdir()
    shutil.copy(ROOT / "docs" / "benchmarks" / path.name, path)
    before = path.read_bytes()
    name, *rest = script.split()
    monkeypatch.setattr("sys.argv", [name, *rest, *(word.replace("ROW", row) for word in words)])
    runpy.run_path(str(ROOT / "examples" / "benchmarks" / name), run_name="__main__")
    assert f" there already: {path}" in capsys.readouterr().err
    assert path.read_bytes() == before
    monkeypatch.setattr("sys.argv", [name, *rest, "--row", "no such row"])
    with pytest.raises(SystemExit, match="--row is no such row; it must be one of .*" + row):
        runpy.run_path(str(ROOT / "examples" / "benchmarks" / name), run_name="__main__")


_SLOW = """
import time
from examples.benchmarks.results import each_in_its_process

def measure(arguments):
    print("began", flush=True)
    time.sleep(120)

if __name__ == "__main__":
    list(each_in_its_process(measure, [()], None, 1))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_benchmark_that_is_stopped_leaves_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(_SLOW)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stdout.readline() == "began\n"
        run.terminate()
        run.communicate(timeout=60)  # the pipe ends with the last process that has it
    assert run.returncode == -signal.SIGTERM
