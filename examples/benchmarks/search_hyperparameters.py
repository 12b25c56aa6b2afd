"""Does the order of hyper-parameters on a small set hold on all data? Random ones, judged at one cost; prints a table.

    python examples/benchmarks/search_hyperparameters.py --folder DIR

One network on the digits of scikit-learn; learning rate, weight decay, momentum and augmentation are drawn at random.
The truth is training on all data, with two seeds; a set, random images in its bytes and the beginning of training on
all data take equally many steps. It may be stopped at any time, and goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.random import RandomState

import ddplug
from ddplug.distillers import KMeansCentroid
from ddplug.search import Candidates, Judge, Protocol, Study
from ddplug.search.agreement import EARLY, table
from ddplug.search.budget import control_file
from ddplug.utils.text import table as aligned

NETWORK = "convnet:width=8,depth=2"
AUGMENT = ("", "crop", "crop_scale_rotate")


def draw(number: int) -> list[dict[str, Any]]:
    """Draw hyper-parameters."""
    state = RandomState(0)
    return [
        {
            "learning_rate": float(10 ** state.uniform(-3, 0)),
            "weight_decay": float(10 ** state.uniform(-5, -1)),
            "momentum": float(state.choice([0.0, 0.9])),
            "augment": AUGMENT[state.randint(len(AUGMENT))],
        }
        for _ in range(number)
    ]


def make(sample: Mapping[str, Any]) -> Any:
    """Return the one network, to be trained as a sample says."""
    return NETWORK, dict(sample)


def main() -> None:
    """Judge what the folder does not have, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--number", type=int, default=40)
    parser.add_argument("--steps", type=int, default=40, help="of a proxy; 300 are the truth")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    train, rest = ddplug.load_dataset("digits").split(0.2)
    small = ddplug.distill(train, KMeansCentroid(images_per_class=10)).quantize()
    common: dict[str, Any] = {"batch_size": 64, "schedule": "cosine", "seeds": 2, "device": "cpu"}
    full = Judge(train, rest, Protocol(steps=300, **common))
    random = control_file(train, "random", small, arguments.folder)
    sets: dict[str, Any] = {"k-means": small, "random": random, EARLY: train}
    short = Protocol(steps=arguments.steps, **common)
    proxies = {name: Judge(made, rest, short) for name, made in sets.items()}
    drawn = Candidates(draw(arguments.number), make, {"space": "hyper-parameters"})
    study = Study(drawn, full, proxies, arguments.folder)
    study.run(lambda line: print(line, file=sys.stderr, flush=True))
    print(aligned(table(study.rows())))
    print(f"a perfect score would have {study.ceiling() or 0:.2f}; {small.nbytes} bytes")


if __name__ == "__main__":
    main()
