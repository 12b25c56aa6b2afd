"""Files that somebody altered or made up: one clear line for each."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddplug.errors import FormatError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.files import read_tensors
from tests.synthetic.test_file_format import FILES, image_set

Change = Callable[[dict[str, Tensor], dict[str, str], dict[str, Any]], Any]


def alter(path: Path, change: Change) -> None:
    """Save a set, change its tensors, metadata or header, and write it with safetensors' own writer."""
    image_set().quantize().save(path)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    del metadata["payload"], metadata["sha256"]  # who writes such a file can compute them
    text = metadata["header"]
    header = json.loads(text)
    change(tensors, metadata, header)
    if metadata.get("header") == text:
        metadata["header"] = json.dumps(header)
    save_file(tensors, path, metadata)


HOSTILE: dict[str, tuple[Change, str]] = {
    "newer": (
        lambda t, m, h: m.update(format="ddplug/6"),
        "format ddplug/6, written by a newer version, and this one reads ddplug/5: update ddplug",
    ),
    "no format": (lambda t, m, h: m.pop("format"), "it has no ddplug header"),
    "odd format": (lambda t, m, h: m.update(format="ddplug/\u0661"), "it has no ddplug header"),
    "kind": (lambda t, m, h: m.update(kind="checkpoint"), "it holds a 'checkpoint', not a 'synthetic-set'"),
    "no header": (lambda t, m, h: m.pop("header"), "its header is not valid JSON"),
    "header list": (lambda t, m, h: m.update(header="[]"), "it is not an object"),
    "missing field": (lambda t, m, h: h.pop("recipe"), "its header fields are "),
    "unknown field": (lambda t, m, h: h.update(more=1), "its header fields are "),
    "classes": (lambda t, m, h: h.update(num_classes=10**12), "num_classes is 1000000000000 for 3 class names"),
    "enlarged beyond": (lambda t, m, h: h.update(network_shape=[3, 2, 10**6]), "network_shape is .3, 2, 1000000."),
    "enlarged to less": (lambda t, m, h: h.update(network_shape=[3, 1, 1]), "network_shape is"),
    "no sizes": (lambda t, m, h: h.update(network_shape="big"), "network_shape is 'big'"),
    "true sizes": (lambda t, m, h: h.update(network_shape=[3, 2, True]), "network_shape is"),
    "bool": (lambda t, m, h: h.update(num_classes=True), "header field 'num_classes' is True, not of type int"),
    "names": (lambda t, m, h: h.update(class_names=["a", "b", 3]), "class_names is not a list of names of at most 255"),
    "long name": (lambda t, m, h: h.update(class_names=["a", "b", "c" * 256]), "names of at most 255 characters"),
    "no classes": (lambda t, m, h: h.update(class_names=[], num_classes=0), "class_names is not a list of names"),
    "provenance": (lambda t, m, h: h.update(provenance=[1]), r"header field 'provenance' is \[1\], not of type dict"),
    "preprocess": (lambda t, m, h: h.update(preprocess="os.system"), "unknown preprocessing 'os.system'"),
    "wrong fields": (lambda t, m, h: h.update(preprocess="zca"), r"'zca' is stored with the fields \['mean', 'std'\]"),
    "recipe": (lambda t, m, h: h["recipe"].update(epochs=-1), "recipe: epochs is -1; it must lie between 1"),
    "augment": (lambda t, m, h: h["recipe"].update(augment="exec"), "recipe: unknown augmentation 'exec'"),
    "extra tensor": (lambda t, m, h: t.update(code=torch.zeros(1)), r"its tensors are \['code', 'inputs', "),
    "no inputs": (lambda t, m, h: t.pop("inputs"), r"its tensors are \['levels', 'targets'\], not inputs"),
    "no levels": (lambda t, m, h: t.pop("levels"), "inputs are torch.uint8 without levels"),
    "levels": (lambda t, m, h: t.update(levels=torch.zeros(2, 9)), r"levels are torch.float32 \(2, 9\)"),
    "levels nan": (lambda t, m, h: t["levels"].fill_(torch.nan), "levels are not finite"),
    "levels huge": (lambda t, m, h: t["levels"].copy_(torch.tensor([[-3e38], [3e38]])), "it holds NaN or infinity"),
    "float": (lambda t, m, h: t.update(inputs=torch.zeros(6, 3, 2, 2)), "inputs are torch.float32 with levels"),
    "empty": (lambda t, m, h: t.update(inputs=torch.zeros(6, 3, 0, 2).byte()), r"inputs have the shape \(6, 3, 0, 2\)"),
    "one axis": (lambda t, m, h: t.update(inputs=torch.zeros(6).byte()), r"inputs have the shape \(6,\)"),
    "nine axes": (lambda t, m, h: t.update(inputs=torch.zeros([1] * 9).byte()), "inputs have the shape "),
    "99 axes": (
        lambda t, m, h: t.update(inputs=torch.zeros(1).byte().view([1] * 60)),
        "tensor 'inputs' has the shape ",
    ),
    "label": (lambda t, m, h: t["targets"].fill_(3), r"a label is outside 0\.\.2"),
    "label type": (
        lambda t, m, h: t.update(targets=t["targets"].long()),
        "hard labels are torch.int64, not torch.uint8",
    ),
    "labels": (lambda t, m, h: t.update(targets=torch.zeros(5).byte()), "6 inputs but 5 targets"),
    "a label": (lambda t, m, h: t.update(targets=torch.zeros(()).byte()), "6 inputs but 0 targets"),
    "soft": (lambda t, m, h: t.update(targets=torch.zeros(6, 2)), "soft labels have 2 columns for 3 classes"),
    "soft half": (lambda t, m, h: t.update(targets=torch.zeros(6, 3).half()), "'targets' is of the type F16, which is"),
    "hard half": (
        lambda t, m, h: (m.update(format="ddplug/2"), t.update(targets=torch.zeros(6).half())),
        "hard labels are torch.float16, not torch.uint8",
    ),
    "half columns": (
        lambda t, m, h: (m.update(format="ddplug/2"), t.update(targets=torch.zeros(6, 2).half())),
        "soft labels have 2 columns for 3 classes",
    ),
    "half infinite": (
        lambda t, m, h: (m.update(format="ddplug/2"), t.update(targets=torch.full((6, 3), torch.inf).half())),
        "it holds NaN or infinity",
    ),
    "half inputs": (
        lambda t, m, h: (m.update(format="ddplug/2"), t.update(inputs=t["inputs"].half())),
        "inputs are torch.float16 with levels",
    ),
    "half levels": (
        lambda t, m, h: (m.update(format="ddplug/2"), t.update(levels=t["levels"].half())),
        "levels are torch.float16",
    ),
    "bits alone": (lambda t, m, h: h.update(bits=1), "stored_shape is None, not three sizes of an image"),
    "odd bits": (lambda t, m, h: h.update(bits=3, stored_shape=[3, 2, 2]), "bits is 3, not one of 1, 2, 4"),
    "all bits": (lambda t, m, h: h.update(bits=8, stored_shape=[3, 2, 2]), "bits is 8, not one of 1, 2, 4"),
    "true bits": (lambda t, m, h: h.update(bits=True, stored_shape=[3, 2, 2]), "bits is True, not one of"),
    "list of bits": (lambda t, m, h: h.update(bits=[1], stored_shape=[3, 2, 2]), r"bits is \[1\], not one of"),
    "shape without bits": (lambda t, m, h: h.update(stored_shape=[3, 2, 2]), "bits is None, not one of"),
    "not packed": (
        lambda t, m, h: h.update(bits=1, stored_shape=[3, 2, 2]),
        r"inputs are torch.uint8 \(6, 3, 2, 2\), but images of \[3, 2, 2\] with 1 bits a number take 2 uint8 each",
    ),
    "stored shape": (
        lambda t, m, h: (h.update(bits=4, stored_shape=[3, 2, 0]), t.update(inputs=torch.zeros(6, 6).byte())),
        r"stored_shape is \[3, 2, 0\], not three sizes",
    ),
    "packed shape": (
        lambda t, m, h: (h.update(bits=4, stored_shape=[3, 2, 10**30]), t.update(inputs=torch.zeros(6, 6).byte())),
        r"inputs are torch.uint8 \(6, 6\), but images of \[3, 2, 1000",
    ),
    "packed floats": (
        lambda t, m, h: (h.update(bits=4, stored_shape=[3, 2, 2]), t.update(inputs=torch.zeros(6, 6))),
        r"inputs are torch.float32 \(6, 6\), but images",
    ),
    "packed without levels": (
        lambda t, m, h: (
            h.update(bits=4, stored_shape=[3, 2, 2]),
            t.update(inputs=torch.zeros(6, 6).byte()),
            t.pop("levels"),
        ),
        "inputs are torch.uint8 without levels",
    ),
    "std 0": (lambda t, m, h: t["preprocess.std"].fill_(0), "a standard deviation is not positive"),
    "std nan": (lambda t, m, h: t["preprocess.std"].fill_(torch.nan), "preprocessing std is not finite"),
    "mean inf": (lambda t, m, h: t["preprocess.mean"].fill_(torch.inf), "preprocessing mean is not finite"),
    "mean shape": (
        lambda t, m, h: t.update({"preprocess.mean": torch.zeros(1)}),
        r"preprocessing mean is torch.float32 \(1,\), not float32 \(3,\)",
    ),
    "mean type": (lambda t, m, h: t.update({"preprocess.mean": torch.zeros(3).double()}), "mean is torch.float64"),
    "std tiny": (lambda t, m, h: t["preprocess.std"].fill_(1e-45), "it holds NaN or infinity"),
    "bfloat": (lambda t, m, h: t.update(inputs=torch.zeros(1).bfloat16()), "tensor 'inputs' is of the type BF16"),
    "duplicate": (lambda t, m, h: m.update(header=m["header"][:-1] + ', "recipe": {}}'), "a key is repeated"),
    "nan": (lambda t, m, h: h["provenance"].update(x=float("nan")), "its header is not valid JSON"),
    "overflow": (
        lambda t, m, h: m.update(header=m["header"].replace('"seconds": 1.5', '"seconds": 1e999')),
        "its header is not valid JSON",
    ),
    "surrogate": (
        lambda t, m, h: m.update(header=m["header"].replace('"made"', '"\\ud800"')),
        "its header is not valid JSON",
    ),
    "deep": (
        lambda t, m, h: m.update(header=m["header"].replace("1.5", "[" * 70 + "]" * 70)),
        "nested more than 64 deep",
    ),
    "deepest": (lambda t, m, h: m.update(header="[" * 10**5), "its header is not valid JSON"),
    "digits": (
        lambda t, m, h: m.update(header=m["header"].replace("1.5", "9" * 10**4)),
        "its header is not valid JSON",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_content_is_one_clear_line(name: str, tmp_path: Path) -> None:
    change, message = HOSTILE[name]
    path = tmp_path / "hostile.safetensors"
    alter(path, change)
    with pytest.raises(FormatError, match=message) as caught:
        SyntheticSet.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def raw(header: str | dict[str, Any], data: bytes = b"") -> bytes:
    """Write a safetensors file by hand."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


META = {"format": "ddplug/1", "kind": "checkpoint", "header": "{}"}
ONE = '{"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a ddplug file that can be read"),
        (b"\x80\x04K\x01.", "is not a ddplug file that can be read"),
        (b"\xff" * 100, "its header is 18446744073709551615 bytes long, the limit is 8388608"),
        (raw({}), "it has no ddplug header"),
        (raw({"__metadata__": {"format": "pt"}}), "it has no ddplug header"),
        (raw({"__metadata__": {**META, "kind": "x" * 10000}}), r"it holds a 'x+\.\.\.x+', not a 'checkpoint'"),
        (raw({"__metadata__": META, "x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234567"), "read"),
        (raw({"__metadata__": META, "x": {"dtype": "F32", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}), "x"),
        (raw({"__metadata__": META, "x": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"7"), "neither"),
        (raw(f'{{"__metadata__": {json.dumps(META)}, "x": {ONE}, "x": {ONE}}}', b"7"), "a key is repeated"),
        (raw("[" * 100000), "is not a ddplug file that can be read"),
    ],
)
def test_hostile_bytes_are_one_clear_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bytes.safetensors"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        read_tensors(path, "checkpoint")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 300


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = (FILES / "ddplug-1-uint8.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(FormatError, match="is not a ddplug file that can be read"):
            SyntheticSet.load(path)
