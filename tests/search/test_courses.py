"""Searches read from journals: which candidates were promoted, and the page and picture of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

import ddplug
from ddplug.cli.program import main
from ddplug.cli.searches import searched
from ddplug.errors import DataError, FormatError, OptionError
from ddplug.search import Journal, Judge, Protocol, Record, Result, progress
from ddplug.search.courses import courses
from ddplug.search.judging import mark_of
from ddplug.testing import toy_images
from ddplug.utils.pictures import file_of


def record(n: int, metric: float | None, images: int, **settings: Any) -> Record:
    result = Result(metric, None if metric is not None else "RuntimeError: <no>", seconds=2.0, images=images)
    return Record(f"{n} {settings}", {"n": n}, result, settings)


CHEAP = [record(n, None if n == 3 else n / 10, 10, train="small", steps=2) for n in range(6)]
FULL = [record(n, 0.9 - n / 100, 400, train="whole", steps=80) for n in (5, 4)]


def journal(path: Path, *records: Record) -> Journal:
    made = Journal(path)
    for one in records:
        made.append(one)
    return made


def test_full_training_is_found_among_what_a_journal_holds() -> None:
    (found,) = courses([*CHEAP[:5], FULL[1], CHEAP[5], FULL[0]])
    assert found.proxies == tuple(CHEAP)
    assert found.full == (FULL[1], FULL[0])
    assert found.train == "small"
    firsts = [(own.sample["n"], None if full is None else full.metric) for own, full in found.best]
    assert firsts == [(5, 0.85), (4, 0.86), (2, None), (1, None), (0, None)]


@pytest.mark.parametrize(
    "others",
    [
        [record(9, 0.5, 400, train="whole", steps=80)],  # a candidate of its own
        [record(5, 0.5, 15, train="other", steps=3)],  # hardly dearer
        [record(5, 0.5, 400, train="small", steps=80, space="other"), record(7, 0.5, 10, space="other")],
    ],
)
def test_what_is_no_full_training_is_a_search_of_its_own(others: list[Record]) -> None:
    found = courses([*CHEAP, *others])
    assert len(found) == 1 + len(others)
    assert not any(course.full for course in found)


def test_searched_steps_make_no_searches_of_their_own() -> None:
    own = [Record(str(n), {"steps": n}, Result(0.5, images=n), {"steps": n, "train": "small"}) for n in (1, 20)]
    nested = [Record(str(n), {"rate": n}, Result(0.5), {"protocol": {"steps": 4}, "train": "x"}) for n in (1, 2)]
    assert [len(course.proxies) for course in courses(own)] == [2]
    assert [len(course.proxies) for course in courses([*own, *nested])] == [2, 2]
    assert courses([]) == []


def test_a_journal_is_drawn_as_its_records_are(tmp_path: Path) -> None:
    alone = file_of(progress(CHEAP, FULL))
    assert file_of(progress(journal(tmp_path / "one", *CHEAP, *FULL))) == alone
    two = journal(tmp_path / "two", *CHEAP, record(9, 0.5, 20, train="other"))
    with pytest.raises(DataError, match=r"two holds 2 searches, by their sets and steps"):
        progress(two)
    with pytest.raises(DataError, match="none of 0 candidates succeeded"):
        progress(Journal(tmp_path / "none"))


def test_a_chapter_names_the_set_and_the_best_and_says_who_was_promoted(tmp_path: Path) -> None:
    train, rest = toy_images((30, 30)).split(0.4)
    made = ddplug.distill(train, "random", images_per_class=4, device="cpu")
    made.save(tmp_path / "small.safetensors")
    own = tmp_path / "own.jsonl"
    for source in (made, tmp_path / "small.safetensors"):
        Judge(source, rest, Protocol(steps=2, device="cpu"), own)("mlp:width=4")
    path = str(tmp_path / "small.safetensors")
    chapters = searched([str(own)], {path: made})
    assert [chapter.title for chapter in chapters] == ["A search on small.safetensors"] * 2
    assert {mark_of(made), mark_of(path)} == {record.settings["train"] for record in Journal(own).read()}

    journal(tmp_path / "j", *CHEAP, *FULL)
    (chapter,) = searched([str(tmp_path / "j")], {path: made})
    assert chapter.title == "A search on a set that is not on this page"
    blocks: list[Any] = list(chapter.blocks)
    words, (picture,), table = blocks
    assert str(words).startswith(
        "6 candidates were trained on the set for 12 seconds in all; 1 failed, and 2 were trained in full too."
    )
    assert table.rows[:3] == [
        ("n=5", "50.00 %", "85.00 %"),
        ("n=4", "40.00 %", "86.00 %"),
        ("n=2", "20.00 %", "-"),
    ]
    (tmp_path / "p.png").write_bytes(picture.png)
    assert matplotlib.image.imread(tmp_path / "p.png").ndim == 3
    journal(tmp_path / "failed", CHEAP[3])
    (none,) = searched([str(tmp_path / "failed")], {})
    assert none.blocks[1] == "The last failure: RuntimeError: <no>"


def test_the_page_has_the_search_and_a_file_that_is_no_journal_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ddplug.distill(toy_images((9, 9)), "random", images_per_class=2, device="cpu")
    made.save(tmp_path / "s")
    page, own = tmp_path / "page.html", tmp_path / "j"
    journal(own, *CHEAP, *FULL)
    assert main(["report", str(tmp_path / "s"), "-o", str(page), "--journal", str(own)]) == 0
    text = page.read_text()
    assert "Report on a synthetic set" in text
    assert text.index("A search on a set that is not on this page") < text.index("What it holds")
    capsys.readouterr()
    for path, error, words in (
        (tmp_path / "none", OptionError, "none does not exist; give the file"),
        (tmp_path / "s", FormatError, "is not a journal"),
    ):
        with pytest.raises(error, match=words):
            searched([str(path)], {})
        assert main(["report", str(tmp_path / "s"), "-o", str(page), "--journal", str(path)]) == 2
    assert page.read_text() == text
