"""A world that fails: full disks, folders that go away or take no files, streams that are closed."""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ddplug.cli.program import main
from ddplug.distillation import callbacks
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.locks import locked

__all__ = ["campaign"]

DM = "distill dm --data digits --network convnet:width=4,depth=1 --pool 1 --images-per-class 1 --steps 6 --device cpu"
RANDOM = "distill random --data digits --images-per-class 1 --device cpu"


@contextlib.contextmanager
def _files_below(nbytes: int) -> Iterator[None]:
    """Let no file grow beyond a number of bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@contextlib.contextmanager
def _at_step(number: int, act: Callable[[], object]) -> Iterator[None]:
    """Do something in the middle of a run."""
    before = callbacks.ProgressBar.step

    def step(self: Any, step: int, metrics: Any) -> None:
        if step == number:
            act()

    callbacks.ProgressBar.step = step  # type: ignore[method-assign]
    try:
        yield
    finally:
        callbacks.ProgressBar.step = before  # type: ignore[method-assign]


@contextlib.contextmanager
def _stream(name: str, stream: Any) -> Iterator[None]:
    before = getattr(sys, name)
    setattr(sys, name, stream)
    try:
        yield
    finally:
        setattr(sys, name, before)


def _closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


def _run(words: str, *more: str, **streams: Any) -> tuple[int, str, str]:
    """Run a command in this process; give status, standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    with _stream("stdout", streams.get("stdout", out)), _stream("stderr", streams.get("stderr", err)):
        status = main([*words.split(), *more])
    return status, out.getvalue(), err.getvalue()


def _told(result: tuple[int, str, str], *parts: str, status: int = 2) -> str | None:
    """Say what is wrong with a refusal."""
    code, out, err = result
    lines = err.splitlines()
    if code != status or out or len(lines) != 1 or not lines[0].startswith("ddplug: "):
        return f"status {code}, {out[:100]!r}, {err[-300:]!r}"
    return None if all(part in err for part in parts) else f"it says {err!r}"


def _right(result: tuple[int, str, str], path: Path) -> str | None:
    """Say what is wrong with a success."""
    if result[0]:
        return f"status {result[0]}: {result[2]!r}"
    SyntheticSet.load(path)
    left = [name for name in os.listdir(path.parent) if name.startswith(".") or name.endswith(".checkpoint")]
    return f"left over: {left}" if left else None


def _unwritable(path: str, *parts: str) -> Callable[[Path], str | None]:
    return lambda folder: _told(_run(RANDOM, "-o", path.format(folder=folder)), *parts)


def _quiet(words: str, name: str, make: Callable[[], Any], status: int = 0) -> Callable[[Path], str | None]:
    def situation(folder: Path) -> str | None:
        stream = make()
        try:
            code, _, _ = _run(f"{words} -o {folder}/o", **{name: stream})
        finally:
            with contextlib.suppress(AttributeError, OSError):  # what it holds cannot be written
                stream.close()
        if code != status:
            return f"status {code}"
        return _right((0, "", ""), folder / "o")

    return situation


def _full(limit: int, words: str, *more: str) -> Callable[[Path], str | None]:
    """A disk that fills up; with room again, the same command goes on."""

    def situation(folder: Path) -> str | None:
        with _files_below(limit):
            fault = _told(_run(words, "-o", f"{folder}/o", *more), "File too large")
        return fault or _right(_run(words, "-o", f"{folder}/o"), folder / "o")

    return situation


def _folder_goes_away(folder: Path) -> str | None:
    own = folder / "own"
    own.mkdir()
    with _at_step(3, lambda: shutil.rmtree(own)):
        result = _run(DM, "-o", f"{own}/o", "--checkpoint-every", "0")
    fault = _told(result, "does not exist", "the run is kept in")
    if fault:
        return fault
    own.mkdir()
    kept = result[2].split("(--checkpoint ")[1].split(")")[0]
    return _right(_run(DM, "-o", f"{own}/o", "--checkpoint", kept), own / "o")


