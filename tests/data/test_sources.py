"""Files and folders by a scheme: what they give, and one line for each thing that can be wrong with them."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddplug.data.datasets import load
from ddplug.distillation import distill
from ddplug.errors import DataError, DdplugError, MissingExtraError, OptionError
from ddplug.synthetic.export import to_npz
from ddplug.testing import toy_table
from ddplug.utils.notes import Note

HEAD = "length,species,width,id"


def csv_file(folder: Path, rows: list[str], head: str = HEAD, name: str = "plants.csv") -> str:
    (folder / name).write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return f"csv:{folder / name}"


def plants(number: int = 10) -> list[str]:
    return [f"{k + 0.5},{'iris' if k % 2 else 'rose'},{-k},{100 + k}" for k in range(number)]


def test_a_table_keeps_its_numbers_its_classes_and_its_names(tmp_path: Path) -> None:
    name = csv_file(tmp_path, plants())
    train, test = (load(name, split=split, target="species") for split in ("train", "test"))
    assert (train.columns, train.target, train.name) == (("length", "width", "id"), "species", "plants")
    assert train.class_names == test.class_names == ("iris", "rose")
    assert (len(train), len(test)) == (8, 2)  # a fifth of each class
    rows = sorted([*train.inputs.tolist(), *test.inputs.tolist()])
    assert rows == [[k + 0.5, -float(k), 100.0 + k] for k in range(10)]
    assert torch.allclose(train.batch(torch.arange(8)).mean(0), torch.zeros(3), atol=1e-5)
    assert test.preprocess.tensors().keys() == train.preprocess.tensors().keys()
    less = load(name, target="species", ignore=["id"])
    assert (less.shape, less.columns) == ((2,), ("length", "width"))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_marks_and_quotes_are_read(separator: str, tmp_path: Path) -> None:
    lines = [line.replace(",", separator) for line in (HEAD, *plants(4))]
    lines[1] = lines[1].replace("rose", f' "ro{separator}se"')
    path = tmp_path / "plants.csv"
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8")
    with pytest.raises(DataError, match="has 1 sample"):  # there is one such rose
        load(path, target="species")
    path.write_text(path.read_text(encoding="utf-8").replace(f"ro{separator}se", "rose"), encoding="utf-8")
    assert load(path, target="species").class_names == ("iris", "rose")


def test_whole_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    rows = [f"{k},{k % 11}" for k in range(33)]
    assert load(csv_file(tmp_path, rows, "x,y"), target="y").class_names == tuple(map(str, range(11)))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["1", "2.0", "+3"], ("1", "2", "3")),
        (["01", "1", "2"], ("01", "1", "2")),  # postal codes, say: no two classes become one
        (["007", "042", "9"], ("7", "9", "42")),
        (["1_1", "1_2", "11"], ("11", "1_1", "1_2")),
        (["1e3", "2", "3"], ("1e3", "2", "3")),
        (["12345678901234567890", "1", "2"], ("1", "12345678901234567890", "2")),
    ],
)
def test_no_two_labels_become_one_number(labels: list[str], names: tuple[str, ...], tmp_path: Path) -> None:
    rows = [f"{k},{labels[k % 3]}" for k in range(12)]
    assert load(csv_file(tmp_path, rows, "x,y"), target="y").class_names == names


def test_a_folder_of_two_tables_has_its_own_test_part(tmp_path: Path) -> None:
    csv_file(tmp_path, plants(10), name="train.csv")
    csv_file(tmp_path, plants(4), name="test.csv")
    train, test = (load(f"csv:{tmp_path}", split=split, target="species") for split in ("train", "test"))
    assert (len(train), len(test)) == (10, 4)
    values = train.preprocess.inverse(test.batch(torch.arange(4)))[:, 0]
    assert torch.allclose(values, torch.tensor([0.5, 1.5, 2.5, 3.5]), atol=1e-5)


def test_columns_of_a_test_part_are_told_by_their_names(tmp_path: Path) -> None:
    csv_file(tmp_path, plants(10), name="train.csv")
    turned = [",".join([row.split(",")[k] for k in (3, 1, 0, 2)]) for row in plants(4)]
    csv_file(tmp_path, turned, "id,species,length,width", "test.csv")
    train, test = (load(tmp_path, split=split, target="species") for split in ("train", "test"))  # no scheme is needed
    assert test.columns == train.columns == ("length", "width", "id")
    assert test.inputs.tolist() == [[k + 0.5, -float(k), 100.0 + k] for k in range(4)]
    csv_file(tmp_path, plants(4), "length,species,height,id", "test.csv")
    with pytest.raises(DataError, match="column 'width' is missing"):
        load(tmp_path, split="test", target="species")


def test_a_test_part_without_labels_is_named(tmp_path: Path) -> None:
    csv_file(tmp_path, plants(10), name="train.csv")
    csv_file(tmp_path, ["1,2,3"] * 4, "length,width,id", "test.csv")
    with pytest.raises(OptionError, match=r"unknown column of .*test.csv 'species'.* or give .*train.csv alone"):
        load(tmp_path, target="species")
    assert len(load(tmp_path / "train.csv", target="species")) == 8  # as it says


def test_what_get_dummies_writes_is_read(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"color": ["red", "blue"] * 5, "species": ["a", "b"] * 5})
    frame.to_csv(tmp_path / "colors.csv", index=False)
    with pytest.raises(DataError, match=r"turn it into numbers \(as by pandas.get_dummies\)"):
        load(tmp_path / "colors.csv", target="species")
    pandas.get_dummies(frame, columns=["color"]).to_csv(tmp_path / "colors.csv", index=False)
    data = load(tmp_path / "colors.csv", target="species")
    assert (data.columns, sorted(data.inputs[:, 0].tolist())) == (("color_blue", "color_red"), [0.0] * 4 + [1.0] * 4)


@pytest.mark.parametrize("head", [",width,species", "Unnamed: 0,width,species", "id,width,species"])
def test_a_column_that_numbers_the_rows_is_told_of(head: str, tmp_path: Path) -> None:
    rows = [f"{k},{-k},{'iris' if k % 2 else 'rose'}" for k in range(10)]
    with pytest.warns(Note, match=r"column '.*' numbers the rows.* leave it out by ignore=\['.*'\] \(--ignore "):
        load(csv_file(tmp_path, rows, head), target="species")
    load(csv_file(tmp_path, rows, head), target="species", ignore=head.split(",")[0])  # one name, as it says
    csv_file(tmp_path, ["9" + row for row in rows], head)
    load(tmp_path / "plants.csv", target="species")  # other numbers are not told of


def test_one_name_is_ignored_as_a_whole(tmp_path: Path) -> None:
    rows = [f"{k}.5,{-k},{k % 3},{'iris' if k % 2 else 'rose'}" for k in range(10)]
    assert load(csv_file(tmp_path, rows, "a,b,ab,y"), target="y", ignore="ab").columns == ("a", "b")
    with pytest.raises(OptionError, match=r"unknown column of .* 3\."):
        load(csv_file(tmp_path, rows, "a,b,ab,y"), target=3)  # type: ignore[arg-type]


def test_labels_that_may_be_missing_are_told_of(tmp_path: Path) -> None:
    rows = [f"{k}.5,{'nan' if k % 2 else '1'}" for k in range(10)]
    with pytest.warns(Note, match="5 labels are 'nan', which is taken for a class"):
        assert load(csv_file(tmp_path, rows, "x,y"), target="y").class_names == ("1", "nan")


def test_a_table_without_names_is_told_from_a_misspelt_one(tmp_path: Path) -> None:
    rows = [f"{k}.5,{k % 3},{'iris' if k % 2 else 'rose'}" for k in range(10)]
    with pytest.raises(OptionError, match=r"Known: 0, 0\.5, rose; its first line must hold the names of the columns"):
        load(csv_file(tmp_path, rows[1:], rows[0]), target="species")


WRONG: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "no target": ([], {}, r"which column of .* holds the labels is not given; add target=COLUMN"),
    "unknown target": ([], {"target": "specie"}, "unknown column of .*plants.csv 'specie'; did you mean 'species'"),
    "unknown column": ([], {"ignore": ["ids"]}, "unknown column of .*plants.csv 'ids'; did you mean 'id'"),
    "a missing value": (["3,iris,,7"], {}, r"plants.csv, line 12: column 'width' has no value; .*--ignore width"),
    "na": (["3,iris,N/A,7"], {}, "line 12: column 'width' has no value"),
    "nan": (["3,iris,nan,7"], {}, "line 12: column 'width' has no value"),
    "infinity": (["3,iris,inf,7"], {}, "line 12: column 'width' is infinite"),
    "a category": (
        ["3,iris,wide,7"],
        {},
        r"column 'width' is not a column of numbers \('wide' in line 12\).*get_dummies",
    ),
    "an identifier": (["12_3,iris,1,7"], {}, r"column 'length' is not a column of numbers \('12_3' in line 12\)"),
    "a decimal comma": (['3,iris,"2,5",7'], {}, "line 12: column 'width' holds '2,5'; write decimals with a point"),
    "no label": (["3, ,1,7"], {}, "line 12: column 'species' of the labels is empty"),
    "a short row": (["3,iris"], {}, "line 12: 2 cells under 4 names"),
    "a bare quote": (['3,"iris"x,1,7'], {}, "is not a CSV file"),
    "no class": (
        [],
        {"target": "length", "ignore": ["species"]},
        "column 'length' has 11 different values in 11 rows, too many for classes",
    ),
    "nothing left": ([], {"ignore": ["length", "width", "id"]}, "no column is left"),
    "an option of others": ([], {"labels": "a.csv"}, r"labels is an option of images:DIR; 'csv:.*' does not take it"),
    "large": ([], {"max_memory": 10}, "above max_memory"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_table_is_one_line(case: str, tmp_path: Path) -> None:
    rows, options, message = WRONG[case]
    name = csv_file(tmp_path, plants(11 if case == "no class" else 10) + rows)
    with pytest.raises(DdplugError, match=message) as caught:
        load(name, **({} if case == "no target" else {"target": "species"}) | options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 columns"),
        (b"1,2\n3,4\n", "begins with numbers"),
        (b"a,b\n", "the inputs have the shape"),
        (b"\xff\xfe\x00a,b", "is not text in UTF-8"),
        (b"a,b,b\n1,2,3\n", "2 columns are called 'b'"),
    ],
)
def test_other_files_are_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "a.csv", target="b")
    with pytest.raises(DataError, match=r"cannot read .*b.csv: No such file"):
        load(f"csv:{tmp_path / 'b.csv'}", target="b")


def arrays(number: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (number, 6, 6, 3), dtype=np.uint8), np.arange(number)[:, None] % 2


@pytest.mark.parametrize(
    "form", [("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")]
)
def test_arrays_of_medmnist_and_keras_have_their_own_test_part(form: tuple[str, ...], tmp_path: Path) -> None:
    held = dict(zip(form, (*arrays(8, 0), *arrays(4, 1)), strict=True))
    np.savez(tmp_path / "med.npz", **held)
    train, test = (load(f"npz:{tmp_path / 'med.npz'}", split=split) for split in ("train", "test"))
    assert (len(train), len(test), train.shape, train.num_classes) == (8, 4, (3, 6, 6), 2)
    assert np.array_equal(test.inputs.permute(0, 2, 3, 1).numpy(), arrays(4, 1)[0])
    assert torch.equal(test.preprocess.inverse(test.batch(torch.tensor([0]))).mul(255).round().byte(), test.inputs[:1])


def test_arrays_without_a_test_part_are_split(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random((10, 2, 16)), y=["low", "high"] * 5)
    train, test = (load(tmp_path / "a.npz", split=split) for split in ("train", "test"))
    assert (len(train), len(test), train.shape, train.class_names) == (8, 2, (2, 16), ("high", "low"))


def test_our_own_arrays_are_read_back(tmp_path: Path) -> None:
    made = distill(toy_table(), "random", images_per_class=5, device="cpu")
    to_npz(made, tmp_path / "set.npz")
    again = [load(tmp_path / "set.npz", split=split) for split in ("train", "test")]
    assert [len(part) for part in again] == [12, 3]
    assert again[0].class_names == made.class_names
    found = torch.cat([part.inputs for part in again])
    assert torch.equal(found.sort(0).values, made.pixels().sort(0).values)


def test_arrays_of_features_go_by_their_usual_names(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3)).astype("float16")
    labels = np.arange(20) % 2
    np.savez(tmp_path / "a.npz", features=rows, labels=labels)
    np.savez(tmp_path / "b.npz", embeddings=rows, labels=labels)
    assert load(tmp_path / "a.npz").shape == load(tmp_path / "b.npz").shape == (3,)


def test_one_array_alone_is_told_how_to_become_a_data_set(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.zeros((4, 2)))
    with pytest.raises(OptionError, match=r"features\.npy is a file, not a data set; np\.savez\('FILE\.npz', x=inputs"):
        load(tmp_path / "features.npy")
    np.savez(tmp_path / "FILE.npz", x=np.arange(40.0).reshape(20, 2), y=np.arange(20) % 2)
    assert load(f"npz:{tmp_path}/FILE.npz").shape == (2,)
    with pytest.raises(DataError, match=r"is not an \.npz file that can be read .*; np\.savez writes one"):
        load(f"npz:{tmp_path}/features.npy")


def test_arrays_that_are_hostile_or_unfit_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([{}, {}], dtype=object), y=[0, 1])
    with pytest.raises(
        DataError,
        match=r"array 'x' holds Python objects, which are never loaded; .*\.astype\(str\)\), and inputs of one shape",
    ):
        load(path)
    np.savez(path, features=[[0.0]], y=[0])
    with pytest.raises(DataError, match="holds features, y; call the arrays x and y"):
        load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"0" * 10**6)
    with pytest.raises(DataError, match="its arrays take 1 MiB, above max_memory"):
        load(path, max_memory=10**5)
    with pytest.raises(DataError, match=r"array 'x'|holds x"):
        load(path)
    path.write_bytes(b"PK\3\4 and nothing")
    with pytest.raises(DataError, match=r"is not an .npz file that can be read"):
        load(path)


def pictures(folder: Path, names: list[str]) -> None:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((5, 4, 3), 10 * k, np.uint8)).save(folder / name)


def test_pictures_that_a_list_names_have_its_classes(tmp_path: Path) -> None:
    names = [f"{'a' if k < 3 else 'b/c'}/{k}.png" for k in range(6)]
    pictures(tmp_path / "all", names)
    rows = [
        f"{k},{name.removesuffix('.png') if k % 2 else name},{'mole' if k < 4 else 'melanoma'}"
        for k, name in enumerate(names)
    ]
    csv_file(tmp_path, rows, "age,image_id,dx", "list.csv")
    options: dict[str, Any] = {"labels": tmp_path / "list.csv", "cache": tmp_path / "cache"}
    parts = [load(f"images:{tmp_path / 'all'}", split=split, **options) for split in ("train", "test")]
    assert [len(part) for part in parts] == [4, 2]
    assert parts[0].class_names == ("melanoma", "mole")
    found = {(int(x[0, 0, 0]) // 10, int(y)) for part in parts for x, y in zip(part.inputs, part.targets, strict=True)}
    assert found == {(k, int(k < 4)) for k in range(6)}
    # another list, the same pictures: not what the cache holds
    csv_file(tmp_path, [row.replace("mole", "naevus") for row in rows], "age,image_id,dx", "list.csv")
    assert load(f"images:{tmp_path / 'all'}", **options).class_names == ("melanoma", "naevus")


@pytest.mark.parametrize(
    ("head", "row", "message"),
    [
        ("file,label", "../x.png,a", r"list.csv, line 2: '../x.png' is not a path inside"),
        ("file,label", "/etc/passwd,a", "is not a path inside"),
        ("file,label", "no.png,a", "line 2: no.png is not in .*; drop the row"),
        ("file,label", "0.png, ", "line 2: column 'label' is empty"),
        ("file,age,sex", "0.png,3,f", r"which column of .* holds the classes is not given; add target=COLUMN"),
        ("file", "0.png", "has 1 columns"),
        ("file,label", "", "names no picture"),
        ("file,label", "0.png,a\n0,b", "line 3: 0 has class 'b', and 'a' in a line before; keep one"),
    ],
)
def test_what_is_wrong_with_a_list_is_one_line(head: str, row: str, message: str, tmp_path: Path) -> None:
    pictures(tmp_path, ["0.png"])
    csv_file(tmp_path, [row] if row else [], head, "list.csv")
    with pytest.raises(DdplugError, match=message):
        load(f"images:{tmp_path}", labels=tmp_path / "list.csv")


def test_a_picture_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    pictures(tmp_path, [f"{k}.png" for k in range(8)])
    csv_file(tmp_path, [f"{k % 8}.png,{'nan' if k % 2 else 'mole'}" for k in range(12)], "file,label", "list.csv")
    with pytest.warns(Note) as told:
        parts = [load(f"images:{tmp_path}", split=part, labels=tmp_path / "list.csv") for part in ("train", "test")]
    said = [str(note.message) for note in told]
    assert any("4 lines name a picture that was named before; each picture is read once" in line for line in said)
    assert any("4 labels are 'nan', which is taken for a class" in line for line in said)
    assert sum(map(len, parts)) == 8


def test_pictures_need_a_list(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"add labels=FILE.csv \(--label-file FILE.csv\)"):
        load(f"images:{tmp_path}")


@pytest.mark.parametrize(("name", "package"), [("parquet:a.parquet", "pyarrow"), ("hf:a/b", "datasets")])
def test_what_needs_a_package_says_which(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"run pip install {package}"):
        load(name, target="y" if "parquet" in name else None)


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"a": [1, 2, 3, 4], "b": [0.5, 1.5, 2.5, 3.5], "kind": ["x", "y", "x", "y"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    data = load(tmp_path / "t.parquet", target="kind")
    assert (data.columns, data.class_names, len(data)) == (("a", "b"), ("x", "y"), 2)
    parquet.write_table(table.append_column("c", [["u", "v", "u", "v"]]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 'c' is not a column of numbers \(of the type string\)"):
        load(tmp_path / "t.parquet", target="kind")
    parquet.write_table(pa.table({"a": [1.0, None], "kind": ["x", "y"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="line 1: column 'a' has no value"):
        load(tmp_path / "t.parquet", target="kind")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match="is not a Parquet file"):
        load(tmp_path / "t.parquet", target="kind")


@pytest.mark.filterwarnings("ignore")  # of what datasets imports
@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="datasets is not installed")
def test_a_saved_hugging_face_data_set_is_read(tmp_path: Path) -> None:
    import datasets

    rows = {
        "image": [Image.fromarray(np.full((4, 4), k, np.uint8)) for k in range(10)],
        "label": [k % 2 for k in range(10)],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["no", "yes"])})
    whole = datasets.Dataset.from_dict(rows, features)
    whole.save_to_disk(tmp_path / "one")
    assert len(load(f"hf:{tmp_path / 'one'}")) == 8
    datasets.DatasetDict({"train": whole, "test": whole.select(range(4))}).save_to_disk(tmp_path / "two")
    test = load(f"hf:{tmp_path / 'two'}", split="test")
    assert (len(test), test.class_names, test.shape) == (4, ("no", "yes"), (1, 4, 4))
    colored = {**rows, "image": [whole[k]["image"].convert("RGB") for k in range(10)]}
    datasets.DatasetDict({"train": whole, "test": datasets.Dataset.from_dict(colored, features)}).save_to_disk(
        tmp_path / "gray"
    )
    assert load(f"hf:{tmp_path / 'gray'}", split="test").shape == (1, 4, 4)
    rows["image"] = [Image.fromarray(np.full((4 + k, 5), k, np.uint8)) for k in range(10)]
    datasets.Dataset.from_dict(rows, features).save_to_disk(tmp_path / "odd")
    odd = load(f"hf:{tmp_path / 'odd'}", size=(3, 6))
    assert (odd.shape, float(odd.inputs.flatten(1).float().std(1).max())) == ((1, 3, 6), 0.0)
    assert odd.inputs[:, 0, 0, 0].unique().tolist() == load(f"hf:{tmp_path / 'one'}").inputs[:, 0, 0, 0].tolist()
    with pytest.raises(OptionError, match=r"fetched only with download=True \(--download\)"):
        load("hf:nobody/nothing")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes of POSIX")
@pytest.mark.parametrize("ending", ["csv", "npz", "parquet"])
def test_a_pipe_is_not_waited_for(ending: str, tmp_path: Path) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    os.mkfifo(tmp_path / f"pipe.{ending}")
    with pytest.raises(DataError, match=r"cannot read .*pipe.*it is not a regular file; check the path"):
        load(f"{ending}:{tmp_path}/pipe.{ending}", target=None if ending == "npz" else "y")


def test_damaged_archives_of_arrays_are_one_clear_line(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.npz", np.random.default_rng(0)
    np.savez_compressed(path, x=rng.integers(0, 256, (12, 1, 8, 8), dtype=np.uint8), y=np.arange(12) % 3)
    whole, refused = path.read_bytes(), 0
    for place in rng.integers(0, 8 * len(whole), 150):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << int(place % 8)
        path.write_bytes(changed)
        try:
            load(path)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


@pytest.mark.parametrize("shape", [(10**15,), (3,) * 70, (10**30,), (-1,), (2**62, 4)])
def test_arrays_that_claim_more_than_there_is_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode()
    head += b" " * (63 - (10 + len(head)) % 64) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in ("x.npy", "y.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(10))
    with pytest.raises(DataError, match=r"array .x. holds .*; save plain numbers or texts"):
        load(tmp_path / "a.npz")


def test_an_array_that_claims_more_than_its_file_is_refused_before_room_is_made(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (2**40, 4)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue() + bytes(64))
        archive.writestr("y.npy", buffer.getvalue() + bytes(64))
    with pytest.raises(DataError, match=r"array 'x' holds fewer bytes than its shape claims"):  # 16 TiB
        load(tmp_path / "a.npz")
