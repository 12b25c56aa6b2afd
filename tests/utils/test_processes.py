"""Warm processes: what they do, what becomes of a task whose process ends, and that none outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ddplug.errors import DdplugError, OptionError
from ddplug.utils.processes import Hear, LostError, Pool

ROOT = Path(__file__).parents[2]


class Heavy:
    """What is sent once a process."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __getstate__(self) -> dict[str, int]:
        COPIED.append(self.value)
        return {"value": self.value}


COPIED: list[int] = []


class PickyError(Exception):
    """Cannot be read as it was written."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


@dataclass(frozen=True)
class Do:
    """A task."""

    work: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def load(self) -> None:
        """Do nothing."""

    def __call__(self, tell: Hear) -> Any:
        return self.work(*self.arguments, **({"tell": tell} if self.work in (count, stubborn) else {}))


def count(number: int, tell: Hear) -> int:
    for n in range(number):
        tell(n, "of", number)
    return number


def stubborn(tell: Hear) -> None:
    tell(1)
    time.sleep(100)


def value_of(heavy: Heavy) -> tuple[int, int]:
    return os.getpid(), heavy.value


def environment(name: str) -> str | None:
    return os.environ.get(name)


def fail(kind: str) -> None:
    raise PickyError("a", "b") if kind == "picky" else OptionError("no such thing")


def idle() -> None:
    """Nothing to prepare."""


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = Pool([{"DDPLUG_TEST": "first"}], idle, Heavy)
    yield made
    made.close()


def test_a_process_is_kept_and_so_is_what_is_sent_once(pool: Pool) -> None:
    COPIED.clear()
    heavy, other = Heavy(3), Heavy(4)
    found = [pool.run(Do(value_of, (own,))) for own in (heavy, heavy, other, heavy)]
    assert [value for _, value in found] == [3, 3, 4, 3]
    assert COPIED == [3, 4]
    assert {pid for pid, _ in found} == {found[0][0]} != {os.getpid()}
    assert pool.run(Do(environment, ("DDPLUG_TEST",))) == "first"
    assert "DDPLUG_TEST" not in os.environ


def test_what_it_tells_is_heard_and_may_end_it(pool: Pool) -> None:
    heard: list[Any] = []
    assert pool.run(Do(count, (3,)), hear=lambda *values: heard.append(values)) == 3
    assert heard == [(0, "of", 3), (1, "of", 3), (2, "of", 3)]

    def enough(n: int, *rest: Any) -> None:
        heard.append(n)
        if n == 1:
            raise ZeroDivisionError("enough")

    heard.clear()
    pid = pool.run(Do(os.getpid))
    with pytest.raises(ZeroDivisionError, match="enough"):
        pool.run(Do(count, (5,)), hear=enough)
    assert heard == [0, 1]
    assert pool.run(Do(os.getpid)) == pid  # which is at hand for the next task


def test_errors_come_back_as_they_were_raised(pool: Pool) -> None:
    pid = pool.run(Do(os.getpid))
    with pytest.raises(OptionError, match=r"^no such thing$"):
        pool.run(Do(fail, ("option",)))
    with pytest.raises(DdplugError, match=r"^PickyError: a and b$"):
        pool.run(Do(fail, ("picky",)))
    with pytest.raises(OptionError, match=r"lambda.*cannot be sent to another process; give a name, or a function of"):
        pool.run(Do(lambda: 1))
    assert pool.run(Do(os.getpid)) == pid


def test_a_task_may_take_its_process_with_it(pool: Pool) -> None:
    pid = pool.run(Do(os.getpid))
    with pytest.raises(LostError, match=r"its process ended with exit code 7$") as lost:
        pool.run(Do(os._exit, (7,)))
    assert (lost.value.pid, lost.value.late) == (pid, False)
    with pytest.raises(LostError, match=r"its process was killed by SIGKILL$") as killed:
        pool.run(Do(signal.raise_signal, (signal.SIGKILL,)))
    assert killed.value.pid != pid
    # killed while it waits: nobody loses anything
    waiting = pool.run(Do(os.getpid))
    os.kill(waiting, signal.SIGKILL)
    os.waitid(os.P_PID, waiting, os.WEXITED | os.WNOWAIT)
    assert pool.run(Do(os.getpid)) not in (pid, killed.value.pid, waiting)


def test_a_task_that_never_ends_is_ended(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddplug.utils.processes._GRACE", 0.1)
    heard: list[int] = []
    with pytest.raises(LostError, match=r"took longer than 0\.1 s and was ended") as lost:
        pool.run(Do(stubborn), limit=0.1, hear=heard.append)
    assert lost.value.late
    assert heard == [1]
    assert pool.run(Do(count, (2,)), limit=30) == 2


def test_threads_share_processes_and_each_has_its_own_while_it_works() -> None:
    pool = Pool([{}, {}], idle, Heavy)
    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(lambda n: pool.run(Do(count, (n,))), range(6))) == list(range(6))
    pool.close()
    with pytest.raises(DdplugError, match="the processes were ended"):
        pool.run(Do(os.getpid))
    pool.close()


UNGUARDED = """
from ddplug.utils.processes import Pool
from tests.utils.test_processes import Do, Heavy, count, idle
pool = Pool([{}], idle, Heavy)
try:
    pool.run(Do(count, (1,)))
except Exception as error:
    print("said:", error)
"""


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    found = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert "said: a process ended before it was ready (exit code 1)" in found.stdout
    assert "__main__" in found.stdout


MAIN = """
import sys, threading, time
from ddplug.utils.processes import Pool
from tests.utils.test_processes import Do, Heavy, idle, stubborn
if __name__ == "__main__":
    pool = Pool([{}, {}], idle, Heavy)
    for n in range(2):
        threading.Thread(target=pool.run, args=(Do(stubborn), None, lambda n: print("at work", flush=True))).start()
"""


def test_none_outlives_a_main_process_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(MAIN)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as main:
        assert main.stdout is not None
        assert [main.stdout.readline() for _ in range(2)] == ["at work\n"] * 2
        main.kill()
        # the output has its end when nobody holds it any more
        assert main.communicate(timeout=600)[0] == ""
