"""A process that keeps its memory asks the system for no page twice; one with settings of its own is left alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"

CODE = """
import resource
from ddplug.utils.allocator import keep_memory
done = keep_memory()
import numpy
blocks = [numpy.ones(4_000_000 + k, dtype=numpy.uint8) for k in range(4)]
del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(30):
    blocks = [numpy.ones(4_000_000 + k, dtype=numpy.uint8) for k in range(4)]
    del blocks
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def ran(code: str, **environment: str) -> list[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=own | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_memory_that_was_freed_is_used_again_without_a_fault() -> None:
    done, faults = ran(CODE)
    assert done == "True"
    assert int(faults) < 1000


@pytest.mark.parametrize("own", [{"MALLOC_TRIM_THRESHOLD_": "0"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=0"}])
def test_settings_of_the_environment_stay(own: dict[str, str]) -> None:
    assert ran("from ddplug import keep_memory; print(keep_memory())", **own) == ["False"]


def test_the_command_does_it_for_its_own_process_alone() -> None:
    code = """
import sys
from ddplug.cli import program
calls = []
program.keep_memory = lambda: calls.append(1)
sys.argv = ["ddplug", "export", "--to"]
program.main(["export", "--to"])
assert not calls
program.main()
print(len(calls))
"""
    assert ran(code) == ["1"]
