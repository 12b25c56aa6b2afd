"""Whose each record is, read in every way, stays with the record; the commands ask about persons as Python does."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddplug.cli.program import main
from ddplug.data import LabeledData
from ddplug.data.datasets import load
from ddplug.errors import DdplugError
from ddplug.privacy import audit
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.notes import Note

RECORDS, PERSONS = 60, 20


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def person(number: float) -> str:
    """Whose record a number is, by which each can be told again."""
    return f"P, {int(number) % PERSONS}"


def record(number: int) -> tuple[int, str]:
    """A number to learn from, and a class."""
    return number, "ill" if number % 3 == 1 else "well"


def table(name: str, numbers: range, head: str = "a,b,y,patient") -> None:
    noise = np.random.default_rng(0).random(1000)
    rows = [
        f'{a},{noise[a]},{y},"{person(a)}"' if "patient" in head else f"{a},{noise[a]},{y}"
        for a, y in map(record, numbers)
    ]
    Path(name).write_text("\n".join([head, *rows]) + "\n")


def listed(name: str, numbers: range) -> None:
    lines = [person(k) for k in numbers]
    lines = ["patient", *(f'"{line}"' for line in lines)] if name.endswith(".csv") else lines
    Path(name).write_text("\n".join(lines) + "\n\n")


def own(data: LabeledData) -> tuple[str, ...]:
    """Whose the records are, by what they are."""
    rows = data.inputs.flatten(1)[:, 0].tolist()
    return tuple(map(person, rows))


def pictures(folder: str, numbers: range) -> list[str]:
    """Draw a picture for each record, in a folder a class, with the record's number in all pixels."""
    rows = []
    for number, kind in map(record, numbers):
        path = Path(folder, kind, f"{100 - number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(path)
        rows.append(f'{path.relative_to(folder.partition("/")[0])},{kind},"{person(number)}"')
    return rows


@pytest.mark.parametrize("persons", ["patient", "who.txt", "who.csv", Path("who.txt"), "list"])
def test_of_a_table_by_a_column_a_file_or_a_list(persons: Any) -> None:
    file = persons != "patient"
    table("t.csv", range(RECORDS), "a,b,y" if file else "a,b,y,patient")
    for name in ("who.txt", "who.csv"):
        listed(name, range(RECORDS))
    given = list(map(person, range(RECORDS))) if persons == "list" else persons
    train, test = (load("t.csv", split=split, target="y", persons=given) for split in ("train", "test"))
    assert train.columns == ("a", "b")
    for part in (train, test, *train.split(0.3), train.subset([5, 2])):
        assert part.persons == own(part)
    assert train.fingerprint == load("t.csv", target="y", ignore=() if file else ["patient"]).fingerprint


def test_of_two_tables() -> None:
    Path("two").mkdir()
    table("two/train.csv", range(40))
    table("two/test.csv", range(40, 60))
    for split in ("train", "test"):
        data = load("two", split=split, target="y", persons="patient")
        assert data.persons == own(data)
    listed("who.txt", range(40))  # a list is of the records to train on
    train, test = (load("two", split=s, target="y", ignore="patient", persons="who.txt") for s in ("train", "test"))
    assert train.persons == own(train) and test.persons == ()


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="needs pyarrow")
def test_of_a_parquet_table() -> None:
    import pyarrow
    from pyarrow import parquet

    rows = list(map(record, range(RECORDS)))
    columns = {"a": [a for a, _ in rows], "y": [y for _, y in rows], "patient": [a % PERSONS for a, _ in rows]}
    parquet.write_table(pyarrow.table(columns), "t.parquet")
    data = load("t.parquet", target="y", persons="patient")
    assert data.persons == tuple(str(int(a) % PERSONS) for a in data.inputs[:, 0].tolist())
    parquet.write_table(pyarrow.table({**columns, "patient": [1, 2, 3, None] + [4] * 56}), "t.parquet")
    with pytest.raises(DdplugError, match="line 3: column 'patient' of the persons is empty"):
        load("t.parquet", target="y", persons="patient")


