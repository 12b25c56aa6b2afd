"""The scripts of ``ddplug completion``, asked by the shells themselves."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from ddplug.cli.completion import SHELLS
from ddplug.cli.program import main

TYPED = {
    ("d",): ["demo", "distill", "doctor"],
    ("distill", "so"): ["soft-label-dd"],
    ("distill", "dm", "--pool"): ["--pool", "--pool-size"],
    ("distill", "random", "--pool"): [],
    ("evaluate", "--net"): ["--network"],
    ("evaluate", "--network", "conv"): ["conv1d", "convnet"],
    ("distill", "dm", "--data", "c"): ["cifar10", "cifar100", "csv:"],
    ("export", "a", "--to", "p"): ["parquet", "png"],
}


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    from ddplug.cli import completion

    options, values = completion._options(), completion._values()
    return {shell: write(options, values) for shell, write in SHELLS.items()}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(scripts: dict[str, str]) -> None:
    asked = "".join(
        f"\nCOMP_WORDS=(ddplug {' '.join(words)}); COMP_CWORD={len(words)}; _ddplug; echo ${{COMPREPLY[@]}}"
        for words in TYPED
    )
    done = subprocess.run(["bash", "-c", scripts["bash"] + asked], capture_output=True, text=True, check=True)
    assert [sorted(line.split()) for line in done.stdout.splitlines()] == list(TYPED.values())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_takes_its_script(shell: str, scripts: dict[str, str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n"], input=scripts[shell], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_fish_gets_a_line_for_each_option(scripts: dict[str, str]) -> None:
    lines = scripts["fish"].splitlines()
    seen = "-n '__fish_seen_subcommand_from distill; and __fish_seen_subcommand_from dm'"
    assert f"complete -c ddplug {seen} -l pool-size" in lines
    assert all(line.startswith("complete -c ddplug -n ") for line in lines)


def test_an_unknown_shell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bsh"]) == 2
    assert "did you mean 'bash'" in capsys.readouterr().err
