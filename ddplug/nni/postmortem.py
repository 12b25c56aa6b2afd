"""What is known of a candidate that failed without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddplug.nni.engine import ProxyEngine
from ddplug.utils.text import one_line

__all__ = ["last_words", "manager_words"]

_TAIL = 300
"""Characters of a trial's last words."""

_ENDS = {
    "FAILED": "failed",
    "SUCCEEDED": "ended",
    "USER_CANCELED": "was killed",
    "SYS_CANCELED": "was cancelled",
    "EARLY_STOPPED": "was stopped at its time limit",
}
"""What NNI calls the ends of a trial."""


def last_words(engine: Any, model: Any, home: Path) -> str:
    """Return in one line what is known of a candidate that failed without a word.

    Args:
        engine: that ran it.
        model: the candidate.
        home: folder of NNI's own files of the experiment.
    """
    if not isinstance(engine, ProxyEngine):
        return str(engine.reasons.get(id(model), "it failed in this process without a message; see experiment.log"))
    ending = engine.ending(model)
    if ending is not None:
        return f"{_end(*ending)} without a message{_tail(home, ending[0])}"
    if not engine.unheard:
        return "no trial took it"
    last = engine.unheard[-1]
    return f"no trial took it: {len(engine.unheard)} died before that; {_end(*last)}{_tail(home, last[0])}"


def _end(trial: str, status: str) -> str:
    """Return how a trial ended."""
    return f"trial {trial} {_ENDS.get(status, status)}"


_LOGS = ("nnimanager.log", "nnictl_stderr.log", "experiment.log")
"""Where NNI's manager may have said why it ended, the likeliest first."""


def manager_words(home: Path) -> str:
    """Return the last error that NNI's manager wrote down, to be put behind a message; nothing where there is none.

    Args:
        home: folder of NNI's own files of the experiment.
    """
    for path in (home / "log" / name for name in _LOGS):
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        errors = [line.strip() for line in lines if "ERROR" in line or "Error: " in line]
        if errors:
            return f"; {path.name} says: {one_line(errors[-1])[:_TAIL]}"
    return ""


def _tail(home: Path, trial: str) -> str:
    """Quote the last line that a trial wrote to its standard error, where it can be read."""
    for path in home.glob(f"environments/*/trials/{trial}/trial.stderr"):
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return f"; its stderr ends: {lines[-1][-_TAIL:]}"
    return ""
