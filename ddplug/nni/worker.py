"""The trial process of a :class:`ddplug.nni.experiment.ProxyExperiment`: say which candidate came, then execute it.

Run as ``python -m ddplug.nni.worker FRAMEWORK THREADS``; what follows is ignored. Two environment variables are set
before anything heavy is imported, unless they are set already: ``NNI_FRAMEWORK`` to ``FRAMEWORK``, since ``none``
halves the time that NNI takes to import, and ``OMP_NUM_THREADS`` to ``THREADS``, so that trials at once do not fight
for cores.
"""

from __future__ import annotations

import os
import sys
import warnings

__all__ = ["main"]


def main(framework: str, threads: str) -> None:
    """Take a candidate from the training service, name it to the engine, and execute it.

    Args:
        framework: for ``NNI_FRAMEWORK``.
        threads: for ``OMP_NUM_THREADS``; ``"0"`` leaves it alone.

    Raises:
        RuntimeError: the training service has no candidate for this process.
    """
    os.environ.setdefault("NNI_FRAMEWORK", framework)
    if threads != "0":
        os.environ.setdefault("OMP_NUM_THREADS", threads)
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
    main(sys.argv[1], sys.argv[2])
