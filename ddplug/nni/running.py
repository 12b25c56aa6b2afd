"""How a search is configured, where its manager listens, and how it ends when it is told to."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from nni.nas.experiment.config import NasExperimentConfig, TrainingServiceEngineConfig

from ddplug.errors import OptionError

__all__ = ["configured", "end_children", "free_port", "run_workers", "terminable"]


def configured(trials: int, concurrency: int, place: Path | None) -> Any:
    """Configure a search in this process, or on this machine."""
    for name, value in (("trials", trials), ("concurrency", concurrency)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise OptionError(f"{name} is {value!r}; it must be a whole number of at least 1")
    if concurrency == 1:
        config = NasExperimentConfig("sequential", "simplified")
    else:
        config = NasExperimentConfig("ts", "simplified", "local")
        config.trial_concurrency = concurrency
        config.training_service.use_active_gpu = False
    config.max_trial_number = trials
    if place is not None:
        config.experiment_working_directory = str(place / "nni")
    return config


def run_workers(config: Any, evaluator: Any) -> None:
    """Have trials run :mod:`ddplug.nni.worker`, without the parts of NNI that they can do without."""
    if not isinstance(config.execution_engine, TrainingServiceEngineConfig):
        return
    params = dict(config._trial_command_params or {})
    lightning = type(evaluator).__module__.startswith("nni.nas.evaluator.pytorch")
    light = config.model_format.name == "simplified" and not lightning
    local = getattr(config.training_service, "platform", None) == "local"
    threads = max(1, (os.cpu_count() or 1) // int(config.trial_concurrency)) if local else 0
    python = params.get("python", sys.executable)
    params["python"] = f"{python} -m ddplug.nni.worker {'none' if light else 'pytorch'} {threads}"
    config._trial_command_params = params


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
