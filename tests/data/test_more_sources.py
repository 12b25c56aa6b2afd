"""Tables, lists of pictures and arrays as people have them: written by other programs, drawn from, divided in parts."""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddplug.data.datasets import load
from ddplug.errors import DataError, OptionError
from ddplug.utils.notes import Note

ROWS = [[str(k), str(10 * k), "cd"[k % 2]] for k in range(10)]


def written(path: Path, head: str, separator: str = ",", end: str = "\n", before: str = "") -> Path:
    path.write_text(before + end.join([head, *map(separator.join, ROWS), ""]), encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize(
    ("head", "separator", "before"),
    [
        ('"a, in mm, cm, m";b;y', ";", ""),
        ('"a\nin; mm";b;y', ";", ""),
        ("a;b;y", ";", "\n\n"),
        ("a;b;y", ";", "sep=;\n"),
        ("a|b|y", "|", "SEP=|\r\n"),
        ('"a;b;c;d",b,y', ",", ""),
        ('5" screen\t6" screen\ty', "\t", ""),
    ],
)
def test_cells_are_separated_by_what_stands_outside_quotes(
    head: str, separator: str, before: str, tmp_path: Path
) -> None:
    found = load(written(tmp_path / "a.csv", head, separator, before=before), target="y")
    assert (found.shape, found.class_names, len(found)) == ((2,), ("c", "d"), 8)


def test_columns_of_one_name_are_told_apart(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", "a,a,y")
    assert load(tmp_path / "train.csv", target="y").columns == ("a", "a.1")  # as pandas calls them
    written(tmp_path / "test.csv", "a,b,y")
    with pytest.raises(DataError, match=r"column 'a.1' is missing"):  # not the first of them twice
        load(tmp_path, split="test", target="y")
    written(tmp_path / "test.csv", "a,a,y")
    assert load(tmp_path, split="test", target="y").inputs[1].tolist() == [1, 10]
    written(tmp_path / "b.csv", "a.1,a,y")
    assert load(tmp_path / "b.csv", target="y").columns == ("a.1", "a")


def test_names_of_columns_are_known_in_either_form_of_unicode(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", "gro\u0308\u00dfe,b,y")
    written(tmp_path / "test.csv", "b,gr\u00f6\u00dfe,y")
    test = load(tmp_path, split="test", target="y")
    assert test.inputs[1].tolist() == [10, 1]
    assert load(tmp_path / "train.csv", target="y", ignore=["gr\u00f6\u00dfe"]).columns == ("b",)


@pytest.mark.parametrize("head", ["", "Unnamed: 0", "index"])
def test_an_index_after_a_draw_of_rows_is_told_of(head: str, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(30)[:20].tolist()  # as a split by scikit-learn leaves it
    lines = [f"{k},{k % 3},{'cd'[k > 15]}" for k in order]
    (tmp_path / "a.csv").write_text("\n".join([f"{head},b,y", *lines]))
    with pytest.warns(Note, match=f"column '{head}' numbers the rows"):
        load(tmp_path / "a.csv", target="y")


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_labels_of_parquet_are_texts_or_one_line(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": [1.0, 2.0] * 4, "y": [b"c", b"d"] * 4}), path)
    assert load(path, target="y").class_names == ("c", "d")
    parquet.write_table(pyarrow.table({"a": [1.0, 2.0] * 4, "y": [{"k": 1}, {"k": 2}] * 4}), path)
    with pytest.raises(DataError, match=r"column 'y' of the labels holds a dict a row"):
        load(path, target="y")


def pictures(folder: Path, names: list[str]) -> Path:
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), shade).save(folder / name)
    return folder


def listed(folder: Path, head: str, rows: list[str], **options: Any) -> Any:
    (folder / "list.csv").write_text("\n".join([head, *rows]) + "\n")
    return load(f"images:{folder / 'photos'}", labels=folder / "list.csv", **options)


NAMES = [f"{k}.png" for k in range(8)]


def test_a_list_without_a_head_loses_no_picture(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", NAMES)
    with pytest.raises(DataError, match=r"begins with a picture, 0.png; put a row of column names first"):
        listed(tmp_path, "0.png,c", [f"{name},{'cd'[k % 2]}" for k, name in enumerate(NAMES[1:], 1)])


def test_classes_of_a_list_are_those_of_a_table(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", NAMES)
    for labels, names in ((["1.0", "2.0", "10.0"], ("1", "2", "10")), (["1", "2", "10"], ("1", "2", "10"))):
        rows = [f"{name},{labels[k % 3]}" for k, name in enumerate(NAMES)]
        assert listed(tmp_path, "image,label", rows).class_names == names
    with pytest.raises(DataError, match=r"label -1 is negative; drop samples without a label"):
        listed(tmp_path, "image,label", [f"{name},{k % 3 - 1}" for k, name in enumerate(NAMES)])


def test_one_picture_has_one_class_however_it_is_called(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", [f"in/{name}" for name in NAMES])
    rows = [f"in\\{name},{'cd'[k % 2]}" for k, name in enumerate(NAMES)]  # as Windows writes it
    assert len(listed(tmp_path, "image,label", rows)) == 6
    with pytest.raises(DataError, match=r"line 10: \./in//0.png has class 'd', and 'c' in a line before"):
        listed(tmp_path, "image,label", [*rows, "./in//0.png,d"])


def test_what_a_list_may_lack_of_a_name_has_letters_of_either_case(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", ["IMG_0.JPG", "IMG_1.PNG", "IMG_2.jpeg", "IMG_3.png"])
    assert len(listed(tmp_path, "image,label", [f"IMG_{k},{'cd'[k % 2]}" for k in range(4)])) == 2


def test_advice_about_a_list_leads_on(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", NAMES)
    rows = [f"photos/{name},{'cd'[k % 2]}" for k, name in enumerate(NAMES)]
    with pytest.raises(DataError, match=rf"is not in .*photos; give images:{tmp_path}, from where"):
        listed(tmp_path, "image,label", rows)
    assert len(load(f"images:{tmp_path}", labels=tmp_path / "list.csv")) == 6
    rows = [f"{name},{'cde'[0 if k % 2 else 1 + (k == 0)]}" for k, name in enumerate(NAMES)]
    with pytest.raises(DataError, match=r"class 'e' has 1 image.*: add some, or drop the rows of that class"):
        listed(tmp_path, "image,label", rows)
    assert len(listed(tmp_path, "image,label", rows[1:])) == 5
    with pytest.raises(OptionError, match=r"column 'image' of .* holds the names of the pictures"):
        listed(tmp_path, "image,label", rows, target="image")
    with pytest.raises(DataError, match="2 columns are called 'label'"):
        listed(tmp_path, "image,label,label", [f"{row},1" for row in rows])


def test_a_column_that_divides_a_list_is_told_of(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", NAMES)
    with pytest.warns(Note, match="column 'Split' is not read, and a fifth of each class is the test part"):
        listed(tmp_path, "image,label,Split", [f"{n},{'cd'[k % 2]},train" for k, n in enumerate(NAMES)])


BYTES = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), np.uint8)
LABELS = np.arange(40) % 4


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (BYTES / 1.0, BYTES / 255, "0..255, to test 0..1"),
        (BYTES / 255, BYTES / 127.5 - 1, "0..1, to test -1..1"),
        (BYTES, (BYTES - 120.0) / 60, "0..1, to test normalized"),
        (BYTES, BYTES / 255, None),
        ((BYTES - 120.0) / 60, (BYTES - 110.0) / 50, None),  # two normalizations cannot be compared
    ],
)
def test_parts_of_one_file_have_one_range(train: Any, test: Any, said: str | None, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=train, y_train=LABELS, x_test=test, y_test=LABELS)
    assert len(load(tmp_path / "a.npz")) == 40
    if said is None:
        assert len(load(tmp_path / "a.npz", split="test")) == 40
    else:
        with pytest.raises(DataError, match=f"values to train on are {said}; bring them to one range"):
            load(tmp_path / "a.npz", split="test")


@pytest.mark.parametrize("names", [("x_test",), ("x", "y")])
def test_arrays_that_are_not_read_are_named(names: tuple[str, ...], tmp_path: Path) -> None:
    more: dict[str, Any] = {name: LABELS if name == "y" else BYTES for name in names}
    np.savez(tmp_path / "a.npz", x_train=BYTES, y_train=LABELS, x_val=BYTES, y_val=LABELS, **more)
    with pytest.warns(Note, match=rf"{len(names)} of {4 + len(names)} arrays are not read: {', '.join(names)}"):
        load(tmp_path / "a.npz")


def test_a_damaged_array_is_no_array_of_objects(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.savez(whole, x=BYTES, y=LABELS)
    altered = bytearray(whole.getvalue())
    altered[1000] ^= 1
    (tmp_path / "a.npz").write_bytes(altered)
    with pytest.raises(DataError, match=r"array 'x' is damaged \(Bad CRC-32 .*\); save it again"):
        load(tmp_path / "a.npz")
    assert zipfile.ZipFile(whole).testzip() is None  # it was whole before
