"""The memory-mapped cache: the same numbers as in memory, made once, made again when it must be, memory bounded."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ddplug.data.cache import _ended
from ddplug.data.labeled import LabeledData
from ddplug.data.loaders import from_dataset
from ddplug.errors import DataError


class Counted(Dataset[tuple[Tensor, int]]):
    """Random images of three classes that count how often they are read."""

    def __init__(self, count: int = 60, seed: int = 0, dtype: torch.dtype = torch.uint8) -> None:
        rng = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (count, 3, 5, 4), generator=rng).to(dtype)
        self.reads = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        return self.images[index], index % 3


def cached(dataset: Any, folder: Path) -> LabeledData:
    return from_dataset(dataset, name="a/b", cache=folder)


def cache_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_cache_gives_what_memory_gives(dtype: torch.dtype, tmp_path: Path) -> None:
    memory = from_dataset(Counted(dtype=dtype), name="a/b")
    made, opened = (cached(Counted(dtype=dtype), tmp_path / "new" / "folder") for _ in range(2))
    for data in (made, opened):
        assert data.fingerprint == memory.fingerprint
        assert data.inputs.dtype == dtype
        assert data.targets.tolist() == memory.targets.tolist()
        draws = [torch.Generator().manual_seed(1) for _ in range(2)]
        assert torch.equal(data.sample(2, 50, draws[0]), memory.sample(2, 50, draws[1]))
        for part, other in zip(data.split(0.25), memory.split(0.25), strict=True):
            assert part.fingerprint == other.fingerprint


def test_a_second_use_reads_only_the_probes(tmp_path: Path) -> None:
    first, second = Counted(), Counted()
    cached(first, tmp_path)
    cached(second, tmp_path)
    assert first.reads >= 60
    assert second.reads == 16
    assert len(list(tmp_path.iterdir())) == 1


def test_a_changed_source_is_decoded_again(tmp_path: Path) -> None:
    old = cached(Counted(), tmp_path)
    before = old.fingerprint
    changed = Counted(seed=1)
    assert cached(changed, tmp_path).fingerprint == from_dataset(changed).fingerprint
    # the data that are open keep the file they were opened with
    del old.__dict__["fingerprint"]
    assert old.fingerprint == before
    assert cached(Counted(count=61), tmp_path).inputs.shape[0] == 61


@pytest.mark.parametrize("keep", [0, 5, 60 * 60, -9, -1])
def test_a_truncated_cache_is_decoded_again(keep: int, tmp_path: Path) -> None:
    expected = cached(Counted(), tmp_path).fingerprint
    path = cache_file(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    again = Counted()
    assert cached(again, tmp_path).fingerprint == expected
    assert again.reads >= 60


@pytest.mark.parametrize(
    "tail",
    [b"", b"\xff" * 8, b"{}" + (2).to_bytes(8, "little"), b"[1]" + (3).to_bytes(8, "little"), b"\0" * 40, b"\xfe" * 40],
)
def test_a_foreign_file_under_the_name_is_decoded_over(tail: bytes, tmp_path: Path) -> None:
    expected = cached(Counted(), tmp_path).fingerprint
    cache_file(tmp_path).write_bytes(b"something else entirely" + tail)
    assert cached(Counted(), tmp_path).fingerprint == expected


def test_the_mapped_file_is_never_written_to(tmp_path: Path) -> None:
    data = cached(Counted(), tmp_path)
    content = cache_file(tmp_path).read_bytes()
    data.inputs[0] = 0
    assert cache_file(tmp_path).read_bytes() == content


class Full(Counted):
    """Breaks off in the middle, as a full disk or the user does."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 31:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_an_interrupted_decoding_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises((DataError, KeyboardInterrupt)):
        cached(Full(error), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unusable_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the cache .*file: File exists; free space or choose another"):
        cached(Counted(), tmp_path / "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open
    # the real error of a real full device: only the name is redirected
    monkeypatch.setattr(
        Path, "open", lambda path, *a: real(Path("/dev/full"), "wb") if path.suffix == ".part" else real(path, *a)
    )
    with pytest.raises(DataError, match=r"cannot write the cache .*: No space left on device; free space"):
        cached(Counted(), tmp_path)


def test_a_large_subset_of_mapped_data_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = cached(Counted(), tmp_path)
    index = torch.tensor([59, 3, 3, 0])
    expected = data.subset(index)
    monkeypatch.setattr("ddplug.data.cache.SUBSET_LIMIT", 0)
    mapped = data.subset(index)
    assert mapped.fingerprint == expected.fingerprint
    assert mapped.subset(torch.tensor([1, 2])).inputs.tolist() == data.inputs[[3, 3]].tolist()
    assert [path.suffix for path in tmp_path.iterdir()] == [".cache"]
    assert from_dataset(Counted()).subset(index).fingerprint == expected.fingerprint


BOUNDED = """
import sys, threading, time
from pathlib import Path
import torch
from torch.utils.data import Dataset
import ddplug.data.cache
from ddplug.data.loaders import from_dataset

class Large(Dataset):
    base = torch.arange(3 * 100 * 100).remainder(251).to(torch.uint8).view(3, 100, 100)
    def __len__(self): return 10_000
    def __getitem__(self, index): return self.base.roll(index), index % 2

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.002)

torch.set_num_threads(1)
ddplug.data.cache.SUBSET_LIMIT = 16 << 20
start = peak = anonymous()
threading.Thread(target=watch, daemon=True).start()
data = from_dataset(Large(), cache=sys.argv[1])
train, held = data.split(0.3)
train.sample(0, 256, torch.Generator())
data.fingerprint
print(data.inputs.nbytes, peak - start)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell anonymous memory apart")
def test_memory_stays_bounded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(tmp_path)], capture_output=True, text=True, timeout=300, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    size, growth = map(int, done.stdout.split())
    cache_file(tmp_path).unlink()
    assert size == 300_000_000
    # decoding, fitting, splitting and fingerprinting together, half of it what PyTorch 2.4 keeps for itself
    assert growth < size * 2 / 3


def test_a_changed_bit_is_never_taken(tmp_path: Path) -> None:
    expected = cached(Counted(), tmp_path).fingerprint
    path = cache_file(tmp_path)
    whole, rng = path.read_bytes(), torch.Generator().manual_seed(0)
    for place in torch.randint(8 * len(whole), (40,), generator=rng).tolist():
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        again = Counted()
        assert cached(again, tmp_path).fingerprint == expected
        assert again.reads >= 60
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "claim",
    [
        {"shape": [10**9, 0], "targets": []},
        {"shape": [2**40, 0, 7], "targets": [0] * 3},
        {"shape": [-1, -60], "targets": [0]},
        {"shape": [10**12, 3, 5, 4], "targets": [0, 1, 2]},
        {"shape": [True], "targets": [0]},
        {"shape": 7, "targets": []},
        {"shape": [[1]], "targets": [0]},
    ],
)
def test_a_header_is_not_believed(claim: dict[str, Any], tmp_path: Path) -> None:
    expected = cached(Counted(), tmp_path).fingerprint
    path = cache_file(tmp_path)
    content = path.read_bytes()
    size = int.from_bytes(content[-8:], "little")
    header = json.loads(content[-40 - size : -40])
    empty = hashlib.sha256(b"").hexdigest()
    path.write_bytes(_ended(json.dumps({**header, **claim, "sha256": empty}).encode()))
    assert cached(Counted(), tmp_path).fingerprint == expected


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cached(Counted(), tmp_path)
    path = cache_file(tmp_path)
    left, other = tmp_path / f"{path.stem}-0123456789abcdef.part", tmp_path / "film.part"
    path.unlink()
    left.write_text("")
    other.write_text("")
    cached(Counted(), tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([path.name, other.name])


def test_a_home_folder_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    from_dataset(Counted(), name="a/b", cache="~/c")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
