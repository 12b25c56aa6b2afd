"""Distil with dd or soft-label-dd, train by the learned steps and rates, and test; a row of JSON on standard output.

python examples/benchmarks/unrolled.py dd --data mnist --data-root DIR --options '{"initialisation": "fixed"}'

Without --test the judge is a twelfth of the training data that the set was not made from: choose options on that.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

import ddplug
from ddplug.evaluation.results import accuracy, same_space
from ddplug.learned_training import train_as_learned

HELD_OUT = 1 / 12


def measure(method: str, options: dict[str, Any], data: dict[str, Any], seed: int, test: bool) -> dict[str, Any]:
    """Distil and judge; initial networks, where the set is for any, are five of the seeds from 1 on."""
    train = ddplug.load_dataset(**data, split="train")
    train, judge = (train, ddplug.load_dataset(**data, split="test")) if test else train.split(HELD_OUT)
    distiller = ddplug.resolve("distiller", method)(**options)
    wall, cpu = time.monotonic(), time.process_time()
    made = ddplug.distill(train, distiller, seed=seed, device="cpu")
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    judge = same_space(made, judge, "test", torch.device("cpu"))
    repeats = 1 if made.provenance["training"]["seed"] is not None else 5
    rngs = [torch.Generator().manual_seed(number) for number in range(1, repeats + 1)]
    accuracies = [accuracy(train_as_learned(made, rng=rng, device="cpu"), judge) for rng in rngs]
    return {
        "method": method,
        "options": options,
        "images": len(made),
        "bytes": made.nbytes,
        "judged on": "test" if test else "held-out training data",
        "accuracies": accuracies,
        "wall seconds": round(wall),
        "cpu seconds": round(cpu),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def main() -> None:
    """Read the command line and print the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=("dd", "soft-label-dd"))
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-root")
    parser.add_argument("--options", type=json.loads, default={}, help="fields of the method as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", action="store_true", help="distil all training data and judge on the test set")
    arguments = parser.parse_args()
    data = {"name": arguments.data, "root": arguments.data_root}
    print(json.dumps(measure(arguments.method, arguments.options, data, arguments.seed, arguments.test)))


if __name__ == "__main__":
    main()
