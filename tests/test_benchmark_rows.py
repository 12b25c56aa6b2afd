"""Rows of the distillation benchmark: what judges them, and going on where a long one stopped."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddplug import distill, load_dataset
from ddplug.evaluation.learned import evaluate_as_learned
from ddplug.registry import resolve
from examples.benchmarks import distillation
from examples.benchmarks.distillation import BENCHMARKS, Benchmark, Entry, measure

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
    use(monkeypatch, published={"dm": "97.5 [recall]", "soft-label-dd, 5 images": "92 [README]"})
    cases = (
        (Entry("dm", {"images_per_class": 1, "steps": 3}), "97.5 [recall]", "steps=3"),
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


def test_some_rows_can_be_chosen_and_what_is_there_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random, kmeans = (Entry(name, {"images_per_class": 1}, 1) for name in ("random", "kmeans"))
    monkeypatch.setitem(BENCHMARKS, "x", Benchmark("x", "x", (random, DD, kmeans)))
    assert distillation.chosen(BENCHMARKS["x"], ["kmeans", "random"]) == [random.key, kmeans.key]
    assert distillation.chosen(BENCHMARKS["x"], None) == [random.key, DD.key, kmeans.key]
    with pytest.raises(SystemExit, match="--row is dm; it must be one of random, dd, kmeans"):
        distillation.chosen(BENCHMARKS["x"], ["dm"])

    path = tmp_path / "distillation-x.json"
    path.write_text(json.dumps({"keys": [random.key], "rows": [{}], "seconds": 1.0}))
    monkeypatch.setattr("subprocess.run", None)  # nothing is measured
    distillation._run("x", arguments(row=["random"]), path)
    assert f"the row is there already: {path}" in capsys.readouterr().err
