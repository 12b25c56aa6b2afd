"""Stop and go on: a strategy is saved after each experience, and another process goes on to the same weights."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche_replay import perceptron, split, strategy_of

from ddplug.avalanche import DistilledReplay, checkpoint_cure


def trained(path: Path, experiences: int) -> Any:
    """Go on from the checkpoint, if there is one, up to a number of experiences."""
    benchmark = nc_benchmark(split("train"), split("test"), 5, task_labels=False, fixed_class_order=list(range(10)))
    torch.manual_seed(0)
    fresh, _ = strategy_of(DistilledReplay, perceptron(), mem_size=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Avalanche's own
        strategy, seen = maybe_load_checkpoint(fresh, path)
    for experience in benchmark.train_stream[seen:experiences]:
        torch.manual_seed(experience.current_experience)  # the order of the stream's batches is drawn globally
        strategy.train(experience)
        with checkpoint_cure():
            save_checkpoint(strategy, path)
    return strategy


def main(experiences: int = 5, stop: int = 2) -> None:
    """Train in one go and in two processes, and compare."""
    with tempfile.TemporaryDirectory() as temporary:
        whole = trained(Path(temporary, "whole.pkl"), experiences)
        parts = Path(temporary, "parts.pkl")
        subprocess.run([sys.executable, "-W", "ignore", __file__, str(parts), str(stop)], check=True)
        resumed = trained(parts, experiences)
        pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
        print("the same weights:", all(torch.equal(a, b) for a, b in pairs))
        print("the same memory:", torch.equal(whole.storage_policy.rows().x, resumed.storage_policy.rows().x))
        print(f"checkpoint of {parts.stat().st_size:,} bytes, memory of {resumed.storage_policy.nbytes:,}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        trained(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
