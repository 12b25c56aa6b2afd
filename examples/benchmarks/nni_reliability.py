"""What a search survives, and what the evaluator costs over a bare loop; writes nni-*.json, a row each.

    python examples/benchmarks/nni_reliability.py survival
    python examples/benchmarks/nni_reliability.py starts
    python examples/benchmarks/nni_reliability.py overhead

``survival``: 50 candidates through NNI's training service on this machine, two at a time; 5 raise, 2 hang, and once
the process of a trial is killed from outside. ``starts``: NNI's manager is started 20 times, for a search that asks for
no candidate, on a machine that something else keeps busy. ``overhead``: one candidate trained on the digits by the
evaluator, and by a loop of torch's own optimizer that scores at the end and nothing else, in pairs, in one warm
process, on one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from nni.nas.experiment import NasExperimentConfig
from nni.nas.nn.pytorch import LayerChoice, ModelSpace
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy.base import Strategy
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

import ddplug
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import DdplugError
from ddplug.networks.convnet import ConvNet
from ddplug.nni import ConvNetSpace, ProxyEvaluator, ProxyExperiment
from ddplug.search.journal import Journal
from examples.benchmarks.search_common import about, fresh, write

TRIALS, CRASH, HANG = 50, (3, 11, 19, 27, 35), (8, 30)
LIMIT = 30.0


class Member(nn.Module):
    """One of fifty candidates: it raises, hangs or classifies, each with a layer of another width."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 4 + number), nn.ReLU(), nn.Linear(4 + number, 10))

    def forward(self, x: Tensor) -> Any:
        """Do what its number says."""
        if self.number in CRASH:
            raise RuntimeError(f"candidate {self.number} is broken")
        while self.number in HANG:
            time.sleep(1)
        return self.body(x)


class Mixed(ModelSpace):
    """Fifty candidates, of which some raise and some hang."""

    def __init__(self) -> None:
        super().__init__()
        self.member = LayerChoice({str(n): Member(n) for n in range(TRIALS)}, label="number")

    def forward(self, x: Tensor) -> Any:
        """Do what the chosen member does."""
        return self.member(x)


def _files(folder: Path) -> tuple[Path, Path]:
    train, rest = ddplug.load_dataset("digits").split(0.2)
    paths = folder / "train.safetensors", folder / "validation.safetensors"
    ddplug.distill(train, Random(images_per_class=10)).save(paths[0])
    ddplug.holdout(rest).save(paths[1])
    return paths


def _kill_one(journal: Path, killed: list[int], over: threading.Event) -> None:
    """Once ten candidates are done, kill the next trial process that has trained nothing yet."""
    while not over.wait(0.2):
        if journal.exists() and len(Journal(journal).results()) >= 10:
            for process in psutil.Process().children(recursive=True):
                try:
                    command = process.cmdline()
                except psutil.Error:
                    continue
                # the interpreter itself, not the shell around it
                if command[1:3] == ["-m", "ddplug.nni.worker"] and time.time() - process.create_time() > 1:
                    process.kill()
                    killed.append(process.pid)
                    return


