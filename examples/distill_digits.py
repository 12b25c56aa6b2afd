"""Distill real handwritten digits to one image a class, compare with other tiny sets, and save the result."""

from __future__ import annotations

import sys

import ddplug
from ddplug.distillers import DM, Random

NETWORK = "convnet:width=32,depth=2"


def main(output: str = "digits.safetensors", steps: int = 300, repeats: int = 3) -> None:
    """Distill ``digits``, evaluate it and two baselines, and write one file."""
    train, test = ddplug.load_dataset("digits"), ddplug.load_dataset("digits", split="test")
    sets = {
        "dm": ddplug.distill(train, DM(images_per_class=1, network=NETWORK), steps=steps),
        "random": ddplug.distill(train, Random(images_per_class=1)),
        "class-mean": ddplug.distill(train, "class-mean"),
    }
    for name, synthetic in sets.items():
        result = ddplug.evaluate(synthetic, test, network=NETWORK, repeats=repeats, recipe=ddplug.Recipe.quick())
        print(f"{name:10}  {synthetic.nbytes:5} bytes  accuracy {result.mean:.3f} +- {result.std:.3f}")
    sets["dm"].quantize().save(output)
    print(f"saved {output}; read it with ddplug.SyntheticSet.load")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "digits.safetensors")
