"""Files that were changed: one bit at a time, and in every way that comes to mind, checksums included."""

from __future__ import annotations

import io
import json
import random
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ddplug.errors import DdplugError
from ddplug.utils import digests
from ddplug.utils.files import read_tensors, write_tensors
from tests.campaigns.samples import Sample, samples

__all__ = ["flips", "mutations"]


def _read(sample: Sample, content: bytes, whole: bytes) -> tuple[str, str]:
    """Read a changed file; give ``refused``, ``read`` or ``raw`` and what was read or said."""
    sample.path.write_bytes(content)
    try:
        return "read", repr(sample.read())
    except DdplugError as error:
        line = str(error)
        return ("refused", line) if "\n" not in line else ("raw", f"several lines: {line[:200]!r}")
    except (Exception, SystemExit) as error:  # what a campaign is to find
        return "raw", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        sample.path.write_bytes(whole)


def flips(times: int, seed: int = 0) -> dict[str, Any]:
    """Change one bit ``times`` times in a file of each kind."""
    rng, kinds, wrong = random.Random(seed), dict[str, dict[str, int]](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for name, sample in samples(Path(folder)).items():
            whole, right, count = sample.path.read_bytes(), repr(sample.read()), Counter[str]()
            for place in rng.sample(range(8 * len(whole)), min(times, 8 * len(whole))):
                changed = bytearray(whole)
                changed[place // 8] ^= 1 << place % 8
                outcome, what = _read(sample, bytes(changed), whole)
                if outcome == "read":
                    outcome = "made again" if sample.heals and what == right else _healed(sample, what, right)
                count[outcome] += 1
                if outcome in ("raw", "accepted") and name != "picture":
                    wrong.append(f"{name}, bit {place}: {what[:200]}")
            kinds[name] = dict(count)
    return {"campaign": "flip", "times": times, "kinds": kinds, "others": _others(times, rng), "wrong": wrong}


def _others(times: int, rng: random.Random) -> dict[str, dict[str, int]]:
    """Change bits in files of the same tensor that safetensors and torch write, and count those that are taken."""
    tensors = {"images": torch.linspace(0, 1, 2000)}
    with io.BytesIO() as file:
        torch.save(tensors, file)
        contents = {"safetensors": safetensors.torch.save(tensors), "torch.save": file.getvalue()}
    readers: dict[str, Callable[[bytes], Any]] = {
        "safetensors": safetensors.torch.load,
        "torch.save": lambda content: torch.load(io.BytesIO(content), weights_only=True),
    }
    found: dict[str, dict[str, int]] = {}
    for name, content in contents.items():
        count = Counter[str]()
        for place in rng.sample(range(8 * len(content)), times):
            changed = bytearray(content)
            changed[place // 8] ^= 1 << place % 8
            try:
                same = torch.equal(readers[name](bytes(changed))["images"], tensors["images"])
                count["accepted, the same numbers" if same else "accepted, other numbers"] += 1
            except Exception:  # any refusal counts as one
                count["refused"] += 1
        found[name] = dict(count)
    return found


def _healed(sample: Sample, what: str, right: str) -> str:
    """Tell whether what was read of a journal is what was written, less a line."""
    if not sample.heals:
        return "accepted"
    before, after = json.loads(_listed(right)), json.loads(_listed(what))
    return "a line less" if all(line in before for line in after) else "accepted"


def _listed(text: str) -> str:
    return json.dumps(re.findall(r"Record\(key=.*?pid=\d+\)", text))


def _altered(content: bytes, rng: random.Random) -> bytes:
    """Change bytes somewhere."""
    place, size = rng.randrange(len(content)), rng.choice([1, 1, 2, 8, 64])
    noise = bytes(rng.choice([rng.randrange(256), 0, 255]) for _ in range(size))
    return content[:place] + noise + content[place + size :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _left_out(content: bytes, rng: random.Random) -> bytes:
    first, second = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:first] + content[second:]


def _doubled(content: bytes, rng: random.Random) -> bytes:
    first = rng.randrange(len(content))
    return content[: first + 1 + rng.randrange(200)] + content[first:]


def _number(content: bytes, rng: random.Random) -> bytes:
    """Put another number in the place of one that is written in digits."""
    found = list(re.finditer(rb"(?<![0-9a-f])\d+(?![0-9a-f])", content))
    if not found:
        return _altered(content, rng)
    match = rng.choice(found)
    new = rng.choice([0, -1, 1, 2**31, 2**40, 2**63, 10**30, 1e300, rng.randrange(1000)])
    return content[: match.start()] + str(new).encode() + content[match.end() :]


def _word(content: bytes, rng: random.Random) -> bytes:
    """Put something else in the place of a quoted word."""
    found = list(re.finditer(rb'"\w{2,}\\?"', content))
    if not found:
        return _altered(content, rng)
    match = rng.choice(found)
    new = rng.choice([b"null", b"[]", b"{}", b'"x"', b"true", b"[" * 500, match[0].upper()])
    return content[: match.start()] + new + content[match.end() :]


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (_altered, _cut, _left_out, _doubled, _number, _word)


def _sealed(content: bytes) -> bytes:
    """Compute the checksums of a safetensors file anew, as somebody who means harm can."""
    size = int.from_bytes(content[:8], "little")
    head, payload = content[8 : 8 + size], content[8 + size :]
    if not head or size > len(content):
        return content
    head = re.sub(rb'"payload":"[0-9a-f]{64}"', b'"payload":"%s"' % digests.sum_of(payload).encode(), head)
    head = re.sub(rb'"sha256":"[0-9a-f]{64}"', b'"sha256":"%s"' % digests.BLANK.encode(), head)
    return digests.sealed(len(head).to_bytes(8, "little") + head) + payload


_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    3,
    2**31,
    2**63,
    1e300,
    0.5,
    "",
    "x",
    "identity",
    "zca",
    "pixels:bits=8",
    "../x",
    [],
    {},
    [1, 2],
    [[1]],
    {"a": 1},
)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """List all places in a JSON value, as what holds it and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = list[tuple[Any, Any]]()
    for name, inner in items:
        found += [(value, name), *_places(inner)]
    return found


def _strange(tensor: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Return a tensor of another shape, type or content."""
    ways: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: tensor[:0],
        lambda: tensor[:1],
        lambda: torch.cat([tensor, tensor]),
        lambda: tensor.flatten(),
        lambda: tensor[None],
        lambda: tensor.double(),
        lambda: tensor.to(torch.uint8),
        lambda: tensor.to(torch.int64),
        lambda: torch.zeros_like(tensor),
        lambda: torch.full_like(tensor, 200),
        lambda: -tensor if tensor.dtype != torch.bool else tensor,
        lambda: tensor * float("nan"),
        lambda: torch.zeros(()),
        lambda: torch.zeros(3, 0),
    )
    return rng.choice(ways)()


def _meant(content: bytes, kind: str, folder: Path, rng: random.Random) -> bytes:
    """Write a whole and sound file that holds something else: other values in the header, or other tensors."""
    place = folder / "meant"
    place.write_bytes(content)
    tensors, header = read_tensors(place, kind)
    tensors, header = dict(tensors), json.loads(json.dumps(header))
    for _ in range(rng.randint(1, 2)):
        if rng.random() < 0.5:
            holder, name = rng.choice(_places(header))
            if isinstance(holder, dict) and rng.random() < 0.2:
                holder.pop(name, None)
            elif not isinstance(holder, list) or name < len(holder):
                holder[name] = rng.choice(_VALUES)
        else:
            name = rng.choice(list(tensors))
            with suppress(IndexError, RuntimeError):  # of a 0-d tensor there is no part, and no two are joined
                tensors[name] = _strange(tensors[name], rng)
    write_tensors(place, kind, tensors, header, 4)
    return place.read_bytes()


def mutations(times: int, seed: int = 0) -> dict[str, Any]:
    """Change files in all ways, ``times`` times in all, three of four of those with checksums so that these fit."""
    rng, kinds, wrong = random.Random(seed), dict[str, Counter[str]](), list[str]()
    slowest, base = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        made = samples(Path(folder))
        contents = {name: sample.path.read_bytes() for name, sample in made.items()}
        for sample in made.values():
            sample.read()
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for k in range(times):
            name = list(made)[k % len(made)]
            sample, content = made[name], contents[name]
            if sample.kind and rng.random() < 0.5:
                content = _meant(content, sample.kind, Path(folder), rng)
            else:
                for _ in range(rng.randint(1, 3)):
                    content = rng.choice(_WAYS)(content, rng) or b"\0"
                content = _sealed(content) if sample.kind and rng.random() < 0.5 else content
            began = time.monotonic()
            outcome, what = _read(sample, content, contents[name])
            slowest = max(slowest, time.monotonic() - began)
            kinds.setdefault(name, Counter())[outcome] += 1
            if outcome == "raw":
                wrong.append(f"{name}: {what}")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "campaign": "mutate",
        "times": times,
        "kinds": {name: dict(count) for name, count in kinds.items()},
        "wrong": wrong,
        "slowest_seconds": round(slowest, 2),
        "most_megabytes_beyond": round((most - base) / 1024, 1),
    }
