"""The journal: what many processes wrote is there, torn lines do no harm, and nothing else passes for one."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddplug.errors import FormatError, OptionError
from ddplug.search.journal import Journal, Record, key
from ddplug.search.protocol import Result


def record(width: int, metric: float | None = 0.5, **more: Any) -> Record:
    failure = None if metric is not None else "RuntimeError: no"
    result = Result(metric, more.pop("failure", failure), **more.pop("result", {}))
    return Record(key({"width": width}, {}), {"width": width}, result, **more)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def test_a_record_comes_back_as_it_was(journal: Journal) -> None:
    written = [
        record(
            8,
            0.25,
            result={
                "accuracies": (0.2, 0.3),
                "intermediate": (0.1,),
                "stopped": "it guessed",
                "seconds": 1.5,
                "images": 40,
                "flops": 2e9,
            },
            settings={"epochs": 3, "files": ["a", "b"]},
            trial="Ab3x",
            parameter=7,
        ),
        record(4, None, failure="out of memory: 3 \u00d7 2"),
    ]
    for one in written:
        journal.append(one)
    assert journal.read() == written
    assert written[0].pid == os.getpid()


def test_an_absent_file_is_an_empty_journal(journal: Journal) -> None:
    assert journal.read() == journal.results() == journal.failures() == []
    assert journal.find("x") is None
    assert not journal.path.exists()


def test_the_last_success_of_a_key_counts_and_failures_need_none(journal: Journal) -> None:
    for one in (record(1, None), record(2, 0.1), record(1, 0.3), record(3, None), record(1, 0.4), record(2, None)):
        journal.append(one)
    journal.append(record(3, None, failure="diverged"))
    assert [(one.sample["width"], one.metric) for one in journal.results()] == [(2, 0.1), (1, 0.4)]
    assert [(one.sample["width"], one.failure) for one in journal.failures()] == [(3, "diverged")]
    found = journal.find(record(1).key)
    assert found is not None
    assert found.metric == 0.4
    assert journal.find(record(3).key) is None
    assert [one.metric for one in journal.of(record(1).key)] == [None, 0.3, 0.4]


@pytest.mark.parametrize("cut", [1, 5, 12, 60, 200])
def test_a_torn_line_is_skipped_and_the_next_one_is_whole(journal: Journal, cut: int) -> None:
    journal.append(record(1))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + whole[:cut])
    assert journal.read() == [record(1)]
    journal.append(record(2))
    assert journal.read() == [record(1), record(2)]
    assert journal.find(record(2).key) == record(2)


def test_zeros_that_a_crash_left_are_skipped(journal: Journal) -> None:
    journal.append(record(1))
    journal.path.write_bytes(journal.path.read_bytes() + b"\0" * 50)
    journal.append(record(2))
    assert journal.read() == [record(1), record(2)]


def test_many_processes_write_at_once(journal: Journal) -> None:
    code = """
        import sys
        from ddplug.search.journal import Journal, Record
        from ddplug.search.protocol import Result
        journal = Journal(sys.argv[1])
        for number in range(40):
            journal.append(Record("k", {"writer": sys.argv[2], "number": number, "pad": "x" * 9000}, Result(0.5)))
    """
    script = "\n".join(line.strip() if "append" not in line else "    " + line.strip() for line in code.splitlines())
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(journal.path), name]) for name in ("a", "b", "c", "d")
    ]
    assert [writer.wait(timeout=600) for writer in writers] == [0, 0, 0, 0]
    seen = [(one.sample["writer"], one.sample["number"]) for one in journal.read()]
    assert sorted(seen) == [(name, number) for name in "abcd" for number in range(40)]
    assert len({one.pid for one in journal.read()}) == 4
    for name in "abcd":
        assert [number for writer, number in seen if writer == name] == list(range(40))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_is_said_and_what_was_written_stays(journal: Journal) -> None:
    code = """
import resource, sys
from ddplug.errors import OptionError
from ddplug.search.journal import Journal, Record
from ddplug.search.protocol import Result
journal = Journal(sys.argv[1])
journal.append(Record("k", {"width": 1}, Result(0.5)))
resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 20,) * 2)
try:
    journal.append(Record("k", {"width": 2}, Result(0.5)))
except OptionError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(journal.path)], capture_output=True, text=True, timeout=600, check=True
    )
    assert f"cannot write {journal.path}: only 20 of" in done.stdout
    journal.append(record(3))
    assert [one.sample["width"] for one in journal.read()] == [1, 3]


def test_a_newer_version_may_have_written_more(journal: Journal) -> None:
    journal.append(record(1))
    values = json.loads(journal.path.read_text())
    journal.path.write_text(json.dumps({**values, "energy": 3}) + "\n")
    assert journal.read() == [record(1)]


