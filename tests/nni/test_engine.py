"""Trials at once through NNI's real training service: whose metric is whose, in the stock engine and in ours.

The experiments here take from half a minute to a minute each, nearly all of it the start of trial processes.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from ddplug.errors import OptionError
from ddplug.utils.randomness import temporary_seed
from tests.nni.toy_search import SLOW_START, ToyEvaluator, executed, toy_space, true_metric

with temporary_seed(0):
    import nni.nas.strategy as strategies
    from nni.nas.experiment import NasExperiment
    from nni.nas.experiment.config import NasExperimentConfig

    from ddplug.nni import ProxyExperiment
    from ddplug.nni.running import free_port, patient

ROOT = Path(__file__).parents[2]

# What a started manager and its trials leave to the garbage collector is not ours to close.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def managers() -> set[int]:
    """Processes of NNI's manager that this one, or a child of it, started."""
    return {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "nni_node" in " ".join(process.info["cmdline"] or []) and str(os.getpid()) in _marks(process)
    }


def _marks(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("DDPLUG_TEST_OWNER", ""))
    except psutil.Error:
        return ""


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    return tmp_path / "trail"


@pytest.fixture(autouse=True)
def forced_order(tmp_path: Path, trail: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Have the first trial ask after another, and some die before they ask; check that no manager is left."""
    place = tmp_path / "first"
    place.mkdir()

    def force(*dead: str) -> None:
        (place / "sitecustomize.py").write_text(SLOW_START.format(trail=str(trail), dead=dead))

    force()
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", f"{place}{os.pathsep}{ROOT}")
    monkeypatch.setenv("DDPLUG_TEST_OWNER", str(os.getpid()))
    monkeypatch.setenv("NNI_FRAMEWORK", "none")
    yield force
    deadline = time.monotonic() + 60
    while managers() and time.monotonic() < deadline:
        time.sleep(0.2)
    left = managers()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def by_trial(trail: Path) -> dict[str, int]:
    """What each trial wrote down itself: its name and the width that it received."""
    lines = [line.split() for line in trail.read_text().splitlines()]
    return {trial: int(width) for trial, width in lines}


def training_service(trials: int, concurrency: int, folder: Path) -> Any:
    """Have NNI's own training service run trials."""
    config = NasExperimentConfig("ts", "simplified", "local")
    config.trial_concurrency = concurrency
    config.max_trial_number = trials
    config.training_service.use_active_gpu = False
    config.experiment_working_directory = str(folder / "nni")
    return config


def test_the_stock_engine_takes_metrics_for_those_of_other_candidates(trail: Path, tmp_path: Path) -> None:
    config = training_service(3, 2, tmp_path)
    experiment = NasExperiment(toy_space(), ToyEvaluator(str(trail)), strategies.Random(seed=0), config)
    state = random.getstate()
    try:
        # NNI itself gives up after three seconds, too few on a busy machine
        with patient(experiment.id):
            experiment.run(free_port())
        believed = {model.sample["width"]: model.metric for model in experiment.export_top_models(9)}
    finally:
        experiment.stop()
        # NNI's connection to its manager draws from it every 20 seconds
        random.setstate(state)
    assert set(believed) == set(by_trial(trail).values())
    # the fault: as soon as this fails, NNI has been mended and our engine has lost its reason
    assert any(metric != true_metric(width) for width, metric in believed.items())


def test_pairs_are_true_whatever_trials_do(
    trail: Path, tmp_path: Path, forced_order: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first attempt to start the manager meets a port that is taken
    taken = socket.create_server(("localhost", 0))
    ports = iter([taken.getsockname()[1]])
    monkeypatch.setattr("ddplug.nni.experiment.free_port", lambda: next(ports, None) or free_port())
    # the third trial dies before it asks; widths that evolution does not begin with, but comes to
    forced_order("2")
    evolution = strategies.RegularizedEvolution(population_size=4, sample_size=2, mutation_prob=1.0, seed=0)
    space = toy_space(8)
    first = list(dict.fromkeys(_first_widths(4)))
    late = [str(width) for width in range(1, 9) if width not in first]
    fates = dict(zip(late, ("raise", "die", "complain", "die once"), strict=True))
    evaluator = ToyEvaluator(str(trail), fates)
    config = training_service(8, 3, tmp_path)
    experiment = ProxyExperiment(space, evaluator, evolution, config, folder=tmp_path / "search")
    assert experiment.run() is True
    taken.close()

    received = by_trial(trail)
    # one more trial for each that died without a word; the candidate that was left over got one too
    assert sorted(received.values()) == sorted([*range(1, 9), *map(int, late[1:])])
    alive = {*first, int(late[3])}
    # the journal, what is exported, what the strategy was told, and the engine's own view: all the same, all true
    expected = {width: true_metric(width) for width in alive}
    assert {record.sample["width"]: record.metric for record in experiment.results} == expected
    models = experiment.export_top_models(9)
    assert {model.sample["width"]: model.metric for model in models} == expected
    assert [model.metric for model in models] == sorted(expected.values(), reverse=True)
    for model in experiment._engine.submitted:
        width = model.sample["width"]
        assert model.metric == expected.get(width)
        assert model.status.value == ("trained" if width in expected else "failed")
        assert model.metrics.intermediates == ([true_metric(width) / 2] if width in expected else [])
        ending = experiment._engine.ending(model)
        assert (received[ending[0]] == width) if ending is not None else width not in received.values()
    assert len(evolution._population) == 4
    assert [one.y for one in evolution._population] == [true_metric(one.x["width"]) for one in evolution._population]
    # every failure is named
    reasons = {record.sample["width"]: str(record.failure) for record in experiment.failures}
    assert set(reasons) == set(map(int, late[:3]))
    texts = {
        "raise": "RuntimeError: bad luck",
        "die": "was killed without a message",
        "complain": "its stderr ends: RuntimeError: bad luck that nobody wrote down",
    }
    for width, reason in reasons.items():
        assert texts[fates[str(width)]] in reason

    # the same folder, with what failed mended: only that is trained, here in this process
    before = executed(trail)
    again = strategies.GridSearch()
    mended = ProxyExperiment(space, ToyEvaluator(str(trail)), again, trials=8, folder=tmp_path / "search")
    assert mended.run() is True
    assert sorted(executed(trail)[len(before) :]) == sorted(reasons)
    assert {record.sample["width"]: record.metric for record in mended.results} == {
        width: true_metric(width) for width in range(1, 9)
    }
    assert mended.failures == []


def _first_widths(number: int) -> list[int]:
    """Widths that an evolution of seed 0 begins with, in a space of eight."""
    import numpy as np
    from nni.nas.space import SimplifiedModelSpace

    space = SimplifiedModelSpace.from_model(toy_space(8))
    state = np.random.RandomState(0)
    found: list[int] = []
    while len(found) < number:
        width = space.random(random_state=state).sample["width"]
        found += [] if width in found else [width]
    return found


SCRIPT = """
import sys
from pathlib import Path
import nni.nas.strategy as strategies
from ddplug.nni import ProxyExperiment
from tests.nni.test_engine import training_service
from tests.nni.toy_search import ToyEvaluator, ToySpace
if __name__ == "__main__":
    fates = {str(width): "hang" for width in range(2, 13)}
    strategy = strategies.GridSearch(shuffle=False)
    evaluator = ToyEvaluator(sys.argv[1], fates)
    config = training_service(12, 2, Path(sys.argv[2]))
    ProxyExperiment(ToySpace(), evaluator, strategy, config, folder=sys.argv[2]).run()
"""


@pytest.fixture
def told_to_terminate(trail: Path, tmp_path: Path) -> Iterator[Any]:
    """Start a search whose second candidate hangs, as a process of its own."""
    log = tmp_path / "log"
    with log.open("w") as out:
        search = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(trail), str(tmp_path / "search")],
            stdout=out,
            stderr=out,
            cwd=ROOT,
        )

    def terminate(ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 150
        while not ready():
            assert search.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert managers()
        search.send_signal(signal.SIGTERM)
        assert search.wait(timeout=600) == 128 + signal.SIGTERM, log.read_text()

    yield terminate
    if search.poll() is None:
        search.kill()
        search.wait()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_search_that_is_told_to_terminate_loses_nothing(trail: Path, tmp_path: Path, told_to_terminate: Any) -> None:
    folder = tmp_path / "search"
    told_to_terminate(lambda: len(executed(trail)) >= 2 and (folder / "journal.jsonl").exists())
    evaluator = ToyEvaluator(str(trail))
    after = ProxyExperiment(toy_space(), evaluator, strategies.GridSearch(shuffle=False), folder=folder)
    assert [(record.sample["width"], record.metric) for record in after.results] == [(1, true_metric(1))]
    assert after.failures == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_search_that_is_told_to_terminate_as_it_starts_leaves_no_manager(told_to_terminate: Any) -> None:
    told_to_terminate(lambda: bool(managers()))


def test_a_port_that_is_taken_is_refused_and_nothing_is_left(trail: Path, tmp_path: Path) -> None:
    config = training_service(20, 2, tmp_path)
    experiment = ProxyExperiment(
        toy_space(), ToyEvaluator(str(trail)), strategies.Random(), config, folder=tmp_path / "search"
    )
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(OptionError, match=f"port {port} is in use; leave it out"):
            experiment.run(port)
    assert executed(trail) == []
