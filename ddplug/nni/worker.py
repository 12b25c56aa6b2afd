"""The trial process of a :class:`ddplug.nni.experiment.ProxyExperiment`: say which candidate came, then execute it.

Run as ``python -m ddplug.nni.worker FRAMEWORK THREADS GPUS``; what follows is ignored. Environment variables are set
before anything heavy is imported: ``NNI_FRAMEWORK`` to ``FRAMEWORK``, since ``none`` halves the time that NNI takes to
import, and ``OMP_NUM_THREADS`` to ``THREADS``, so that trials at once do not fight for cores, both unless they are set
already; and ``CUDA_VISIBLE_DEVICES`` to one of ``GPUS``, which NNI itself would give to no trial or to all.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddplug.utils.allocator import keep_memory

__all__ = ["main", "take_gpu"]


_held: list[Any] = []
"""Files whose locks this process holds while it lives."""


def take_gpu(names: Sequence[str], folder: Path, trial: int) -> str:
    """Choose a GPU that no other trial on this machine holds; where all are held, one by the number of the trial.

    Args:
        names: of the GPUs, at least one.
        folder: that the trials share, for a lock each.
        trial: number of this one.

    Returns:
        The name; it is held until this process ends, however it does.
    """
    first = trial % len(names)
    ordered = [*names[first:], *names[:first]]
    try:
        import fcntl
    except ImportError:  # Windows
        return ordered[0]
    for name in ordered:
        lock = (folder / f"gpu-{name}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _held.append(lock)
        return name
    return ordered[0]


def main(framework: str, threads: str, gpus: str = "-") -> None:
    """Take a candidate from the training service, name it to the engine, and execute it.

    Args:
        framework: for ``NNI_FRAMEWORK``.
        threads: for ``OMP_NUM_THREADS``; ``"0"`` leaves it alone.
        gpus: names of the GPUs that trials share, joined by commas; ``"-"`` leaves them alone.

    Raises:
        RuntimeError: the training service has no candidate for this process.
    """
    os.environ.setdefault("NNI_FRAMEWORK", framework)
    if threads != "0":
        os.environ.setdefault("OMP_NUM_THREADS", threads)
    if gpus != "-":
        folder = Path(os.environ["NNI_SYS_DIR"]).parent
        trial = int(os.environ.get("NNI_TRIAL_SEQ_ID", "0"))
        os.environ["CUDA_VISIBLE_DEVICES"] = take_gpu(gpus.split(","), folder, trial)
    with warnings.catch_warnings():
        # a dozen at every import of NNI, which would pass for the last words of a trial that dies
        warnings.simplefilter("ignore")
        import nni
        import nni.trial
        from nni.runtime.trial_command_channel import get_default_trial_command_channel

        candidate = nni.get_next_parameter()
    if candidate is None:
        raise RuntimeError("the training service has no candidate for this trial")
    # the one kind of message that the manager passes on and does not store as a metric
    get_default_trial_command_channel().send_metric(
        type="REQUEST_PARAMETER",
        parameter_id=nni.trial._params["parameter_id"],
        trial_job_id=nni.get_trial_id(),
        sequence=0,
        value=None,
    )
    candidate.execute()


if __name__ == "__main__":
    keep_memory()
    main(*sys.argv[1:4])
