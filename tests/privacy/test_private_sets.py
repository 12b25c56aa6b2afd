"""The benchmark of private sets: what is made, by which guarantee, and that rows are measured once."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import ddplug
from ddplug.data import from_arrays
from ddplug.distillers import DPDM
from ddplug.synthetic import privacy_statement
from ddplug.testing import toy_images
from examples.benchmarks import private_sets
from examples.benchmarks.private_sets import BENCHMARKS, Row, measure, sets_of, with_public_preprocessing

NETWORK = "convnet:width=4,depth=1"
SMALL: dict[str, Any] = {"factor": 2, "steps": 1, "pool_size": 1, "network": NETWORK}


@pytest.mark.filterwarnings("ignore::ddplug.utils.notes.Note")  # toys are too small for the noise
def test_sets_have_the_guarantee_of_the_row_and_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[DPDM] = []

    def distill(data: Any, method: DPDM, seed: int) -> Any:
        asked.append(method)
        return real(data, replace(method, **SMALL), seed=seed, device="cpu")

    real = ddplug.distill
    monkeypatch.setattr(ddplug, "distill", distill)
    data, row = toy_images((400, 300)), Row(2.0, 3)
    sets, seconds = sets_of(row, "toys", data, 2, tmp_path)
    assert asked == [DPDM(epsilon=2.0, images_per_class=3)] * 2  # the defaults are what is measured
    assert len(seconds) == 2
    for made in sets:
        said = privacy_statement(made.provenance)
        assert said is not None and (said["epsilon"], said["delta"]) == (2.0, 1e-5)
        assert len(made) == 2 * 3 * 4
    again, none = sets_of(row, "toys", data, 2, tmp_path)
    assert none == [] and len(asked) == 2
    assert all(torch.equal(one.inputs, other.inputs) for one, other in zip(sets, again, strict=True))
    found = measure(row, sets, seconds, data, NETWORK, 1, "bfloat16")
    assert (found["images"], found["side"], found["bytes"]) == (24, 4, 24 * 17 + 8)
    assert found["set"] == "epsilon 2, 3 a class"
    assert (found["steps"], found["sets"], found["precision"]) == (1, 2, "bfloat16")
    assert measure(row, sets[:1], none, data, NETWORK, 1, "float32")["deviation"] is None


def test_a_mean_that_was_computed_from_the_data_is_replaced_by_a_published_one() -> None:
    pixels = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4).byte()
    own = from_arrays(pixels, torch.tensor([0, 1]), preprocess="standardize")
    public = with_public_preprocessing(own)
    assert own.preprocess.fitted and not public.preprocess.fitted
    mean, deviation = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2023, 0.1994, 0.2010])
    expected = (pixels[0, :, 0, 0] / 255 - mean) / deviation
    assert torch.allclose(public.batch(torch.tensor([0]))[0, :, 0, 0], expected)
    assert with_public_preprocessing(public) is public


def test_rows_are_measured_once_and_stand_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured: list[tuple[str, int]] = []

    def known(row: Row, sets: Any, seconds: Any, test: Any, network: str, steps: int, precision: str) -> dict[str, Any]:
        measured.append((row.name, steps))
        return {"set": row.name, "network": network, "steps": steps}

    monkeypatch.setattr("ddplug.load_dataset", lambda *given, **options: toy_images())
    monkeypatch.setattr(private_sets, "sets_of", lambda *given: ([], []))
    monkeypatch.setattr(private_sets, "measure", known)
    given = {
        "data": "x",
        "data_root": None,
        "cache": None,
        "network": "mlp",
        "seeds": 1,
        "sets": None,
        "precision": "float32",
    }
    for names, steps in ((["epsilon 1, 10 a class"], 5), (None, 5), (None, 5), (["epsilon 0.1, 10 a class"], 3)):
        private_sets.run("mnist", Namespace(**given, row=names, steps=steps, out=tmp_path))
    every = [row.name for row in BENCHMARKS["mnist"].rows]
    others = [(name, 5) for name in every if name != "epsilon 1, 10 a class"]
    assert measured == [("epsilon 1, 10 a class", 5), *others, ("epsilon 0.1, 10 a class", 3)]
    assert every[0] == "epsilon 0.1, 10 a class"
    written = json.loads((tmp_path / "private-mnist.json").read_text())
    assert [(row["set"], row["steps"]) for row in written["rows"]] == [(every[0], 3), *((name, 5) for name in every)]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_published_table_has_rows_of_the_script(name: str) -> None:
    path = Path(__file__).parents[2] / "docs" / "benchmarks" / f"private-{name}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    assert {row["set"] for row in rows} <= {row.name for row in BENCHMARKS[name].rows}
