"""The loader on thousands of spoilt files: a valid set or one `FormatError`, and nothing else ever happens.

Run as a script it does the work, in a process whose memory, time and audit events are watched; the test runs it so.
"""

from __future__ import annotations

import copy
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddplug.errors import FormatError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.files import read_tensors

FILES = sorted((Path(__file__).parents[1] / "files").glob("*.safetensors"))
ROOT = Path(__file__).parents[2]
COUNT = 4000

FORBIDDEN = ("exec", "compile", "import", "marshal.", "pickle.", "os.", "subprocess.", "socket.", "ctypes.", "code.")
"""Prefixes of audit events that a loader has no business to cause."""


def forbidden(event: str, what: tuple[Any, ...]) -> bool:
    """Say whether an audit event is forbidden: a codec of an unknown name is looked for among installed packages."""
    return event.startswith(FORBIDDEN) and not (event == "os.listdir" and what[0] in sys.path)


def check(path: Path) -> bool:
    """Load a file that may be spoilt; say whether it was a set, and fail on anything but a set or a `FormatError`."""
    try:
        made = SyntheticSet.load(path)
    except FormatError as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < len(str(path)) + 1000
        return False
    # the constructor checks every invariant again
    SyntheticSet(made.inputs, made.targets, made.num_classes, made.preprocess, made.recipe, made.class_names)
    assert made.pixels().isfinite().all()
    assert len(made) >= 1 and made.nbytes > 0
    return True


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Take a file apart: the header, with our own header parsed, and the data."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["header"] = json.loads(header["__metadata__"]["header"])
    return header, content[8 + length :]


def join(header: dict[str, Any], data: bytes) -> bytes:
    """Put a file together again."""
    metadata = dict(header["__metadata__"])
    metadata["header"] = json.dumps(metadata["header"])
    return raw({**header, "__metadata__": metadata}, data)


