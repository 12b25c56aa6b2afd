"""How a search is configured, where its manager listens, and how it ends when it is told to."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from nni.experiment import launcher, rest
from nni.nas.experiment.config import NasExperimentConfig, TrainingServiceEngineConfig

from ddplug.errors import OptionError
from ddplug.search.workers import Workers
from ddplug.utils.checks import scalar
from ddplug.utils.devices import visible_gpus

__all__ = [
    "SlowStartError",
    "configured",
    "end_children",
    "free_port",
    "patient",
    "run_workers",
    "terminable",
    "warm_workers",
]


def configured(trials: int, concurrency: int, place: Path | None) -> Any:
    """Configure a search without a manager of NNI's."""
    trials, concurrency = (scalar(number) for number in (trials, concurrency))
    for name, value in (("trials", trials), ("concurrency", concurrency)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise OptionError(f"{name} is {value!r}; it must be a whole number of at least 1")
    config = NasExperimentConfig("sequential", "simplified")
    config.max_trial_number = trials
    if place is not None:
        config.experiment_working_directory = str(place / "nni")
    return config


def _framework(config: Any, evaluator: Any) -> str:
    """Return what trials import NNI for: ``none`` halves the time that takes, where nothing of Lightning is needed."""
    lightning = type(evaluator).__module__.startswith("nni.nas.evaluator.pytorch")
    return "none" if config.model_format.name == "simplified" and not lightning else "pytorch"


_WARNINGS = "ignore::RuntimeWarning:nni.nas.nn.pytorch.layers"
"""What NNI says of today's torch whenever it is imported."""


def warm_workers(number: int, config: Any, evaluator: Any) -> Workers:
    """Start warm processes for the candidates of a search."""
    framework = os.environ.get("NNI_FRAMEWORK", _framework(config, evaluator))
    threads = getattr(evaluator, "threads", None)
    quiet = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), _WARNINGS)))
    return Workers(number, threads=threads, environment={"NNI_FRAMEWORK": framework, "PYTHONWARNINGS": quiet})


def run_workers(config: Any, evaluator: Any) -> None:
    """Have trials run :mod:`ddplug.nni.worker`, without the parts of NNI that they can do without."""
    if not isinstance(config.execution_engine, TrainingServiceEngineConfig):
        return
    params = dict(config._trial_command_params or {})
    local = getattr(config.training_service, "platform", None) == "local"
    threads = max(1, (os.cpu_count() or 1) // int(config.trial_concurrency)) if local else 0
    python = params.get("python", sys.executable)
    gpus = visible_gpus() if local and not config.trial_gpu_number else []
    shared = ",".join(gpus) if len(gpus) > 1 else "-"
    params["python"] = f"{python} -m ddplug.nni.worker {_framework(config, evaluator)} {threads} {shared}"
    config._trial_command_params = params


class SlowStartError(RuntimeError):
    """NNI's manager lives, and did not answer in all the time that it had."""


_PATIENCE = 60.0
"""Seconds that NNI's manager has to come up while it lives; NNI itself gives it three, too few on a busy machine."""
_PAUSE = 0.5
"""Seconds between two looks at it."""


@contextmanager
def patient(experiment: str) -> Iterator[None]:
    """Have NNI wait for its manager as long as that lives.

    Args:
        experiment: its name, which the manager has among its arguments.
    """
    before = launcher._check_rest_server
    launcher._check_rest_server = partial(_await_manager, experiment)
    try:
        yield
    finally:
        launcher._check_rest_server = before


def _await_manager(experiment: str, port: int, retry: int = 3, url_prefix: str | None = None) -> None:
    """Return when the manager answers; NNI calls this in the place of its own look."""
    began = time.monotonic()
    while True:
        try:
            rest.get(port, "/check-status", url_prefix)
            return
        except OSError as error:  # those of the connection, and answers that are no success
            if not _manager_lives(experiment):
                raise RuntimeError("it ended by itself") from error
            if time.monotonic() - began > _PATIENCE:
                raise SlowStartError(f"it did not answer within {_PATIENCE:.0f} s") from error
        time.sleep(_PAUSE)


def _manager_lives(experiment: str) -> bool:
    """Return whether the manager of an experiment runs."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if experiment in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def free_port() -> int:
    """Find a port that nobody listens on, nor on the next one, which some training services take too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def end_children(experiment: str) -> None:
    """Kill what is left of an experiment's manager, if it could not be stopped or was interrupted as it started."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if experiment in child.cmdline():
                for process in (child, *child.children(recursive=True)):
                    process.kill()
                child.wait(10)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, as the one exception that NNI's engines let through."""


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the manager is stopped; where signals can be handled at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except _TerminatedError:
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before)
