"""Files: every changed bit is refused, old files are told apart, killed writers leave nothing for long."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ddplug.errors import FormatError, OptionError
from ddplug.utils import locks
from ddplug.utils.files import check_header, check_space, is_checked, read_tensors, write_file, write_tensors
from ddplug.utils.locks import clean, locked, temporary

OLD = Path(__file__).parents[1] / "files"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tensors = {"a": torch.arange(40.0).view(5, 8), "b": torch.tensor([True, False]), "c": torch.zeros(0)}
    write_tensors(tmp_path / "file", "checkpoint", tensors, {"sha256": "0" * 64, "name": 'ü "quoted"'})
    return tmp_path / "file"


def test_every_changed_bit_is_refused(file: Path) -> None:
    whole, rng = file.read_bytes(), random.Random(0)
    for place in rng.sample(range(8 * len(whole)), 400):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        file.write_bytes(changed)
        with pytest.raises(FormatError, match="is not a ddplug file that can be read"):
            read_tensors(file, "checkpoint")


@pytest.mark.parametrize("end", [0, 7, 8, 100, -1, None])
def test_truncated_and_lengthened_files_are_refused(file: Path, end: int | None) -> None:
    file.write_bytes(file.read_bytes()[:end] + (b"\0" if end is None else b""))
    with pytest.raises(FormatError):
        read_tensors(file, "checkpoint")


def test_a_checksum_alone_or_none_at_all(file: Path) -> None:
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    for name in ("payload", "sha256"):
        save_file(tensors, file, {key: value for key, value in metadata.items() if key != name})
        with pytest.raises(FormatError, match="it has one of two checksums"):
            read_tensors(file, "checkpoint")
    save_file(tensors, file, {key: value for key, value in metadata.items() if key not in ("payload", "sha256")})
    assert read_tensors(file, "checkpoint")[1]["sha256"] == "0" * 64
    assert not is_checked(file)


def test_the_header_alone_is_checked_where_that_is_asked_for(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    whole[-1] ^= 1
    file.write_bytes(whole)
    read_tensors(file, "checkpoint", whole=False)
    whole[60] ^= 1
    file.write_bytes(whole)
    with pytest.raises(FormatError):
        read_tensors(file, "checkpoint", whole=False)


@pytest.mark.parametrize("path", sorted(OLD.glob("*.safetensors")), ids=lambda path: path.name)
def test_files_of_before_are_read_and_told_apart(path: Path) -> None:
    read_tensors(path, "synthetic-set")
    assert is_checked(path) == (path.name >= "ddplug-5")


def test_equal_content_is_equal_files(file: Path) -> None:
    tensors, header = read_tensors(file, "checkpoint")
    write_tensors(file.with_name("again"), "checkpoint", tensors, header)
    assert file.with_name("again").read_bytes() == file.read_bytes()
    assert is_checked(file)


def test_a_path_belongs_to_one_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "out"), locked(tmp_path / "other"):
        with (
            pytest.raises(OptionError, match=rf"another run \(process {os.getpid()} on .*\) is writing .*out; wait"),
            locked(tmp_path / "out"),
        ):
            pass
        assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.iterdir())


def test_who_only_looks_whether_a_lock_is_stale_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(tmp_path / "out"):
        (lock,) = tmp_path.iterdir()
    lock.touch()
    looking = lock.open("rb")
    assert locks.hold(looking)

    def removed(seconds: float) -> None:
        lock.unlink()
        looking.close()

    monkeypatch.setattr(time, "sleep", removed)
    with locked(tmp_path / "out"):
        assert os.path.getsize(lock) > 0
    assert not list(tmp_path.iterdir())


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    names = [".ddplug-0123.tmp", ".ddplug-4567.lock", "mine.tmp", ".ddplug-89.tmp", ".ddplug-x.txt"]
    for name in names:
        (tmp_path / name).write_text("")
    with temporary(tmp_path) as held, locked(tmp_path / "out"):
        assert held.exists()
        assert len({path.name for path in tmp_path.iterdir()} - set(names)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".ddplug-x.txt", "mine.tmp"]
    clean(tmp_path / "none")


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def meanwhile(number: int) -> None:
        clean(tmp_path)
        flush(number)

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_file(tmp_path / "file", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_room_and_names_are_looked_at_before_the_work(tmp_path: Path) -> None:
    check_space(tmp_path / "x", 10)
    with pytest.raises(OptionError, match="free some space"):
        check_space(tmp_path / "x", 1 << 60)
    with pytest.raises(OptionError, match=r"a name in it is not Unicode .*udce9.*rename it"):
        check_header({"names": ["caf\udce9"]}, "the set")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty; copy or download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "a pointer of Git LFS .*; run git lfs pull"),
        (b"\n<!DOCTYPE html><title>404</title>", "it is a web page; download the file itself"),
        (b"<html><head>", "it is a web page; download the file itself"),
        (b"\x1f\x8b\x08\x00" + bytes(40), "it is compressed by gzip; unpack it"),
        (b"PK\x03\x04" + bytes(40), "it is a zip archive, .*; give a file that ddplug wrote"),
    ],
)
def test_what_came_instead_of_a_file_is_told(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "set").write_bytes(content)
    with pytest.raises(FormatError, match=f"set is not a ddplug file that can be read: .*{message}"):
        read_tensors(tmp_path / "set", "synthetic-set")
