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

from examples.benchmarks.results import add_row_options, chosen, machine, read, say_what_is_there, versions, write

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
    path = arguments.out / "codec-speed.json"
    found = read(path, {"rows": [], "seconds": 0.0})
    rows = {(row["images"], row["codec"]): row for row in found["rows"]}
    wanted = chosen(ROWS, arguments.row, lambda row: row[2])
    missing = [row for row in wanted if _key(row) not in rows]
    say_what_is_there(wanted, missing, path)
    seconds, data = found["seconds"], cache(partial(_load, arguments))
    for row in missing:
        began = time.monotonic()
        rows[_key(row)] = measure(row[0], data(row[0].partition(" ")[0]), *row[1:])
        seconds += time.monotonic() - began
        result = {
            "title": "Codecs: bytes, error and time",
            "claim": "Wanted: 10,000 images decoded in 5 s, 300 kB coded in a minute.",
            "rows": [rows[known] for known in map(_key, ROWS) if known in rows],
            "how": "python examples/benchmarks/codec_speed.py --mnist DIR --photographs imagefolder:DIR",
            "machine": machine(f", threads used: {torch.get_num_threads()}"),
            "versions": versions(),
            "seconds": seconds,
        }
        write(path, result)
        print(rows[_key(row)], file=sys.stderr)


if __name__ == "__main__":
    main()
