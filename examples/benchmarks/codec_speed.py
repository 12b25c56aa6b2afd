"""Measure codecs on real images: bytes, error, and seconds of coding and decoding.

python examples/benchmarks/codec_speed.py --mnist DIR --photographs imagefolder:DIR
python examples/benchmarks/codec_speed.py --mnist DIR --row pixels
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

import ddplug
from ddplug.data.labeled import LabeledData
from ddplug.synthetic.codecs import codec_of

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.benchmarks.results import ResultFile, add_row_options, chosen, in_order_of, machine

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


def _key(row: tuple[str, int, str]) -> tuple[str, str]:
    """Name a row as its result does."""
    return f"{row[1]} {row[0]}", row[2]


def _load(arguments: argparse.Namespace, what: str) -> LabeledData:
    if what == "mnist":
        return ddplug.load_dataset("mnist", root=arguments.mnist)
    return ddplug.load_dataset(arguments.photographs, root=arguments.root)


def main() -> None:
    """Measure the rows that are missing, and write the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="folder of MNIST")
    parser.add_argument("--photographs", default="cifar10", help="data set, such as imagefolder:DIR")
    parser.add_argument("--root", help="folder of the photographs, where the name does not say it")
    add_row_options(parser)
    arguments = parser.parse_args()
    kept = ResultFile(arguments.out / "codec-speed.json", "images", "codec")
    missing = kept.missing(chosen(ROWS, arguments.row, lambda row: row[2]), _key)
    data = cache(partial(_load, arguments))
    for row in missing:
        kept.add(
            measure(row[0], data(row[0].partition(" ")[0]), *row[1:]),
            in_order_of(map(_key, ROWS), "images", "codec"),
            title="Codecs: bytes, error and time",
            claim="Wanted: 10,000 images decoded in 5 s, 300 kB coded in a minute.",
            how="python examples/benchmarks/codec_speed.py --mnist DIR --photographs imagefolder:DIR",
            machine=machine(f", threads used: {torch.get_num_threads()}"),
        )


if __name__ == "__main__":
    main()