def test_of_arrays_and_of_data_by_name() -> None:
    rows = list(map(record, range(RECORDS)))
    np.savez("t.npz", x=np.array([[float(a)] * 3 for a, _ in rows]), y=np.array([y for _, y in rows]))
    listed("who.txt", range(RECORDS))
    for split in ("train", "test"):
        data = load("t.npz", split=split, persons="who.txt")
        assert data.persons == own(data)
    digits = load("digits", persons=np.arange(1438) // 2)
    assert digits.persons == tuple(str(k // 2) for k in range(1438))
    assert load("digits", split="test", persons=np.arange(1438)).persons == ()


def test_of_pictures_by_a_column_of_their_list_or_a_list_of_its_own() -> None:
    rows = pictures("all", range(RECORDS))
    Path("labels.csv").write_text("\n".join(["file,class,patient", *reversed(rows)]) + "\n")
    Path("who.csv").write_text("\n".join(["file,patient", *(",".join(r.split(",", 2)[::2]) for r in rows)]) + "\n")
    ways: tuple[dict[str, Any], ...] = (
        {"name": "images:all", "labels": "labels.csv", "persons": "patient"},
        {"name": "images:all", "labels": "labels.csv", "persons": "who.csv"},
        {"name": "imagefolder:all", "persons": "who.csv"},
        {"name": "imagefolder:all", "persons": "labels.csv"},
    )
    for options in ways:
        for split in ("train", "test"):
            data = load(split=split, **options)
            assert len(data) and data.persons == own(data)


def test_of_pictures_in_parts() -> None:
    rows = pictures("all/train", range(40)) + pictures("all/test", range(40, 60))
    Path("who.csv").write_text("\n".join(["file,class,patient", *rows]) + "\n")
    for split in ("train", "test"):
        data = load("imagefolder:all", split=split, persons="who.csv")
        assert len(data) in (20, 40) and data.persons == own(data)
    Path("who.csv").write_text("\n".join(["file,class,patient", *rows[1:]]) + "\n")
    with pytest.raises(DdplugError, match=r"who.csv does not say whose train/well/100.png is"):
        load("imagefolder:all", persons="who.csv")


@pytest.mark.filterwarnings("ignore")  # of what datasets imports
@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs datasets")
def test_of_a_hugging_face_data_set() -> None:
    import datasets

    rows = list(map(record, range(RECORDS)))
    columns = {"image": [Image.fromarray(np.full((4, 4), a, np.uint8)) for a, _ in rows], "label": [y for _, y in rows]}
    made = datasets.Dataset.from_dict({**columns, "patient": [person(a) for a, _ in rows]})
    made.save_to_disk("saved")
    data = load("hf:saved", persons="patient")
    assert data.persons == own(data)
    with pytest.raises(DdplugError, match="unknown column of hf:saved 'patent'; did you mean 'patient'"):
        load("hf:saved", persons="patent")


OPTIONS = "--shadows 4 --no-beside --network mlp:width=4,depth=1 --device cpu --json"


def made(data: str) -> None:
    assert main(f"distill random --images-per-class 4 {data} --ignore patient --device cpu -o set".split()) == 0


def found_by(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert main(words.split()) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize("validation", ["", " --validation 0.3"])
def test_the_command_finds_what_python_finds(validation: str, capsys: pytest.CaptureFixture[str]) -> None:
    table("t.csv", range(RECORDS))
    data = f"--data csv:t.csv --target y{validation}"
    made(data)
    told, err = found_by(f"audit set {data} --persons patient {OPTIONS}", capsys)
    train, rest = (load("t.csv", split=split, target="y", ignore="patient") for split in ("train", "test"))
    train, rest = train.split(0.3) if validation else (train, rest)
    options: dict[str, Any] = {"network": "mlp:width=4,depth=1", "device": "cpu", "beside": False}
    found = audit("set", train, rest, shadows=4, persons=own(train), **options)
    assert told["membership"] == json.loads(json.dumps([each.to_json() for each in found.membership]))
    assert {"persons", "shadow sets"} < {each["target"] for each in told["membership"]}
    both = [name for name in own(rest) if name in own(train)]
    assert both and f"{len(both)} of {len(rest)} held-out records are of {len(set(both))} persons who have" in err


def test_persons_who_are_apart_are_nothing_to_tell_of(capsys: pytest.CaptureFixture[str]) -> None:
    Path("two").mkdir()
    table("two/train.csv", range(0, 60, 2))  # of persons with even numbers
    table("two/test.csv", range(1, 60, 2))
    made("--data csv:two --target y")
    _, err = found_by(f"audit set --data csv:two --target y --persons patient {OPTIONS}", capsys)
    assert "held-out records are of" not in err


def test_a_report_asks_about_persons_too(capsys: pytest.CaptureFixture[str]) -> None:
    table("t.csv", range(RECORDS))
    data = "--data csv:t.csv --target y"
    made(data)
    page = f"report set {data} --no-train --network mlp:width=4,depth=1 --device cpu -o page.html --json"
    told, _ = found_by(f"{page} --audit 4 --persons patient", capsys)
    assert {"persons"} < {each["target"] for each in told["audits"][0]["membership"]}
    assert ">persons<" in Path("page.html").read_text()
    assert main(f"{page} --persons patient".split()) == 2
    assert "--persons says whom --audit is to look for; add --audit 16" in capsys.readouterr().err
    assert main(f"{page} --audit 0 --persons patient".split()) == 2
    assert "shadows is 0; make at least 4 (--shadows 4, or --audit 4 of a report)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--persons who", "unknown column of t.csv 'who'. Known: a, b, patient, y; nor is there a file of that name"),
        ("--persons y", "column 'y' of t.csv holds the labels; give that of the persons, or a file"),
        ("--persons short.txt", "short.txt names 59, and 't' has 60 records; name one for each, in their order"),
        ("--persons wide.csv", "wide.csv has 2 columns; keep a head and the column of the persons alone"),
        ("--persons hole.txt", "hole.txt: name 2 is empty; give each record a person"),
        ("--persons latin.txt", "latin.txt is not text in UTF-8"),
        ("--persons own.txt", "persons names a different one for each of the 48 training records"),
        ("--persons patient --shadows 0", "persons are looked for in shadow sets, and shadows is 0; make at least 4"),
        ("--persons patient --shadows 3", "shadows is 3; it must be 0, or an even number of at least 4"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    table("t.csv", range(RECORDS))
    made("--data csv:t.csv --target y")
    listed("short.txt", range(59))
    Path("wide.csv").write_text("patient,x\n" + "a,1\n" * 60)
    Path("hole.txt").write_text("a\n\n" + "b\n" * 58)
    Path("latin.txt").write_bytes("ä\n".encode("latin-1") * 60)
    Path("own.txt").write_text("\n".join(map(str, range(60))))
    ignore = "" if "patient" in words else " --ignore patient"
    capsys.readouterr()
    assert main(f"audit set --data csv:t.csv --target y{ignore} {OPTIONS} {words}".split()) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and said in err[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "digits", "persons": "who.txt"}, "persons is 'who.txt': there is no such file, and 'digits' has no"),
        ({"name": "digits", "persons": Path("who.txt")}, "cannot read who.txt"),
        ({"name": "digits", "persons": 3}, "persons is a int; give a column, a file, or a list"),
        ({"name": "imagefolder:all", "persons": "who.csv"}, "there is no such file, and pictures of all go by their"),
        (
            {"name": "imagefolder:all", "persons": ["x"] * 60},
            "persons is a list, and pictures of all go by their names",
        ),
    ],
)
def test_what_cannot_say_whose_records_are(options: dict[str, Any], said: str) -> None:
    pictures("all", range(RECORDS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)
        with pytest.raises(DdplugError, match=said):
            load(**options)


def test_a_set_does_not_know_the_persons() -> None:
    table("t.csv", range(RECORDS))
    made("--data csv:t.csv --target y")
    assert b"P, 1" not in Path("set").read_bytes()
    assert "patient" not in json.dumps(dict(SyntheticSet.load("set").provenance).get("data"))
