"""A held-out part is the real data themselves, and those that distilling with the same fraction leaves out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import ddplug
from ddplug.cli.program import main
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.held_out import holdout
from ddplug.testing import toy_images, toy_table


def test_bytes_come_back_bit_for_bit(tmp_path: Path) -> None:
    images = torch.randint(256, (30, 3, 6, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = ddplug.from_arrays(images, torch.arange(30) % 3, name="bytes")
    holdout(data).save(tmp_path / "a.safetensors")
    made = SyntheticSet.load(tmp_path / "a.safetensors")
    assert made.levels is not None
    assert torch.equal((made.pixels() * 255).round().to(torch.uint8), images)
    assert torch.equal(made.targets, data.targets)
    torch.testing.assert_close(made.inputs, data.batch(torch.arange(30)), rtol=0, atol=1e-6)
    assert (tmp_path / "a.safetensors").stat().st_size < images.numel() + 6000


@pytest.mark.parametrize("data", [toy_images((5, 6)), toy_table((5, 6))], ids=["images", "rows"])
def test_numbers_stay_as_they_are(data: ddplug.LabeledData) -> None:
    made = holdout(data)
    assert torch.equal(made.inputs, data.batch(torch.arange(len(data))))
    assert (made.class_names, made.num_classes) == (data.class_names, data.num_classes)
    assert made.provenance["data"] == {"name": data.name, "fingerprint": data.fingerprint}


def test_command_saves_what_distilling_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rest.safetensors"
    assert main(["holdout", "--data", "digits", "--validation", "0.2", "-o", str(path), "--json"]) == 0
    rest = ddplug.load_dataset("digits").split(0.2)[1]
    assert json.loads(capsys.readouterr().out) == {
        "file": str(path),
        "samples": len(rest),
        "classes": 10,
        "file_bytes": path.stat().st_size,
    }
    assert torch.equal(SyntheticSet.load(path).targets, rest.targets)
    # so that a set of all data is not judged by a part of them
    assert SyntheticSet.load(path).provenance["data"]["cut_from"] == ddplug.load_dataset("digits").fingerprint
    assert main(["holdout", "--data", "digits", "--validation", "0.2", "-o", str(path)]) == 0  # our own file
    assert f"{len(rest)} real samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "how much to hold out is not given"),
        (["--validation", "0"], "--validation"),
        (["--validation", "0.2", "-o", "/nowhere/a.safetensors"], "/nowhere"),
    ],
)
def test_mistakes_are_one_line(
    extra: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["holdout", "--data", "digits", "-o", str(tmp_path / "a.safetensors"), *extra]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_foreign_files_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("mine")
    assert main(["holdout", "--data", "digits", "--validation", "0.2", "-o", str(path)]) == 2
    assert "choose another path" in capsys.readouterr().err
    assert path.read_text() == "mine"