def _stopped(number: signal.Signals, again: bool) -> Callable[[Path], str | None]:
    def situation(folder: Path) -> str | None:
        def act() -> None:
            try:
                os.kill(os.getpid(), number)
            finally:
                if again:
                    os.kill(os.getpid(), number)

        with _at_step(3, act):
            result = _run(DM, "-o", f"{folder}/o")
        fault = _told(result, "the same command resumes from", status=128 + number)
        return fault or _right(_run(DM, "-o", f"{folder}/o"), folder / "o")

    return situation


def _raised(error: BaseException, *parts: str) -> Callable[[Path], str | None]:
    def situation(folder: Path) -> str | None:
        def act() -> None:
            raise error

        with _at_step(3, act):
            fault = _told(_run(DM, "-o", f"{folder}/o"), *parts)
        if not (folder / "o.checkpoint").exists():
            return "nothing was kept"
        return fault or _right(_run(DM, "-o", f"{folder}/o"), folder / "o")

    return situation


def _two_runs(path: Path) -> str | None:
    with locked(path):
        fault = _told(_run(RANDOM, "-o", str(path)), "another run")
    return fault or _right(_run(RANDOM, "-o", str(path)), path)


def _export(kind: str, out: str) -> Callable[[Path], str | None]:
    def situation(folder: Path) -> str | None:
        _run(RANDOM, "-o", f"{folder}/o")
        return _told(_run("export", f"{folder}/o", "--to", kind, out.format(folder=folder)), "cannot write")

    return situation


def _full_device() -> Any:
    return open("/dev/full", "w")


class _Plain:
    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


STREAMS = {"none": lambda: None, "closed": _closed, "without isatty": _Plain}

SITUATIONS: dict[str, Callable[[Path], str | None]] = {
    **{f"{name} {kind}": _quiet(RANDOM, name, make) for name in ("stdout", "stderr") for kind, make in STREAMS.items()},
    "stderr none while stepping": _quiet(DM, "stderr", lambda: None),
    "stdout full": _quiet(RANDOM, "stdout", _full_device, 2),
    "stderr full": _quiet(RANDOM, "stderr", _full_device),
    "a device": _unwritable("/dev/null", "not a regular file"),
    "a folder": _unwritable("{folder}", "not a regular file"),
    "a folder that takes no files": _unwritable("/proc/o", "cannot write"),
    "no folder": _unwritable("{folder}/none/o", "does not exist"),
    "a file for a folder": _unwritable("/etc/hosts/o", "does not exist"),
    "too long a name": _unwritable("{folder}/" + "x" * 250, "File name too long"),
    "too long a path": _unwritable("{folder}/" + "y/" * 3000 + "o", "File name too long"),
    "a NUL": _unwritable("{folder}/a\0b", "NUL"),
    "standard output as a file": _unwritable("-", "'-'"),
    "the disk is full at the end": _full(300, RANDOM),
    "the disk is full for bytes": _full(300, RANDOM, "--quantize"),
    "the disk fills up at a checkpoint": _full(500, DM, "--checkpoint-every", "0"),
    "the folder goes away": _folder_goes_away,
    **{
        f"{number.name}{' twice' * again}": _stopped(number, again)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for again in (False, True)
    },
    "memory": _raised(MemoryError(), "out of memory"),
    "memory of torch": _raised(RuntimeError("you tried to allocate memory"), "out of memory"),
    "an error of the system": _raised(OSError(5, "Input/output error"), "Input/output error"),
    "two runs": lambda folder: _two_runs(folder / "o"),
    "export into no folder": _export("npz", "{folder}/none/o"),
    "export onto a folder": _export("png", "{folder}"),
}


def campaign(times: int, seed: int = 0) -> dict[str, Any]:
    """Try so many of :data:`SITUATIONS`, at most all."""
    wrong, names = list[str](), random.Random(seed).sample(list(SITUATIONS), min(times, len(SITUATIONS)))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                fault = SITUATIONS[name](Path(folder))
            except Exception as error:  # what a campaign is to find
                fault = f"{type(error).__name__}: {error}"
        if fault:
            wrong.append(f"{name}: {fault}")
    return {"campaign": "fault", "times": len(names), "right": len(names) - len(wrong), "wrong": wrong}
