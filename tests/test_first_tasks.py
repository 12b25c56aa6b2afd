"""The ten first tasks are done by the lines of their page, as they stand there, but for how long they take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddplug
from ddplug.cli.program import main
from tests.synthetic.test_hub import Hub, hub

__all__ = ["hub"]

PAGE = (Path(__file__).parents[1] / "docs" / "first-tasks.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
TASKS = {name.lower().replace(" ", "-"): text for name, text in SECTIONS.items()}

SHORTER: Mapping[str, str] = {
    " --bytes 20kB": " --bytes 2kB",
    " --images-per-class 2": " --images-per-class 2 --steps 3",
    '"dm", images_per_class=2': '"dm", images_per_class=2, steps=3, pool_size=2',
    'recipe="quick"': 'recipe=ddplug.Recipe(epochs=2), repeats=1, network="mlp:width=8"',
    " --repeats 3": " --repeats 1 --network mlp:width=4 --whole-steps 3",
    " --to table.tex": " --repeats 1 --network mlp:width=4 --whole-steps 3 --to table.tex",
    "mem_size=10": "mem_size=10, evaluator=evaluator",
    "steps=40": "steps=2",
    "n_trials=20": "n_trials=2",
    '"you/photos", license="cc-by-4.0"': '"me/digits", license="cc-by-4.0", token="t", endpoint=endpoint',
}
"""What takes long, or leaves this machine -> what stands for it here."""


def photos(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    for name, shade in (("cats", 60), ("dogs", 180)):
        (folder / "photos" / name).mkdir(parents=True)
        for k in range(5):
            side = 33 + 3 * k
            pixels = np.clip(rng.normal(shade, 20, (side, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{k}.jpg")
    return {}


def photo_set(folder: Path) -> dict[str, Any]:
    photos(folder)
    data = ddplug.load_dataset("imagefolder:photos", size=32)
    made = ddplug.distill(data, "random", images_per_class=1)
    replace(made, recipe=ddplug.Recipe(epochs=2)).save(folder / "photos.safetensors")
    return {}


def sensors(folder: Path) -> dict[str, Any]:
    rows = (f"{k % 7 + 10 * (k % 2)},{k % 5},{'hot' if k % 2 else 'cold'}\n" for k in range(60))
    (folder / "sensors.csv").write_text("heat,noise,state\n" + "".join(rows))
    return {}


def arrays(name: str, *shape: int) -> Any:
    def write(folder: Path) -> dict[str, Any]:
        y = np.arange(40) % 2
        x = np.random.default_rng(0).normal(size=(40, *shape)) + y.reshape(-1, *(1 for _ in shape))
        np.savez(folder / name, x=x.astype(np.float32), y=y)
        return {}

    return write


def stream(folder: Path) -> dict[str, Any]:
    benchmarks = pytest.importorskip("avalanche.benchmarks", reason="Avalanche is not installed")
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.logging import BaseLogger
    from avalanche.models import SimpleMLP
    from avalanche.training.plugins import EvaluationPlugin

    data = ddplug.load_dataset("digits").subset(torch.arange(60))
    dataset: Any = torch.utils.data.TensorDataset(data.batch(torch.arange(60)), data.targets)
    dataset.targets = data.targets.tolist()
    model = SimpleMLP(num_classes=10, input_size=64, hidden_size=8)
    return {
        "benchmark": benchmarks.nc_benchmark(dataset, dataset, 2, task_labels=False, fixed_class_order=[*range(10)]),
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.05),
        "criterion": torch.nn.CrossEntropyLoss(),
        "evaluator": EvaluationPlugin(accuracy_metrics(stream=True), loggers=[BaseLogger()]),
    }


def tuning(folder: Path) -> dict[str, Any]:
    pytest.importorskip("optuna", reason="Optuna is not installed").logging.set_verbosity(40)
    train, rest = ddplug.load_dataset("digits").split(0.2)
    return {
        "rest": rest,
        "small": ddplug.distill(train, "random", images_per_class=1),
        "define": lambda trial: ("mlp:width=4", {"learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1)}),
    }


BEFORE: Mapping[str, Any] = {
    "your-own-photos": photos,
    "a-csv-file": sensors,
    "embeddings": arrays("features.npz", 6),
    "time-series": arrays("windows.npz", 1, 16),
    "compare-with-random-images": photo_set,
    "a-memory-for-avalanche": stream,
    "tune-with-optuna": tuning,
    "load-a-ready-set": lambda folder: {},
    "put-a-set-on-a-hub": photo_set,
    "a-table-for-latex": photo_set,
}
"""Task -> writes what its reader has already, and returns the names of his script."""


def lines(task: str) -> tuple[str, list[str]]:
    """Return the language of a task's one block, and its lines; one that goes on below is one."""
    ((language, block),) = re.findall(r"^```(bash|python)\n(.*?)^```", TASKS[task], re.MULTILINE | re.DOTALL)
    return language, [line for line in block.replace("\\\n", "").splitlines() if line]


