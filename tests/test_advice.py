"""Advice that an error gives, followed to the letter, leads to success: every "use X" in the package."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ddplug
from ddplug import Recipe, SyntheticSet, distill, errors, evaluate, from_arrays
from ddplug.data import Identity
from ddplug.data.preprocess import fit
from ddplug.distillers import DD, MTT, RDED, ImageDistiller, Random, SRe2L
from ddplug.evaluation import evaluate_as_learned
from ddplug.functional.packing import check_bits
from ddplug.networks.factory import build
from ddplug.testing import made_small, toy_images, toy_table
from ddplug.utils.devices import pick_device

ROOT = Path(ddplug.__file__).parent
ELSEWHERE = {
    "data/scan.py": "tests/data/test_image_folder.py",
    "utils/processes.py": "tests/utils/test_processes.py",
    "nni/experiment.py": "tests/nni/test_experiment.py",
    "search/journal.py": "tests/search/test_journal.py",
    "nni/spaces.py": "tests/nni/test_spaces.py",
    "data/sources.py": "tests/data/test_sources.py",
    "data/npz.py": "tests/data/test_sources.py",
    "auto.py": "it says what distill says of a checkpoint",
    "distillers/parts/experts.py": "tests/distillers/test_experts.py",
    "distillers/dp_dm.py": "tests/distillers/test_dp_dm.py",
}
"""Modules whose advice is followed by tests of their own."""

ADVICE = re.compile(r"[;:] (?:use|pass|call) (.*)$")


def text(node: ast.AST) -> str:
    """What a message says, with ``{}`` where something is put in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def given() -> Iterator[tuple[str, str]]:
    """Module and text of every piece of advice in an error that is raised."""
    for path in sorted(ROOT.rglob("*.py")):
        for raised in [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]:
            inside = [node for node in ast.walk(raised) if isinstance(node, ast.JoinedStr | ast.Constant)]
            parts = {id(part) for node in inside if isinstance(node, ast.JoinedStr) for part in node.values}
            for node in inside:
                found = ADVICE.search(text(node)) if id(node) not in parts else None
                if found:
                    yield path.relative_to(ROOT).as_posix(), found[1]


SMALL, ROWS = toy_images((6, 7), size=4), toy_table((6, 7))
DOT = from_arrays(torch.arange(36, dtype=torch.uint8).view(12, 3, 1, 1), torch.arange(12) % 4)
OPTIONS: dict[str, Any] = {"device": "cpu", "images_per_class": 1}
DMS: dict[str, Any] = {"pool_size": 1, "batch_real": 2, "steps": 1, **OPTIONS}
MADE = distill(SMALL, "random", **OPTIONS)
SOFT = replace(MADE, targets=torch.tensor([[0.8, 0.2], [0.3, 0.7]]))
WHITE = replace(SMALL, preprocess=fit("zca", SMALL.inputs))
RNG = torch.Generator


def scored() -> SyntheticSet:
    """A set with soft labels that are no probabilities."""
    return replace(distill(SMALL, "random", **OPTIONS), targets=torch.tensor([[2.0, 0.0], [0.0, 2.0]]), levels=None)


def learned(cls: type[ImageDistiller] | type[DD] | type[MTT], network: str) -> SyntheticSet:
    return distill(SMALL, replace(made_small(cls(images_per_class=1, network=network)), steps=1), device="cpu")


def own_teacher() -> SyntheticSet:
    with torch.random.fork_rng(devices=[]):
        teacher = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))
    return distill(ROWS, SRe2L(images_per_class=1, teacher=teacher, least_area=1, flip=False, jitter=0), steps=1)


def trained(network: str, shape: tuple[int, ...]) -> object:
    data = from_arrays(torch.rand(8, *shape, generator=RNG()), torch.arange(8) % 2)
    return distill(data, "dm", network=network, **DMS)


MADE_OF_FOUR = SyntheticSet(torch.zeros(2, 4, 4, 4), torch.arange(2), 2, Identity())
LEARNED = learned(DD, "convnet:width=4,depth=1")

