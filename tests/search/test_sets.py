"""Set files on their way to trials: fingerprints, one load a process, and pairs that do not fit."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ddplug.data.preprocess import Identity, Standardize
from ddplug.errors import DataError, FormatError, OptionError
from ddplug.search.sets import check_pair, load_set
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.fingerprints import file_fingerprint

SET = SyntheticSet(
    torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2, 2, Identity()
)


def test_fingerprint_is_the_digest_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "file").write_bytes(content)
    assert file_fingerprint(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    with pytest.raises(OptionError, match=r"missing.*No such file"):
        file_fingerprint(tmp_path / "missing")


def test_a_file_is_loaded_once_and_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    SET.save(path)
    first = load_set(path)
    assert torch.equal(first.inputs, SET.inputs)
    assert load_set(os.path.relpath(path), file_fingerprint(path)) is first
    replace(SET, targets=1 - SET.targets).save(path)
    os.utime(path, ns=(1, 1))
    assert not torch.equal(load_set(path).targets, first.targets)


def test_altered_missing_and_broken_files_say_so_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    SET.save(path)
    mark = file_fingerprint(path)
    load_set(path, mark)
    replace(SET, targets=1 - SET.targets).save(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(
        DataError, match=rf"a\.safetensors was altered: .*{file_fingerprint(path)[:12]}, not {mark[:12]}"
    ):
        load_set(path, mark)
    path.write_bytes(b"no set")
    with pytest.raises(FormatError, match=r"a\.safetensors"):
        load_set(path)
    path.unlink()
    with pytest.raises(OptionError, match=r"a\.safetensors") as caught:
        load_set(path)
    assert "\n" not in str(caught.value)


def test_a_pair_of_one_kind_is_fine() -> None:
    check_pair(SET, replace(SET, provenance={"method": "holdout"}))
    check_pair(replace(SET, targets=torch.eye(2)[SET.targets]), SET)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": torch.zeros(6, 1, 5, 5)}, r"differ in shape: \(1, 4, 4\) and \(1, 5, 5\)"),
        (
            {"num_classes": 3, "class_names": ("a", "b", "c"), "targets": torch.arange(6) % 3},
            "number of classes: 2 and 3",
        ),
        ({"preprocess": Standardize(torch.zeros(1), torch.ones(1))}, "preprocessing: identity and standardize"),
        ({"targets": torch.eye(2)[SET.targets]}, "soft labels"),
        ({"provenance": {"method": "dm"}}, "made by 'dm'"),
        ({"provenance": {"merged": [{}, {"method": "kmeans"}]}}, "made by 'kmeans'"),
    ],
)
def test_a_split_that_does_not_suit_the_set_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_pair(SET, replace(SET, **changes))


def test_classes_are_told_by_their_names() -> None:
    made = replace(SET, class_names=("ant", "bee"))
    check_pair(made, replace(SET, class_names=("bee", "ant")))
    with pytest.raises(DataError, match="only the first has 'ant'; only the second has 'cat'; cut one off"):
        check_pair(made, replace(SET, class_names=("bee", "cat")))


def test_a_set_made_from_what_the_split_was_cut_from_is_refused() -> None:
    split = replace(SET, provenance={"method": "holdout", "data": {"fingerprint": "rest", "cut_from": "all"}})
    check_pair(replace(SET, provenance={"data": {"fingerprint": "train"}}), split)
    for provenance in ({"data": {"fingerprint": "all"}}, {"merged": [{}, {"data": {"fingerprint": "all"}}]}):
        with pytest.raises(
            DataError, match="the set was made from all of the data, including what is held out; distill again"
        ):
            check_pair(replace(SET, provenance=provenance), split)


def test_two_standardisations_differ_by_their_numbers() -> None:
    mine, theirs = (replace(SET, preprocess=Standardize(torch.zeros(1), torch.ones(1) * k)) for k in (1, 2))
    with pytest.raises(DataError, match="std of their preprocessing"):
        check_pair(mine, theirs)
