"""Data sets by name: the digits, torchvision's with their files, a third party's, and every name that fails."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from ddplug import registry
from ddplug.data.datasets import TorchvisionLoader, cifar10, fashion_mnist, load, mnist, svhn
from ddplug.data.labeled import LabeledData
from ddplug.errors import DataError, OptionError

NAMES = ["mnist", "fashion-mnist", "kmnist", "svhn", "cifar10", "cifar100"]


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """Write a file of the MNIST family."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())


def write_mnist(root: Path, cls: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Write a small MNIST, 40 images to train on and 20 to test; gives all images and labels."""
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    labels = np.arange(60, dtype=np.uint8) % 10
    for prefix, part in (("train", slice(0, 40)), ("t10k", slice(40, 60))):
        write_idx(root / cls / "raw" / f"{prefix}-images-idx3-ubyte", images[part])
        write_idx(root / cls / "raw" / f"{prefix}-labels-idx1-ubyte", labels[part])
    return images, labels


def test_digits_are_scikit_learns(digits: LabeledData) -> None:
    bunch = load_digits()
    test = load("digits", split="test")
    assert (len(digits), len(test), digits.shape, digits.name) == (1438, 359, (1, 8, 8), "digits")
    parts = [torch.round(part.inputs.double() * 16 / 255).flatten(1).numpy() for part in (digits, test)]
    both = np.concatenate([np.column_stack([p, t.targets]) for p, t in zip(parts, (digits, test), strict=True)])
    expected = np.column_stack([bunch.data, bunch.target])
    assert sorted(map(tuple, both)) == sorted(map(tuple, expected))
    counts = torch.bincount(digits.targets), torch.bincount(test.targets)
    assert (counts[1] / (counts[0] + counts[1]) - 0.2).abs().max() < 0.003
    mean = np.rint(parts[0] * 255 / 16).mean() / 255
    for part in (digits, test):
        assert part.preprocess.tensors()["mean"].item() == pytest.approx(mean, rel=1e-6)
    assert "flip" not in digits.augmentation


def test_the_split_of_the_digits_never_changes() -> None:
    # published figures depend on it
    test = load("digits", split="test")
    assert hashlib.sha256(test.inputs.numpy().tobytes()).hexdigest()[:16] == "9e1786794306b79a"


def test_names_are_registered_and_tables_are_of_the_right_width() -> None:
    assert {"digits", *NAMES} <= set(registry.names("dataset"))
    for name in NAMES:
        loader = registry.resolve("dataset", name)
        assert isinstance(loader, TorchvisionLoader)
        assert loader.name == name
        assert hasattr(torchvision.datasets, loader.cls)
        channels = 1 if "mnist" in name else 3
        assert all(values is None or len(values) == channels for values in (loader.mean, loader.std))
        assert ("flip" in loader.augmentation) == (name in {"fashion-mnist", "cifar10", "cifar100"})


def test_the_published_constants_are_used(tmp_path: Path) -> None:
    images, labels = write_mnist(tmp_path, "MNIST")
    train, test = (load("mnist", root=tmp_path, split=split) for split in ("train", "test"))
    assert np.array_equal(train.inputs[:, 0].numpy(), images[:40])
    assert np.array_equal(test.inputs[:, 0].numpy(), images[40:])
    assert test.targets.tolist() == labels[40:].tolist()
    expected = (images[40:43] / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(test.batch(torch.arange(3))[:, 0].numpy(), expected, atol=1e-5)
    assert train.class_names[3] == "3 - three"


def test_without_published_constants_the_training_split_is_fitted(tmp_path: Path) -> None:
    images, _ = write_mnist(tmp_path, "KMNIST")
    test = load("kmnist", root=tmp_path, split="test")
    assert np.array_equal(test.inputs[:, 0].numpy(), images[40:])
    assert test.preprocess.tensors()["mean"].item() == pytest.approx(images[:40].mean() / 255, rel=1e-6)
    assert test.preprocess.tensors()["std"].item() == pytest.approx(images[:40].std() / 255, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_name_the_folder_and_the_option(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(name, root=tmp_path / "none")
    message = str(caught.value)
    assert message.startswith(f"cannot read {name!r} in {tmp_path}/none: Dataset not found")
    assert "--download" in message
    assert "\n" not in message
    assert not (tmp_path / "none").exists()
    with pytest.raises(OptionError, match=f"'{name}' is read from a folder; give root=FOLDER"):
        load(name)


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("keep", [0, 3, 16, -1])
def test_truncated_files_are_one_clear_line(file: str, keep: int, tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / file
    path.write_bytes(path.read_bytes()[:keep])
    for download in (False, True):
        with pytest.raises(DataError, match=rf"^cannot read 'mnist' in {tmp_path}: .*after removing a damaged copy$"):
            load("mnist", root=tmp_path, download=download)


class BrokenOff(http.server.BaseHTTPRequestHandler):
    """Promises a file and hangs up in the middle of it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(gzip.compress(b"\0" * 1000))

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def broken_mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    with http.server.HTTPServer(("127.0.0.1", 0), BrokenOff) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_download_that_breaks_off_is_not_half_used(
    broken_mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [broken_mirror])
    with pytest.raises(DataError) as caught:
        load("mnist", root=tmp_path, download=True)
    message = str(caught.value)
    assert message.startswith(f"cannot read 'mnist' in {tmp_path}: ")
    assert "File not found or corrupted" in message
    assert "\n" not in message
    with pytest.raises(DataError, match="Dataset not found"):
        load("mnist", root=tmp_path)


@pytest.mark.parametrize(("loader", "file"), [(svhn, "train_32x32.mat"), (cifar10, "cifar-10-batches-py/data_batch_1")])
def test_files_with_a_wrong_sum_are_not_opened(loader: TorchvisionLoader, file: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"hostile")
    with pytest.raises(DataError, match="Dataset not found or corrupted; give the folder"):
        loader(root=tmp_path)


def test_unknown_names_and_options() -> None:
    with pytest.raises(OptionError, match=r"unknown dataset 'minst'; did you mean 'mnist'\? .*imagefolder:DIR"):
        load("minst")
    with pytest.raises(OptionError, match="unknown split 'tset'; did you mean 'test'"):
        load("digits", split="tset")
    with pytest.raises(
        OptionError,
        match="size is an option of imagefolder:DIR and images:DIR and hf:NAME; 'digits' has the size it has",
    ):
        load("digits", size=(4, 4))


PLUGIN = """
from ddplug.data.loaders import from_arrays
def stripes(*, root, split, **options):
    return from_arrays([[0.0], [1.0]], [0, 1], name=f"stripes-{root}-{split}-{sorted(options)}")
"""


def test_a_third_partys_data_set_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thirdparty_stripes.py").write_text(PLUGIN)
    info = tmp_path / "thirdparty_stripes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty-stripes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ddplug.datasets]\nstripes = thirdparty_stripes:stripes\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._points.cache_clear()
    try:
        data = load("stripes", root="R", split="test")
    finally:
        registry._points.cache_clear()
    assert data.name == "stripes-R-test-['cache', 'download', 'max_memory', 'progress']"


def test_the_real_mnist(shared_data: Path) -> None:
    train, test = (mnist(root=shared_data, split=split) for split in ("train", "test"))
    assert (len(train), len(test), train.shape, train.num_classes) == (60_000, 10_000, (1, 28, 28), 10)
    assert torch.bincount(train.targets).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    pixels = train.inputs.double() / 255
    assert [round(float(value), 4) for value in (pixels.mean(), pixels.std())] == [0.1307, 0.3081]
    assert train.inputs.dtype == torch.uint8
    assert fashion_mnist.augmentation != train.augmentation


def test_every_named_data_set_says_what_it_is() -> None:
    documentation = [registry.resolve("dataset", name).__doc__ for name in registry.names("dataset")]
    assert len(set(documentation)) == len(documentation)