def test_a_line_is_flat_and_lines_of_old_releases_are_read(journal: Journal) -> None:
    # as 0.1.0.dev wrote it, before a record held a result
    old = (
        '{"key": "k", "sample": {"width": 8, "kernel": [3, 3]}, "metric": 0.25, "failure": null, '
        '"accuracies": [0.2, 0.3], "intermediate": [0.1], "stopped": null, "seconds": 1.5, "images": 40, '
        '"flops": 2000000000.0, "settings": {"epochs": 3}, "trial": "Ab3x", "parameter": 7, "pid": 12}\n'
    )
    journal.path.write_text(old + '{"key": "l", "sample": {}, "metric": null, "failure": "diverged"}\n')
    first, second = journal.read()
    assert first.result == Result(0.25, None, (0.2, 0.3), (0.1,), None, 1.5, 40, 2e9)
    assert (first.sample, first.settings) == ({"width": 8, "kernel": [3, 3]}, {"epochs": 3})
    assert (first.trial, first.parameter, first.pid) == ("Ab3x", 7, 12)
    assert second.result == Result(None, "diverged")
    journal.path.unlink()
    journal.append(first)
    assert re.sub(r', "sum": "[0-9a-f]{16}"', "", journal.path.read_text()) == old


@pytest.mark.parametrize("content", ["width,metric\n1,0.5\n", "\x89PNG\r\n", '{"width": 1}\n', "[1, 2]\n", "3\n"])
def test_another_file_is_refused(journal: Journal, content: str) -> None:
    journal.path.write_bytes(content.encode("latin-1"))
    with pytest.raises(FormatError, match="is not a journal"):
        journal.read()


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="does not exist; create it first"):
        Journal(tmp_path / "none" / "journal.jsonl")


@pytest.mark.parametrize("metric", [float("nan"), float("inf")])
def test_a_metric_is_finite(metric: float) -> None:
    with pytest.raises(OptionError, match=f"has the metric {metric}"):
        record(1, metric)


@pytest.mark.parametrize(("metric", "failure"), [(None, None), (0.5, "no")])
def test_a_record_is_a_success_or_a_failure(metric: float | None, failure: str | None) -> None:
    with pytest.raises(OptionError, match="give exactly one of them"):
        Record("k", {}, Result(metric, failure))


@pytest.mark.parametrize("sample", [{"width": {1, 2}}, {"rate": float("nan")}])
def test_what_is_no_json_is_refused_and_nothing_is_written(journal: Journal, sample: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="cannot be written as JSON"):
        journal.append(Record("k", sample, Result(0.5)))
    with pytest.raises(OptionError, match="cannot be written as JSON"):
        key(sample, {})
    assert not journal.path.exists()


def test_numbers_of_numpy_are_numbers(journal: Journal) -> None:
    journal.append(Record("k", {"width": np.int64(8), "rate": np.float32(0.5)}, Result(np.float32(0.25))))
    (found,) = journal.read()
    assert (found.sample, found.metric) == ({"width": 8, "rate": 0.5}, 0.25)
    assert type(found.sample["width"]) is int


def test_keys_depend_on_content_alone() -> None:
    base = key({"width": 8, "kernel": (3, 3)}, {"epochs": 3, "files": {"train": "a", "validation": "b"}})
    assert base == key({"kernel": [3, 3], "width": 8}, {"files": {"validation": "b", "train": "a"}, "epochs": 3})
    others = [
        key({"width": 8, "kernel": (3, 5)}, {"epochs": 3, "files": {"train": "a", "validation": "b"}}),
        key({"width": 8, "kernel": (3, 3)}, {"epochs": 4, "files": {"train": "a", "validation": "b"}}),
        key({"width": 8, "kernel": (3, 3)}, {"epochs": 3, "files": {"train": "c", "validation": "b"}}),
        key({"width": "8", "kernel": (3, 3)}, {"epochs": 3, "files": {"train": "a", "validation": "b"}}),
    ]
    assert len({base, *others}) == 5
    assert key({"a": 1}, {"b": 2}) != key({"a": 1, "b": 2}, {})
    for eight in (np.int64(8), np.array(8), torch.tensor(8)):
        assert key({"width": eight, "kernel": np.array([3, 3])}, {}) == key({"width": 8, "kernel": (3, 3)}, {})
    # this very text, so that journals of old releases keep their keys
    assert key({"width": 8}, {"epochs": 3}) == "054ca61e64a49a9bdceefab8e0f0623f85063a22344886563eb20957a5db0527"


@pytest.mark.parametrize(
    "bad",
    [
        b"not json",
        b'{"key": "k"}',
        b'{"key": "k", "sample": 3, "metric": "high"}',
        b'{"key": "k", "sample": {}, "metric": 0.5, "failure": "both"}',
        b'{"key": "k", "sample": [1], "metric": 0.5}',
        b"[1, 2]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"key": "k", "sample": {}, "metric": 1e999}',
    ],
)
def test_a_bad_line_costs_that_line_only(journal: Journal, bad: bytes) -> None:
    journal.append(record(1))
    with journal.path.open("ab") as file:
        file.write(bad + b"\n")
    journal.append(record(2))
    assert journal.read() == [record(1), record(2)]


def test_a_changed_bit_never_changes_what_was_found(journal: Journal) -> None:
    records = [record(k) for k in range(4)]
    for each in records:
        journal.append(each)
    whole, rng = journal.path.read_bytes(), random.Random(0)
    for place in rng.sample(range(8 * len(whole)), 400):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        journal.path.write_bytes(changed)
        found = journal.read()
        assert all(each in records for each in found)
        assert len(found) >= 2  # a line, or two where the end of one was changed
