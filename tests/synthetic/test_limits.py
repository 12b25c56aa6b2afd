"""Files of a few bytes that claim gigabytes: refused before room is made for them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import torch

from ddplug.data.preprocess import Identity
from ddplug.errors import FormatError
from ddplug.functional import entropy
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.files import read_tensors, write_tensors


def claiming(path: Path, codec: str, number: int, nbytes: int) -> None:
    """Write a set of two classes that claims numbers of samples, with a stream of zeros."""
    images = torch.linspace(0, 1, 4 * 256).view(4, 1, 16, 16)
    SyntheticSet(images, torch.tensor([0, 0, 1, 1]), 2, Identity()).compress(codec).save(path)
    tensors, header = read_tensors(path, "synthetic-set")
    stream = "stream.codes" if "stream.codes" in tensors else "stream.0"
    more = {"counts": torch.full((2,), number, dtype=torch.int32), stream: torch.zeros(nbytes, dtype=torch.uint8)}
    write_tensors(path, "synthetic-set", {**tensors, **more}, header, 4)


@pytest.mark.parametrize(
    ("codec", "number", "nbytes", "message"),
    [
        ("pixels:bits=1", 100_000, 19_000, "a stream of 19000 bytes cannot hold 51200000 bits"),
        ("pixels:bits=8", 20_000, 19_000, "cannot hold"),
        ("pixels:bits=1", 2**31 - 1, 400, "the limit is 1073741824"),
        ("avif", 100_000, 400, "51200000 numbers are more than 400 bytes hold of any pictures"),
        ("avif", 2**31 - 1, 400, "the limit is 1073741824"),
    ],
)
def test_what_unpacks_to_gigabytes_is_refused(
    codec: str, number: int, nbytes: int, message: str, tmp_path: Path
) -> None:
    claiming(tmp_path / "set", codec, number, nbytes)
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=message):
            SyntheticSet.load(tmp_path / "set")
        assert tracemalloc.get_traced_memory()[1] < 20e6  # numpy's room is counted, and would be 50 MB or more
    finally:
        tracemalloc.stop()


def test_many_numbers_that_are_all_alike_are_stored_so_that_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy, "_FEW", 1 << 10)
    codes = torch.zeros(100, 1, 8, 8, dtype=torch.uint8).numpy()
    stream = entropy.encode(codes, 1)
    assert len(stream) >= 6400 // 256
    assert not entropy.decode(stream, (100, 1, 8, 8), 1).any()
