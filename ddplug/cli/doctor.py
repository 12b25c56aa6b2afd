"""``ddplug doctor``: what is installed, what is known to be broken in it, and what to do."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from ddplug.cli.commands import Answer
from ddplug.utils.arguments import Parser
from ddplug.utils.packages import FILELOCK, dotted, install_extra, is_at_least, leading_numbers, version_of
from ddplug.utils.text import wrapped

__all__ = ["PACKAGES", "Finding", "configure", "examine", "installed", "run"]


def configure(parser: Parser, argv: list[str]) -> list[str]:
    """Add no option."""
    return argv


def run(arguments: argparse.Namespace) -> Answer:
    """Look, and give a row for everything that was looked at."""
    rows = examine()
    lines = [("what", "status", "found, and what to do")]
    for row in rows:
        lines.append((row.name, row.status, row.found))
        lines += [("", "", f"-> {row.advice}")] if row.advice else []
    return Answer({"checks": [asdict(row) for row in rows]}, wrapped(lines))


Versions = Mapping[str, str | None]
"""Name of a package -> its version, ``None`` where it is not installed."""

_WITH_NNI = "wanted with nni"

PACKAGES: Mapping[str, str] = {
    "torch": "",
    "torchvision": "",
    "numpy": "",
    "avalanche-lib": f"{install_extra('avalanche')} for continual learning",
    "optuna": f"{install_extra('optuna')} to tune with Optuna",
    "nni": f"{install_extra('nni')} for architecture search",
    "pytorch-lightning": _WITH_NNI,
    "setuptools": _WITH_NNI,
    "filelock": _WITH_NNI,
    "typeguard": _WITH_NNI,
}
"""Packages that are looked at -> what to do about one that is missing; nothing where ddplug itself needs it."""

_SETUPTOOLS, _TYPEGUARD = (82,), (4, 1, 3)
"""First versions that NNI 3.0 does not work with, or says so."""


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
        name: what was looked at.
        status: ``"ok"``; ``"note"``, good to know; ``"broken"``, something fails or gives wrong results.
        found: a version, or what happens.
        advice: what to do, empty if nothing.
    """

    name: str
    status: str
    found: str
    advice: str = ""


def installed() -> dict[str, str | None]:
    """Return the version of every package of :data:`PACKAGES` without importing any.

    Example:
        >>> installed()["torch"] is not None
        True
    """
    return {name: version_of(name) for name in PACKAGES}


def _filelock(versions: Versions) -> str | None:
    return f"filelock {versions['filelock']}" if is_at_least(versions["filelock"], FILELOCK) else None


def _setuptools(versions: Versions) -> str | None:
    found = versions["setuptools"]
    if found is None:
        return "setuptools is missing"
    return f"setuptools {found}" if is_at_least(found, _SETUPTOOLS) else None


def _lightning(versions: Versions) -> str | None:
    return "pytorch-lightning is missing" if versions["pytorch-lightning"] is None else None


def _typeguard(versions: Versions) -> str | None:
    return f"typeguard {versions['typeguard']}" if is_at_least(versions["typeguard"], _TYPEGUARD) else None


def _other_nni(versions: Versions) -> str | None:
    return None if leading_numbers(versions["nni"] or "")[:2] == (3, 0) else f"nni {versions['nni']}"


def _always(versions: Versions) -> str:
    return ""


@dataclass(frozen=True)
class _Fault:
    """Something known about a framework: ``found`` gives the culprit, ``""`` for every version, ``None`` for none."""

    package: str
    name: str
    status: str
    found: Callable[[Versions], str | None]
    what: str
    advice: str


