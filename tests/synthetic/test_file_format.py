"""Files: exact round trips, every version for ever, and nothing half-written."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ddplug.data.preprocess import Identity, Standardize, fit
from ddplug.errors import DataError, FormatError, OptionError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.files import read_tensors, write_file, write_tensors

FILES = Path(__file__).parents[1] / "files"
ROOT = Path(__file__).parents[2]


def image_set(**changes: Any) -> SyntheticSet:
    fields: dict[str, Any] = {
        "inputs": torch.arange(72.0).view(6, 3, 2, 2) / 16 - 2,
        "targets": torch.tensor([0, 0, 1, 1, 2, 2]),
        "num_classes": 3,
        "preprocess": Standardize(torch.tensor([0.5, 0.25, 0.125]), torch.tensor([0.5, 0.25, 1.0])),
        "recipe": Recipe(epochs=7, learning_rate=0.125, schedule="cosine", augment="crop_flip"),
        "class_names": ("cat", "Straße", "犬"),
        "provenance": {"method": "made", "data": {"name": "тест"}, "seconds": 1.5, "list": [1, None, True, "\n\t\0"]},
    }
    return SyntheticSet(**{**fields, **changes})


def table_set() -> SyntheticSet:
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 10.0, 0.1, 3.0, 100.0])
    preprocess = fit("zca", rows)
    return SyntheticSet(preprocess.forward(rows), torch.arange(40) % 4, 4, preprocess)


def equal(a: SyntheticSet, b: SyntheticSet) -> bool:
    """Compare two sets bit for bit."""
    assert a.shape == b.shape
    tensors = [{"x": s.inputs, "y": s.targets, **s.preprocess.tensors()} for s in (a, b)]
    same = all(
        tensors[0][k].dtype == tensors[1][k].dtype and torch.equal(tensors[0][k], tensors[1][k]) for k in tensors[0]
    )
    levels = (a.levels is None) == (b.levels is None) and (
        a.levels is None or b.levels is None or torch.equal(a.levels, b.levels)
    )
    plain = [(s.num_classes, s.class_names, s.recipe, dict(s.provenance), s.preprocess.kind) for s in (a, b)]
    levels = levels and a.half_labels == b.half_labels and a.bits == b.bits
    return same and levels and plain[0] == plain[1] and set(tensors[0]) == set(tensors[1])


ROUND_TRIPS: dict[str, Callable[[], SyntheticSet]] = {
    "float32": image_set,
    "uint8": lambda: image_set().quantize(),
    "soft": lambda: image_set(targets=torch.arange(18.0).view(6, 3) / 18),
    "soft float16": lambda: image_set(targets=torch.arange(18.0).view(6, 3) / 18).quantize(),
    "soft float16 only": lambda: image_set(
        targets=torch.tensor([[-0.0, 6e-8, 1.0], [0.5, 2.0, 65504.0]]).half().float().repeat(3, 1), half_labels=True
    ),
    "identity": lambda: image_set(preprocess=Identity()),
    "many classes": lambda: image_set(num_classes=300, class_names=(), targets=torch.tensor([0, 1, 2, 255, 256, 299])),
    "256 classes": lambda: image_set(num_classes=256, class_names=(), targets=torch.tensor([0, 1, 2, 3, 254, 255])),
    "zca table": table_set,
    "zca table uint8": lambda: table_set().quantize(),
    "zca part": lambda: table_set().quantize().select([2]),
    "subnormal and negative zero": lambda: image_set(
        inputs=torch.tensor([-0.0, 1e-42, -1e-42]).view(1, 3, 1, 1).repeat(6, 1, 1, 2)
    ),
    "small images": lambda: image_set().reduced(2),
    "small images uint8": lambda: image_set().reduced(2).quantize(),
    "1 bit": lambda: image_set().quantize(bits=1),
    "2 bits, soft float16": lambda: image_set(targets=torch.arange(18.0).view(6, 3) / 18).quantize(bits=2),
    "small images 4 bits": lambda: image_set().reduced(2).quantize(bits=4),
    "not contiguous": lambda: image_set(inputs=image_set().inputs.transpose(2, 3)),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_round_trip_is_exact(name: str, tmp_path: Path) -> None:
    made = ROUND_TRIPS[name]()
    path = tmp_path / "set.safetensors"
    made.save(str(path))
    back = SyntheticSet.load(str(path))
    assert equal(made, back)
    assert torch.equal(made.inputs.view(torch.int32), back.inputs.contiguous().view(torch.int32))
    back.save(path)
    assert equal(SyntheticSet.load(path), made)
    assert [file.name for file in tmp_path.iterdir()] == ["set.safetensors"]


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_nbytes_is_what_the_file_keeps(name: str, tmp_path: Path) -> None:
    made = ROUND_TRIPS[name]()
    made.save(tmp_path / "set")
    stored = load_file(tmp_path / "set")
    counted = {"inputs", "targets"} | ({"levels"} if made.levels is not None else set())
    assert made.nbytes == sum(t.numel() * t.element_size() for k, t in stored.items() if k in counted)
    assert {k for k in stored if not k.startswith("preprocess.")} == counted


def test_equal_sets_are_equal_files(tmp_path: Path) -> None:
    for n in range(8):
        image_set().save(tmp_path / str(n))
    assert len({(tmp_path / str(n)).read_bytes() for n in range(8)}) == 1
    # nothing is lost by it: the library's own reader gives the same tensors
    assert set(load_file(tmp_path / "0")) >= {"inputs", "targets"}


def digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def test_files_of_version_1_load_for_ever() -> None:
    floats = SyntheticSet.load(FILES / "ddplug-1-float32.safetensors")
    assert torch.equal(floats.inputs, torch.arange(96.0).view(6, 1, 4, 4) / 32 - 1)
    assert torch.equal(floats.targets, torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]).repeat(3, 1))
    assert floats.recipe == Recipe(11, 0.5, 0.25, 0.125, 64, "cosine", "crop_flip")
    assert floats.class_names == ("zero", "Straße", "犬")
    assert floats.provenance == {"method": "by hand", "seed": 3, "data": {"name": "тест", "shape": [1, 4, 4]}}
    assert floats.preprocess.kind == "standardise"
    assert {k: t.tolist() for k, t in floats.preprocess.tensors().items()} == {"mean": [0.25], "std": [0.5]}
    assert torch.equal(floats.pixels(), floats.inputs / 2 + 0.25)
    assert floats.levels is None and floats.nbytes == 96 * 4 + 6 * 3 * 4

    bytes_ = SyntheticSet.load(FILES / "ddplug-1-uint8.safetensors")
    codes = (torch.arange(60) * 37 % 256).to(torch.uint8).view(5, 3, 2, 2)
    assert torch.equal(bytes_.codes(), codes)
    assert bytes_.levels is not None and bytes_.levels.tolist() == [[0.0, -0.5, 0.0], [1.0, 1.5, 2.0]]
    assert bytes_.targets.tolist() == [0, 1, 2, 1, 0]
    low, span = torch.tensor([0.0, -0.5, 0.0]).view(3, 1, 1), torch.tensor([1.0, 2.0, 2.0]).view(3, 1, 1)
    pixels = codes.double() / 255 * span + low
    torch.testing.assert_close(bytes_.inputs.double(), (pixels - 0.5) / 0.25, rtol=0, atol=1e-6)
    assert digest(bytes_.inputs) == "48c5615a981d7d61"

    whitened = SyntheticSet.load(FILES / "ddplug-1-zca.safetensors")
    assert torch.equal(whitened.codes(), (torch.arange(48) * 91 % 256).to(torch.uint8).view(6, 2, 2, 2))
    assert digest(whitened.inputs) == "3c372583d2f74bd8"


def test_files_of_version_2_load_for_ever() -> None:
    soft = SyntheticSet.load(FILES / "ddplug-2-soft.safetensors")
    assert soft.half_labels and soft.targets.dtype == torch.float32
    assert soft.targets.tolist() == [[0.5, 0.25, 0.25], [2**-24, 1 - 2**-11, 0.0]] * 2
    assert torch.equal(soft.codes(), (torch.arange(16) * 37 % 256).to(torch.uint8).view(4, 1, 2, 2))
    assert soft.nbytes == 16 + 8 + 4 * 3 * 2


def test_files_of_version_3_load_for_ever() -> None:
    few = SyntheticSet.load(FILES / "ddplug-3-bits.safetensors")
    numbers = torch.tensor([[0, 1, 2, 3, 0, 1], [3, 3, 2, 2, 1, 0]]).view(2, 1, 2, 3)
    assert torch.equal(few.codes(), (numbers * 85).to(torch.uint8))
    # levels of 0.5 from -0.25 to 1.25, then the mean 0.5 and the deviation 0.25
    assert torch.equal(few.inputs, (numbers * 0.5 - 0.25 - 0.5) / 0.25)
    assert few.bits == 2 and few.shape == (1, 4, 6) and few.targets.tolist() == [1, 0]
    assert few.nbytes == 2 * (2 + 1) + 8


def test_files_of_version_4_load_for_ever() -> None:
    held = SyntheticSet.load(FILES / "ddplug-4-pixels.safetensors")
    numbers = torch.tensor([[0, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1]]).view(3, 1, 2, 3)
    assert torch.equal(held.inputs, (numbers * 0.75 - 0.5) / 0.25)
    assert (held.targets.tolist(), held.shape, held.nbytes) == ([0, 1, 1], (1, 2, 3), 4 + 8 + 2)
    photographs = SyntheticSet.load(FILES / "ddplug-4-avif.safetensors")
    assert photographs.provenance["codec"] == "avif:quality=60,mosaic=class"
    # another build of the decoder may round a color otherwise by a level
    recorded = torch.tensor([[98, 128, 126], [96, 129, 126], [95, 130, 126]]) / 255
    assert float((photographs.pixels()[:, :, 4, 3] - recorded).abs().max()) < 2.5 / 255
    assert photographs.targets.tolist() == [0, 0, 1]


def test_files_of_version_5_load_for_ever() -> None:
    held = SyntheticSet.load(FILES / "ddplug-5-labels.safetensors")
    units = torch.tensor([[12, 2, 1, 0, 0], [3, 3, 3, 3, 3], [0, 15, 0, 0, 0], [0, 3, 9, 3, 0]], dtype=torch.float64)
    assert torch.equal(held.targets, (units / 15).float())
    numbers = torch.tensor([[0, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 0], [1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1]])
    assert torch.equal(held.inputs, (numbers.view(4, 1, 2, 3) * 0.75 - 0.5) / 0.25)
    assert held.stored is not None
    assert held.nbytes == held.stored.nbytes + 5  # counts


def test_the_version_is_the_lowest_that_holds_the_content(tmp_path: Path) -> None:
    soft = image_set(targets=torch.arange(18.0).view(6, 3) / 18)
    few, held = image_set().quantize(bits=2), image_set().compress("pixels")
    labels = image_set(targets=torch.full((6, 3), 1 / 3)).compress("pixels", labels="top3")
    plain = image_set().quantize()
    for made, version in ((plain, 1), (soft, 1), (soft.quantize(), 2), (few, 3), (held, 4), (labels, 5)):
        made.save(tmp_path / "set")
        with safe_open(tmp_path / "set", "pt") as file:
            assert file.metadata()["format"] == f"ddplug/{version}"


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"cannot read .*none.safetensors: No such file or directory"):
        SyntheticSet.load(tmp_path / "none.safetensors")
    with pytest.raises(OptionError, match="it is not a regular file"):
        SyntheticSet.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OptionError, match="it is not a regular file"):
        SyntheticSet.load(tmp_path / "pipe")


def test_tensors_of_every_kind_come_back(tmp_path: Path) -> None:
    shared = torch.arange(6)
    tensors = {
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
        "view": torch.arange(6.0).view(2, 3).T,
        "flag": torch.tensor([True, False]),
        "generator": torch.Generator().manual_seed(5).get_state(),
        "shared": shared,
        "again": shared[2:],
        "small": torch.tensor([-1], dtype=torch.int32),
        "odd": torch.tensor([torch.inf, torch.nan, -0.0]),
    }
    write_tensors(tmp_path / "state", "checkpoint", tensors, {"step": 3, "name": "ü"})
    back, header = read_tensors(tmp_path / "state", "checkpoint")
    assert header == {"step": 3, "name": "ü"}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and back[name].shape == tensor.shape
        assert back[name].contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()
    with pytest.raises(FormatError, match="it holds a 'checkpoint', not a 'synthetic-set'"):
        SyntheticSet.load(tmp_path / "state")


def test_loaded_tensors_do_not_depend_on_the_file(tmp_path: Path) -> None:
    image_set().save(tmp_path / "set")
    back = SyntheticSet.load(tmp_path / "set")
    (tmp_path / "set").write_bytes(b"")
    assert equal(back, image_set())


@pytest.mark.parametrize(
    ("tensors", "header", "message"),
    [
        (
            {"x": torch.zeros(1, dtype=torch.complex64)},
            {},
            "cannot store 'x': torch.complex64 is none of torch.float16",
        ),
        ({}, {"x": float("nan")}, "cannot store the header of .*: Out of range float values"),
        ({}, {"x": object()}, "cannot store the header of .*not JSON serializable"),
        ({}, {"x": {1: 2, "1": 3}}, "cannot store the header of .*: a key is repeated"),
        ({}, {"x": "\ud800"}, "cannot store .*a name in it is not Unicode"),
        ({}, {"x": "a" * (9 << 20)}, "its header is longer than 8388608 bytes; shorten the provenance"),
    ],
)
def test_what_cannot_be_stored(
    tensors: dict[str, Tensor], header: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OptionError, match=message):
        write_tensors(tmp_path / "file", "checkpoint", tensors, header)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (image_set(preprocess=Standardize(torch.zeros(3), torch.zeros(3))), "a standard deviation is not positive"),
        (
            image_set(preprocess=Standardize(torch.zeros(2), torch.ones(2))),
            r"preprocessing mean is torch.float32 \(2,\)",
        ),
        (image_set(preprocess=Standardize(torch.zeros(3), torch.full((3,), 3e38))), "its pixels are not finite"),
        (image_set(recipe=Recipe(augment="crop_twist")), "recipe: unknown augmentation 'twist'"),
        (image_set(class_names=("a", "b", "c" * 300)), "names of at most 255 characters"),
        (dataclasses.replace(image_set(), levels=torch.tensor([[0.0] * 3, [1.0] * 3])), "do not lie on its levels"),
    ],
)
def test_a_set_that_would_not_load_is_not_saved(made: SyntheticSet, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"cannot save the set: .*{message}"):
        made.save(tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"the folder .*/none does not exist; create it first"):
        image_set().save(tmp_path / "none" / "set")
    with pytest.raises(OptionError, match="it is not a regular file; choose another path"):
        image_set().save(tmp_path)
    with pytest.raises(OptionError, match="it is not a regular file; choose another path"):
        write_file("/dev/null", b"")
    with pytest.raises(OptionError, match=r"File name too long; choose another path"):
        write_file(tmp_path / ("x" * 256), b"")
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"


def run(script: str, *arguments: object) -> None:
    """Run Python in a process of its own, which may be limited or killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


