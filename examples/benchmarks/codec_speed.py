"""Measure codecs on real images: bytes, error, and seconds of coding and decoding.

python examples/benchmarks/codec_speed.py --mnist DIR --photographs imagefolder:DIR
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

import ddplug
from ddplug.data.labeled import LabeledData
from ddplug.synthetic.codecs import codec_of

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.distillation import versions

ROWS = (
    ("mnist", 10_000, "pixels:bits=1,side=14"),
    ("mnist", 10_000, "pixels:bits=1"),
    ("photographs", 2_000, "avif:quality=5"),
    ("photographs", 2_000, "avif:quality=15"),
    ("photographs", 2_000, "avif:quality=25"),
    ("photographs", 2_000, "dct:step=150"),
    ("photographs", 2_000, "dct:step=105"),
    ("photographs", 2_000, "dct:step=75"),
    ("photographs", 10_000, "dct:step=105"),
    ("photographs", 10_000, "avif:quality=15"),
    ("photographs in gray", 2_000, "avif:quality=5"),
    ("photographs in gray", 2_000, "avif:quality=15"),
    ("photographs in gray", 2_000, "dct:step=150"),
    ("photographs in gray", 2_000, "dct:step=105"),
)


def measure(what: str, data: LabeledData, number: int, spec: str) -> dict[str, Any]:
    """Code and decode random images; time is that of the processor, which other work on the machine hardly moves."""
    codec = codec_of(spec)
    index = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:number]
    pixels = data.preprocess.inverse(data.batch(index))
    if "gray" in what:
        pixels = (pixels * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    shape = tuple(pixels.shape[1:])
    began = time.process_time()
    streams = codec.encode(pixels, [number])
    coded = time.process_time()
    found = codec.decode(streams, [number], shape)
    decoded = time.process_time()
    found = ddplug.functional.enlarge(found, shape)
    nbytes = sum(stream.numel() for stream in streams.values())
    return {
        "images": f"{number} {what}",
        "codec": spec,
        "bytes": nbytes,
        "bytes an image": round(nbytes / number, 1),
        "PSNR (dB)": round(float(-10 * (found - pixels).double().square().mean().log10()), 2),
        "coding (s)": round(coded - began, 2),
        "decoding (s)": round(decoded - coded, 2),
    }


def main() -> None:
    """Measure every row and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="folder of MNIST")
    parser.add_argument("--photographs", default="cifar10", help="data set, such as imagefolder:DIR")
    parser.add_argument("--root", help="folder of the photographs, where the name does not say it")
    home = Path(__file__).parents[2] / "docs" / "benchmarks"
    parser.add_argument("--out", type=Path, default=home / "codec-speed.json")
    arguments = parser.parse_args()
    mnist = ddplug.load_dataset("mnist", root=arguments.mnist)
    photographs = ddplug.load_dataset(arguments.photographs, root=arguments.root)
    data = {"mnist": mnist, "photographs": photographs, "photographs in gray": photographs}
    began = time.monotonic()
    result = {
        "title": "Codecs: bytes, error and time",
        "claim": "Wanted: 10,000 images decoded in 5 s, 300 kB coded in a minute.",
        "rows": [measure(what, data[what], number, spec) for what, number, spec in ROWS],
        "how": "python examples/benchmarks/codec_speed.py --mnist DIR --photographs imagefolder:DIR",
        "machine": f"{os.cpu_count()} CPU cores, threads used: {torch.get_num_threads()}",
        "versions": versions(),
        "seconds": time.monotonic() - began,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
