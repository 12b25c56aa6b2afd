"""Standard streams of every kind, commands to paste, and outputs that cannot be, on the command line."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from ddplug.cli.program import main
from ddplug.data.preprocess import Identity
from ddplug.distillation import callbacks
from ddplug.evaluation.pace import Load
from ddplug.evaluation.run import Run
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.locks import locked
from ddplug.utils.streams import is_terminal

RANDOM = ["distill", "random", "--images-per-class", "1", "--device", "cpu", "--data"]


class Plain:
    """The least that a stream can be: no ``isatty``, ``fileno`` or ``encoding``."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    images = SyntheticSet(torch.linspace(0, 1, 32).view(2, 1, 4, 4), torch.tensor([0, 1]), 2, Identity())
    images.save(tmp_path / "made.safetensors")
    return "made.safetensors"


class Terminal(Plain):
    """Somebody looks at it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [60, 80, 140])
def test_lines_are_wrapped_where_the_terminal_ends(width: int, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["doctor"]) == 0
    for command in (["inspect"], ["distill"], ["distill", "mtt"], ["completion"], []):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
    # a word that is too wide stands as it is
    lines = [line for line in terminal.text.splitlines() if len(line.split()) > 3]
    assert width - 25 < max(map(len, lines)) <= width


def broken() -> Any:
    return open("/dev/full", "w", buffering=1)


@pytest.mark.parametrize("make", [lambda: None, closed, broken, object])
def test_lines_that_nobody_can_read_do_not_stop_an_evaluation(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, out = make(), Plain()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", out)
    pace = Run([Load("a set", 1, 1, 1, 1)], "training", True).pace
    assert pace is not None
    pace._say("a set: 90.0 %")
    assert out.text == ""
    with suppress(AttributeError, OSError):  # what it holds cannot be written
        stream.close()


def test_lines_in_a_file_do_not_ask_the_terminal(made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = []
    for width in ("40", "200"):
        plain = Plain()
        monkeypatch.setattr(sys, "stdout", plain)
        monkeypatch.setenv("COLUMNS", width)
        assert main(["inspect", made]) == 0
        texts.append(plain.text)
    assert texts[0] == texts[1]


@pytest.mark.parametrize("make", [lambda: None, closed, Plain])
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_any_stream_will_do(name: str, make: Any, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make()
    monkeypatch.setattr(sys, name, stream)
    assert not is_terminal(stream)
    assert main(["inspect", made]) == 0
    assert main(["inspect", "none.safetensors"]) == 2
    bar = callbacks.ProgressBar()
    bar.start(3, 0, "dm")
    bar.step(1, {"loss": torch.zeros(())})
    bar.close()
    if isinstance(stream, Plain):
        assert ("made.safetensors" if name == "stdout" else "ddplug: error: cannot read none") in stream.text


def test_an_answer_that_cannot_be_written_is_one_line(
    made: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["inspect", made]) == 2
        full.flush()  # what the interpreter does at its end
    assert capsys.readouterr().err == (
        "ddplug: error: the answer cannot be written to standard output: No space left on device; what the command "
        "made is kept\n"
    )


def test_numbers_of_closed_streams_are_not_given_to_files() -> None:
    code = "import os; from ddplug.utils.streams import reconnect; reconnect(); os.write(2, b'%d' % os.open('/', 0))"
    shell = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&-"
    done = subprocess.run(["bash", "-c", shell], stderr=subprocess.PIPE, check=True)
    assert int(done.stderr) > 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*RANDOM, "none", "-o", "-"], "the path is '-'"),
        ([*RANDOM, "none", "-o", "x" * 250], "File name too long"),
        ([*RANDOM, "none", "-o", "a", "--checkpoint", "y" * 300], "File name too long"),
        ([*RANDOM, "none", "-o", "a", "--csv", "~no-such-user/x"], "a user that does not exist"),
        ([*RANDOM, "none", "-o", "a\0b"], "NUL character"),
        ([*RANDOM, "none", "-o", "."], "not a regular file"),
        ([*RANDOM, "none", "-o", "/dev/null"], "not a regular file"),
        (["inspect", "-"], "the path is '-'"),
        (["inspect", "~no-such-user/x"], "a user that does not exist"),
        (["export", "made.safetensors", "--to", "npz", "-"], "the path is '-'"),
        (["export", "made.safetensors", "--to", "png", "x" * 300], "File name too long"),
        (["experts", "--data", "none", "-o", ""], "a path is ''"),
    ],
)
def test_paths_are_refused_before_the_data_are_looked_at(
    argv: list[str], message: str, made: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == [made]


def test_next_is_what_to_paste(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from PIL import Image

    for label, shade in (("ant", 0), ("bee", 255)):
        (tmp_path / "my  data" / label).mkdir(parents=True)
        for k in range(2):
            Image.new("L", (8, 8), shade).save(tmp_path / "my  data" / label / f"{k}.png")
    data, output = f"imagefolder:{tmp_path / 'my  data'}", str(tmp_path / "it's.safetensors")
    assert main([*RANDOM, data, "-o", output, "--cache", str(tmp_path / "c d"), "--size", "4"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("next"))
    words = shlex.split(line)[1:]
    assert words == f"ddplug|evaluate|{output}|--data|{data}|--size|4x4|--cache|{tmp_path / 'c d'}".split("|")


def test_the_second_of_two_runs_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "out.safetensors"
    with locked(output):
        assert main([*RANDOM, "digits", "-o", str(output)]) == 2
    assert f"another run (process {os.getpid()}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main([*RANDOM, "digits", "-o", str(output)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_no_room_is_said_before_the_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    assert main([*RANDOM, "digits", "-o", str(tmp_path / "out")]) == 2
    assert "it takes 0.0 MB and the disk has 0.0 MB left; free some space" in capsys.readouterr().err


def test_inspect_says_what_is_checked(made: str, capsys: pytest.CaptureFixture[str]) -> None:
    old = Path(__file__).parents[1] / "files" / "ddplug-1-float32.safetensors"
    assert main(["inspect", made]) == 0 == main(["inspect", str(old)])
    new, before = (line for line in capsys.readouterr().out.splitlines() if line.startswith("checked"))
    assert "yes: every byte" in new
    assert "no: unchecked" in before


def test_help_into_a_closed_pipe_is_quiet() -> None:
    command = f"{shlex.quote(sys.executable)} -c 'from ddplug.cli import main; main()' --help"
    shell = f"unset PYTHONUNBUFFERED; (sleep 0.1; {command}) | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("141", "")
