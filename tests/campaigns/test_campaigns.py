"""A small part of each campaign; ``python -m tests.campaigns.run`` does the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.campaigns import faults, spoil


def test_no_flipped_bit_is_taken() -> None:
    found = spoil.flips(4, seed=1)
    assert found["wrong"] == []
    assert {"float32", "pixels", "avif", "checkpoint", "parts", "expert", "cache", "journal"} <= set(found["kinds"])
    assert found["others"]["safetensors"]["accepted, other numbers"] > 0  # the campaign does change what is read


def test_no_changed_file_gives_a_raw_error() -> None:
    found = spoil.mutations(66, seed=1)
    assert found["wrong"] == []
    assert sum(found["kinds"]["float32"].values()) == 6


def test_a_world_that_fails_is_one_line() -> None:
    found = faults.campaign(5, seed=1)
    assert (found["wrong"], found["right"]) == ([], 5)


def _forked(name: str, arguments: str) -> dict[str, Any]:
    """Run a campaign that forks, in a process of one thread."""
    code = (
        "import json, torch; torch.set_num_threads(1)\n"
        f"from tests.campaigns.{name} import campaign\n"
        f"print(json.dumps(campaign({arguments})))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_killed_runs_end_in_the_same_bits() -> None:
    found = _forked("kill", "2, methods=['dm']")
    assert found["wrong"] == []
    assert found["strikes"] >= 2


def test_killed_searches_lose_and_double_nothing() -> None:
    found = _forked("search", "4")
    assert (found["wrong"], found["right"]) == ([], found["runs"])
    assert found["strikes"] >= 4
