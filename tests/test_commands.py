"""Every printed command is taken by the parser, and those of the pages run in their order, made short."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddplug
from ddplug.cli.commands import COMMANDS, EXAMPLES
from ddplug.cli.program import main
from ddplug.utils.arguments import Parser

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    if "_generated" not in path.parts
} | {"--help": "```bash\n" + "\n".join(EXAMPLES.values()) + "\n```\n"}
ELSEWHERE = {
    "docs/first-tasks.md": "tests/test_first_tasks.py",
    "docs/howto/own-data.md": "tests/test_howto.py",
    "docs/howto/processes.md": "tests/test_howto.py",
    "docs/howto/privacy.md": "tests/privacy/test_page.py",
}
"""Pages whose commands a test of their own runs."""

OTHERS = {
    "demo": "tests/cli/test_demo.py",
    "merge": "tests/test_howto.py",
    "agreement": "tests/search/test_agreement_command.py",
    "distill auto": "tests/test_auto.py",
    "distill difficulty": "tests/distillers/test_difficulty.py",
    "evaluate mnist-8kB": "tests/cli/test_program.py, of other sets",
}
"""Commands that take long, or shards -> what runs them."""

FETCHED = re.compile(r"--data (mnist|cifar10)( --data-root data)?( --download)?")
"""Data that would have to be fetched; some noise of their shape stands for them."""

SHORT = {
    "--steps": "1",
    "--pool-size": "1",
    "--batch-real": "4",
    "--train-epochs": "1",
    "--train-steps": "1",
    "--images-per-class": "1",
    "--epochs": "1",
    "--number": "1",
    "--num-experts": "1",
    "--networks": "1",
    "--syn-steps": "1",
    "--expert-epochs": "1",
    "--max-start-epoch": "1",
    "--shard": "1/1",
    "--repeats": "1",
    "--whole-steps": "1",
    "--shadows": "0",
    "--device": "cpu",
}
"""Option -> what it is set to, last, where the command has it."""


def commands(text: str) -> Iterator[str]:
    """Give the lines of the blocks for a shell that call ddplug."""
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("ddplug ") or " ddplug " in line.split("#")[0]:
                yield line[line.index("ddplug ") :]


def inline(text: str) -> Iterator[str]:
    """Give the commands in the middle of a text; not those with a placeholder."""
    for found in re.findall(r"`(ddplug [a-z][^`\n]*)`", text):
        if not re.search(r"\b(METHOD|COMMAND|NAME|FILE|SET|DIR|N|K/N|TIME|SIZE)\b|\.\.\.|\[|--help$", found):
            yield found


def parser_of(line: str) -> tuple[Parser, list[str]]:
    name, *words = shlex.split(line, comments=True)[1:]
    parser = Parser(prog=f"ddplug {name}")
    return parser, import_module(COMMANDS[name][0]).configure(parser, words)


def test_commands_within_sentences_are_of_names_and_options_that_exist() -> None:
    found = {line for text in PAGES.values() for line in inline(text)} - {
        "ddplug distill central"
    }  # a method of one's own
    assert len(found) > 20
    for line in found:
        name, *words = shlex.split(line)[1:]
        assert name in COMMANDS, line
        method = [word if not word.startswith("-") else "dm" for word in (words or ["dm"])[:1] if name == "distill"]
        parser, _ = parser_of(shlex.join(["ddplug", name, *method]))
        known = set(parser._option_string_actions)
        assert {word.split("=")[0] for word in words if re.match("--?[a-z]", word)} <= known, line


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that stands for those that a page has, and a folder of photos."""
    folder = tmp_path_factory.mktemp("own")
    with torch.random.fork_rng():
        made = ddplug.distill("digits", "random", images_per_class=1, seed=0, device="cpu")
    made.save(folder / "dm.safetensors")
    rng = np.random.default_rng(0)
    for name, shape in (("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))):
        parts: dict[str, Any] = {
            f"x_{part}": rng.integers(0, 255, (40, *shape), np.uint8) for part in ("train", "test")
        }
        np.savez(folder / f"{name}.npz", y_train=np.arange(40) % 10, y_test=np.arange(40) % 10, **parts)
    for name in ("cats", "dogs"):
        (folder / "photos" / name).mkdir(parents=True)
        for k in range(4):
            pixels = np.random.default_rng(k).integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{k}.png")
    return folder


def shortened(line: str) -> list[str]:
    """Return the words of a command that does the same in a moment."""
    line = FETCHED.sub(r"--data npz:\1.npz", line).replace("convnet:width=32", "mlp:width=4").replace("cuda", "cpu")
    parser, _ = parser_of(line)
    words = shlex.split(line, comments=True)[1:]
    known = set(parser._option_string_actions)
    if "--bytes" in words or "--images" in words:
        known.discard("--images-per-class")
    given = words[0] in ("evaluate", "compare", "report") and "--network" in words  # which take several
    if "--network" in known and not given:
        words += ["--network", "mlp:width=4"]
    words += [option for option in ("--no-baselines", "--no-train") if option in known]
    return [*words, *(word for option, value in SHORT.items() if option in known for word in (option, value))]


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if [*commands(text)]])
def test_printed_commands_are_taken(page: str, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)
    for line in commands(PAGES[page]):
        parser, words = parser_of(line.replace("$SLURM_ARRAY_TASK_ID", "1"))
        parser.parse_args(words)


@pytest.mark.filterwarnings("ignore::ddplug.utils.notes.Note")
@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if page not in ELSEWHERE and [*commands(text)]])
def test_printed_commands_run(
    page: str, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "mnist.npz", "cifar10.npz"):
        (tmp_path / name).symlink_to(own / name)
    for line in commands(PAGES[page]):
        if {line.split()[1], " ".join(line.split()[1:3])} & OTHERS.keys():
            continue
        words = shortened(line)
        outputs = {words[k + 1] for k, word in enumerate(words) if word == "-o"}
        for name in {word for word in words if word.endswith(".safetensors")} - outputs:
            if not (tmp_path / name).exists():
                (tmp_path / name).write_bytes((own / "dm.safetensors").read_bytes())
        status, said = main(words), capsys.readouterr()
        assert status == 0, (line, said.err)
        assert all((tmp_path / name).exists() for name in outputs), line
        for following in re.findall(r"^next +(ddplug .+)$", said.out, re.MULTILINE):
            parser, rest = parser_of(following)
            parser.parse_args(rest)
