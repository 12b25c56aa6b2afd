"""Shards of a run by classes: merged they are the run, and what is not one is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddplug import registry
from ddplug.cli.program import main
from ddplug.distillation.loop import distill
from ddplug.errors import CheckpointError, DataError, OptionError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.merging import merge
from ddplug.testing import made_small, toy_images

pytestmark = pytest.mark.filterwarnings("ignore:toy-images. 1 of 5 classes have fewer:ddplug.utils.notes.Note")

DATA = toy_images((12, 9, 2, 11, 10), channels=3)
APART = ("class-mean", "herding", "k-center", "kmeans", "kmeans-centroid", "random", "rded")


def made(name: str, **options: Any) -> SyntheticSet:
    method = made_small(registry.resolve("distiller", name)())
    return distill(DATA, replace(method, images_per_class=3), device="cpu", **options)


@pytest.mark.parametrize("name", APART)
def test_merged_shards_are_the_run(name: str, tmp_path: Path) -> None:
    if name == "rded":
        assert made(name).targets.ndim == 2  # it labels images by what they show
    for number in (2, 5):
        parts = [made(name, shard=(k, number)) for k in range(number, 0, -1)]
        for k, part in enumerate(parts):
            part.save(tmp_path / f"{k}")
        again = merge({f"{k}": SyntheticSet.load(tmp_path / f"{k}") for k in range(number)})
        whole = made(name)
        assert torch.equal(again.inputs, whole.inputs) and torch.equal(again.targets, whole.targets)
        seconds = sum(part.provenance["seconds"] for part in parts)
        assert again.provenance == {**whole.provenance, "seconds": pytest.approx(seconds)}
        assert (again.recipe, again.levels is None) == (whole.recipe, whole.levels is None)


@pytest.mark.parametrize("name", sorted(set(registry.names("distiller")) - set(APART)))
def test_other_methods_refuse(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name} does not treat the classes apart.*: leave the shard out"):
        distill(DATA, registry.resolve("distiller", name)(), shard=(1, 2), device="cpu")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"shard": "1/2"}, "the shard is '1/2'; give two whole numbers"),
        ({"shard": (3, 2)}, "the shard is 3/2; it must be K/N with K between 1 and N"),
        ({"shard": (0, 2)}, "the shard is 0/2; it must be"),
        ({"shard": (1, 6)}, "the shard is 1/6, of 5 classes; use at most 5 shards"),
        ({"shard": (1, 2), "nbytes": 1000}, "a codec and a number of bytes are of whole sets; leave them out"),
        ({"shard": (1, 2), "codec": "pixels"}, "a codec and a number of bytes are of whole sets; leave them out"),
    ],
)
def test_what_is_no_shard_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        made("random", **options)


def test_a_shard_is_of_whole_numbers_of_any_kind(tmp_path: Path) -> None:
    expected = made("random", shard=(1, 2))
    for shard in ((np.int64(1), np.int64(2)), (1.0, 2), [1, 2]):
        part = made("random", shard=shard)
        part.save(tmp_path / "part")
        found = SyntheticSet.load(tmp_path / "part").provenance
        assert {**found, "seconds": 0} == {**expected.provenance, "seconds": 0}
    assert "shard" not in made("random", shard=[1, 1]).provenance


def test_what_does_not_belong_together_is_refused() -> None:
    one, other = (made("random", shard=(k, 2)) for k in (1, 2))
    cases: list[tuple[list[SyntheticSet], str]] = [
        ([], "there is no shard to merge"),
        ([made("random")], "set 1 is not a shard; merge files that ddplug distill --shard K/N made"),
        ([one], "shard 2/2 is not there; make it and give all 2"),
        ([one, one], "set 1 and set 2 are both shard 1/2; give each once"),
        ([one, made("random", shard=(2, 3))], "set 2 is shard 2/3, but another is one of 2"),
        ([one, made("random", shard=(2, 2), seed=1)], "their seed is 0 and 1; make them with the same options"),
        ([one, made("herding", shard=(2, 2))], "their method is 'random' and 'herding'"),
        ([one, replace(other, levels=None)], "their images have other levels"),
        ([one, replace(other, provenance={**other.provenance, "shard": [4, 2]})], "which cannot be"),
        ([one, replace(other, provenance={**other.provenance, "shard": "x"})], "set 2 is not a shard"),
    ]
    for sets, told in cases:
        with pytest.raises(DataError, match=told):
            merge(sets)


def test_one_set_is_no_list_of_shards() -> None:
    with pytest.raises(DataError, match="one set is given, not several; give a list of all shards"):
        merge(made("random", shard=(1, 2)))  # type: ignore[arg-type]


def test_a_checkpoint_is_of_one_shard(tmp_path: Path) -> None:
    made("random", shard=(1, 2), checkpoint=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"its shard was \[1, 2\] and is now \[2, 2\]"):
        made("random", shard=(2, 2), checkpoint=tmp_path / "run")


def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["distill", "random", "--data", "digits", "--device", "cpu", "-o", "x", "--shard"]
    for words, told in (
        ([*command, "two"], "is 'two'; give two whole numbers, as 3/8"),
        ([*command, "1/2", "--quantize"], "--bits and --quantize do not go with --shard"),
        ([*command, "1/2", "--bytes", "1kB"], "a codec and a number of bytes are of whole sets"),
        (["merge", "missing", "-o", "y"], "missing"),
    ):
        assert main(words) == 2
        assert told in capsys.readouterr().err
    assert main([*command, "1/1"]) == 0
    assert main(["merge", "x", "-o", "y"]) == 2
    assert capsys.readouterr().err == (
        "ddplug: error: x is not a shard; merge files that ddplug distill --shard K/N made\n"
    )
