"""Folders of images: the same pixels as PIL's, and every way in which a folder can be unfit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ddplug.data.datasets import load
from ddplug.data.loaders import from_image_folder
from ddplug.distillation import distill
from ddplug.errors import DataError, OptionError
from ddplug.synthetic.compat import same_space
from ddplug.utils.notes import Note


def pixels(seed: int, height: int = 6, width: int = 5, gray: bool = False) -> NDArray[np.uint8]:
    shape = (height, width) if gray else (height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(folder: Path, classes: tuple[str, ...] = ("ant", "bee"), count: int = 4, gray: bool = False) -> Path:
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(pixels(100 * label + i, gray=gray)).save(folder / name / f"{i}.png")
    return folder


def test_images_are_read_as_they_are(tmp_path: Path) -> None:
    data = from_image_folder(write(tmp_path / "insects"), preprocess="identity")
    assert (data.name, data.class_names, data.shape) == ("insects", ("ant", "bee"), (3, 6, 5))
    assert data.targets.tolist() == [0] * 4 + [1] * 4
    for position, seed in ((0, 0), (3, 3), (6, 102)):
        assert np.array_equal(data.inputs[position].permute(1, 2, 0).numpy(), pixels(seed))


def test_grey_stays_grey_unless_one_image_is_in_color(tmp_path: Path) -> None:
    folder = write(tmp_path, gray=True)
    gray = from_image_folder(folder)
    assert gray.shape == (1, 6, 5)
    assert np.array_equal(gray.inputs[1, 0].numpy(), pixels(1, gray=True))
    Image.fromarray(pixels(7)).save(folder / "bee" / "9.png")
    mixed = from_image_folder(folder)
    assert mixed.shape == (3, 6, 5)
    assert torch.equal(mixed.inputs[:8], gray.inputs.expand(8, 3, 6, 5))


def test_a_transparent_palette_loses_its_transparency(tmp_path: Path) -> None:
    folder = write(tmp_path)
    image = Image.fromarray(pixels(0)).quantize(16)
    image.save(folder / "ant" / "0.png", transparency=b"\0\x80")
    expected = np.array(image.convert("RGB"))
    assert np.array_equal(from_image_folder(folder).inputs[0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("gray", [False, True])
def test_resizing_is_pils_and_height_comes_first(gray: bool, tmp_path: Path) -> None:
    folder = write(tmp_path, gray=gray)
    big = Image.fromarray(pixels(5, 40, 30, gray))
    big.save(folder / "bee" / "9.png")
    data = from_image_folder(folder, size=(8, 12))
    expected = np.array(big.resize((12, 8), Image.Resampling.BILINEAR)).reshape(8, 12, -1)
    assert data.shape == (1 if gray else 3, 8, 12)
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
    said = f"cannot read the image {deep}/ant/1.png (an image of the mode I;16 has not 8 bits a channel; convert"
    assert said in refusal(deep)
    (deep / "ant" / "1.png").unlink()
    Image.new("LAB", (5, 6)).save(deep / "ant" / "1.tif")
    assert "(an image of the mode LAB is neither gray nor RGB; convert it to RGB)" in refusal(deep)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("keep", [0, 20, 100])
def test_an_unreadable_image_is_named_and_leaves_no_cache(keep: int, cached: bool, tmp_path: Path) -> None:
    folder, cache = write(tmp_path / "insects"), tmp_path / "cache"
    path = folder / "bee" / "1.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=f"^cannot read the image {path} .*; replace or remove it$"):
        from_image_folder(folder, cache=cache if cached else None)
    assert not list(cache.glob("*"))


def test_one_number_is_a_square(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for size in (4, np.int64(4), [4, 4], 4.0):
        assert load(folder, size=size).shape == (3, 4, 4)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, -1), 0, "4", 4.5, (4.0, 4.5), 10**6])
def test_a_wrong_size_is_refused(size: Any, tmp_path: Path) -> None:
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
    with pytest.raises(DataError, match="train and test differ: bee only in train; make them equal"):
        load(f"imagefolder:{tmp_path}", split="test")


@pytest.mark.parametrize(
    ("train", "held"),
    [
        ("train", "val"),
        ("Train", "VAL"),
        ("training", "testing"),
        ("TRAIN", "Valid"),
        ("train", "validation"),
        ("train2017", "val2017"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("train", "eval"),
        ("Training", "hold-out"),
        ("train", "Evaluation"),
    ],
)
def test_parts_go_by_many_names(train: str, held: str, tmp_path: Path) -> None:
    write(tmp_path / train, count=3)
    write(tmp_path / held, count=2)
    parts = [load(f"imagefolder:{tmp_path}", split=split) for split in ("train", "test")]
    assert [(len(part), part.class_names) for part in parts] == [(6, ("ant", "bee")), (4, ("ant", "bee"))]
    assert load(tmp_path, split="test").fingerprint == parts[1].fingerprint


def test_tests_are_judged_on_before_validation_data_if_they_have_classes(tmp_path: Path) -> None:
    for name, count in (("train", 3), ("val", 2), ("test", 1)):
        write(tmp_path / name, count=count)
    assert len(load(tmp_path, split="test")) == 2
    for path in list((tmp_path / "test").rglob("*.png")):
        path.rename(tmp_path / "test" / f"{path.parent.name}-{path.name}")
    for name in ("ant", "bee"):
        (tmp_path / "test" / name).rmdir()
    assert len(load(tmp_path, split="test")) == 4


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_readings_of_a_folder_are_refused_with_both_named(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write(tmp_path / "parts" / name)
    (tmp_path / "parts" / "labels").mkdir()
    assert len(load(tmp_path / "parts")) == 8
    write(tmp_path / "parts" / "unlabeled")
    assert "two ways: train and val as parts of a data set, or as classes beside unlabeled" in refused(
        tmp_path / "parts"
    )
    for name in ("train", "valid", "validation"):
        write(tmp_path / "twice" / name)
    assert "valid and validation mean the same part" in refused(tmp_path / "twice")
    for name in ("test", "val"):
        write(tmp_path / "half" / name)
    assert "holds test and val but no train" in refused(tmp_path / "half")
    write(tmp_path / "only" / "train")
    assert f"give imagefolder:{tmp_path}/only/train to split it" in refused(tmp_path / "only")
    write(tmp_path / "flat", ("train", "test"))
    assert f"{tmp_path}/flat/train has no class folders" in refused(tmp_path / "flat")
    for name in ("ant", "bee"):
        write(tmp_path / "inside" / name, ("train", "test"))
    assert f"as in {tmp_path}/inside/train/ant" in refused(tmp_path / "inside")
    for name in ("train", "gallery"):
        write(tmp_path / "alien" / name)
    assert "gallery and train as classes, or as parts of a data set with the classes ant and bee" in refused(
        tmp_path / "alien"
    )
    write(tmp_path / "unlabeled", ("train/ant", "train/bee", "test"))
    assert f"or give imagefolder:{tmp_path}/unlabeled/train to split that" in refused(tmp_path / "unlabeled")
    write(tmp_path / "outer" / "insects")
    assert f"or is imagefolder:{tmp_path}/outer/insects meant?" in refused(tmp_path / "outer")
    with pytest.raises(DataError, match="holds the parts train and val of a data set, not classes"):
        (tmp_path / "parts" / "unlabeled").rename(tmp_path / "elsewhere")
        from_image_folder(tmp_path / "parts")


@pytest.mark.parametrize(
    "names",
    [
        ("trainA", "trainB", "testA", "testB"),
        ("train_cat", "train_dog", "test_cat", "test_dog"),
        ("catTraining", "dogTraining", "catValidation", "dogValidation"),
    ],
)
def test_classes_that_are_named_within_parts_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path, names)
    assert "as classes, or as the parts of one or several data sets; put the classes" in refused(tmp_path)
    write(tmp_path, ("bird",))  # these are classes beside others
    assert len(load(tmp_path).class_names) == 5


def test_a_part_to_test_on_holds_more_than_one_class(tmp_path: Path) -> None:
    write(tmp_path / "train", ("ant/images", "bee/images"))
    write(tmp_path / "test", ("images",))
    said = refused(tmp_path)
    assert f"{tmp_path}/test has one class folder, 'images'; put its images into one folder for each class" in said
    assert len(load(said.partition("or give ")[2].partition(" to split")[0])) == 8 - 2


@pytest.mark.parametrize("marks", ["masks", "Annotations", "labels"])
def test_pictures_and_what_is_marked_in_them_are_no_classes(marks: str, tmp_path: Path) -> None:
    write(tmp_path, ("images", marks))
    said = refused(tmp_path)
    assert "as pictures and what is marked in them; put the pictures of each class into a folder" in said
    write(tmp_path, ("pears",))
    assert load(tmp_path).num_classes == 3


@pytest.mark.parametrize("names", [("Cat", "cat"), ("cat", "cat "), ("caf\u00e9", "cafe\u0301")])
def test_classes_that_may_be_one_are_told_of(names: tuple[str, str], tmp_path: Path) -> None:
    with pytest.warns(Note, match=r"classes '.*' and '.*' differ only in spaces, the case of letters or"):
        assert from_image_folder(write(tmp_path / "a", names)).num_classes == 2
    assert from_image_folder(write(tmp_path / "b", ("a", "A"))).num_classes == 2  # letters are of both cases


def test_classes_that_hold_the_same_folders_are_read_with_a_note(tmp_path: Path) -> None:
    for name in ("day", "night"):
        write(tmp_path / name, ("left", "right"), 2)
    with pytest.warns(Note, match="two ways: day and night as classes, or as parts of .* with the classes left"):
        assert from_image_folder(tmp_path).class_names == ("day", "night")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = write(tmp_path)
    os.mkfifo(folder / "bee" / "9.png")
    with pytest.raises(DataError, match=r"9\.png \(it is not a file but a pipe"):
        from_image_folder(folder)


@pytest.mark.parametrize("ending", ["gif", "tif", "webp", "png"])
def test_frames_that_are_not_read_are_told_of(ending: str, tmp_path: Path) -> None:
    folder = write(tmp_path)
    frames = [Image.fromarray(pixels(seed)) for seed in range(3)]
    frames[0].save(folder / "bee" / f"9.{ending}", save_all=True, append_images=frames[1:])
    with pytest.warns(Note, match=rf"1 of 9 pictures have several frames or pages \(.*9\.{ending}\), the first"):
        assert from_image_folder(folder).shape == (3, 6, 5)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    assert load(write(tmp_path / "a", ("bus", "train"), 5)).class_names == ("bus", "train")
    assert load(write(tmp_path / "b", ("bullet_train", "bus"), 5)).class_names == ("bullet_train", "bus")


def test_archives_that_hold_a_folder_of_their_own_name(tmp_path: Path) -> None:
    for part, count in (("train", 3), ("test", 2)):
        write(tmp_path / part / part, count=count)
    assert [len(load(tmp_path, split=split)) for split in ("train", "test")] == [6, 4]


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found", "._ant", "#recycle"]
)
def test_what_systems_leave_behind_is_no_class(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "insects")
    expected = from_image_folder(folder).fingerprint
    (folder / name).mkdir()
    (folder / "ant" / name).mkdir()
    for place in (folder, folder / "ant"):
        Image.fromarray(pixels(9)).save(place / name / "0.png")
        for file in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
            (place / file).write_bytes(b"x")
    data = from_image_folder(folder)
    assert (data.class_names, data.fingerprint) == (("ant", "bee"), expected)


def test_what_is_not_read_is_counted_and_named(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for name in ("ant/a.heic", "ant/b.HEIC", "ant/noending", "bee/c.txt", "readme.md"):
        (folder / name).write_bytes(b"x")
    with pytest.warns(Note) as said:
        from_image_folder(folder)
    (text,) = (str(each.message) for each in said)
    assert text.startswith(f"{folder}: 5 of 13 files are not read: 2 .heic (ant/a.heic), ")
    assert "1 without an extension (ant/noending)" in text
    for path in (folder / "bee").glob("*.png"):
        path.unlink()
    assert f"{folder}/bee has no image that Pillow reads, but 1 other files (c.txt)" in refused(folder)


@pytest.mark.parametrize("ending", ["gif", "webp", "avif", "jfif", "JPEG", "tif", "BMP", "jp2", "tga", "ppm", "ico"])
def test_every_format_of_pillow_is_read(ending: str, tmp_path: Path) -> None:
    folder = write(tmp_path)
    image = Image.fromarray(pixels(3)).resize((16, 16))
    for number in range(3):
        image.save(folder / "bee" / f"x{number}.{ending}")
    assert len(from_image_folder(folder, size=(4, 4))) == 11


def test_a_picture_is_never_run_as_a_program(tmp_path: Path) -> None:
    folder = write(tmp_path)
    with (folder / "bee" / "9.png").open("wb") as file:
        Image.fromarray(pixels(3)).save(file, format="EPS")
    with pytest.raises(DataError, match=r"cannot read the image .*9\.png \(cannot identify"):
        from_image_folder(folder)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_pictures_are_turned_upright(orientation: int, ending: str, tmp_path: Path) -> None:
    stored = Image.fromarray(np.repeat(np.repeat(pixels(5), 8, 0), 8, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        stored.save(tmp_path / name / f"0.{ending}", exif=exif)
    with Image.open(tmp_path / "ant" / f"0.{ending}") as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    data = from_image_folder(tmp_path)
    assert data.shape == (3, *((48, 40) if orientation < 5 else (40, 48)))
    assert np.array_equal(data.inputs[0].permute(1, 2, 0).numpy(), expected)
    small = np.array(Image.fromarray(expected).resize((20, 10), Image.Resampling.BILINEAR))
    assert np.array_equal(from_image_folder(tmp_path, size=(10, 20)).inputs[0].permute(1, 2, 0).numpy(), small)


@pytest.mark.parametrize("grey_part", ["train", "test"])
def test_the_test_part_is_read_as_the_training_part_is(grey_part: str, tmp_path: Path) -> None:
    for part in ("train", "test"):
        write(tmp_path / "insects" / part, gray=part == grey_part)
    for cache in (None, tmp_path / "cache"):
        train, test = (load(tmp_path / "insects", split=split, cache=cache) for split in ("train", "test"))
        assert train.shape == test.shape == ((1, 6, 5) if grey_part == "train" else (3, 6, 5))
        assert test.preprocess.tensors()["mean"].tolist() == train.preprocess.tensors()["mean"].tolist()


def test_a_class_of_one_picture_names_the_held_out_part(tmp_path: Path) -> None:
    folder = write(tmp_path, count=5)
    write(folder, ("cat",), 1)
    assert "class 'cat' has 1 image; a fifth of each class is held out as the test part" in refused(folder)


def test_a_picture_too_large_to_decode_is_refused_by_its_header(tmp_path: Path) -> None:
    folder = write(tmp_path)
    head = b"P6\n10000 9000\n255\n"
    (folder / "bee" / "bomb.ppm").write_bytes(head + bytes(30))
    assert "it has 10000 x 9000 pixels, more than 67 million" in refused(folder)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell the most memory")
def test_a_picture_is_unfolded_once_before_it_is_made_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    folder = write(tmp_path, count=2)
    Image.new("1", (5000, 5000)).save(folder / "ant" / "0.png")  # 3 kB; 25 MB, and 100 MB in color

    def most() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # forgets what it was
    before = most()
    assert from_image_folder(folder, size=8).shape == (3, 8, 8)
    assert most() - before < 170e6


def test_a_link_upward_ends_the_walk(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "ant" / "again").symlink_to(folder / "ant")
    (folder / "bee" / "all").symlink_to(folder)  # where the images of the other class are
    assert len(from_image_folder(folder)) == 8


def test_a_link_to_itself_is_a_file_that_is_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "ant" / "round").symlink_to("round")
    with pytest.warns(Note, match=r"1 of 9 files are not read: 1 without an extension \(ant/round\)"):
        assert len(from_image_folder(folder)) == 8
    (folder / "ant" / "round").unlink()
    (folder / "ant" / "0.png").unlink()
    (folder / "ant" / "0.png").symlink_to("0.png")
    assert "Too many levels of symbolic links" in refused(folder)


def test_parts_of_two_file_systems_have_the_same_classes(tmp_path: Path) -> None:
    write(tmp_path / "train", ("caf\u00e9", "cafz"))
    write(tmp_path / "test", ("cafe\u0301", "cafz"))
    train, test = (load(tmp_path, split=split) for split in ("train", "test"))
    made = distill(train, "random", images_per_class=1, device="cpu")
    found = same_space(made, test, "test", torch.device("cpu"))
    assert found.targets.tolist() == [train.class_names.index("caf\u00e9")] * 4 + [train.class_names.index("cafz")] * 4
