"""Everything end to end on real data that ship with scikit-learn: the demo, a chapter at a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddplug._version import __version__
from ddplug.cli.demo.continual import continual
from ddplug.cli.demo.distillation import distillation
from ddplug.cli.demo.search import search
from ddplug.cli.demo.stage import Part, Size, Stage
from ddplug.data import datasets
from ddplug.errors import OptionError
from ddplug.utils.files import write_file
from ddplug.utils.page import Chapter, page
from ddplug.utils.text import os_reason

__all__ = ["CHAPTERS", "REPORT", "Demo", "Part", "Size", "Stage", "run_demo"]

FORMAT = "ddplug-demo/1"
"""What marks a folder, by its ``results.json``, as the demo's own."""

_RESULTS, REPORT = "results.json", "report.html"

_LEAD = "Small synthetic training sets, made, stored, judged and drawn on this machine by `ddplug demo`."

_RUNNING = "The demo is not finished: this is what there is so far."


@dataclass(frozen=True)
class Demo:
    """What the demo gives.

    Attributes:
        folder: where everything lies.
        report: the page.
        values: what ``results.json`` holds.
        summary: one table a chapter that was run, each with its head first.
        notes: a line for each chapter that was not.
    """

    folder: Path
    report: Path
    values: Mapping[str, Any]
    summary: Sequence[Sequence[Sequence[str]]]
    notes: Sequence[str] = ()


CHAPTERS: Mapping[str, Callable[[Stage], Part]] = {
    "distillation": distillation,
    "continual": continual,
    "search": search,
}
"""Chapter in ``results.json`` -> its maker; they run in order and share a :class:`~ddplug.cli.demo.stage.Stage`."""


def _claim(folder: Path) -> None:
    """Make the folder, or take an earlier demo's; refuse any other that holds something.

    Raises:
        OptionError: it is not ours, or cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
        foreign = any(folder.iterdir()) and not _is_ours(folder / _RESULTS)
    except OSError as error:
        raise OptionError(f"cannot write into {folder}: {os_reason(error)}; choose another folder with -o") from None
    if foreign:
        raise OptionError(f"{folder} is not empty and not of an earlier demo; choose another folder with -o")
    write_file(folder / _RESULTS, json.dumps({"format": FORMAT, "finished": False}).encode())


def _is_ours(results: Path) -> bool:
    try:
        values = json.loads(results.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and values.get("format") == FORMAT


@contextmanager
def _one_thread() -> Iterator[None]:
    """Work on one thread: on images this small more only get in each other's way, and the numbers depend on them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_demo(
    output: str | Path, *, seed: int = 0, size: Size | None = None, say: Callable[[str], None] = lambda line: None
) -> Demo:
    """Distill, evaluate, plot and report, into a folder of its own.

    Args:
        output: the folder; it is made, or was made by an earlier demo, or is empty.
        seed: of everything.
        size: how much to do.
        say: takes each line of progress.

    Returns:
        Where everything is, and the figures.

    Raises:
        OptionError: the folder holds something else, or cannot be written.
    """
    began, folder, size = time.monotonic(), Path(output), size or Size()
    _claim(folder)
    train, test = datasets.load("digits"), datasets.load("digits", split="test")
    parts: dict[str, Part] = {}

    def show(*chapters: Chapter, seconds: float | None = None) -> None:
        """Write the page: the chapters that are done, and what there is of the present one."""
        took = f", {seconds:.0f} seconds" if seconds is not None else ""
        footer = f"ddplug {__version__}, torch {torch.__version__}, seed {seed}{took}."
        written = [*(part.chapter for part in parts.values()), *chapters]
        content = page("ddplug demo", _LEAD, written, footer, _RUNNING if seconds is None else "")
        write_file(folder / REPORT, content.encode())

    say(f"writing {folder / REPORT}; open it now and reload it to see the demo go on")
    stage = Stage(folder, seed, size, say, train, test, show=show)
    with _one_thread():
        for name, chapter in CHAPTERS.items():
            show()
            parts[name] = chapter(stage)
    seconds = time.monotonic() - began
    values = {
        "format": FORMAT,
        "finished": True,
        "seed": seed,
        "seconds": seconds,
        "version": __version__,
        **{name: dict(part.values) for name, part in parts.items()},
    }
    show(seconds=seconds)
    stage.write(_RESULTS, json.dumps(values, indent=2).encode())
    summary = [part.summary for part in parts.values() if part.summary]
    return Demo(folder, folder / REPORT, values, summary, [part.note for part in parts.values() if part.note])
