"""Starting a search on a busy machine, who gets which GPU, and what is said where something goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ddplug.utils.randomness import temporary_seed

with temporary_seed(0):
    from nni.experiment import launcher

    from ddplug.nni import running
    from ddplug.nni.postmortem import manager_words
    from ddplug.nni.running import SlowStartError, patient


class Late(BaseHTTPRequestHandler):
    """A manager that answers at the eighth time; NNI asks four times."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        self.send_response(200 if self.asked >= 8 else 503)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


ROOT = Path(__file__).parents[2]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(running, "_PAUSE", 0.01)
    monkeypatch.setattr(Late, "asked", 0)
    server = HTTPServer(("localhost", 0), Late)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives, with the name of an experiment among its arguments."""
    with subprocess.Popen([sys.executable, "-c", "input()", "Ab3x"], stdin=subprocess.PIPE) as started:
        yield started
        started.kill()


def test_nni_waits_for_its_manager_while_that_lives(port: int, process: subprocess.Popen[bytes]) -> None:
    before = launcher._check_rest_server
    with patient("Ab3x"):
        launcher._check_rest_server(port, url_prefix=None)
    assert Late.asked == 8
    assert launcher._check_rest_server is before


def test_a_manager_that_never_answers_is_given_up(
    port: int, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_PATIENCE", 0.0)
    with patient("Ab3x"), pytest.raises(SlowStartError, match="did not answer within 0 s"):
        launcher._check_rest_server(port, url_prefix=None)


def test_a_manager_that_is_gone_is_not_waited_for(port: int) -> None:
    with patient("Ab3x"), pytest.raises(RuntimeError, match="it ended by itself"):
        launcher._check_rest_server(port, url_prefix=None)
    assert Late.asked == 1


def test_what_the_manager_wrote_down_is_quoted(tmp_path: Path) -> None:
    assert manager_words(tmp_path) == ""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "nnimanager.log").write_text(
        "[2026-01-01 00:00:00] INFO (main) Start\n[2026-01-01 00:00:01] ERROR (main) Error: no space left\nbye\n"
    )
    assert manager_words(tmp_path).endswith(
        "nnimanager.log says: [2026-01-01 00:00:01] ERROR (main) Error: no space left"
    )


HOLD = """
import sys
from pathlib import Path
from ddplug.nni.worker import take_gpu
print(take_gpu(["3", "5"], Path(sys.argv[1]), int(sys.argv[2])), flush=True)
input()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_every_trial_has_a_gpu_of_its_own(tmp_path: Path) -> None:
    def trial(number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(tmp_path), str(number)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def got(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    running = [trial(number) for number in (0, 2)]
    try:
        # by their numbers both would have taken the first
        held = [got(process) for process in running]
        assert sorted(held) == ["3", "5"]
        running.append(trial(1))
        assert got(running[2]) == "5"  # none is free
        running[0].kill()
        running[0].wait()
        running.append(trial(1))
        assert got(running[3]) == held[0]  # what a trial held is free when that is gone, however it went
    finally:
        for process in running:
            process.kill()
            process.communicate()


STOCK = """
import sys, types, warnings
from ddplug.nni.judging import warn_of_stock_engine

for name in sys.argv[1:]:
    sys.modules["__main__"].__spec__ = types.SimpleNamespace(name=name)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warn_of_stock_engine()
        warn_of_stock_engine()
    # NNI takes the standard output of a trial for itself
    sys.__stdout__.write(f"{name} {sum('use ddplug.nni.ProxyExperiment' in str(one.message) for one in said)}\\n")
    warn_of_stock_engine.cache_clear()
"""


def test_a_trial_that_the_stock_engine_started_is_warned_once(tmp_path: Path) -> None:
    times = {"ddplug.nni.worker": 0, "nni.nas.execution.training_service": 1, "ddplug.nni.trial": 0}
    trial = {"NNI_PLATFORM": "local", "NNI_TRIAL_JOB_ID": "x", "NNI_SYS_DIR": "", "NNI_OUTPUT_DIR": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STOCK, *times],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NNI_FRAMEWORK": "none", **trial},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert dict(line.split() for line in done.stdout.splitlines()) == {name: str(n) for name, n in times.items()}
