"""Folders of images: the same pixels as PIL's, and every way in which a folder can be unfit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ddplug.data.datasets import load
from ddplug.data.loaders import from_image_folder
from ddplug.errors import DataError, OptionError


def pixels(seed: int, height: int = 6, width: int = 5, grey: bool = False) -> NDArray[np.uint8]:
    shape = (height, width) if grey else (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder: Path, classes: tuple[str, ...] = ("ant", "bee"), count: int = 4, grey: bool = False) -> Path:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(pixels(100 * label + i, grey=grey)).save(folder / name / f"{i}.png")
    return folder


def test_images_are_read_as_they_are(tmp_path: Path) -> None:
    data = from_image_folder(write(tmp_path / "insects"), preprocess="identity")
    assert (data.name, data.class_names, data.shape) == ("insects", ("ant", "bee"), (3, 6, 5))
    assert data.targets.tolist() == [0] * 4 + [1] * 4
    for position, seed in ((0, 0), (3, 3), (6, 102)):
        assert np.array_equal(data.inputs[position].permute(1, 2, 0).numpy(), pixels(seed))


def test_grey_stays_grey_unless_one_image_is_in_color(tmp_path: Path) -> None:
    folder = write(tmp_path, grey=True)
    grey = from_image_folder(folder)
    assert grey.shape == (1, 6, 5)
    assert np.array_equal(grey.inputs[1, 0].numpy(), pixels(1, grey=True))
    Image.fromarray(pixels(7)).save(folder / "bee" / "9.png")
    mixed = from_image_folder(folder)
    assert mixed.shape == (3, 6, 5)
    assert torch.equal(mixed.inputs[:8], grey.inputs.expand(8, 3, 6, 5))


def test_a_transparent_palette_loses_its_transparency(tmp_path: Path) -> None:
    folder = write(tmp_path)
    image = Image.fromarray(pixels(0)).quantize(16)
    image.save(folder / "ant" / "0.png", transparency=b"\0\x80")
    expected = np.array(image.convert("RGB"))
    assert np.array_equal(from_image_folder(folder).inputs[0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("grey", [False, True])
def test_resizing_is_pils_and_height_comes_first(grey: bool, tmp_path: Path) -> None:
    folder = write(tmp_path, grey=grey)
    big = Image.fromarray(pixels(5, 40, 30, grey))
    big.save(folder / "bee" / "9.png")
    data = from_image_folder(folder, size=(8, 12))
    expected = np.array(big.resize((12, 8), Image.Resampling.BILINEAR)).reshape(8, 12, -1)
    assert data.shape == (1 if grey else 3, 8, 12)
    assert np.array_equal(data.inputs[-1].permute(1, 2, 0).numpy(), expected)


def test_a_cache_gives_the_same_and_is_made_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, cache = write(tmp_path / "insects"), tmp_path / "cache"
    memory = from_image_folder(folder)
    assert from_image_folder(folder, cache=cache).fingerprint == memory.fingerprint
    with monkeypatch.context() as patch:
        patch.setattr("ddplug.data.images.Image.open", None)
        assert from_image_folder(folder, cache=cache).fingerprint == memory.fingerprint
    path = folder / "ant" / "2.png"
    status = path.stat()
    Image.fromarray(pixels(77)).save(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    changed = from_image_folder(folder, cache=cache)
    assert np.array_equal(changed.inputs[2].permute(1, 2, 0).numpy(), pixels(77))
    path.rename(folder / "bee" / "2a.png")
    assert from_image_folder(folder, cache=cache).targets.tolist() == [0] * 3 + [1] * 5
    assert from_image_folder(folder, cache=cache, size=(3, 3)).shape == (3, 3, 3)
    assert len(list(cache.iterdir())) == 2


def test_progress_is_shown_only_when_asked_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "insects")
    from_image_folder(folder)
    assert capfd.readouterr() == ("", "")
    from_image_folder(folder, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "decoding insects: 100%" in err
    assert "8/8" in err


def test_unfit_folders_are_one_clear_line(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            from_image_folder(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert f"{tmp_path}/none is not a folder" in refusal(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert f"{empty} has no class folders" in refusal(empty)
    (empty / "ant").mkdir()
    assert f"{empty}/ant has no image" in refusal(empty)
    assert "has one class, 'ant'; at least 2" in refusal(write(tmp_path / "one", ("ant",)))
    sized = write(tmp_path / "sized")
    Image.fromarray(pixels(0, 7, 9)).save(sized / "bee" / "2.png")
    assert f"{sized}/ant/0.png is 6 x 5 but {sized}/bee/2.png is 7 x 9" in refusal(sized)
    assert "give size=(height, width)" in refusal(sized)
    deep = write(tmp_path / "deep")
    Image.new("I;16", (5, 6)).save(deep / "ant" / "1.png")
    says = "(an image of the mode I;16 is neither grey nor RGB in bytes; convert it to 8 bits a channel)"
    assert f"cannot read the image {deep}/ant/1.png {says}" in refusal(deep)
    (deep / "ant" / "1.png").unlink()
    Image.new("LAB", (5, 6)).save(deep / "ant" / "1.tif")
    assert "mode LAB is neither grey nor RGB in bytes; convert it to RGB)" in refusal(deep)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("keep", [0, 20, 100])
def test_an_unreadable_image_is_named_and_leaves_no_cache(keep: int, cached: bool, tmp_path: Path) -> None:
    folder, cache = write(tmp_path / "insects"), tmp_path / "cache"
    path = folder / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"^cannot read the image {path} .*; replace or remove it$"):
        from_image_folder(folder, cache=cache if cached else None)
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, -1)])
def test_a_wrong_size_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="it must be \\(height, width\\)"):
        from_image_folder(write(tmp_path), size=size)


def test_load_splits_a_folder_always_alike(tmp_path: Path) -> None:
    folder = write(tmp_path / "insects", count=10)
    train, test = (load(f"imagefolder:{folder}", split=split) for split in ("train", "test"))
    assert (len(train), len(test), test.name) == (16, 4, "insects")
    assert torch.bincount(test.targets).tolist() == [2, 2]
    every = torch.cat([train.inputs, test.inputs]).flatten(1)
    whole = from_image_folder(folder).inputs.flatten(1)
    assert sorted(every.tolist()) == sorted(whole.tolist())
    mean = train.inputs.double().div(255).mean((0, 2, 3)).float()
    for part in (train, test):
        torch.testing.assert_close(part.preprocess.tensors()["mean"], mean)
    assert load(f"imagefolder:{folder}", split="test").fingerprint == test.fingerprint


def test_load_takes_train_and_test_folders(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "test", count=2)
    train, test = (load(f"imagefolder:{tmp_path}", split=split, size=(4, 4)) for split in ("train", "test"))
    assert (len(train), len(test), train.name) == (8, 4, tmp_path.name)
    assert train.preprocess.tensors()["mean"].tolist() == test.preprocess.tensors()["mean"].tolist()
    (tmp_path / "test" / "bee").rename(tmp_path / "test" / "wasp")
    with pytest.raises(DataError, match=r"the classes ant, bee; test has \(3, 6, 5\) and ant, wasp: make them equal"):
        load(f"imagefolder:{tmp_path}", split="test")
