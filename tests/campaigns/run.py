"""Run a campaign and write what came of it.

    python -m tests.campaigns.run kill --times 300      kill, search, mutate, flip or fault

The full numbers: kill 300, search 200, mutate 10000, flip 400, fault 100 (all). The result is written to
``docs/benchmarks/campaign-NAME.json``; the exit status is 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import time
from pathlib import Path

import torch

from ddplug._version import __version__
from tests.campaigns import faults, kill, search, spoil

CAMPAIGNS = {
    "kill": kill.campaign,
    "search": search.campaign,
    "mutate": spoil.mutations,
    "flip": spoil.flips,
    "fault": faults.campaign,
}
FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"


def main() -> int:
    """Parse the options, run, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CAMPAIGNS)
    parser.add_argument("--times", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    # what a shell lets a program in the background ignore, and nohup; ddplug would leave it so
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    torch.set_num_threads(1)  # a process that is forked cannot use the threads of its parent
    began = time.monotonic()
    found = CAMPAIGNS[arguments.name](arguments.times, arguments.seed)
    found |= {
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - began, 1),
        "versions": {"ddplug": __version__, "torch": str(torch.__version__), "python": platform.python_version()},
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }
    text = json.dumps(found, indent=1) + "\n"
    (arguments.output or FOLDER / f"campaign-{arguments.name}.json").write_text(text)
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