# module -> the call that is refused, what the message must advise, and calls that do what it says
CASES: dict[tuple[str, str], tuple[Callable[[], object], str, list[Callable[[], object]]]] = {
    ("data/preprocess.py", "'standardize'"): (
        lambda: from_arrays(torch.zeros(4, 1, 65, 64), [0, 1, 0, 1], preprocess="zca"),
        "'standardize'",
        [lambda: from_arrays(torch.zeros(4, 1, 65, 64), [0, 1, 0, 1], preprocess="standardize")],
    ),
    ("distillation/config.py", "a distiller such as {}(...), or a name"): (
        lambda: distill(SMALL, Random, device="cpu"),  # type: ignore[arg-type]
        "a distiller such as Random(...), or a name",
        [lambda: distill(SMALL, Random(images_per_class=1), device="cpu"), lambda: distill(SMALL, "random", **OPTIONS)],
    ),
    ("distillation/config.py", "numbers, strings, tuples, dataclasses or callables"): (
        lambda: distill(SMALL, "dm", network={"mlp"}, **DMS),
        "numbers, strings, tuples, dataclasses or callables",
        [
            lambda: distill(SMALL, "dm", network="mlp", **DMS),
            lambda: distill(SMALL, "dm", network=lambda: build("mlp", (1, 4, 4), 2, RNG()), **DMS),
        ],
    ),
    ("distillation/shards.py", "at most {} shards"): (
        lambda: distill(SMALL, "random", shard=(1, 3), **OPTIONS),
        "at most 2 shards",
        [lambda: distill(SMALL, "random", shard=(2, 2), **OPTIONS)],
    ),
    ("synthetic/compression.py", "labels='float16'"): (
        lambda: scored().compress("pixels", labels="top3"),
        "labels='float16'",
        [lambda: scored().compress("pixels", labels="float16")],
    ),
    ("distillers/dd.py", "a network without, e.g. lenet or convnet (norm=instance)"): (
        lambda: learned(DD, "convnet:width=4,depth=1,norm=batch"),
        "a network without, e.g. lenet or convnet (norm=instance)",
        [lambda: learned(DD, "convnet:width=4,depth=1,norm=instance")],
    ),
    ("distillers/parts/training.py", "a network without, e.g. convnet (norm=instance)"): (
        lambda: learned(MTT, "convnet:width=4,depth=1,norm=batch"),
        "a network without, e.g. convnet (norm=instance)",
        [lambda: learned(MTT, "convnet:width=4,depth=1,norm=instance")],
    ),
    ("distillers/rded.py", "at most {}"): (
        lambda: distill(SMALL, made_small(RDED(images_per_class=1, tiles=5)), device="cpu"),
        "at most 4",
        [lambda: distill(SMALL, made_small(RDED(images_per_class=1, tiles=4)), device="cpu")],
    ),
    ("distillers/sre2l.py", "one that has, e.g. 'convnet:width=32,norm=batch', or another method, e.g. rded"): (
        lambda: distill(SMALL, "sre2l", teacher="convnet:width=4,depth=1", **OPTIONS),
        "one that has, e.g. 'convnet:width=32,norm=batch', or another method, e.g. rded",
        [
            lambda: distill(toy_images((6, 7)), "sre2l", teacher="convnet:width=32,norm=batch", steps=1, **OPTIONS),
            lambda: distill(SMALL, "rded", teacher="convnet:width=4,depth=1", **OPTIONS),
        ],
    ),
    (
        "distillers/sre2l.py",
        "least_area=1, flip=False and jitter=0 with a teacher of your own, or another method, e.g. kmeans",
    ): (
        lambda: distill(ROWS, "sre2l", **OPTIONS),
        "e.g. kmeans",
        [own_teacher, lambda: distill(ROWS, "kmeans", **OPTIONS)],
    ),
    ("functional/augmentation.py", "''"): (
        lambda: distill(ROWS, "dm", network="mlp", augment="flip", **DMS),
        "''",
        [lambda: distill(ROWS, "dm", network="mlp", augment="", **DMS)],
    ),
    ("functional/packing.py", "8"): (lambda: check_bits(4, (9,)), "8", [lambda: check_bits(8, (9,))]),
    ("functional/packing.py", "8, or standardize"): (
        lambda: check_bits(4, (1, 4, 4), "zca"),
        "8, or standardize",
        [lambda: check_bits(8, (1, 4, 4), "zca"), lambda: check_bits(4, (1, 4, 4), "standardise")],
    ),
    ("functional/resize.py", "at most {}"): (
        lambda: MADE.reduced(5),
        "at most 4",
        [lambda: MADE.reduced(4)],
    ),
    ("networks/alexnet.py", "{}"): (
        lambda: build("alexnet", (3, 4, 4), 2, RNG()),
        "mlp",
        [lambda: trained("mlp", (3, 4, 4))],
    ),
    ("networks/lenet.py", "{}"): (
        lambda: build("lenet", (3, 8, 8), 2, RNG()),
        "convnet or mlp",
        [lambda: trained("convnet", (3, 8, 8)), lambda: trained("mlp", (3, 8, 8))],
    ),
    ("networks/vgg11.py", "{}"): (
        lambda: build("vgg11", (3, 8, 30), 2, RNG()),
        "convnet or mlp",
        [lambda: trained("convnet", (3, 8, 30))],
    ),
    ("networks/convnet.py", "{}"): (
        lambda: distill(SMALL, "dm", network="convnet:width=4,depth=4", **DMS),
        "depth=3 or pool=none",
        [
            lambda: distill(SMALL, "dm", network="convnet:width=4,depth=3", **DMS),
            lambda: distill(SMALL, "dm", network="convnet:width=4,depth=4,pool=none", **DMS),
        ],
    ),
    ("networks/conv1d.py", "auto or mlp"): (
        lambda: build("conv1d", (3, 4, 4), 2, RNG()),
        "auto or mlp",
        [lambda: trained("auto", (6,)), lambda: trained("mlp", (3, 4, 4))],
    ),
    ("networks/conv1d.py", "a lower depth or mlp"): (
        lambda: build("conv1d:depth=5", (3, 16), 2, RNG()),
        "a lower depth or mlp",
        [lambda: trained("conv1d:depth=4", (3, 16)), lambda: trained("mlp", (3, 16))],
    ),
    ("networks/layers.py", "norm=layer or larger images"): (
        lambda: distill(DOT, "dm", network="convnet:width=4,pool=none", **DMS),
        "norm=layer or larger images",
        [lambda: distill(DOT, "dm", network="convnet:width=4,pool=none,norm=layer", **DMS)],
    ),
    ("synthetic/codecs/avif.py", "pixels"): (
        lambda: MADE_OF_FOUR.compress("avif"),
        "pixels",
        [lambda: MADE_OF_FOUR.compress("pixels")],
    ),
    ("synthetic/codecs/plain.py", "factor=1, or load the data with 'standardize'"): (
        lambda: distill(WHITE, "random", codec="plain:factor=2", **OPTIONS),
        "factor=1, or load the data with 'standardize'",
        [
            lambda: distill(WHITE, "random", codec="plain:factor=1", **OPTIONS),
            lambda: distill(SMALL, "random", codec="plain:factor=2", **OPTIONS),
        ],
    ),
    ("synthetic/codecs/dct.py", "pixels"): (
        lambda: MADE_OF_FOUR.compress("dct"),
        "pixels",
        [lambda: MADE_OF_FOUR.compress("pixels")],
    ),
    ("synthetic/compat.py", "the data that the set was made from"): (
        lambda: evaluate(MADE, DOT, device="cpu"),
        "the data that the set was made from",
        [lambda: evaluate(MADE, SMALL, network="mlp", repeats=1, recipe=Recipe(epochs=1), device="cpu")],
    ),
    ("synthetic/compression.py", "labels='float16', or codec pixels"): (
        lambda: SOFT.compress("plain", labels="top3"),
        "labels='float16', or codec pixels",
        [lambda: SOFT.compress("plain", labels="float16"), lambda: SOFT.compress("pixels", labels="top3")],
    ),
    ("synthetic/dataset.py", "quantize() first"): (
        lambda: MADE.quantize("float32").codes(),
        "quantize() first",
        [lambda: MADE.quantize("float32").quantize().codes()],
    ),
    ("utils/devices.py", "auto, cpu, cuda, cuda:N or mps"): (
        lambda: pick_device("gpu"),
        "auto, cpu, cuda, cuda:N or mps",
        [lambda: pick_device("auto"), lambda: pick_device("cpu")],
    ),
    ("utils/devices.py", "auto or cpu"): (
        lambda: pick_device("cuda:99"),
        "auto or cpu",
        [lambda: pick_device("auto"), lambda: pick_device("cpu")],
    ),
    ("synthetic/learned.py", "the whole set as it was distilled"): (
        lambda: evaluate_as_learned(LEARNED.select([0]), SMALL, device="cpu"),
        "the whole set as it was distilled",
        [lambda: evaluate_as_learned(LEARNED, SMALL, repeats=1, device="cpu")],
    ),
}


