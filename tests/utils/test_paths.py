"""Paths as people give them: homes, and what can be no file's name."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from ddplug.errors import OptionError
from ddplug.utils.files import check_writable, read_tensors, write_file, write_tensors
from ddplug.utils.notes import Note
from ddplug.utils.paths import local
from ddplug.utils.text import command, shown, storable

NAMES = ["a b", "a  b", "it's", 'say "so"', "$HOME", "a;b", "ü", "new\nline", "tab\t", "caf\udce9", "*", "-o", "`x`"]


def test_home_folders_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local("~/x") == str(tmp_path / "x")
    assert local("~") == str(tmp_path)
    for same in ("a~b", "./~", "a/~", "/~"):
        assert local(same) == same
    write_tensors("~/set", "checkpoint", {"a": torch.ones(1)}, {})
    assert (tmp_path / "set").is_file()
    assert read_tensors("~/set", "checkpoint")[0]["a"].item() == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "a path is ''; name a file"),
        ("-", "the path is '-'"),
        ("set\r", r"the path 'set\\r' ends with a line break, as from a script with line ends of Windows"),
        ("a\0b", "holds a NUL character"),
        ("a\ud800b", r"'a\\ud800b' holds '\\ud800', which no file's name can here"),
        ("s3://bucket/set", "s3://bucket/set is an address, but files are read and written here"),
        ("file:///tmp/set", "is an address"),
        ("$NO_FILE/set", r"holds \$NO_FILE, which only a shell replaces; give os\.path\.expandvars\("),
        ("sets/${USER}/set", r"holds \$\{USER\}, which only"),
        ("~nobody-of-that-name/x", r"begins with ~nobody-of-that-name, .* say \./~nobody-of-that-name/x"),
    ],
)
def test_what_can_be_no_path_is_refused(path: str, message: str) -> None:
    for take in (local, check_writable):
        with pytest.raises(OptionError, match=message):
            take(path)


def test_a_file_may_be_called_like_a_variable(tmp_path: Path) -> None:
    (tmp_path / "$HOME").mkdir()
    for path in (tmp_path / "$HOME" / "set", tmp_path / "$5.set", tmp_path / "cash$"):
        assert local(path) == str(path)


@pytest.mark.parametrize("path", [3, None, ["a"]])
def test_what_is_no_path_is_named(path: object) -> None:
    with pytest.raises(OptionError, match=r"give a text or a pathlib\.Path"):
        local(path)  # type: ignore[arg-type]
    assert local(b"a/caf\xe9") == "a/caf\udce9"


@pytest.mark.parametrize("name", ["CON", "nul.safetensors", "aux", "Com1.csv", "LPT\u00b2", "set.", "set ", "a/prn/b"])
def test_names_that_windows_keeps_for_itself(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "prn"
    folder.mkdir(parents=True)
    if "/" not in name:
        with pytest.warns(Note, match="Windows has no file that is called"):
            write_file(tmp_path / name, b"")
        assert (tmp_path / name).exists()
    else:
        write_file(tmp_path / name, b"")
    monkeypatch.setattr("ddplug.utils.paths._WINDOWS", True)
    with pytest.raises(OptionError, match="which Windows keeps for itself; choose another name"):
        local(name)
    for fine in ("console", "com10", "a.con", ".", "..", "../set", "C:\\sets\\one.safetensors", ".set"):
        assert local(fine) == fine


def test_what_cannot_be_written_is_refused_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused: dict[str | Path, str] = {
        tmp_path / ("x" * 300): "File name too long",
        tmp_path / "a" / ("y/" * 3000): "File name too long",
        tmp_path: "not a regular file",
        f"{tmp_path}/new/": "does not exist|not a regular file",
        tmp_path / "file" / "x": "does not exist",
        tmp_path / "none" / "x": "does not exist; create it first",
        "/dev/null": "not a regular file",
    }
    for path, message in refused.items():
        with pytest.raises(OptionError, match=message):
            check_writable(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_printed_command_comes_back_from_a_shell(name: str) -> None:
    line = command("printf", "%s", shown(name))
    assert line.isprintable()
    out = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
    assert os.fsdecode(out).removeprefix("./") == name
    if name.isprintable():
        assert shlex.split(line)[2].removeprefix("./") == name
    assert storable(name).encode()


def test_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    for name in NAMES:
        write_file(tmp_path / name, name.encode(errors="surrogateescape"))
    assert sorted(map(str, os.listdir(tmp_path))) == sorted(NAMES)


def test_bytes_are_a_path_as_well(tmp_path: Path) -> None:
    write_file(os.fsencode(tmp_path / "made"), b"of bytes")  # type: ignore[arg-type]
    assert (tmp_path / "made").read_bytes() == b"of bytes"