FULL = """
import resource, signal, sys
from pathlib import Path
from ddplug.errors import OptionError
from ddplug.synthetic.dataset import SyntheticSet
folder, source = Path(sys.argv[1]), Path(sys.argv[2])
made = SyntheticSet.load(source)
before = (folder / "set").read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
# every write beyond 1000 bytes now fails as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    made.save(folder / "set")
except OptionError as error:
    assert str(error).startswith(f"cannot write {folder / 'set'}: File too large; nothing was changed"), error
else:
    raise SystemExit("no error")
assert [file.name for file in folder.iterdir()] == ["set"]
assert (folder / "set").read_bytes() == before
"""


def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    table_set().save(tmp_path / "set")
    run(FULL, tmp_path, FILES / "ddplug-1-float32.safetensors")
    assert equal(SyntheticSet.load(tmp_path / "set"), table_set())


READ_ONLY = """
import os, sys
from ddplug.errors import OptionError
from ddplug.utils.files import write_file
if os.geteuid() == 0:
    os.setuid(65534)
try:
    write_file(sys.argv[1] + "/set", b"new")
except OptionError as error:
    assert "is not writable; choose another path" in str(error), error
else:
    raise SystemExit("no error")
"""


def test_folder_that_is_not_writable() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        run(READ_ONLY, folder)
        assert not os.listdir(folder)


KILL = """
import os, signal, sys, time
from pathlib import Path
import torch
from ddplug.synthetic.dataset import SyntheticSet
torch.set_num_threads(1)
path = Path(sys.argv[1]) / "set"
sets = [SyntheticSet.load(name) for name in sys.argv[2:4]]
sets[0].save(path)
seen = set()
for number in range(40):
    child = os.fork()
    if child == 0:
        while True:
            for each in sets:
                each.save(path)
    time.sleep(0.01 + 0.003 * number)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    back = SyntheticSet.load(path)
    match = [torch.equal(back.inputs, each.inputs) for each in sets if back.shape == each.shape]
    assert match == [True], number
    seen.add(back.shape)
assert len(seen) == 2, seen
"""


def test_killed_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    run(KILL, tmp_path, FILES / "ddplug-1-uint8.safetensors", FILES / "ddplug-1-float32.safetensors")
