"""Samples that are read one by one: gathered in memory, or decoded once into a memory-mapped cache."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ddplug.data.cache import open_cache, write_cache
from ddplug.data.labels import Label, Names, joined
from ddplug.errors import DataError
from ddplug.utils.notes import Note, note
from ddplug.utils.paths import local

__all__ = ["MAX_MEMORY", "Samples", "gather"]

MAX_MEMORY = 2 << 30
"""Decoded data with more bytes than this need a cache, unless the caller allows more."""

_READ_TWICE = 4
"""Samples that are read once more, to see whether they stay as they are."""

_AHEAD = 64 << 20
"""Bytes of decoded samples that threads may run ahead of the writer."""


@dataclass(frozen=True)
class Samples:
    """Samples to be read one at a time, and what tells one source from another.

    Attributes:
        read: gives the sample at a position as a CPU uint8 or float32 tensor, and its label; raises
            :class:`~ddplug.errors.DataError` that names what cannot be read.
        count: number of samples.
        name: short name, for messages and the cache's file name.
        names: of the labels.
        key: what stays the same when the source is changed; one key has one cache file.
        source: gives lines that change with the source; a cache of another source is made again.
        threads: how many may call ``read`` at once.
    """

    read: Callable[[int], tuple[Tensor, Label]]
    count: int
    name: str
    names: Names
    key: str
    source: Callable[[], Iterable[str]]
    threads: int = 1


def gather(
    samples: Samples, cache: str | Path | None, max_memory: int, progress: bool
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Read all samples into memory, or map the cache that holds them, which is made first if need be.

    Args:
        samples: where they come from.
        cache: folder of the cache file, or ``None`` to keep everything in memory.
        max_memory: bytes that the decoded samples may take in memory.
        progress: show a progress bar while decoding.

    Returns:
        ``(N, *shape)`` inputs as stored and ``(N,)`` int64 classes, both on the CPU, and the names of the classes.

    Raises:
        DataError: a sample cannot be read or differs in shape, the labels are unfit, the data are too large for
            memory, or the cache cannot be written.
    """
    if samples.count == 0:
        raise DataError(f"{samples.name}: it has 0 samples; give data with at least 2 classes")
    inputs, labels = _in_memory(samples, max_memory, progress) if cache is None else _cached(samples, cache, progress)
    return inputs, *samples.names.encode(joined(labels, samples.name), samples.name)


def _cached(samples: Samples, cache: str | Path, progress: bool) -> tuple[Tensor, list[Label]]:
    slug = re.sub(r"[^\w.-]+", "_", samples.name)[:40]
    path = Path(local(cache)) / f"{slug}-{_digest([samples.key])[:16]}.cache"
    source = _digest(samples.source())
    found = open_cache(path, source) or _decode(samples, path, source, progress)
    if found is None:
        raise DataError(f"the cache {path} changed while it was written; run again")
    return found[0], found[1]["targets"]


def _digest(lines: Iterable[str]) -> str:
    """Return the SHA-256 of lines, which need not be in memory together: a line a file may be millions."""
    found = hashlib.sha256()
    for number, line in enumerate(lines):
        found.update((f"\n{line}" if number else line).encode())
    return found.hexdigest()


def _in_memory(samples: Samples, max_memory: int, progress: bool) -> tuple[Tensor, list[Label]]:
    first, _ = samples.read(0)
    need = first.nbytes * samples.count
    if need > max_memory:
        raise DataError(
            f"{samples.name}: {samples.count} samples take {need / 2**20:.0f} MiB, above max_memory = "
            f"{max_memory / 2**20:.0f} MiB; give cache=FOLDER (--cache FOLDER) to decode them once into a file"
        )
    inputs = torch.empty((samples.count, *first.shape), dtype=first.dtype)
    labels: list[Label] = []
    for index, (sample, label) in enumerate(_stream(samples, progress)):
        inputs[index] = sample
        labels.append(label)
    return inputs, labels


def _decode(samples: Samples, path: Path, source: str, progress: bool) -> tuple[Tensor, dict[str, Any]] | None:
    first, _ = samples.read(0)
    targets: list[Label] = []
    header: dict[str, Any] = {
        "source": source,
        "shape": [samples.count, *first.shape],
        "dtype": str(first.dtype).removeprefix("torch."),
        "targets": targets,
    }

    def inputs() -> Iterator[Tensor]:
        for sample, label in _stream(samples, progress):
            targets.append(label)
            yield sample
        # before the file gets its name: a cache holds nothing that would be refused
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Note)  # it is said when they are read from there
            samples.names.encode(joined(targets, samples.name), samples.name)

    write_cache(path, inputs(), header)
    return open_cache(path, source)


def _stream(samples: Samples, progress: bool) -> Iterator[tuple[Tensor, Label]]:
    """Read every sample in order and check that it is finite and looks like the first."""
    first: Tensor | None = None
    changes = False
    with tqdm(total=samples.count, desc=f"decoding {samples.name}", disable=not progress) as bar:
        for index, (sample, label) in enumerate(_read_all(samples)):
            first = sample if first is None else first
            changes = changes or (index < _READ_TWICE and _differs(samples.read(index)[0], sample))
            if sample.shape != first.shape or sample.dtype != first.dtype:
                raise DataError(
                    f"{samples.name}: item {index} is {sample.dtype} of the shape {tuple(sample.shape)}, but item 0 "
                    f"is {first.dtype} of the shape {tuple(first.shape)}; give the dataset a transform that makes them "
                    "equal"
                )
            if not bool(sample.isfinite().all()):
                raise DataError(f"{samples.name}: item {index} holds NaN or infinity; fix or drop it")
            yield sample, label
            bar.update()
    if changes:
        note(
            f"{samples.name}: items differ from one reading to the next, as random transforms make them; they are read "
            "once and kept, but a later run will see others and cannot resume from a checkpoint: leave the "
            "transforms out, ddplug augments by itself"
        )


def _differs(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and not torch.equal(one, other)


def _read_all(samples: Samples) -> Iterator[tuple[Tensor, Label]]:
    if samples.threads == 1:
        yield from map(samples.read, range(samples.count))
        return
    # map() submits all it is given at once: give it a bounded run at a time
    run = max(samples.threads, min(256, _AHEAD // max(1, samples.read(0)[0].nbytes)))
    with ThreadPoolExecutor(samples.threads) as pool:
        for start in range(0, samples.count, run):
            yield from pool.map(samples.read, range(start, min(start + run, samples.count)))
