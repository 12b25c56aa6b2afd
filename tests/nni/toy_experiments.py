"""Whole experiments of NNI, each in a process of its own: NNI leaves log handlers, sockets and settings behind."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(name: str, folder: Path, *files: Path, timeout: float = 600) -> Any:
    """Run one of the functions below in a new process and give what it returned; nothing is left running."""
    command = [sys.executable, "-m", __name__, name, str(folder), *map(str, files)]
    home = {"HOME": str(folder), "NNI_CONFIG_DIR": str(folder / "nni"), "PYTHONPATH": str(ROOT)}
    settings = {**os.environ, **home, "NNI_FRAMEWORK": "none", "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("w") as output:
        started = subprocess.Popen(
            command, cwd=ROOT, env=settings, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            started.wait(timeout)
        finally:
            # the manager, if the experiment did not stop it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
    answer = folder / "answer.json"
    assert answer.exists(), (folder / "output.txt").read_text()[-3000:]
    return json.loads(answer.read_text())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _config(folder: Path, engine: str, trials: int) -> Any:
    from nni.nas.experiment import NasExperimentConfig

    config = NasExperimentConfig(*(("ts", "simplified", "local") if engine == "ts" else (engine, "simplified")))
    config.experiment_working_directory = str(folder / "experiments")
    config.max_trial_number = trials
    if engine == "ts":
        config.trial_concurrency = 2
        config.training_service.use_active_gpu = False
    return config


def _run(make: Callable[[], Any], ask: Callable[[Any], Any]) -> Any:
    """Run an experiment and ask it something before it stops; on a busy machine wait for its manager, or try again."""
    from ddplug.nni.running import patient

    for attempt in range(5):
        experiment = make()
        try:
            with patient(experiment.id):
                experiment.run(port=free_port())
            return ask(experiment)
        except (OSError, RuntimeError):  # a port that was taken meanwhile, or a tuner that took more than 10 seconds
            if attempt == 4:
                raise
        finally:
            experiment.stop()
    raise AssertionError("unreachable")


def sequential(folder: Path, train: Path, validation: Path) -> Any:
    """Search widths and learning rates with NNI's own experiment; give what it knows of its models, and the best."""
    import nni
    from nni.nas.experiment import NasExperiment
    from nni.nas.strategy import GridSearch

    from ddplug.nni import ProxyEvaluator
    from tests.nni.toy_space import WidthSpace

    rate = nni.choice("rate", [0.01, 0.05])
    evaluator = ProxyEvaluator(train, validation, learning_rate=rate, journal=folder / "journal.jsonl")
    experiment = NasExperiment(WidthSpace(), evaluator, GridSearch(), _config(folder, "sequential", 10))
    experiment.run(port=free_port())
    models = [[model.sample, model.metric] for model in experiment._engine.list_models()]
    (best,) = experiment.export_top_models(top_k=1, formatter="dict")
    experiment.stop()
    return {"models": models, "best": best}


def misbehaving(folder: Path, train: Path, validation: Path) -> Any:
    """Search a space of trials that crash, hang and learn nothing, two at a time; give the interim metrics."""
    from nni.nas.experiment import NasExperiment
    from nni.nas.strategy import GridSearch

    from ddplug.nni import ProxyEvaluator
    from tests.nni.toy_space import KindSpace

    evaluator = ProxyEvaluator(train, validation, journal=folder / "journal.jsonl", time_limit=20, threads=1)
    space = KindSpace(("linear", "crash", "hang", "coin"))

    def search() -> Any:
        return NasExperiment(space, evaluator, GridSearch(), _config(folder, "ts", 4))

    metrics = _run(search, lambda experiment: experiment.get_job_metrics())
    return {
        trial: [float(metric.data) for metric in found if metric.type == "PERIODICAL"]
        for trial, found in metrics.items()
    }


def tuning(folder: Path, train: Path, validation: Path) -> Any:
    """Tune with the example's configuration, four trials; give parameters and metrics as NNI lists them."""
    from nni.experiment import Experiment, ExperimentConfig

    example = ROOT / "examples" / "nni_trial"
    config = ExperimentConfig.load(str(example / "config.yml"))
    # the last of an option given twice holds: the network and all else stay the example's
    files = {"--train": train, "--validation": validation, "--journal": folder / "journal.jsonl"}
    more = [text for option, path in files.items() for text in (option, str(path))]
    command = [sys.executable, *shlex.split(config.trial_command)[1:], *more, "--epochs", "20", "--device", "cpu"]
    config.trial_command = shlex.join(command)
    config.experiment_working_directory = str(folder / "experiments")
    config.max_trial_number = 4
    # a trial that is stopped early has no result to compare
    config.assessor.class_args["start_step"] = 100

    def listed(experiment: Any) -> Any:
        return [[dict(trial.parameter), trial.value] for trial in experiment.export_data()]

    return _run(lambda: Experiment(config), listed)


def own(folder: Path) -> Any:
    """Tune the folder's own trial over its own space, two trials; give parameters and metrics as NNI lists them."""
    from nni.experiment import Experiment, ExperimentConfig

    config = ExperimentConfig.load(str(ROOT / "examples" / "nni_trial" / "config.yml"))
    config.trial_command = shlex.join([sys.executable, "my_trial.py"])
    config.trial_code_directory = str(folder)
    config.search_space_file = str(folder / "search_space.json")
    config.experiment_working_directory = str(folder / "experiments")
    config.max_trial_number = 2
    return _run(
        lambda: Experiment(config),
        lambda experiment: [[dict(trial.parameter), trial.value] for trial in experiment.export_data()],
    )


if __name__ == "__main__":
    name, folder, *files = sys.argv[1:]
    result = globals()[name](Path(folder), *map(Path, files))
    Path(folder, "answer.json").write_text(json.dumps(result))
    # NNI's threads may outlive an experiment
    sys.stdout.flush()
    os._exit(0)