@pytest.mark.parametrize(("module", "advice"), CASES)
def test_advice_leads_to_success(module: str, advice: str) -> None:
    refused, says, followed = CASES[module, advice]
    with pytest.raises(errors.DdplugError) as caught:
        refused()
    found = ADVICE.search(str(caught.value))
    assert found is not None and found[1].endswith(says)
    for call in followed:
        call()


def test_all_advice_is_followed() -> None:
    new = {where for where in given() if where[0] not in ELSEWHERE} - CASES.keys()
    assert new == {
        ("distillation/checkpoint.py", "another path, or start over with resume=False (--no-resume)"),
        # of another machine
        (
            "evaluation/learned.py",
            "the same architecture and the versions it was made with ({}), or train by its recipe",
        ),
    }, "follow it in CASES"


def test_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    distill(SMALL, "random", checkpoint=tmp_path / "run", **OPTIONS)
    other: dict[str, Any] = {**OPTIONS, "images_per_class": 2}
    with pytest.raises(errors.CheckpointError, match=r"use another path, or start over with resume=False"):
        distill(SMALL, "random", checkpoint=tmp_path / "run", **other)
    distill(SMALL, "random", checkpoint=tmp_path / "other", **other)
    distill(SMALL, "random", checkpoint=tmp_path / "run", resume=False, **other)


