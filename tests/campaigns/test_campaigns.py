"""A small part of each campaign; ``python -m tests.campaigns.run`` does the whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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


def test_killed_runs_end_in_the_same_bits() -> None:
    code = (
        "import json, torch; torch.set_num_threads(1)\n"
        "from tests.campaigns.kill import campaign\n"
        "print(json.dumps(campaign(2, methods=['dm'])))"
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
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["strikes"] >= 2
