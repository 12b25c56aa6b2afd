"""One small file of every kind that is read, and what reads it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ddplug.data.loaders import from_image_folder
from ddplug.distillation.loop import distill
from ddplug.distillers.parts.experts import read_expert, train_experts
from ddplug.distillers.parts.training import ExpertTraining
from ddplug.registry import resolve
from ddplug.search.journal import Journal, Record, key
from ddplug.search.protocol import Result
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.export import inspect
from ddplug.testing import made_small, toy_images
from ddplug.utils.preparation import Keeper

__all__ = ["Sample", "samples"]


@dataclass(frozen=True)
class Sample:
    """A file, and what reads it.

    Attributes:
        path: the file.
        read: reads it; gives something that is equal where the same was read.
        heals: whether what was altered is made again, or left out, and the rest read as it was; else it is refused.
        kind: of a safetensors file with checksums.
    """

    path: Path
    read: Callable[[], Any]
    heals: bool = False
    kind: str = ""


def _set(path: Path, made: SyntheticSet) -> Sample:
    made.save(path)
    return Sample(path, lambda: repr(sorted(inspect(path).items())), kind="synthetic-set")


def _checkpoints(folder: Path) -> dict[str, Sample]:
    data, method = toy_images(), replace(made_small(resolve("distiller", "dm")()), steps=4)

    def stop(self: Keeper, number: int, part: Any) -> None:
        put(self, number, part)
        raise KeyboardInterrupt

    put, Keeper.put = Keeper.put, stop  # type: ignore[method-assign]
    try:
        distill(data, method, device="cpu", checkpoint=folder / "parts")
    except KeyboardInterrupt:
        pass
    finally:
        Keeper.put = put  # type: ignore[method-assign]
    distill(data, method, device="cpu", steps=2, checkpoint=folder / "checkpoint")

    def reader(path: Path) -> Callable[[], Any]:
        def read() -> Any:
            own = path.with_name("resumed")
            shutil.copy(path, own)
            return distill(data, method, device="cpu", checkpoint=own).inputs.sum().item()

        return read

    return {name: Sample(folder / name, reader(folder / name), kind="checkpoint") for name in ("checkpoint", "parts")}


def _cache(folder: Path) -> Sample:
    for label in range(2):
        (folder / "photos" / f"{label}").mkdir(parents=True)
        for k in range(3):
            Image.new("L", (8, 8), 40 * k + label).save(folder / "photos" / f"{label}" / f"{k}.png")

    def read() -> str:
        return from_image_folder(folder / "photos", cache=folder / "cache").fingerprint

    read()
    (path,) = (folder / "cache").iterdir()
    return Sample(path, read, heals=True)


def _journal(folder: Path) -> Sample:
    journal = Journal(folder / "journal.jsonl")
    for k in range(4):
        journal.append(Record(key({"width": k}, {}), {"width": k}, Result(k / 8)))
    return Sample(journal.path, lambda: [str(record) for record in journal.read()], heals=True)


def _picture(folder: Path) -> Sample:
    for label in range(2):
        (folder / "pictures" / f"{label}").mkdir(parents=True)
        for k in range(2):
            Image.effect_noise((16, 16), 40).save(folder / "pictures" / f"{label}" / f"{k}.png")
    return Sample(folder / "pictures" / "0" / "0.png", lambda: from_image_folder(folder / "pictures").fingerprint)


def samples(folder: Path) -> Mapping[str, Sample]:
    """Write the files."""
    made = distill(toy_images((12, 11, 10)), "random", device="cpu")
    (expert,) = train_experts(
        toy_images(), folder / "experts", "mlp:width=5", ExpertTraining(epochs=2), number=1, device="cpu"
    )
    return {
        "float32": _set(folder / "float32", made),
        "bytes": _set(folder / "bytes", made.quantize()),
        "bits": _set(folder / "bits", made.quantize(bits=2)),
        "pixels": _set(folder / "pixels", made.compress("pixels:bits=2")),
        "avif": _set(folder / "avif", made.compress("avif:quality=40")),
        **_checkpoints(folder),
        "expert": Sample(expert, lambda: read_expert(expert).snapshots.sum().item(), kind="expert"),
        "cache": _cache(folder),
        "journal": _journal(folder),
        "picture": _picture(folder),
    }
