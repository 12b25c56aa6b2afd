"""Every example runs, on small settings, and does what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torchvision.datasets import ImageFolder

from ddplug.storage import load

FOLDER = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_example_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("[!_]*.py")} == {
        "add_a_method",
        "avalanche_replay",
        "distil_digits",
        "nni_search",  # in tests/nni
        "own_images",
    }


def test_distil_digits(capsys: pytest.CaptureFixture[str]) -> None:
    example("distil_digits").main("a.safetensors", steps=5, repeats=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["dm", "random", "class-mean", "saved"]
    made = load("a.safetensors")
    assert (len(made), made.provenance["steps"]) == (10, 5)
    assert made.levels is not None


def test_own_images(capsys: pytest.CaptureFixture[str]) -> None:
    example("own_images").main(steps=3)
    assert "60 images of the classes digit-0, digit-1, digit-2" in capsys.readouterr().out
    assert len(load("own.safetensors")) == 6
    assert ImageFolder("own").classes == ["digit-0", "digit-1", "digit-2"]
    assert Path("own.png").read_bytes().startswith(b"\x89PNG")


def test_add_a_method(capsys: pytest.CaptureFixture[str]) -> None:
    example("add_a_method").main()
    out = capsys.readouterr().out
    assert "the contract holds" in out
    assert "10 images, 2570 bytes" in out


def test_avalanche_replay(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("avalanche", reason="Avalanche is not installed")
    with torch.random.fork_rng():
        example("avalanche_replay").main(epochs=1, distiller="kmeans")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [["Naive", "0"], ["Replay", "10"], ["DistilledReplay", "10"]]
    naive, stock, distilled = (float(line[4]) for line in lines)
    # the last two of ten classes are all that Naive knows
    assert naive < 0.25
    assert distilled > stock + 0.1