_FAULTS = (
    _Fault(
        "nni",
        "release of NNI",
        "broken",
        _other_nni,
        "was never tried, and ProxyExperiment overrides private names of NNI 3.0",
        'pip install "nni==3.0.*"',
    ),
    _Fault(
        "nni",
        "filelock for NNI",
        "broken",
        _filelock,
        "makes every experiment hang at its start, without a message",
        f'pip install "filelock<{dotted(FILELOCK)}"',
    ),
    _Fault(
        "nni",
        "setuptools for nnictl",
        "broken",
        _setuptools,
        "so that nnictl fails (No module named 'pkg_resources')",
        f'pip install "setuptools<{dotted(_SETUPTOOLS)}"',
    ),
    _Fault(
        "nni",
        "Lightning for NNI",
        "broken",
        _lightning,
        "so that nni.nas cannot be imported",
        'pip install "pytorch-lightning>=2"',
    ),
    _Fault(
        "nni",
        "typeguard for NNI",
        "note",
        _typeguard,
        "is newer than NNI's metadata allows; no problem is known",
        "",
    ),
    _Fault(
        "nni",
        "pairs of NNI",
        "broken",
        _always,
        "NasExperiment with the 'ts' engine gives metrics to the wrong candidates when trials run at once or die early",
        "use ddplug.nni.ProxyExperiment; in hyper-parameter experiments read the journal",
    ),
    _Fault(
        "nni",
        "resume of NNI",
        "broken",
        _always,
        "an experiment of architecture search cannot be resumed",
        "run a ddplug.nni.ProxyExperiment with the same folder again",
    ),
    _Fault(
        "nni",
        "manager of NNI",
        "note",
        _always,
        "it listens on every network interface, without a password",
        "close its port to others; searches without a configuration of NNI start no manager",
    ),
    _Fault(
        "nni",
        "orphans of NNI",
        "note",
        _always,
        "a search that is killed (SIGKILL) leaves its manager running",
        "nnictl stop --all, or Experiment.connect(port).stop()",
    ),
    _Fault(
        "nni",
        "paths in NNI",
        "note",
        _always,
        "text with // or # does not reach a trial, and evolution then hangs",
        "keep both out of file names and choices; ProxyEvaluator refuses such paths",
    ),
    _Fault(
        "nni",
        "Lightning evaluator",
        "note",
        _always,
        "it fails from the second candidate on in the sequential engine",
        "use ddplug.nni.OneShotEvaluator",
    ),
    _Fault(
        "nni",
        "start of NNI",
        "note",
        _always,
        "on a busy machine NNI gives up its manager after 3 seconds, and a tuner after 10",
        "ProxyExperiment waits a minute; start hyper-parameter experiments again, when less else runs",
    ),
    _Fault(
        "nni",
        "GPUs in NNI",
        "note",
        _always,
        "trials all use the first GPU, and trial_gpu_number must be less than the number of GPUs",
        "ProxyExperiment gives every trial on this machine one of its own",
    ),
    _Fault(
        "nni",
        "TPE of NNI",
        "note",
        _always,
        "it fails with spaces that hold an InputChoice",
        "use Random, GridSearch or RegularizedEvolution",
    ),
    _Fault(
        "nni",
        "PolicyBasedRL and ENAS of NNI",
        "note",
        _always,
        "they need tianshou 0.4, gym and Lightning 2.0, with which present versions of torch do not go",
        "use RegularizedEvolution, or DARTS",
    ),
    _Fault(
        "nni",
        "FlopsProfiler of NNI",
        "note",
        _always,
        "it fails with some spaces of the hub",
        'use ddplug.search.zero_cost, score "flops"',
    ),
    _Fault(
        "avalanche-lib",
        "checkpoints of Avalanche",
        "broken",
        _always,
        "save_checkpoint fails with the optimizers of present versions of torch",
        "put ddplug.avalanche.checkpoint_cure() around it",
    ),
)
"""What is known, by the package that must be installed for it to matter."""


def _package(name: str, found: str | None) -> Finding:
    if found is not None:
        return Finding(name, "ok", found)
    needed = PACKAGES[name] == ""
    return Finding(name, "broken" if needed else "note", "not installed", PACKAGES[name] or f"pip install {name}")


def _device() -> Finding:
    """Return what torch can compute on."""
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        return Finding("GPU", "ok", names)
    if torch.backends.mps.is_available():
        return Finding("GPU", "ok", "mps")
    return Finding("GPU", "note", "none that torch can use", "everything runs on the CPU")


def examine(versions: Versions | None = None) -> list[Finding]:
    """Look at what is installed.

    Args:
        versions: of every package of :data:`PACKAGES`; those that are installed if ``None``.

    Returns:
        A row for Python, each package and the GPU, then one for each known fault.

    Example:
        >>> [row.advice for row in examine({**installed(), "nni": "3.0", "filelock": "3.13.1"}) if "hang " in row.found]
        ['pip install "filelock<3.12"']
    """
    versions = installed() if versions is None else versions
    rows = [Finding("python", "ok", platform.python_version())]
    rows += [_package(name, versions[name]) for name in PACKAGES]
    rows.append(_device())
    for fault in _FAULTS:
        culprit = fault.found(versions) if versions[fault.package] is not None else None
        if culprit is not None:
            rows.append(Finding(fault.name, fault.status, f"{culprit} {fault.what}".strip(), fault.advice))
    return rows