class Listed(Strategy):
    """Submits given samples of a space, in order."""

    def __init__(self, samples: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.samples = [dict(sample) for sample in samples]

    def extra_repr(self) -> str:
        return f"samples={len(self.samples)}"

    def _run(self) -> None:
        for sample in self.samples:
            if not self.wait_for_resource():
                return
            self.engine.submit_models(self.model_space.freeze(sample))

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples = list(state_dict["samples"])


def survival() -> dict[str, Any]:
    """Search through everything that goes wrong."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        evaluator = ProxyEvaluator(*_files(folder), epochs=20, time_limit=LIMIT, device="cpu", threads=1)
        listed = Listed([{"number": str(n)} for n in range(TRIALS)])
        # `check` takes one step with a sample, which must not hang
        config = NasExperimentConfig("ts", "simplified", "local")
        config.trial_concurrency, config.max_trial_number = 2, TRIALS
        config.training_service.use_active_gpu = False
        experiment = ProxyExperiment(Mixed(), evaluator, listed, config, folder=folder)
        killed: list[int] = []
        over = threading.Event()
        killer = threading.Thread(target=_kill_one, args=(folder / "journal.jsonl", killed, over))
        killer.start()
        began = time.monotonic()
        try:
            experiment.run()
        finally:
            over.set()
            killer.join()
        seconds = time.monotonic() - began
        results, failures = experiment.results, experiment.failures
        # each again in this process: the weights and the order depend on the seed alone
        alone = {}
        for record in results[::7]:
            network = ProxyEvaluator(*_files(folder), epochs=20, device="cpu")
            again = ProxyExperiment(Mixed(), network, Listed([record.sample]), trials=1, folder=folder / "again")
            again.run()
            alone[record.sample["number"]] = again.journal.results()[-1].metric == record.metric
    return {
        "title": "A search through crashes, hangs and a kill",
        "claim": "Wanted: the search ends with 43 or more results, all under the right candidate, all failures named.",
        "rows": [
            {
                "candidates": TRIALS,
                "raise": len(CRASH),
                "hang": len(HANG),
                "killed": len(killed),
                "results": len(results),
                "failures": len(failures),
                "seconds": round(seconds, 1),
                "equal when trained alone": f"{sum(alone.values())} of {len(alone)}",
            }
        ],
        "failures": {record.sample["number"]: record.failure for record in failures},
        "killed processes": len(killed),
    }


def starts(times: int = 20) -> dict[str, Any]:
    """Start NNI's manager again and again."""
    load, seconds, reasons = os.getloadavg()[0], list[float](), list[str]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        evaluator = ProxyEvaluator(*_files(folder), epochs=1, device="cpu")
        config = NasExperimentConfig("ts", "simplified", "local")
        config.trial_concurrency, config.max_trial_number = 2, 1
        config.training_service.use_active_gpu = False
        for number in range(times):
            experiment = ProxyExperiment(Mixed(), evaluator, Listed([]), config, folder=folder / str(number))
            began = time.monotonic()
            try:
                experiment.start()
                seconds.append(time.monotonic() - began)
            except DdplugError as error:
                reasons.append(str(error))
            finally:
                experiment.stop()
    return {
        "title": "Starts of NNI's manager on a busy machine",
        "claim": "Wanted: 20 of 20. NNI itself gives its manager about 3 seconds.",
        "rows": [
            {
                "starts": times,
                "came up": len(seconds),
                "seconds, median": round(statistics.median(seconds), 1) if seconds else None,
                "seconds, greatest": round(max(seconds), 1) if seconds else None,
                "after 3 seconds": sum(value > 3 for value in seconds),
                "load average before": round(load, 1),
            }
        ],
        "failures": reasons,
    }


def _bare(network: nn.Module, train: Any, validation: Any, recipe: Any) -> float:
    """Train and score as a script would."""
    x, y = train.inputs, train.targets
    optimizer = torch.optim.SGD(network.parameters(), recipe.learning_rate, recipe.momentum, 0, recipe.weight_decay)
    network.train()
    half = recipe.epochs // 2 + 1
    for epoch in range(recipe.epochs):
        if epoch == half:
            for group in optimizer.param_groups:
                group["lr"] *= 0.1
        for index in torch.randperm(len(x)).split(recipe.batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[index]), y[index]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        right = sum(
            int((network(a).argmax(1) == b).sum())
            for a, b in zip(validation.inputs.split(256), validation.targets.split(256), strict=True)
        )
    return right / len(validation)


def overhead(repeats: int = 9) -> dict[str, Any]:
    """Compare in pairs."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        paths = _files(folder)
        space = ConvNetSpace((1, 8, 8), 10, widths=(16, 32), depths=(2,))
        sample = {"width": 32, "depth": 2, "norm": "instance", "activation": "relu", "pooling": "avg"}
        evaluator = ProxyEvaluator(*paths, epochs=60, augment="", device="cpu")
        train, validation = evaluator.sets()
        recipe = evaluator.protocol.recipe(train.recipe)
        ratios, ours, theirs = [], [], []
        model = SimplifiedModelSpace.from_model(space, evaluator).freeze(sample)
        for repeat in range(repeats + 1):
            began = time.process_time()
            model.execute()
            mine = time.process_time() - began
            began = time.process_time()
            _bare(ConvNet((1, 8, 8), 10, width=32, depth=2), train, validation, recipe)
            bare = time.process_time() - began
            if repeat:  # the first pair warms the process
                ours.append(mine)
                theirs.append(bare)
                ratios.append(mine / bare)
    return {
        "title": "The evaluator beside a bare loop",
        "claim": "Wanted: an overhead under 5 % once a process is warm.",
        "rows": [
            {
                "evaluator, median (CPU s)": round(statistics.median(ours), 3),
                "bare loop, median (CPU s)": round(statistics.median(theirs), 3),
                "ratio, median": round(statistics.median(ratios), 3),
                "ratio, least": round(min(ratios), 3),
                "ratio, greatest": round(max(ratios), 3),
                "pairs": len(ratios),
            }
        ],
    }


BENCHMARKS = {"survival": survival, "starts": starts, "overhead": overhead}


def main() -> None:
    """Run what has no file yet, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=BENCHMARKS)
    parser.add_argument("--row", choices=BENCHMARKS, help="another one: each has one row")
    parser.add_argument("--out", type=Path, help="folder for the result (default: a new one)")
    arguments = parser.parse_args()
    name = arguments.row or arguments.benchmark
    path = fresh(arguments.out, "nni-reliability") / f"nni-{name}.json"
    if path.exists():
        print(f"all rows are there already: {path}")
        return
    began = time.monotonic()
    found = BENCHMARKS[name]()
    found["how"] = f"python examples/benchmarks/nni_reliability.py {name}"
    found["seconds"] = round(time.monotonic() - began, 1)
    found |= about()
    found["versions"]["nni"] = version("nni")
    write(path, found)
    print(json.dumps(found["rows"][0]))


if __name__ == "__main__":
    main()