def check(task: str, found: Mapping[str, Any], out: str, server: Hub | None) -> None:
    """See that it was done."""
    if task == "your-own-photos":
        made = ddplug.load("photos.safetensors")
        assert (made.class_names, made.shape, made.nbytes <= 2000) == (("cats", "dogs"), (3, 32, 32), True)
    elif task == "a-csv-file":
        table = Path("rows.csv").read_text().splitlines()
        assert (table[0], len(table)) == ("heat,noise,state", 5)
    elif task in ("embeddings", "time-series"):
        made = found["rows" if task == "embeddings" else "windows"]
        assert (len(made), made.shape) == (4, (6,) if task == "embeddings" else (1, 16))
        assert re.search(r"\d\d\.\d", out)
    elif task == "compare-with-random-images":
        assert [out.count(name) for name in ("class-mean", "kmeans ", "whole data")] == [1, 1, 1]
    elif task == "a-memory-for-avalanche":
        assert 0 < found["strategy"].storage_policy.nbytes <= 10 * 65 * 4
    elif task == "tune-with-optuna":
        assert [trial.user_attrs["bytes"] for trial in found["study"].trials] == [found["small"].nbytes] * 2
    elif task == "load-a-ready-set":
        assert (len(found["mnist"]), round(found["mnist"].nbytes, -2)) == (530, 7800)
    elif task == "put-a-set-on-a-hub":
        assert server is not None
        assert server.files["README.md"].startswith(b"---\nlicense: cc-by-4.0\n")
    else:
        assert Path("table.tex").read_text().count("tabular") == 2
        assert Path("curve.pdf").read_bytes().startswith(b"%PDF")


def test_the_page_lists_ten_tasks_of_five_lines_and_the_test_of_each() -> None:
    assert list(TASKS) == list(BEFORE)
    assert re.findall(r"`test_task\[(.+?)\]`", PAGE) == list(TASKS)
    assert all(len(lines(task)[1]) <= (5 if lines(task)[0] == "python" else 2) for task in TASKS)
    assert all(any(cost in TASKS[task] for task in TASKS) for cost in SHORTER)


@pytest.mark.filterwarnings("ignore:.*deprecated function:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ddplug.utils.notes.Note")
@pytest.mark.parametrize("task", BEFORE)
def test_task(
    task: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    server = request.getfixturevalue("hub") if task == "put-a-set-on-a-hub" else None
    language, block = lines(task)
    source = "\n".join(block)
    for cost, less in SHORTER.items():
        source = source.replace(cost, less)
    with torch.random.fork_rng():
        names = {"endpoint": server and server.address, **BEFORE[task](tmp_path)}
        if language == "python":
            exec(compile(source, task, "exec"), names)
        else:
            assert [main(shlex.split(line)[1:]) for line in source.splitlines()] == [0] * len(block)
    check(task, names, capsys.readouterr().out, server)