def numbers_in(error: pytest.ExceptionInfo[errors.OptionError], pattern: str) -> int:
    found = re.search(pattern, str(error.value))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("codec", [None, "pixels:bits=8", "avif", "plain:bits=4,factor=2"])
def test_bytes_that_are_said_to_suffice_do(codec: str | None) -> None:
    data = toy_images((6, 7), size=12)
    with pytest.raises(errors.OptionError) as caught:
        distill(data, "random", nbytes=20, codec=codec, device="cpu")
    enough = numbers_in(caught, r"; allow (\d+) or more")
    assert distill(data, "random", nbytes=enough, codec=codec, device="cpu").nbytes <= enough


@pytest.mark.filterwarnings("ignore:.*some serve more than once")
@pytest.mark.parametrize("factor", [1, 2])
def test_images_that_are_said_to_be_there_are(factor: int) -> None:
    options: dict[str, Any] = {**DMS, "network": "mlp", "factor": factor, "init_from": "real"}
    with pytest.raises(errors.OptionError) as caught:
        distill(SMALL, "dm", **{**options, "images_per_class": 9})
    most = numbers_in(caught, r"; ask for at most (\d+)")
    assert len(distill(SMALL, "dm", **{**options, "images_per_class": most})) == 2 * most * factor**2


def test_a_named_option_is_one() -> None:
    with pytest.raises(errors.OptionError) as caught:
        distill(SMALL, "random", images_per_clas=1, device="cpu")
    found = re.search(r"did you mean '(\w+)'", str(caught.value))
    assert found is not None
    options: dict[str, Any] = {found[1]: 1}
    assert len(distill(SMALL, "random", device="cpu", **options)) == 2


@pytest.mark.parametrize(
    ("options", "says", "instead"),
    [
        (
            {"network": "convnet"},
            "convnet needs (C, H, W) images, not inputs of shape (6,); use mlp",
            {"network": "mlp"},
        ),
        ({"network": "resnet18"}, "use mlp", {"network": "mlp"}),
        ({"network": "mlp", "factor": 2}, "use factor=1", {"factor": 1, "network": "mlp"}),
    ],
)
def test_rows_of_a_table(options: dict[str, Any], says: str, instead: dict[str, Any]) -> None:
    with pytest.raises(errors.OptionError, match=re.escape(says)):
        distill(ROWS, "dm", **{**DMS, **options})
    assert len(distill(ROWS, "dm", **{**DMS, **instead})) == 2
