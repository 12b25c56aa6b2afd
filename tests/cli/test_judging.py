"""``ddplug compare`` and ``ddplug report``: files for papers, one page for readers, and going on after a stop."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace
from functools import partial
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
import torch

import ddplug
from ddplug.cli.judging import BASELINES
from ddplug.cli.program import main
from ddplug.data.preprocess import Identity
from ddplug.distillers.selection.random_ import Random
from ddplug.evaluation.results import judge
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.forecast import Forecast
from tests.cli.test_report import Reader

QUICK = ["--data", "digits", "--network", "mlp:width=4", "--repeats", "1", "--whole-steps", "2", "--device", "cpu"]
FEW = ("random", "class-mean")
HOSTILE = '<script>alert("1")</script>&amp;\x1b[31m'


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("compare", "report"):  # to code real images and to cluster takes seconds
        monkeypatch.setattr(f"ddplug.cli.{command}.BASELINES", FEW)
    data = ddplug.load_dataset("digits")
    for number in (1, 2):
        made = ddplug.distill(data, Random(images_per_class=number), device="cpu").quantize()
        replace(made, recipe=Recipe(epochs=2)).save(f"set-{number}.safetensors")


def page_of(file: str) -> tuple[str, Reader]:
    """Read a page; its tags must nest."""
    text, reader = Path(file).read_text(), Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return text, reader


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


# -- compare --


def test_compare_writes_a_table_in_every_form(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = {f"out.{kind}": Path(f"out.{kind}") for kind in ("csv", "tex", "json", "md", "png", "pdf")}
    argv = ["compare", "set-2.safetensors", "set-1.safetensors", *QUICK]
    assert main([*argv, *(part for file in files for part in ("--to", file)), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert BASELINES == ("random", "coded real", "class-mean", "kmeans")
    assert [row["method"] for row in values["rows"]] == ["set-1", *FEW, "set-2", *FEW, "whole data"]
    assert [row["kind"] for row in values["rows"]] == [*["set", *["baseline"] * 2] * 2, "whole data"]
    assert values["rows"][0]["nbytes"] < values["rows"][3]["nbytes"]
    assert values["written"] == list(files)
    assert json.loads(files["out.json"].read_text())["rows"] == values["rows"]
    assert len(files["out.csv"].read_text().splitlines()) == 1 + 7
    assert len(files["out.md"].read_text().splitlines()) == 2 + 7
    assert r"\toprule" in files["out.tex"].read_text()
    assert files["out.png"].read_bytes().startswith(b"\x89PNG")
    assert files["out.pdf"].read_bytes().startswith(b"%PDF")
    assert not list(tmp_path.glob("*.evaluation"))


def test_sets_that_methods_do_not_tell_apart_have_the_names_of_their_files(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("set-1.safetensors", "other.safetensors")
    assert main(["compare", "set-1.safetensors", "other.safetensors", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "own (2 epochs)" in out
    assert [line.split()[0] for line in out.splitlines()[3:5]] == ["set-1", "other"]


@pytest.mark.parametrize("file", ["random.safetensors", "random"])
def test_a_set_never_has_the_name_of_a_baseline(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("set-1.safetensors", file)
    assert main(["compare", file, *QUICK]) == 0
    rows = capsys.readouterr().out.splitlines()[3:]
    assert [row.split("  ")[0] for row in rows] == ["random (file)", *FEW, "whole data, 2 steps"]


def test_outputs_of_compare_are_checked_first(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["compare", "set-1.safetensors", *QUICK]
    assert "--to is a.xlsx; its ending must be one of .csv, .tex" in refusal(capsys, *argv, "--to", "a.xlsx")
    assert "the folder" in refusal(capsys, *argv, "--to", "none/a.csv")
    assert "missing.safetensors" in refusal(capsys, "compare", "missing.safetensors", *QUICK)


def test_what_comes_before_training_is_foretold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(0, 31)  # for each of two baselines
    monkeypatch.setattr("ddplug.evaluation.run.Forecast", partial(Forecast, clock=lambda: float(next(seconds))))
    assert main(["compare", "set-1.safetensors", *QUICK]) == 0
    err = capsys.readouterr().err
    assert "fitting baselines to the bytes takes about 62 seconds, before networks are trained\n" in err


def test_trials_of_one_baseline_are_enough_to_foretell_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SyntheticSet.load("set-2.safetensors")
    made.compress("pixels:bits=2").save("coded.safetensors")
    seconds = itertools.count(0, 10)  # for each trial
    monkeypatch.setattr("ddplug.evaluation.run.Forecast", partial(Forecast, clock=lambda: float(next(seconds))))
    assert main(["compare", "coded.safetensors", *QUICK]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    # a trial of two baselines, each of which usually takes three
    assert first == "fitting baselines to the bytes takes about 60 seconds, before networks are trained"


def test_a_stopped_command_goes_on(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["compare", "set-1.safetensors", *QUICK]
    assert main([*argv, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)["rows"]

    calls: list[Any] = []

    def stopping(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return judge(*args, **options)

    with monkeypatch.context() as stopped:
        stopped.setattr("ddplug.evaluation.comparison.judge", stopping)
        assert main(argv) == 130
    said = "interrupted; the same command resumes from set-1.safetensors.evaluation"
    assert said in capsys.readouterr().err
    kept = json.loads(Path("set-1.safetensors.evaluation").read_text())["rows"]
    assert len(kept) == 2  # the set is the random images of its seed, which stand beside it: both are one measurement
    assert main([*argv, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["rows"]
    assert [row["accuracies"] for row in again] == [row["accuracies"] for row in plain]
    # the very networks that were done are not trained again: their seconds are those of the first run
    seconds = {entry[2] for entries in kept.values() for entry in entries}
    assert {row["seconds"] for row in again[:3]} == seconds
    assert not Path("set-1.safetensors.evaluation").exists()


# -- report --


def test_a_set_that_comes_along_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", "digits-dm", "-o", "page.html"]) == 0
    assert "digits-dm" in Path("page.html").read_text(encoding="utf-8")


def test_a_page_without_data_shows_what_the_file_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "set-1.safetensors", "set-2.safetensors", "-o", "page.html"]) == 0
    text, reader = page_of("page.html")
    made = SyntheticSet.load("set-2.safetensors")
    facts = dict(zip(reader.cells[::2], reader.cells[1::2], strict=False))
    for name, value in {
        "bytes, labels counted": f"{made.nbytes:,}",
        "holds real images": "yes, or parts of them",
    }.items():
        assert facts[name] == value
    assert "own (2 epochs)" in text and made.provenance["data"]["fingerprint"] in text
    assert text.count("data:image/png;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:|#)|<script|https?:', text)
    assert main(["report", "set-1.safetensors", "-o", "page.html"]) == 0  # a page of ours is replaced


def test_a_page_with_data_shows_real_images_baselines_and_architectures(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["report", "set-1.safetensors", *QUICK, "--network", "mlp:width=3", "-o", "page.html"]
    assert main([*argv, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 1 + 2 + 1 + 1
    text, reader = page_of("page.html")
    for row in rows[:3]:
        assert any(
            reader.cells[n : n + 2] == [row["method"], f"{100 * row['mean']:.1f}"] for n in range(len(reader.cells))
        )
    assert "mlp:width=3" in reader.cells and "own (2 epochs)" in text
    assert text.count("data:image/png;base64,") == 1 + 2
    assert "still being trained" not in text
    # every picture is told to those who do not see it, and every table says what it is and how to read it
    pictures = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "alt")]
    assert len(pictures) == 3 and all(pictures)
    assert text.count("<table>") == text.count("<caption>") == text.count('tabindex="0"')
    assert text.count("<th scope=") == text.count("<th ")


def test_real_images_stand_beside_without_training_and_what_a_set_promises_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = {"epsilon": 1.5, "delta": 1e-5, "neighbors": "one record added or removed", "mechanism": "noise"}
    made = SyntheticSet.load("set-1.safetensors")
    replace(made, provenance={**made.provenance, "privacy": said}).save("private.safetensors")
    assert main(["report", "private.safetensors", "--data", "digits", "--no-train", "-o", "page.html"]) == 0
    text, reader = page_of("page.html")
    assert text.count("data:image/png;base64,") == 2 and "real images, drawn at random" in text
    assert "epsilon 1.5" in reader.cells[reader.cells.index("differential privacy") + 1]
    assert "does not hold for this page" in text and "Accuracy" not in text


def test_a_page_is_written_as_it_goes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[Any] = []

    def stopping(*args: Any, **options: Any) -> Any:
        text, reader = page_of("page.html")
        assert "Networks are still being trained" in text
        assert reader.cells.count("set-1") == len(calls)  # a set of a baseline's method goes by its file
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return judge(*args, **options)

    monkeypatch.setattr("ddplug.evaluation.comparison.judge", stopping)
    assert main(["report", "set-1.safetensors", *QUICK, "-o", "page.html"]) == 130
    assert "Accuracy so far" in page_of("page.html")[0]


def hostile(shape: tuple[int, ...] = (1, 8, 8)) -> SyntheticSet:
    """A set from a stranger: everything that is text is markup."""
    inputs = torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    provenance: dict[str, Any] = {
        HOSTILE: {HOSTILE: [HOSTILE]},
        "method": HOSTILE,
        "data": {"name": HOSTILE},
        "psnr": HOSTILE,
    }
    return SyntheticSet(inputs, torch.arange(4) % 2, 2, Identity(), class_names=(HOSTILE, "b"), provenance=provenance)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 8, 8), (5,)])
def test_strangers_files_are_shown_as_text(shape: tuple[int, ...], capsys: pytest.CaptureFixture[str]) -> None:
    name = "<b>&'\".safetensors"
    hostile(shape).save(name)
    assert main(["report", name, "-o", "page.html"]) == 0
    text, reader = page_of("page.html")
    assert not {"script", "b"} & {tag for tag, *_ in reader.attributes}
    assert not re.search("<script|<b>|\x1b", text)
    assert HOSTILE.replace("\x1b", "?") in unescape(text)
    assert ("data:image/png" in text) == (shape == (1, 8, 8))


def test_places_for_a_page_are_checked_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.html").write_text("<p>mine</p>")
    argv = ["report", "set-1.safetensors", *QUICK, "-o"]
    assert "mine.html exists and is not a page of ddplug" in refusal(capsys, *argv, "mine.html")
    assert "set-1.safetensors is one of the sets" in refusal(capsys, *argv, "set-1.safetensors")
    assert "does not exist" in refusal(capsys, *argv, "none/page.html")
    assert Path("mine.html").read_text() == "<p>mine</p>"


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
def test_no_page_is_wider_than_a_telephone_or_a_screen(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    long = replace(hostile(), provenance={"method": "x" * 300, "config": {"a" * 90: "b" * 300}})
    long.save(f"{'n' * 120}.safetensors")
    argv = ["report", "set-2.safetensors", *QUICK, "-o", "judged.html"]
    assert main(argv) == 0
    assert main(["report", f"{'n' * 120}.safetensors", "set-1.safetensors", "-o", "told.html"]) == 0
    frames = "".join(
        f'<iframe width="{width}" height="2000" srcdoc="{escape(Path(file).read_text())}"></iframe>'
        for file in ("judged.html", "told.html")
        for width in (360, 1280)
    )
    measure = """onload = () => {
        const pages = [...document.querySelectorAll("iframe")].map(frame => frame.contentWindow);
        document.title = pages.map(page => [
            page.innerWidth, page.document.documentElement.scrollWidth,
            [...page.document.images].filter(image => !image.naturalWidth).length,
            page.document.querySelectorAll("h2").length,
        ]).join(";");
    }"""
    Path("frames.html").write_text(f"<!DOCTYPE html><title></title>{frames}<script>{measure}</script>")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path}/b",
    ]
    done = subprocess.run(
        [str(BROWSER), *flags, "--dump-dom", f"file://{tmp_path}/frames.html"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    found = re.search("<title>([^<]*)</title>", done.stdout)
    assert found is not None, done.stderr
    measured = [tuple(map(int, frame.split(","))) for frame in found[1].split(";")]
    assert [width for width, *_ in measured] == [360, 1280, 360, 1280]
    # as wide as the window less its scroll bar, every picture drawn, and all chapters there
    assert all(scrolled <= width and broken == 0 for width, scrolled, broken, _ in measured)
    assert [chapters for *_, chapters in measured] == [2, 2, 2, 2]