def raw(header: Any, data: bytes) -> bytes:
    """Write a file with a header of any kind."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ODD: list[Any] = [
    0,
    -1,
    1,
    2,
    255,
    256,
    2**31,
    2**63,
    10**30,
    1e308,
    -0.5,
    float("nan"),
    float("inf"),
    True,
    None,
    "",
    "a" * 5000,
]
ODD += ["ddplug/9", "../../x", "\0", "\ud800", "__import__('os')", [], {}, [[]], {"a": 1}, [1] * 70, ["0"] * 1000]
NAMES = ["inputs", "targets", "levels", "preprocess.mean", "preprocess.std", "preprocess.", "__class__", "x"]
DTYPES = ["F32", "F64", "I64", "I32", "U8", "BOOL", "F16", "BF16", "F8_E4M3", "I8", "U64", "C64", "F4", "pickle", ""]


def places(value: Any) -> list[tuple[Any, Any]]:
    """List every (container, key) below a JSON value."""
    found = []
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *places(value[key])]
    return found


def change(value: dict[str, Any], draw: random.Random) -> None:
    """Change, remove, rename or add something anywhere in a JSON object."""
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        container, key = draw.choice(places(value) or [(value, "x")])
        kind = draw.randrange(4)
        if kind == 0:
            container.pop(key, None) if isinstance(container, dict) else container.pop(key)
        elif kind == 1 and isinstance(container, dict):
            container[draw.choice(NAMES)] = container.pop(key, 0)
        else:
            container[key] = copy.deepcopy(draw.choice(ODD + DTYPES))


def edit(content: bytes, draw: random.Random) -> bytes:
    """Change our own header; the file stays whole."""
    header, data = split(content)
    change(header["__metadata__"]["header"], draw)
    return join(header, data)


def edit_layout(content: bytes, draw: random.Random) -> bytes:
    """Change the header of safetensors."""
    header, data = split(content)
    header["__metadata__"]["header"] = json.dumps(header["__metadata__"]["header"])
    change(header, draw)
    return raw(header, data)


def swap(content: bytes, draw: random.Random) -> bytes:
    """Exchange the places, types or shapes of two tensors."""
    header, data = split(content)
    names = [name for name in header if name != "__metadata__"]
    a, b = draw.choice(names), draw.choice(names)
    if draw.random() < 0.5:
        header[a], header[b] = header[b], header[a]
    else:
        field = draw.choice(["dtype", "shape", "data_offsets"])
        header[a][field], header[b][field] = header[b][field], header[a][field]
    return join(header, data)


def reshape(content: bytes, draw: random.Random) -> bytes:
    """Return a tensor another shape or type, of the same size where possible."""
    header, data = split(content)
    tensor = header[draw.choice([name for name in header if name != "__metadata__"])]
    if draw.random() < 0.5:
        tensor["shape"] = draw.choice(
            [tensor["shape"][::-1], [1, *tensor["shape"]], [1] * 70 + tensor["shape"], [0, 2**40], [2**63], [], [-1]]
        )
    else:
        tensor["dtype"] = draw.choice(DTYPES)
    return join(header, data)


def spoil_data(content: bytes, draw: random.Random) -> bytes:
    """Overwrite numbers, with patterns that are NaN, infinite, tiny or huge as floats."""
    header, data = split(content)
    spoilt = bytearray(data)
    for _ in range(draw.choice([1, 1, 3, 20])):
        place = draw.randrange(len(spoilt) // 4) * 4
        spoilt[place : place + 4] = draw.choice(
            [b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\1\0\0\0", b"\xff\xff\x7f\x7f", b"\0\0\0\0", draw.randbytes(4)]
        )
    return join(header, bytes(spoilt))


def flip(content: bytes, draw: random.Random) -> bytes:
    """Flip bits anywhere."""
    spoilt = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 8, 64])):
        spoilt[draw.randrange(len(spoilt))] ^= 1 << draw.randrange(8)
    return bytes(spoilt)


def cut(content: bytes, draw: random.Random) -> bytes:
    """Drop the end, the start or a piece."""
    a, b = sorted((draw.randrange(len(content) + 1), draw.randrange(len(content) + 1)))
    return draw.choice([content[:a], content[a:], content[:a] + content[b:]])


def insert(content: bytes, draw: random.Random) -> bytes:
    """Insert random bytes or a copy of a piece."""
    place, other = draw.randrange(len(content) + 1), draw.randrange(len(content))
    return content[:place] + draw.choice([draw.randbytes(draw.randrange(1, 40)), content[other:]]) + content[place:]


def lengths(content: bytes, draw: random.Random) -> bytes:
    """Lie about the length of the header."""
    return struct.pack("<Q", draw.choice([0, 1, len(content), 2**31, 2**63, 2**64 - 1])) + content[8:]


MUTATIONS = (edit, edit, edit_layout, swap, reshape, spoil_data, flip, flip, cut, insert, lengths)


def limit() -> None:
    """Bound memory to what is in use and a gigabyte, and the time to ten minutes."""
    if sys.platform == "linux":
        import resource
        import signal

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
        signal.alarm(600)


def main(folder: Path, count: int) -> None:
    """Spoil and load; every audit event of a forbidden kind ends the run."""
    originals = [path.read_bytes() for path in FILES]
    path = folder / "spoilt.safetensors"
    valid = dict.fromkeys(MUTATIONS, 0)
    events: list[str] = []
    for content in originals:
        path.write_bytes(content)
        assert check(path)
    for number in range(200):
        # whatever is imported on the first error is imported now
        path.write_bytes(edit(originals[number % len(originals)], random.Random(-number - 1)))
        check(path)
    limit()
    watching = [False]
    sys.addaudithook(lambda event, what: events.append(event) if watching[0] and forbidden(event, what) else None)
    for number in range(count):
        draw = random.Random(number)
        mutation = MUTATIONS[number % len(MUTATIONS)]
        path.write_bytes(mutation(draw.choice(originals), draw))
        watching[0] = True
        try:
            valid[mutation] += check(path)
        except BaseException:
            sys.stderr.write(f"mutation {number}, {mutation.__name__}\n")
            raise
        finally:
            watching[0] = False
        # the name of a codec that is not known is looked for among the installed packages
        assert set(events) <= {"os.listdir"}, (number, mutation.__name__, events)
        events.clear()
    assert [file.name for file in folder.iterdir()] == [path.name]
    json.dump({mutation.__name__: each for mutation, each in valid.items()}, sys.stdout)


def test_thousands_of_spoilt_files() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, folder, str(COUNT)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    valid = json.loads(done.stdout)
    # data may change unnoticed, cut files never load: the fuzzer reaches both sides of the checks
    assert valid["spoil_data"] > COUNT / 50 and valid["edit"] > 0 and valid["swap"] > 0
    assert valid["lengths"] == 0


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("source", FILES, ids=lambda path: path.stem)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_json_in_the_header(source: Path, data: st.DataObject) -> None:
    header, body = split(source.read_bytes())
    inner = header["__metadata__"]["header"]
    field = data.draw(st.sampled_from([*inner, "recipe fields", "other"]))
    if field == "recipe fields":
        inner["recipe"] = data.draw(st.dictionaries(st.sampled_from([*inner["recipe"]]), values))
    else:
        inner[field] = data.draw(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "header.safetensors"
        path.write_bytes(join(header, body))
        if check(path):
            assert SyntheticSet.load(path).num_classes == inner["num_classes"]


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=400) | values.map(lambda value: raw(value, b"")))
def test_any_bytes(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bytes.safetensors"
        path.write_bytes(content)
        with pytest.raises(FormatError, match="is not a ddplug file that can be read"):
            read_tensors(path, "checkpoint")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
